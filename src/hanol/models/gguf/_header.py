"""The header of a GGUF file, checked before a library reads the file.

The header holds values by key, then name, type, shape and place of every tensor. Each count and
length in it is untrusted: it is held against what is left of the file before it is used.
Source: ggml-org/ggml, docs/gguf.md.
"""

import mmap
import struct
from collections import Counter
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hanol.errors import CheckpointError, require
from hanol.files import open_regular

# Types of values: those of a fixed size as `struct` spells them, and the other two.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Each value, tensor and item becomes an object. The largest models have a few thousand tensors of
# four dimensions at most, and vocabularies with half a million merges.
_MOST_ENTRIES, _MOST_DIMENSIONS, _MOST_ITEMS = 100_000, 8, 4_000_000


class GgufTensor(NamedTuple):
    """A tensor in a GGUF file: its type as llama.cpp spells it, and where its bytes are."""

    kind: str
    shape: tuple[int, ...]  # in torch's order
    start: int
    num_bytes: int


class GgufHeader(NamedTuple):
    """What a GGUF file says of itself; of an array of strings, only how many there are."""

    path: Path
    values: dict[str, Any]
    types: dict[str, list[int]]  # of the values, as the format numbers them; two of an array
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """Such as "llama"; the prefix of the keys of its values."""
        return str(self.values["general.architecture"])

    def own(self, key: str, default: Any = None) -> Any:
        """A value of the architecture: `own("context_length")`."""
        return self.values.get(f"{self.architecture}.{key}", default)

    @property
    def stored_as(self) -> str:
        """The type that holds most of the weights, such as "Q4_1"."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.kind] += prod(tensor.shape)
        return sizes.most_common(1)[0][0]

    def packed(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, a row for a row; they are read when they are looked at."""
        _, shape, start, size = self.tensors[name]
        data = np.memmap(self.path, np.uint8, "r")[start : start + size]
        return data.reshape(*shape[:-1], size // max(prod(shape[:-1]), 1))


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    try:
        with open_regular(path) as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def read_header(path: str | Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        CheckpointError: It is no GGUF file, it is cut off, or a type of its tensors is unknown.
        MissingExtraError: The `gguf` package is not installed.
    """
    path = Path(path).absolute()
    if not is_gguf(path):
        raise CheckpointError(f"{str(path)!r} is no GGUF file: it does not begin with 'GGUF'.")
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4)  # a model is loaded in several steps, each of which asks
def _read(path: Path, _size: int, _changed: int) -> GgufHeader:
    with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _parse(path, _HeaderBytes(data))
        except (struct.error, EOFError, UnicodeDecodeError) as err:
            raise CheckpointError(
                f"{str(path)!r} is cut off or damaged: download it again."
            ) from err


class _HeaderBytes:
    """Reads on from where it stands, never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place = data, 4

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def room(self, count: int, width: int, most: int | None = None) -> int:
        if count * width > len(self.data) - self.place or count > (most or count):
            raise EOFError
        return count

    def text(self) -> bytes:
        (length,) = self.numbers("Q")
        self.place += self.room(length, 1)
        return self.data[self.place - length : self.place]

    def value(self) -> tuple[Any, list[int]]:
        """A value and its type."""
        (kind,) = self.numbers("I")
        if kind in _FIXED:
            return self.numbers(_FIXED[kind])[0], [kind]
        if kind == STRING:  # whose encoding matters only where it is used
            return self.text().decode(errors="replace"), [kind]
        if kind != ARRAY:
            raise EOFError
        inner, count = self.numbers("IQ")
        if inner in _FIXED:
            self.room(count, struct.calcsize(f"<{_FIXED[inner]}"), _MOST_ITEMS)
            return self.numbers(f"{count}{_FIXED[inner]}"), [kind, inner]
        if inner != STRING:
            raise EOFError
        for _ in range(self.room(count, 8, _MOST_ITEMS)):
            self.text()
        return count, [kind, inner]


def _parse(path: Path, scan: _HeaderBytes) -> GgufHeader:
    version, num_tensors, num_values = scan.numbers("IQQ")
    if version not in (2, 3):
        raise CheckpointError(
            f"{str(path)!r} is of version {version} of the GGUF format; versions 2 and 3 are read."
        )
    count = scan.room(num_values, 13, _MOST_ENTRIES)
    found = {scan.text().decode(): scan.value() for _ in range(count)}
    values = {key: value for key, (value, _) in found.items()}
    if not isinstance(values.get("general.architecture"), str):
        raise CheckpointError(f"{str(path)!r} does not say which architecture it holds.")
    entries = {}
    for _ in range(scan.room(num_tensors, 24, _MOST_ENTRIES)):
        name, (num_dimensions,) = scan.text().decode(), scan.numbers("I")
        shape = scan.numbers(f"{scan.room(num_dimensions, 8, _MOST_DIMENSIONS)}Q")
        entries[name] = (shape[::-1], *scan.numbers("IQ"))
    if not entries:
        raise CheckpointError(f"{str(path)!r} holds no tensors: it is a vocabulary alone.")
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise EOFError
    first = -(-scan.place // alignment) * alignment
    tensors = {}
    for name, (shape, number, offset) in entries.items():
        if number not in _types():
            raise CheckpointError(
                f"{str(path)!r}: the tensor {name!r} is of type {number}, which the installed gguf "
                "package cannot unpack. Take another quantisation, such as Q8_0 or Q4_K_M."
            )
        kind, block, width = _types()[number]
        size = prod(shape) // block * width
        if (shape[-1:] != () and shape[-1] % block) or first + offset + size > len(scan.data):
            raise EOFError
        tensors[name] = GgufTensor(kind, shape, first + offset, size)
    if sum(tensor.num_bytes for tensor in tensors.values()) > len(scan.data):
        raise EOFError  # some share their bytes, which would be unpacked for each of them
    return GgufHeader(path, values, {key: kind for key, (_, kind) in found.items()}, tensors)


@lru_cache(maxsize=1)
def _types() -> dict[int, tuple[str, int, int]]:
    """The types that can be unpacked: name, numbers in a block, bytes of a block."""
    gguf = require("gguf", extra="gguf", feature="Reading GGUF files")
    known = {}
    for kind, (block, width) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros(width, np.uint8), kind)
        except NotImplementedError:
            continue
        known[int(kind)] = (kind.name, block, width)
    return known
