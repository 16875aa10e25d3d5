"""The three official layouts of an AutoDeco checkpoint, and the way between them.

heads: a folder with the head tensors alone. adapter: the same, with the prefix of the Megatron
trainer. merged: the base's tensors under `llm.` with the heads beside them in one of the shards.
Tensors keep their types and bits, and one file is in memory at a time.

Source: the checkpoints of arXiv 2510.26697.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, Field
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig

from hanol import models
from hanol.autodeco._config import ARCHITECTURE, AutoDecoConfig, neutral
from hanol.autodeco._heads import TemperatureHead, TopPHead
from hanol.errors import CheckpointError
from hanol.files import read_json
from hanol.models import StoredTensor

Layout = Literal["heads", "adapter", "merged"]
HeadPair = tuple[TemperatureHead | None, TopPHead | None]

WEIGHTS = "model.safetensors"
BASE_PREFIX = "llm."
HEAD_PREFIXES = ("temp_head.", "top_p_head.")
ADAPTER = re.compile(r"^(module\.)?adapter\.(?=(temp_head|top_p_head)\.)")
_INDEX = "model.safetensors.index.json"
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
    enhanced: bool | None = Field(description="Whether the top-p head reads statistics.")
    hidden_size: int
    vocab_size: int | None = Field(description="Vocabulary of the base, if the file tells.")
    parameters: int = Field(description="Number of the heads' parameters.")
    dtype: str = Field(description="Data types of the heads.")
    tensors: dict[str, tuple[int, ...]] = Field(description="Shapes of the heads.")
    base_tensors: int = Field(description="Number of the base's tensors; 0 unless merged.")
    num_bytes: int = Field(description="Size of all tensors.")


@dataclass(frozen=True)
class StoredHeads:
    """The heads of a checkpoint, which fit their configuration."""

    what: str  # the checkpoint as the user called it, for messages
    config: AutoDecoConfig
    layout: Layout
    tensors: Mapping[str, StoredTensor]  # by name, without the trainer's prefix

    @classmethod
    def read(cls, folder: Path, what: str, config: PreTrainedConfig | None = None) -> Self:
        """Read the headers of a checkpoint's files, and its configuration unless it is given."""
        config = models.load_config(folder) if config is None else config
        if not isinstance(config, AutoDecoConfig):
            raise CheckpointError(
                f"{what!r} is a checkpoint of {config.model_type!r} without AutoDeco heads. Load "
                "it with `hanol.models.load_model` and give it heads with `from_base`."
            )
        stored = models.stored_tensors(folder)
        layout: Layout = "adapter" if any(map(ADAPTER.match, stored)) else "heads"
        if any(name.startswith(BASE_PREFIX) for name in stored):
            layout = "merged"
        heads = cls(what, config, layout, _heads_among(stored, folder))
        heads.check()
        return heads

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: stored.shape for name, stored in self.tensors.items()}

    def has(self, head: str) -> bool:
        """Whether any tensor of `temp_head` or `top_p_head` is there."""
        return any(name.startswith(f"{head}.") for name in self.tensors)

    @property
    def enhanced(self) -> bool | None:
        """Whether the top-p head reads statistics: the configuration says, else the weights do."""
        if not self.has("top_p_head"):
            return None
        if self.config.use_enhanced_features is not None:
            return self.config.use_enhanced_features
        return self.shapes.get("top_p_head.mlp.0.weight", (0, 0))[1] != self.hidden + 1

    @property
    def hidden(self) -> int:
        """Width of the hidden state: from the configuration, for older heads from the weights."""
        config, shapes = self.config, self.shapes
        stated = config.temperature_hidden_size or config.top_p_hidden_size
        if stated is None and config.base_config is not None:
            stated = config.get_text_config().hidden_size
        if stated is not None:
            return int(stated)
        if "temp_head.mlp.0.weight" in shapes:
            return shapes["temp_head.mlp.0.weight"][1]
        inputs = shapes.get("top_p_head.mlp.0.weight", (0, 5))[1]
        return inputs - (1 if config.use_enhanced_features is False else 5)

    @property
    def vocab_size(self) -> int | None:
        """Vocabulary that the heads were trained on; None where the configuration lacks it."""
        known = self.config.base_config is not None
        return self.config.get_text_config().vocab_size if known else None

    def check(self, hidden: int | None = None, vocab: int | None = None) -> None:
        """Compare the heads with their configuration, and with a base's width and vocabulary."""
        H = self.hidden if hidden is None else hidden
        shapes = self.shapes
        expected = {
            f"{name}.{key}": tuple(tensor.shape)
            for name, head in self._empty(H).items()
            for key, tensor in head.state_dict().items()
        }
        for name, shape in expected.items():
            if name not in shapes:
                raise CheckpointError(
                    f"The heads of {self.what!r} are incomplete: `{name}` is missing; its shape "
                    f"should be {shape}. Known switches are `enable_temperature_head`, "
                    "`enable_top_p_head`."
                )
            if shapes[name] != shape:
                raise CheckpointError(
                    f"The heads of {self.what!r} do not fit: `{name}` has shape {shapes[name]}, "
                    f"but a hidden state of {H} numbers with use_enhanced_features="
                    f"{self.enhanced} needs {shape}. They belong to another base, or config.json "
                    "is not theirs."
                )
        for name, found in shapes.items():
            if name not in expected and self._enabled(name.partition(".")[0]) is not False:
                raise CheckpointError(
                    f"The heads of {self.what!r} have a tensor that is not expected: `{name}` of "
                    f"shape {found}. Expected: {', '.join(expected)}."
                )
        if None not in (vocab, self.vocab_size) and vocab != self.vocab_size:
            raise CheckpointError(
                f"The heads of {self.what!r} were trained on logits of shape (..., "
                f"{self.vocab_size}), but the base gives (..., {vocab}): the statistics that the "
                "top-p head reads would be others. Use the base they were trained on."
            )

    def build(self, device: torch.device) -> HeadPair:
        """The heads that are there and not switched off, in their stored type."""
        heads = self._empty(self.hidden)
        for name, head in heads.items():
            tensors = {key: self.tensors[f"{name}.{key}"].read() for key in head.state_dict()}
            head.load_state_dict(tensors, assign=True)
            head.to(device)
        return heads.get("temp_head"), heads.get("top_p_head")

    def _enabled(self, head: str) -> bool | None:
        config = self.config
        return config.enable_temperature_head if head == "temp_head" else config.enable_top_p_head

    def _empty(self, hidden: int) -> dict[str, Any]:
        """Heads without data, as a base of this width needs them."""
        heads: dict[str, Any] = {}
        for name in ("temp_head", "top_p_head"):
            enabled = self._enabled(name)
            if self.has(name) if enabled is None else enabled:
                inner = self.shapes.get(f"{name}.mlp.0.bias", (256,))[0]
                with torch.device("meta"):  # loading draws no random numbers
                    heads[name] = (
                        TemperatureHead(hidden, inner)
                        if name == "temp_head"
                        else TopPHead(hidden, self.enhanced is not False, inner)
                    )
        return heads


