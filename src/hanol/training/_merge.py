"""Merging: checkpoints of one base become one, whose weights are their convex average.

Source: arXiv 2510.24701 (Tongyi DeepResearch), eq. 6; it does not publish its weights.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, Field
from safetensors import safe_open
from torch import Tensor

from hanol import models
from hanol.errors import CheckpointError, ConfigError
from hanol.files import (
    check_new,
    open_regular,
    read_json,
    whole_folder,
)

# Notes of the library that wrote a file: two runs from one base may differ in them.
_NOT_COMPARED = {"_name_or_path", "transformers_version", "use_cache"}
_SHOWN = 5  # differences that an error names
_DESCRIPTIONS = {".json", ".txt", ".model", ".jinja"}
_OF_THE_RUN = {"checksums.json", "trainer_state.json", "result.json", "merge.json"}


class Merged(BaseModel):
    """What was merged, and into what; `merge.json` in the folder."""

    folder: str
    checkpoints: list[str]
    weights: list[float] = Field(description="Weight of each checkpoint; they add up to 1.")
    tensors: int
    parameters: int


class _Checkpoint(NamedTuple):
    """A checkpoint by the headers of its files."""

    name: str
    folder: Path
    tensors: dict[str, models.StoredTensor]


def merge_checkpoints(
    checkpoints: Sequence[str | Path], weights: Sequence[float] | None, folder: str | Path
) -> Merged:
    """Average checkpoints tensor by tensor: theta = sum_k weight_k theta_k.

    Only one tensor of each checkpoint is in memory at a time. Sums are float32 (float64 where the
    tensors are), and rounded once to the stored type. Configuration, tokenizer, chat template and
    the cut into files are those of the first checkpoint.

    Args:
        checkpoints: Two or more bundled names, folders or hub ids, all trained from one base.
        weights: One for each, at least 0, together 1; None makes them equal.
        folder: Where the result is written, whole or not at all; must not exist, or be empty.

    Raises:
        ConfigError: The weights are not convex, or not one for each checkpoint.
        CheckpointError: A checkpoint is not readable, they are not of one base (the message names
            what differs), or a number is not finite.
        WriteError: The result cannot be written, or `folder` exists and is not empty.

    Example:
        >>> merge_checkpoints(["runs/a/final", "runs/b/final"], [0.5, 0.5], "runs/merged")
        ... # doctest: +SKIP
    """
    weights = _checked_weights(weights, len(checkpoints))
    check_new(folder)
    places = [models.fetch(name) for name in checkpoints]
    parents = [
        _Checkpoint(str(name), place, models.stored_tensors(place))
        for name, place in zip(checkpoints, places, strict=True)
    ]
    for other in parents[1:]:
        if found := sorted(_differences(parents[0], other)):
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            raise CheckpointError(
                f"{parents[0].name!r} and {other.name!r} are not of one base: "
                f"{'; '.join(found[:_SHOWN])}{more}. Merge checkpoints that were trained from the "
                "same one."
            )
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
        for file in parents[0].folder.iterdir():
            if file.is_file() and file.suffix in _DESCRIPTIONS and file.name not in _OF_THE_RUN:
                shutil.copyfile(file, part / file.name)
        (part / "merge.json").write_text(merged.model_dump_json(indent=2) + "\n", "utf-8")
    return merged


def _checked_weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if count < 2:
        raise ConfigError(f"Merging needs two checkpoints or more, but got {count}.")
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise ConfigError(f"There are {count} checkpoints, but {len(weights)} weights.")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise ConfigError(f"The weight {weight} is not allowed: weights are 0 or more.")
    if abs(math.fsum(weights) - 1) > 1e-6:
        raise ConfigError(
            f"The weights add up to {math.fsum(weights):.6g}, but must add up to 1. Leave them out "
            "for equal ones."
        )
    return [float(weight) for weight in weights]


def _differences(first: _Checkpoint, other: _Checkpoint) -> Iterator[str]:
    a, b = (_json(parent.folder / "config.json") for parent in (first, other))
    if "quantization_config" in a:
        raise CheckpointError(
            f"{first.name!r} is quantised: its numbers cannot be averaged. Merge before that."
        )
    for key in (a.keys() | b.keys()) - _NOT_COMPARED:
        if a.get(key) != b.get(key):
            yield f"`{key}` of config.json is {a.get(key)!r} and {b.get(key)!r}"
    files = [parent.folder / "tokenizer.json" for parent in (first, other)]
    if all(file.exists() for file in files):
        a, b = map(_json, files)
        for key in ("model", "added_tokens"):  # trainers write padding and the like into the others
            if a.get(key) != b.get(key):
                yield f"`{key}` of tokenizer.json differs"
    for name in first.tensors.keys() ^ other.tensors.keys():
        yield f"{name} is only in {(first if name in first.tensors else other).name!r}"
    for name in first.tensors.keys() & other.tensors.keys():
        one, two = first.tensors[name], other.tensors[name]
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            yield f"{name} is {one.dtype} {list(one.shape)} and {two.dtype} {list(two.shape)}"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as err:
        raise CheckpointError(f"{str(file)!r} is not readable JSON: {err}.") from err
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(file)!r} holds no JSON object.")
    return content


def _write(
    target: Path, source: Path, parents: Sequence[_Checkpoint], weights: Sequence[float]
) -> None:
    """Write one file of the result, with the header of the first checkpoint's file."""
    with safe_open(source, framework="pt") as file:
        names = file.offset_keys()
    data = sum(parents[0].tensors[name].num_bytes for name in names)
    with open_regular(source) as stream:
        header = stream.read(source.stat().st_size - data)
    with target.open("wb") as stream:
        stream.write(header)
        for name in names:
            merged = _average(name, parents, weights)
            # numpy knows no bfloat16: write the bytes.
            stream.write(merged.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _average(name: str, parents: Sequence[_Checkpoint], weights: Sequence[float]) -> Tensor:
    first = parents[0].tensors[name].read()
    if not first.is_floating_point():
        for other in parents[1:]:
            if not torch.equal(first, other.tensors[name].read()):
                raise CheckpointError(
                    f"{name!r} holds whole numbers, which cannot be averaged, and differs between "
                    f"{parents[0].name!r} and {other.name!r}."
                )
        return first
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    total = torch.zeros(first.shape, dtype=wide)
    for parent, weight in zip(parents, weights, strict=True):
        tensor = first if parent is parents[0] else parent.tensors[name].read()
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(
                f"{name!r} of {parent.name!r} has {wrong} values that are not finite, which the "
                "average would keep. Take a checkpoint from before its training failed."
            )
        total.add_(tensor.to(wide), alpha=weight)
    return total.to(first.dtype)
