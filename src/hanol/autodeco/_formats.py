"""The three official layouts of an AutoDeco checkpoint, and the way between them.

heads: a folder with the head tensors alone. adapter: the same, with the prefix of the Megatron
trainer. merged: the base's tensors under `llm.` with the heads beside them in one of the shards.

Tensors keep their types and bits: a round trip is exact. Files are mapped into memory, one after
another: a base of any size needs little.

Symbols: H width of the hidden state, I width inside a head.
Source: the checkpoints of arXiv 2510.26697.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig

from hanol import models
from hanol.autodeco._config import ARCHITECTURE, AutoDecoConfig, neutral
from hanol.errors import CheckpointError
from hanol.models import StoredTensor

Layout = Literal["heads", "adapter", "merged"]

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
BASE_PREFIX = "llm."
_ADAPTER = re.compile(r"^(module\.)?adapter\.(?=(temp_head|top_p_head)\.)")
_HEADS = ("temp_head.", "top_p_head.")
_TOKENIZER_FILES = (
    "tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "spiece",
    "sentencepiece", "preprocessor_config", "processor_config",
)  # fmt: skip


class HeadsReport(BaseModel):
    """What an AutoDeco checkpoint holds."""

    path: str
    layout: Layout
    base_model: str | None = Field(description="Where the heads were trained; may be private.")
    base_model_type: str | None
    temperature_head: bool
    top_p_head: bool
    enhanced: bool | None = Field(description="Whether the top-p head sees statistics.")
    hidden_size: int
    vocab_size: int | None = Field(description="Of the base; None where the file does not tell.")
    parameters: int = Field(description="Of the heads.")
    dtype: str = Field(description="Of the heads.")
    tensors: dict[str, tuple[int, ...]] = Field(description="Shapes of the heads.")
    base_tensors: int = Field(description="Tensors of the base; 0 unless merged.")
    num_bytes: int = Field(description="Of all tensors.")


def merge(heads: str | Path, base: str | Path, out: str | Path) -> Path:
    """Put heads and the model they belong to into one checkpoint, as engines load it.

    The base's sampling values are not taken over: they would stack on the heads' own.

    Args:
        heads: Heads-only folder or hub id, with or without the `adapter.` prefix.
        base: Folder, bundled name or hub id of the base; single-file or sharded.
        out: Folder to write; an existing checkpoint there is replaced.

    Raises:
        CheckpointError: The heads do not fit the base, a file is missing or broken, or `out` is
            one of the inputs or cannot be written.
    """
    heads_folder, base_folder = local_folder(heads), local_folder(base)
    _refuse_inputs(out, heads_folder, base_folder)
    with models.checkpoint_folder(out) as part:
        merge_folders(heads_folder, base_folder, part)
    return Path(out)


def merge_folders(heads: Path, base: Path, part: Path) -> None:
    """Write the merged checkpoint of two local folders into the folder `part`."""
    config, found = read_checked(heads, str(heads))
    base_config = models.load_config(base)
    if isinstance(base_config, AutoDecoConfig):
        raise CheckpointError(
            f"{str(base)!r} is not a base but a checkpoint with heads. Give the model that the "
            "heads were trained on."
        )
    text = base_config.get_text_config()
    check_heads(
        shapes_of(found), config, hidden=text.hidden_size, vocab=text.vocab_size, what=str(heads)
    )
    files = models.weight_files(base)
    weight_map: dict[str, str] = {}
    total = 0
    for file in files:
        tensors = {f"{BASE_PREFIX}{name}": tensor for name, tensor in _load(file).items()}
        if file == files[-1]:
            tensors |= {name: stored.read() for name, stored in found.items()}
        save_file(tensors, part / file.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file.name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(part / _INDEX, index)
    _write_config(part / "config.json", heads / "config.json", base / "config.json")
    if (base / "generation_config.json").exists():
        sampling, _ = neutral(GenerationConfig.from_pretrained(base))
        sampling.save_pretrained(part)
    for file in base.iterdir():
        if file.is_file() and file.name.startswith(_TOKENIZER_FILES):
            shutil.copyfile(file, part / file.name)


def write_heads(folder: Path, config: AutoDecoConfig, state: Mapping[str, Tensor]) -> None:
    """Write the configuration and the heads of a model into a folder."""
    config.save_pretrained(folder)
    heads = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.items()
        if not name.startswith(BASE_PREFIX)
    }
    save_file(heads, folder / WEIGHTS, metadata={"format": "pt"})


def split(merged: str | Path, out: str | Path) -> Path:
    """Take the heads out of a merged checkpoint; the tensors are the same bit for bit.

    Args:
        merged: Folder or hub id.
        out: Heads-only folder to write; an existing checkpoint there is replaced.

    Raises:
        CheckpointError: There are no heads in `merged`, a file is missing or broken, or `out` is
            the input or cannot be written.
    """
    folder = local_folder(merged)
    _refuse_inputs(out, folder)
    heads = {name: stored.read() for name, stored in read_heads(folder).items()}
    with models.checkpoint_folder(out) as part:
        save_file(heads, part / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(folder / "config.json", part / "config.json")
    return Path(out)


def inspect(path: str | Path) -> HeadsReport:
    """Describe an AutoDeco checkpoint from its configuration and the headers of its files.

    Raises:
        CheckpointError: There are no AutoDeco heads, or they contradict their configuration.
    """
    folder = local_folder(path)
    config, heads = read_checked(folder, str(path))
    stored, shapes = models.stored_tensors(folder), shapes_of(heads)
    base_tensors = sum(name.startswith(BASE_PREFIX) for name in stored)
    adapter = any(_ADAPTER.match(name) for name in stored)
    return HeadsReport(
        path=str(path),
        layout="merged" if base_tensors else "adapter" if adapter else "heads",
        base_model=config.base_model_name_or_path,
        base_model_type=config.base_model_type,
        temperature_head=has_head(shapes, "temp_head"),
        top_p_head=has_head(shapes, "top_p_head"),
        enhanced=is_enhanced(shapes, config),
        hidden_size=_hidden(shapes, config),
        vocab_size=None if config.base_config is None else config.get_text_config().vocab_size,
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        dtype=", ".join(sorted({tensor.dtype for tensor in heads.values()})),
        tensors=shapes,
        base_tensors=base_tensors,
        num_bytes=sum(tensor.num_bytes for tensor in stored.values()),
    )


def local_folder(spec: str | Path, *, revision: str | None = None, **hub: Any) -> Path:
    """The folder behind a bundled name, a folder or a hub id, fetched when it has to be.

    Args:
        spec: What a user gave.
        revision: Commit or branch of a hub id.
        hub: `cache_dir`, `token`, `local_files_only` and the like, as huggingface_hub takes them.

    Raises:
        CheckpointError: Nothing is there, or it cannot be fetched.
    """
    place = str(models.load_config(spec, revision=revision).name_or_path)
    if Path(place).is_dir():
        return Path(place)
    patterns = ["*.safetensors", "*.json", *(f"{name}*" for name in _TOKENIZER_FILES)]
    try:
        return Path(snapshot_download(place, revision=revision, allow_patterns=patterns, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as err:
        raise CheckpointError(
            f"The files of {place!r} could not be fetched: {first_line(err)}"
        ) from err


def first_line(err: Exception) -> str:
    """The part of an error of a library that is worth repeating."""
    text = str(err).strip()
    return text.splitlines()[0] if text else type(err).__name__


def is_merged(folder: Path) -> bool:
    """Whether the base's tensors are in the folder."""
    return any(name.startswith(BASE_PREFIX) for name in models.stored_tensors(folder))