def _heads_among(stored: Mapping[str, StoredTensor], folder: Path) -> dict[str, StoredTensor]:
    """The heads' tensors, by their names without the trainer's prefix."""
    heads: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        plain = ADAPTER.sub("", name)
        if other := heads.get(plain):
            raise CheckpointError(
                f"`{plain}` is twice in {str(folder)!r}: as `{other.key}` in {other.file.name} and "
                f"as `{tensor.key}` in {tensor.file.name}. Remove the one that is not meant."
            )
        if plain.startswith(HEAD_PREFIXES):
            heads[plain] = tensor
    if not heads:
        names = ", ".join(sorted(stored)[:3]) or "none"
        raise CheckpointError(
            f"{str(folder)!r} holds no AutoDeco heads: no tensor is named `temp_head.*` or "
            f"`top_p_head.*`. Its tensors: {names}{', ...' if len(stored) > 3 else ''}."
        )
    return dict(sorted(heads.items()))


def merge(heads: str | Path, base: str | Path, out: str | Path) -> Path:
    """Put heads and the model they belong to into one checkpoint, as engines load it.

    The base's sampling values are not taken over: they would act on top of the heads' own.

    Args:
        heads: Heads-only folder or hub id, with or without the `adapter.` prefix.
        base: Folder, bundled name or hub id of the base; single-file or sharded.
        out: Folder to write; an existing checkpoint there is replaced.

    Raises:
        CheckpointError: The heads do not fit the base, a file is missing or broken, or `out` is
            one of the inputs or cannot be written.
    """
    heads_folder, base_folder = models.fetch(heads), models.fetch(base)
    _refuse_inputs(out, heads_folder, base_folder)
    with models.checkpoint_folder(out) as part:
        merge_folders(heads_folder, base_folder, part)
    return Path(out)


