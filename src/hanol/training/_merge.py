"""Merging: checkpoints of one base become one, whose weights are their convex average.

Source: arXiv 2510.24701 (Tongyi DeepResearch), eq. 6; it does not publish its weights.
"""

import json
import math
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hanol import models
from hanol.errors import CheckpointError, ConfigError
from hanol.files import whole_folder

_INDEX = "model.safetensors.index.json"
# Notes of the library that wrote a file: two runs from one base may differ in them.
_NOT_COMPARED = {"_name_or_path", "transformers_version", "use_cache"}
_SHOWN = 5  # differences that an error names
_DESCRIPTIONS = {".json", ".txt", ".model", ".jinja"}
_OF_THE_RUN = {"trainer_state.json", "result.json", "merge.json"}


class Merged(BaseModel):
    """What was merged, and into what; `merge.json` in the folder."""

    folder: str
    checkpoints: list[str]
    weights: list[float] = Field(description="Of the checkpoints; they add up to 1.")
    tensors: int
    parameters: int


class _Stored(NamedTuple):
    """One tensor of a checkpoint."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class _Checkpoint(NamedTuple):
    """A checkpoint by the headers of its files."""

    name: str
    folder: Path
    tensors: dict[str, _Stored]


def merge_checkpoints(
    checkpoints: Sequence[str | Path], weights: Sequence[float] | None, folder: str | Path
) -> Merged:
    """Average checkpoints tensor by tensor: theta = sum_k weight_k theta_k.

    Only one tensor of each checkpoint is in memory at a time. Sums are float32 (float64 where the
    tensors are), and rounded once to the stored type. What is not a weight (configuration,
    tokenizer, chat template) is the first checkpoint's.

    Args:
        checkpoints: Two or more bundled names, folders or hub ids, all trained from one base. They
            may be cut into files in different ways; the result is cut as the first.
        weights: One for each, at least 0, together 1; None makes them equal.
        folder: Where the result is written; must not exist, or be empty. It is there whole or not
            at all.

    Raises:
        ConfigError: The weights are not convex, or not one for each checkpoint.
        CheckpointError: A checkpoint is not readable, they are not of one base (the message names
            what differs), a number is not finite, or the result cannot be written.

    Example:
        >>> merge_checkpoints(["runs/a/final", "runs/b/final"], [0.5, 0.5], "runs/merged")
        ... # doctest: +SKIP
    """
    weights = _checked_weights(weights, len(checkpoints))
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{str(folder)!r} exists already. Name a new folder for the result.")
    parents = [_open(name) for name in checkpoints]
    for other in parents[1:]:
        _check_one_base(parents[0], other)
    merged = Merged(
        folder=str(folder),
        checkpoints=[parent.name for parent in parents],
        weights=weights,
        tensors=len(parents[0].tensors),
        parameters=sum(math.prod(stored.shape) for stored in parents[0].tensors.values()),
    )
    with whole_folder(folder) as part:
        for file in sorted({stored.file for stored in parents[0].tensors.values()}):
            _write(part / file.name, file, parents, weights)
        _copy_descriptions(parents[0].folder, part)
        (part / "merge.json").write_text(merged.model_dump_json(indent=2) + "\n", "utf-8")
    return merged


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if count < 2:
        raise ConfigError(f"Merging needs two checkpoints or more, but got {count}.")
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise ConfigError(f"There are {count} checkpoints, but {len(weights)} weights.")
    wrong = [weight for weight in weights if not (math.isfinite(weight) and weight >= 0)]
    if wrong:
        raise ConfigError(f"The weight {wrong[0]} is not allowed: weights are 0 or more.")
    if abs(math.fsum(weights) - 1) > 1e-6:
        raise ConfigError(
            f"The weights add up to {math.fsum(weights):.6g}, but must add up to 1. Leave them out "
            "for equal ones."
        )
    return [float(weight) for weight in weights]


def _open(name: str | Path) -> _Checkpoint:
    """Read the headers of a checkpoint's files; those of a hub id are fetched first."""
    place = Path(models.resolve(name))
    if not place.is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.safetensors", *(f"*{suffix}" for suffix in sorted(_DESCRIPTIONS))]
        try:
            place = Path(snapshot_download(str(name), allow_patterns=patterns))
        except (OSError, ValueError) as err:
            cause = (str(err).strip() or type(err).__name__).splitlines()[0]
            raise CheckpointError(f"{str(name)!r} could not be fetched: {cause}") from err
    if (place / "model.safetensors").exists():
        files = [place / "model.safetensors"]
    elif (place / _INDEX).exists():
        listed = set(_json(place / _INDEX).get("weight_map", {}).values())
        files = [place / Path(file).name for file in sorted(listed)]
    else:
        raise CheckpointError(f"{str(name)!r} has neither model.safetensors nor {_INDEX}.")
    tensors: dict[str, _Stored] = {}
    for file in files:
        tensors |= _tensors_of(file)
    return _Checkpoint(str(name), place, tensors)


