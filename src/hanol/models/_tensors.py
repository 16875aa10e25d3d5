"""Which tensors a checkpoint folder holds, read from headers of files, and which it should."""

import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion

from hanol.errors import CheckpointError
from hanol.files import read_json
from hanol.models._build import meta_model

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
                raise CheckpointError(
                    f"`{name}` is twice in {str(folder)!r}: in {tensors[name].file.name} and in "
                    f"{stored.file.name}. Remove the one that is not meant."
                )
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
            suffixes = (".bin", ".pt", ".pth")
            pickled = sorted(x.name for x in folder.iterdir() if x.suffix in suffixes)
            raise CheckpointError(
                f"{str(folder)!r} has only pickled weights ({pickled[0]}), which can run code when "
                "loaded. Convert them to safetensors first."
                if pickled
                else f"{str(folder)!r} has no weights: no file is a .safetensors."
            )
        return files
    try:
        stored = read_json(index)["weight_map"].values()
        named = {name: folder / Path(name).name for name in sorted({*stored})}
        if outside := [name for name in named if Path(name).name != name]:  # where loading looks
            raise ValueError(f"{outside[0][:60]!r} is no name of a file in this folder")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as err:
        raise CheckpointError(f"{str(index)!r} names no files of weights ({err}).") from err
    missing = [name for name, file in named.items() if not os.path.isfile(file)]  # however long
    if missing or not named:
        raise CheckpointError(
            f"{str(index)!r} names {len(named)} files, of which {len(missing)} are missing"
            f"{f', such as {missing[0]!r}' if missing else ''}."
        )
    return sorted({*named.values()})


def differences(config: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Kimi-Linear's official tensors that a folder lacks or misshapes, and those not official."""
    expected, stored = official_shapes(config), {}
    if any(folder.glob("*.safetensors")):
        stored = {name: tensor.shape for name, tensor in stored_tensors(folder).items()}
    missing = [name for name, shape in expected.items() if stored.get(name) != shape]
    return sorted(missing), sorted(set(stored) - set(expected))


def official_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an official Kimi-Linear checkpoint."""
    model = meta_model(config)
    state = revert_weight_conversion(model, model.state_dict())
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


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