def merge_folders(heads: Path, base: Path, part: Path) -> None:
    """Write the merged checkpoint of two local folders into the folder `part`."""
    found = StoredHeads.read(heads, str(heads))
    base_config = models.load_config(base)
    if isinstance(base_config, AutoDecoConfig):
        raise CheckpointError(
            f"{str(base)!r} is not a base but a checkpoint with heads. Give the model that the "
            "heads were trained on."
        )
    text = base_config.get_text_config()
    found.check(text.hidden_size, text.vocab_size)
    files = sorted({tensor.file for tensor in models.stored_tensors(base).values()})
    weight_map: dict[str, str] = {}
    total = 0
    for file in files:
        tensors = {f"{BASE_PREFIX}{name}": value for name, value in load_file(file).items()}
        if file == files[-1]:
            tensors |= {name: stored.read() for name, stored in found.tensors.items()}
        save_file(tensors, part / file.name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file.name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(part / _INDEX, index)
    _write_config(part / "config.json", heads / "config.json", base / "config.json")
    if (base / "generation_config.json").exists():
        neutral(GenerationConfig.from_pretrained(base)).save_pretrained(part)
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
    folder = models.fetch(merged)
    _refuse_inputs(out, folder)
    heads = _heads_among(models.stored_tensors(folder), folder)
    with models.checkpoint_folder(out) as part:
        tensors = {name: stored.read() for name, stored in heads.items()}
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        shutil.copyfile(folder / "config.json", part / "config.json")
    return Path(out)


def inspect(path: str | Path) -> HeadsReport:
    """Describe an AutoDeco checkpoint from its configuration and the headers of its files.

    Raises:
        CheckpointError: There are no AutoDeco heads, or they contradict their configuration.
    """
    folder = models.fetch(path)
    heads = StoredHeads.read(folder, str(path))
    stored = models.stored_tensors(folder)
    return HeadsReport(
        path=str(path),
        layout=heads.layout,
        base_model=heads.config.base_model_name_or_path,
        base_model_type=heads.config.base_model_type,
        temperature_head=heads.has("temp_head"),
        top_p_head=heads.has("top_p_head"),
        enhanced=heads.enhanced,
        hidden_size=heads.hidden,
        vocab_size=heads.vocab_size,
        parameters=sum(math.prod(shape) for shape in heads.shapes.values()),
        dtype=", ".join(sorted({tensor.dtype for tensor in heads.tensors.values()})),
        tensors=heads.shapes,
        base_tensors=sum(name.startswith(BASE_PREFIX) for name in stored),
        num_bytes=sum(tensor.num_bytes for tensor in stored.values()),
    )


def _refuse_inputs(out: str | Path, *inputs: Path) -> None:
    for folder in inputs:
        if Path(out).resolve() == folder.resolve():
            raise CheckpointError(f"`out` is the input folder {str(folder)!r}: give another path.")


def _write_config(target: Path, heads: Path, base: Path) -> None:
    """The heads' configuration, with the keys of the base whose weights are here."""
    own, of_base = (read_json(file) for file in (heads, base))
    model_type = of_base["model_type"]
    for key in ("model_type", "architectures", "auto_map", "transformers_version", "_name_or_path"):
        of_base.pop(key, None)
    complete = {**own, **of_base, "base_model_type": model_type, "architectures": [ARCHITECTURE]}
    if complete == own:
        shutil.copyfile(heads, target)
    else:
        _write_json(target, complete)


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
