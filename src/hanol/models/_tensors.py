"""Which tensors a checkpoint folder holds, read from the headers of its safetensors files."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hanol.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class StoredTensor(NamedTuple):
    """A tensor in a safetensors file.

    Attributes:
        file: The file.
        key: Its name there.
        dtype: Its type as the file spells it: "F32", "BF16".
        shape: Its shape.
    """

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        width = re.search(r"\d+", self.dtype)  # BOOL takes a byte
        return math.prod(self.shape) * int(width[0] if width else 8) // 8

    def read(self) -> Tensor:
        """Load it, in the type it is stored in."""
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.key)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint folder, by name.

    Raises:
        CheckpointError: A file is missing or broken, or two files hold a tensor of the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        for name, stored in _tensors_of(file).items():
            if name in tensors:
                raise _twice(folder, name, tensors[name], stored)
            tensors[name] = stored
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: `model.safetensors`, else those of the index, else all.

    Raises:
        CheckpointError: There are none, or the index names files that are missing.
    """
    index = folder / INDEX
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{str(folder)!r} has no weights: no file is a .safetensors.")
        return files
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    missing = [name for name in names if not (folder / Path(name).name).exists()]
    if missing or not names:
        raise CheckpointError(
            f"{str(index)!r} names {len(names)} files, of which {len(missing)} are missing"
            f"{f', such as {missing[0]!r}' if missing else ''}."
        )
    return [folder / Path(name).name for name in names]


def _twice(folder: Path, name: str, first: StoredTensor, second: StoredTensor) -> CheckpointError:
    """The error for a name that two files hold."""
    return CheckpointError(
        f"`{name}` is twice in {str(folder)!r}: in {first.file.name} and in {second.file.name}. "
        "Remove the one that is not meant."
    )


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint.

    Raises:
        CheckpointError: The file cannot be read, or holds something else.
    """
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{str(file)!r} could not be read as JSON: {err}.") from err
    if not isinstance(value, dict):
        raise CheckpointError(f"{str(file)!r} is JSON, but not an object.")
    return value


def shapes_of(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: stored.shape for name, stored in tensors.items()}


def _tensors_of(file: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(file, framework="pt") as stored:
            parts = {name: stored.get_slice(name) for name in stored.keys()}  # noqa: SIM118
            return {
                name: StoredTensor(file, name, part.get_dtype(), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{str(file)!r} is not a readable safetensors file, or it is cut off: {err}."
        ) from err