def read_checked(
    folder: Path, what: str, config: PreTrainedConfig | None = None
) -> tuple[AutoDecoConfig, dict[str, StoredTensor]]:
    """The configuration and the heads of a checkpoint, which fit each other.

    Args:
        folder: The checkpoint.
        what: What the user called it, for messages.
        config: Its configuration, if it has been read already.

    Raises:
        CheckpointError: It has no heads, or they contradict the configuration.
    """
    config = models.load_config(folder) if config is None else config
    if not isinstance(config, AutoDecoConfig):
        raise CheckpointError(
            f"{what!r} is a checkpoint of {config.model_type!r} without AutoDeco heads. Load it "
            "with `hanol.models.load_model` and give it heads with `from_base`."
        )
    heads = read_heads(folder)
    check_heads(shapes_of(heads), config, what=what)
    return config, heads


def read_heads(folder: Path) -> dict[str, StoredTensor]:
    """The heads' tensors, by their names without the trainer's prefix.

    Raises:
        CheckpointError: There are none, or one is there twice.
    """
    heads: dict[str, StoredTensor] = {}
    stored = models.stored_tensors(folder)
    for name, tensor in stored.items():
        plain = _ADAPTER.sub("", name)
        if not plain.startswith(_HEADS):
            continue
        if plain in heads:
            raise CheckpointError(
                f"`{plain}` is twice in {str(folder)!r}: as `{heads[plain].key}` in "
                f"{heads[plain].file.name} and as `{tensor.key}` in {tensor.file.name}. Remove the "
                "one that is not meant."
            )
        heads[plain] = tensor
    if not heads:
        names = ", ".join(sorted(stored)[:3]) or "none"
        raise CheckpointError(
            f"{str(folder)!r} holds no AutoDeco heads: no tensor is named `temp_head.*` or "
            f"`top_p_head.*`. Its tensors: {names}{', ...' if len(stored) > 3 else ''}."
        )
    return dict(sorted(heads.items()))


def has_head(shapes: Mapping[str, tuple[int, ...]], head: str) -> bool:
    """Whether any tensor of the head is there."""
    return any(name.startswith(f"{head}.") for name in shapes)


def is_enhanced(shapes: Mapping[str, tuple[int, ...]], config: AutoDecoConfig) -> bool | None:
    """Whether the top-p head reads statistics: the configuration says, else the weights do."""
    if not has_head(shapes, "top_p_head"):
        return None
    if config.use_enhanced_features is not None:
        return config.use_enhanced_features
    first = shapes.get("top_p_head.mlp.0.weight", (0, 0))
    return first[1] != _hidden(shapes, config) + 1


