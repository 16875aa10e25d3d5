"""Safetensors files by their headers: where each tensor is, and new files from parts of others.

A tensor goes from file to file as the bytes it is, so a copy is exact and needs no memory.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from safetensors import safe_open
from torch import Tensor

from hanol.errors import CheckpointError


class Stored(NamedTuple):
    """Where a tensor's bytes are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        """Length of the tensor in the file."""
        return self.stop - self.start


def header(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file and where their bytes are."""
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            entries = json.loads(stream.read(length))
            entries.pop("__metadata__", None)
            tensors = {
                name: Stored(
                    file,
                    entry["dtype"],
                    tuple(entry["shape"]),
                    *(8 + length + offset for offset in entry["data_offsets"]),
                )
                for name, entry in entries.items()
            }
            if any(not 0 <= t.start <= t.stop <= size for t in tensors.values()):
                raise ValueError("it is cut off")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{str(file)!r} is not a readable safetensors file: {err}.") from err
    return tensors


def write(file: Path, tensors: Mapping[str, Stored]) -> None:
    """Write a safetensors file whose tensors are copied from others."""

    def order(item: tuple[str, Stored]) -> tuple[int, str]:
        # Wide types first, as the library does: every tensor starts at a multiple of its width.
        name, stored = item
        return -(stored.num_bytes // max(1, math.prod(stored.shape))), name

    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(tensors.items(), key=order)
    offset = 0
    for name, stored in ordered:
        end = offset + stored.num_bytes
        entries[name] = {
            "dtype": stored.dtype,
            "shape": list(stored.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as target:
        target.write(struct.pack("<Q", len(header)) + header)
        for _, stored in ordered:
            with stored.file.open("rb") as source:
                _copy(source, target, stored)


def _copy(source: BinaryIO, target: BinaryIO, stored: Stored) -> None:
    source.seek(stored.start)
    left = stored.num_bytes
    while left:
        block = source.read(min(left, 1 << 24))
        if not block:
            raise CheckpointError(f"{str(stored.file)!r} ends before its last tensor does.")
        target.write(block)
        left -= len(block)


def load_tensors(heads: Mapping[str, Stored], prefix: str) -> dict[str, Tensor]:
    """Read the tensors of one head, named as its module names them, in their stored type."""
    tensors = {}
    for name, stored in heads.items():
        if name.startswith(prefix):
            with safe_open(stored.file, framework="pt") as file:
                key = next(key for key in file.keys() if key.endswith(name))  # noqa: SIM118
                tensors[name.removeprefix(prefix)] = file.get_tensor(key)
    return tensors
