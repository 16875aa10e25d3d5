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

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Types of values: those of a fixed size as `struct` spells them; the others are named below.
_FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_MOST_DIMENSIONS = 4


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
        name: str = self.values["general.architecture"]
        return name

    def own(self, key: str, default: Any = None) -> Any:
        """A value of the architecture: `own("context_length")`."""
        return self.values.get(f"{self.architecture}.{key}", default)

    @property
    def stored_as(self) -> str:
        """The type that holds most of the weights, such as "Q4_1"."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.kind] += prod(tensor.shape)
        return max(sizes, key=lambda kind: sizes[kind])

    def packed(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, a row for a row; they are read when they are looked at."""
        _, shape, start, size = self.tensors[name]
        data = np.memmap(self.path, np.uint8, "r")[start : start + size]
        return data.reshape(*shape[:-1], size // prod(shape[:-1]))


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read_header(path: str | Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        CheckpointError: It is no GGUF file, it is cut off, or a type of its tensors is unknown.
        MissingExtraError: The `gguf` package is not installed.
    """
    path = Path(path).absolute()
    try:
        stat = path.stat()
        return _read(path, stat.st_size, stat.st_mtime_ns)
    except OSError as err:
        raise CheckpointError(f"{str(path)!r} cannot be read: {err.strerror or err}.") from err


@lru_cache(maxsize=4)  # a model is loaded in several steps, each of which asks
def _read(path: Path, size: int, _changed: int) -> GgufHeader:
    _package()
    if not is_gguf(path):
        raise CheckpointError(f"{str(path)!r} is no GGUF file: it does not begin with 'GGUF'.")
    if size < 24:
        raise _cut_off(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        scan = _Scan(data)
        try:
            return _parse(path, scan)
        except (struct.error, EOFError) as err:
            raise _cut_off(path) from err
        except UnicodeDecodeError as err:
            raise CheckpointError(f"{str(path)!r} is damaged: a name in it is no text.") from err


def _cut_off(path: Path) -> CheckpointError:
    return CheckpointError(f"{str(path)!r} is cut off or damaged: download it again.")


class _Scan:
    """Reads on from where it stands, never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place = data, 4

    def numbers(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def text(self) -> str:
        return self.bytes_of_string().decode()

    def bytes_of_string(self) -> bytes:
        (length,) = self.numbers("Q")
        self.room(length, 1)
        self.place += length
        return self.data[self.place - length : self.place]

    def room(self, count: int, width: int) -> None:
        if count * width > len(self.data) - self.place:
            raise EOFError

    def value(self) -> tuple[Any, list[int]]:
        """A value and its type."""
        (kind,) = self.numbers("I")
        if kind in _FIXED:
            return self.numbers(_FIXED[kind])[0], [kind]
        if kind == STRING:
            # Only names are looked at; a text of another encoding must not stop the reading.
            return self.bytes_of_string().decode(errors="replace"), [kind]
        if kind != ARRAY:
            raise EOFError
        inner, count = self.numbers("IQ")
        if inner in _FIXED:
            self.room(count, struct.calcsize(f"<{_FIXED[inner]}"))
            return self.numbers(f"{count}{_FIXED[inner]}"), [kind, inner]
        if inner != STRING:
            raise EOFError
        self.room(count, 8)
        for _ in range(count):
            self.bytes_of_string()
        return count, [kind, inner]


def _parse(path: Path, scan: _Scan) -> GgufHeader:
    version, num_tensors, num_values = scan.numbers("IQQ")
    if version not in _VERSIONS:
        raise CheckpointError(
            f"{str(path)!r} is of version {version} of the GGUF format; versions 2 and 3 are read."
        )
    scan.room(num_values, 13)
    found = {scan.text(): scan.value() for _ in range(num_values)}
    values = {key: value for key, (value, _) in found.items()}
    if not isinstance(values.get("general.architecture"), str):
        raise CheckpointError(f"{str(path)!r} does not say which architecture it holds.")
    scan.room(num_tensors, 32)
    entries = {}
    for _ in range(num_tensors):
        name, (num_dimensions,) = scan.text(), scan.numbers("I")
        if num_dimensions > _MOST_DIMENSIONS:
            raise EOFError
        shape = tuple(reversed(scan.numbers(f"{num_dimensions}Q")))
        entries[name] = (shape, *scan.numbers("IQ"))
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise EOFError
    first = -(-scan.place // alignment) * alignment
    tensors = {}
    for name, (shape, number, offset) in entries.items():
        kind, block, width = _type_of(path, name, number)
        if shape and shape[-1] % block:
            raise EOFError
        tensor = GgufTensor(kind, shape, first + offset, prod(shape) // block * width)
        if tensor.start + tensor.num_bytes > len(scan.data):
            raise EOFError
        tensors[name] = tensor
    if not tensors:
        raise CheckpointError(f"{str(path)!r} holds no tensors: it is a vocabulary alone.")
    return GgufHeader(path, values, {key: kind for key, (_, kind) in found.items()}, tensors)


def _type_of(path: Path, name: str, number: int) -> tuple[str, int, int]:
    """Name of a type of tensors, elements of a block and bytes of a block."""
    try:
        return _types()[number]
    except KeyError:
        raise CheckpointError(
            f"{str(path)!r}: the tensor {name!r} is of type {number}, which the installed gguf "
            "package cannot unpack. Take a file with another quantisation, such as Q8_0 or Q4_K_M."
        ) from None


@lru_cache(maxsize=1)
def _types() -> dict[int, tuple[str, int, int]]:
    """The types that can be unpacked."""
    gguf = _package()
    known = {}
    for kind, (block, width) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.dequantize(np.zeros(width, np.uint8), kind)
        except NotImplementedError:
            continue
        known[int(kind)] = (kind.name, block, width)
    return known


def _package() -> Any:
    return require("gguf", extra="gguf", feature="Reading GGUF files")