def _tensors_of(file: Path) -> dict[str, _Stored]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {
                name: _Stored(file, part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (OSError, SafetensorError) as err:
        raise CheckpointError(f"{str(file)!r} is not a readable safetensors file: {err}.") from err


def _check_one_base(first: _Checkpoint, other: _Checkpoint) -> None:
    """Refuse two checkpoints that differ in anything but the values of their weights."""
    found = [
        *_config_differences(first, other),
        *_tokenizer_differences(first, other),
        *(f"{name} is only in {first.name!r}" for name in first.tensors.keys() - other.tensors),
        *(f"{name} is only in {other.name!r}" for name in other.tensors.keys() - first.tensors),
    ]
    for name in first.tensors.keys() & other.tensors.keys():
        a, b = first.tensors[name], other.tensors[name]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            found.append(f"{name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise CheckpointError(
            f"{first.name!r} and {other.name!r} are not of one base: "
            f"{'; '.join(sorted(found)[:_SHOWN])}{more}. Merge checkpoints that were trained from "
            "the same one."
        )


def _config_differences(first: _Checkpoint, other: _Checkpoint) -> Iterator[str]:
    a, b = (_json(parent.folder / "config.json") for parent in (first, other))
    if "quantization_config" in a:
        raise CheckpointError(
            f"{first.name!r} is quantised: its numbers cannot be averaged. Merge before that."
        )
    for key in (a.keys() | b.keys()) - _NOT_COMPARED:
        if a.get(key) != b.get(key):
            yield f"`{key}` of config.json is {a.get(key)!r} and {b.get(key)!r}"


def _tokenizer_differences(first: _Checkpoint, other: _Checkpoint) -> Iterator[str]:
    files = [parent.folder / "tokenizer.json" for parent in (first, other)]
    if not all(file.exists() for file in files):
        return
    a, b = map(_json, files)
    for key in ("model", "added_tokens"):  # trainers write padding and the like into the others
        if a.get(key) != b.get(key):
            yield f"`{key}` of tokenizer.json differs"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{str(file)!r} is not readable JSON: {err}.") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(file)!r} holds no JSON object.")
    return content


def _write(
    target: Path, source: Path, parents: Sequence[_Checkpoint], weights: Sequence[float]
) -> None:
    """Write one file of the result, with the header of the first checkpoint's file."""
    with source.open("rb") as stream:
        prefix = stream.read(8)
        header = stream.read(struct.unpack("<Q", prefix)[0])
    entries = json.loads(header)
    entries.pop("__metadata__", None)
    order = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    with target.open("wb") as stream:
        stream.write(prefix + header)
        for name in order:
            merged = _average(name, parents, weights)
            # numpy knows no bfloat16: write the bytes.
            stream.write(merged.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _average(name: str, parents: Sequence[_Checkpoint], weights: Sequence[float]) -> Tensor:
    first = _read(parents[0], name)
    if not first.is_floating_point():
        for other in parents[1:]:
            if not torch.equal(first, _read(other, name)):
                raise CheckpointError(
                    f"{name!r} holds whole numbers, which cannot be averaged, and differs between "
                    f"{parents[0].name!r} and {other.name!r}."
                )
        return first
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    total = torch.zeros(first.shape, dtype=wide)
    for parent, weight in zip(parents, weights, strict=True):
        tensor = first if parent is parents[0] else _read(parent, name)
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(
                f"{name!r} of {parent.name!r} has {wrong} values that are not finite, which the "
                "average would keep. Take a checkpoint from before its training failed."
            )
        total.add_(tensor.to(wide), alpha=weight)
    return total.to(first.dtype)


def _read(parent: _Checkpoint, name: str) -> Tensor:
    # Opened anew for each tensor: what was read before is not kept in memory.
    with safe_open(parent.tensors[name].file, framework="pt") as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor


def _copy_descriptions(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _DESCRIPTIONS and file.name not in _OF_THE_RUN:
            shutil.copyfile(file, target / file.name)
