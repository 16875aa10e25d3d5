"""LoRA through PEFT: which layers are adapted, and adapters in files that PEFT reads."""

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hanol import models
from hanol.errors import RecipeError, require

if TYPE_CHECKING:
    from hanol.training.finetuning._sft_recipe import LoraSection

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
_BLOCK = re.compile(r"\.(\d+)\.")


def adapted_layers(model: Any, lora: "LoraSection") -> dict[str, nn.Linear]:
    """The linear layers that get an adapter, by name.

    Raises:
        RecipeError: A name or a block is not in the model.
    """
    head = model.get_output_embeddings()
    linear = {
        name: layer
        for name, layer in model.named_modules()
        # A classifier's head is trained whole.
        if isinstance(layer, nn.Linear) and layer is not head and name != "score"
    }
    known = {name.rpartition(".")[2] for name in linear}
    if wrong := sorted(set(lora.targets or ()) - known):
        raise RecipeError(
            f"`lora.targets` has {wrong[0]!r}, but the model's linear layers are "
            f"{', '.join(sorted(known))}."
        )
    blocks = {name: int(found[1]) for name in linear if (found := _BLOCK.search(name))}
    if wrong_blocks := sorted(set(lora.layers or ()) - set(blocks.values())):
        raise RecipeError(
            f"`lora.layers` has {wrong_blocks[0]}, but the model's blocks are 0 to "
            f"{max(blocks.values(), default=0)}."
        )
    targets = known if lora.targets is None else set(lora.targets)
    return {
        name: layer
        for name, layer in linear.items()
        if name.rpartition(".")[2] in targets
        and (lora.layers is None or blocks.get(name) in lora.layers)
    }


def first_block(names: Any) -> int:
    """The lowest block that one of the layers is in: nothing below needs a backward pass."""
    return min((int(found[1]) for name in names if (found := _BLOCK.search(name))), default=0)


def with_adapters(
    model: Any, lora: "LoraSection", *, base: str, seed: int, whole: Sequence[str] = ()
) -> Any:
    """A model whose weights are frozen, with new float32 adapters.

    Args:
        model: A causal language model, or a classifier.
        lora: Which adapters.
        base: What the adapter will call its base.
        seed: Seed of the new weights.
        whole: Modules that are trained whole, such as a classifier's "score".
    """
    peft = _peft()
    names = {name.rpartition(".")[2] for name in adapted_layers(model, lora)}
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(names),
        layers_to_transform=None if lora.layers is None else list(lora.layers),
        modules_to_save=list(whole) or None,
        task_type=None if whole else "CAUSAL_LM",
    )
    torch.manual_seed(seed)
    with _quiet():
        wrapped = peft.get_peft_model(model, config)
    config.base_model_name_or_path = base  # PEFT puts the folder there
    return _without_copies(wrapped)


def with_stored_adapter(model: Any, adapter: models.Adapter, lora: "LoraSection") -> Any:
    """A frozen model with an adapter that is trained further.

    Raises:
        RecipeError: The recipe asks for adapters of another shape.
    """
    names = sorted({name.rpartition(".")[2] for name in adapted_layers(model, lora)})
    config = adapter.config
    layers = None if lora.layers is None else list(lora.layers)
    for key, wanted, found in (
        ("rank", lora.rank, config.get("r")),
        ("alpha", lora.alpha, config.get("lora_alpha")),
        ("targets", names, sorted(config.get("target_modules") or ())),
        ("layers", layers, config.get("layers_to_transform")),
    ):
        if wanted != found:
            raise RecipeError(
                f"`lora.{key}` is {wanted!r}, but the adapter {str(adapter.folder)!r}, which is to "
                f"be trained further, has {found!r}. Set `lora.{key}` to that, or start from its "
                f"base {adapter.base!r}."
            )
    with _quiet():
        wrapped = _peft().PeftModel.from_pretrained(model, adapter.folder, is_trainable=True)
    wrapped.peft_config["default"].base_model_name_or_path = adapter.base
    return _without_copies(wrapped)


def _without_copies(model: Any) -> Any:
    """Over bfloat16 weights PEFT keeps a float32 copy of each input, which autocast undoes."""
    if model.dtype == torch.bfloat16:
        for layer in model.modules():
            if hasattr(layer, "cast_input_dtype_enabled"):
                layer.cast_input_dtype_enabled = False
    return model


def is_adapted(model: Any) -> bool:
    """Whether a model has adapters by PEFT."""
    return getattr(model, "peft_config", None) is not None


def write_adapter(model: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model's adapter as PEFT does, without its model card.

    Args:
        model: A model with adapters.
        folder: Where; it is made.
        dtype: Data type of the file; None is that of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT's `save_pretrained` asks the hub whether the base's vocabulary has grown.
    state = _peft().get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {
        name: x.detach().to("cpu", dtype or x.dtype).contiguous() for name, x in state.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {key: sorted(x) if isinstance(x, set) else x for key, x in config.items()}
    text = json.dumps(plain, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", "utf-8")


def read_adapter_into(model: Any, folder: Path) -> None:
    """Put the adapter of a checkpoint into a model that has one of the same shape."""
    tensors = load_file(folder / WEIGHTS)
    _peft().set_peft_model_state_dict(model, tensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT 0.21 uses a name that transformers 5.24 is about to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _peft() -> Any:
    return require("peft", extra="lora", feature="Training LoRA adapters")