def check_heads(
    shapes: Mapping[str, tuple[int, ...]],
    config: AutoDecoConfig,
    *,
    what: str,
    hidden: int | None = None,
    vocab: int | None = None,
) -> None:
    """Compare the shapes of heads with what their configuration and their base need.

    Args:
        shapes: Shapes found, by plain name.
        config: Their configuration.
        what: Where they are from, for the message.
        hidden: Width of the base's hidden state; None is what the heads say themselves.
        vocab: Vocabulary of the base; None is not compared.

    Raises:
        CheckpointError: A tensor is missing, not expected, or has another shape; or the heads were
            trained on another vocabulary. The message has the expected and the found shape.
    """
    H = _hidden(shapes, config) if hidden is None else hidden
    expected: dict[str, tuple[int, ...]] = {}
    for head, enabled in (
        ("temp_head", config.enable_temperature_head),
        ("top_p_head", config.enable_top_p_head),
    ):
        if enabled is None:
            enabled = has_head(shapes, head)
        if not enabled:
            continue
        more = 0 if head == "temp_head" else 5 if is_enhanced(shapes, config) in (True, None) else 1
        I = shapes.get(f"{head}.mlp.0.bias", (256,))[0]  # noqa: E741
        expected |= {
            f"{head}.mlp.0.weight": (I, H + more),
            f"{head}.mlp.0.bias": (I,),
            f"{head}.mlp.2.weight": (1, I),
            f"{head}.mlp.2.bias": (1,),
        }
    for name, shape in expected.items():
        found = shapes.get(name)
        if found is None:
            raise CheckpointError(
                f"The heads of {what!r} are incomplete: `{name}` is missing; its shape should be "
                f"{shape}. Known switches are `enable_temperature_head`, `enable_top_p_head`."
            )
        if tuple(found) != shape:
            raise CheckpointError(
                f"The heads of {what!r} do not fit: `{name}` has shape {tuple(found)}, but a "
                f"hidden state of {H} numbers with use_enhanced_features="
                f"{is_enhanced(shapes, config)} needs {shape}. They belong to another base, or "
                "config.json is not theirs."
            )
    if unexpected := sorted(
        name for name in shapes if name not in expected and has_enabled(config, name)
    ):
        raise CheckpointError(
            f"The heads of {what!r} have a tensor that is not expected: `{unexpected[0]}` of shape "
            f"{tuple(shapes[unexpected[0]])}. Expected: {', '.join(expected)}."
        )
    trained = None if config.base_config is None else config.get_text_config().vocab_size
    if vocab is not None and trained is not None and vocab != trained:
        raise CheckpointError(
            f"The heads of {what!r} were trained on logits of shape (..., {trained}), but the base "
            f"gives (..., {vocab}): the statistics that the top-p head reads would be others. Use "
            "the base they were trained on."
        )


def has_enabled(config: AutoDecoConfig, name: str) -> bool:
    """Whether the head that a tensor belongs to is not switched off."""
    temperature = name.startswith("temp_head.")
    enabled = config.enable_temperature_head if temperature else config.enable_top_p_head
    return enabled is not False


def _hidden(shapes: Mapping[str, tuple[int, ...]], config: AutoDecoConfig) -> int:
    """Width of the hidden state: from the configuration, for older heads from the weights."""
    stated = config.temperature_hidden_size or config.top_p_hidden_size
    if stated is None and config.base_config is not None:
        stated = config.get_text_config().hidden_size
    if stated is not None:
        return int(stated)
    if "temp_head.mlp.0.weight" in shapes:
        return shapes["temp_head.mlp.0.weight"][1]
    inputs = shapes.get("top_p_head.mlp.0.weight", (0, 5))[1]
    return inputs - (1 if config.use_enhanced_features is False else 5)


def _refuse_inputs(out: str | Path, *inputs: Path) -> None:
    for folder in inputs:
        if Path(out).resolve() == folder.resolve():
            raise CheckpointError(f"`out` is the input folder {str(folder)!r}: give another path.")


def _write_config(target: Path, heads: Path, base: Path) -> None:
    """The heads' configuration; keys of the base are those of the base whose weights are here."""
    own, of_base = (json.loads(file.read_text("utf-8")) for file in (heads, base))
    model_type = of_base["model_type"]
    for key in ("model_type", "architectures", "auto_map", "transformers_version", "_name_or_path"):
        of_base.pop(key, None)
    complete = {**own, **of_base, "base_model_type": model_type, "architectures": [ARCHITECTURE]}
    if complete == own:
        shutil.copyfile(heads, target)
    else:
        _write_json(target, complete)


def shapes_of(tensors: Mapping[str, StoredTensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: stored.shape for name, stored in tensors.items()}


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as err:
        raise CheckpointError(f"{str(file)!r} could not be read: {first_line(err)}") from err


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
