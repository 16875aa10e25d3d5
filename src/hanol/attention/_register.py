"""Putting hanol's layers and kernels into transformers: for models to come, or one in memory.

Kimi-Linear models get layers of ours, and the official names of their tensors in the files that
transformers saves; the other models of the delta-rule family keep their layers (`_family`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from torch import nn
from transformers import Cache, KimiLinearForCausalLM, PreTrainedConfig
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming
from transformers.models.kimi_linear import modeling_kimi_linear as upstream
from transformers.monkey_patching import (
    get_patch_mapping,
    register_patch_mapping,
    unregister_patch_mapping,
)
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY, OutputRecorder

from hanol.attention._cache import CACHE_NAME, adopt
from hanol.attention._config import check_config
from hanol.attention._delta import KimiLinearDeltaAttention, KimiLinearForgetGate
from hanol.attention._family import FAMILY, families, replace_kernels, restore_kernels
from hanol.attention._mla import KimiLinearAttention
from hanol.attention._model import STRICT, KimiLinearModel, KimiLinearRMSNorm
from hanol.attention._moe import KimiLinearMLP, KimiLinearTopkRouter
from hanol.attention.decode._decoder import accelerate_decoding
from hanol.errors import ConfigError

_CLASSES: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        KimiLinearAttention,
        KimiLinearDeltaAttention,
        KimiLinearForgetGate,
        KimiLinearMLP,
        KimiLinearModel,
        KimiLinearRMSNorm,
        KimiLinearTopkRouter,
    )
}
_PLAIN = {name: getattr(upstream, name) for name in _CLASSES}
# Loading writes our classes into the dictionary of plain models, too; these stand for both kinds.
_RECORDED = {
    "router_logits": OutputRecorder(upstream.KimiLinearTopkRouter, index=0),
    "hidden_states": upstream.KimiLinearDecoderLayer,
    "attentions": upstream.KimiLinearAttention,
}
_init_plain_model = upstream.KimiLinearModel.__init__
_init_plain_gate = upstream.KimiLinearForgetGate.__init__
_lock, _num_open = Lock(), 0  # blocks of `registered`, of all threads
_prepare_cache = KimiLinearForCausalLM._prepare_cache_for_generation


def register() -> None:
    """Make every delta-rule model that transformers loads from now on fast on a CPU.

    Kimi-Linear models use hanol's layers; models of the family with layers of their own (Qwen3.5,
    Qwen3-Next, OLMo hybrid, GLM-5.3-Flash, Bailing hybrid) use its kernels, those in memory too.
    Works for `from_pretrained`, `from_config` and the Auto classes. Parameter names, checkpoints
    and configurations stay as they are. Calling it again changes nothing. From now on every load,
    of other models too, takes about half a second more, in which transformers looks through its
    modules; `hanol.models` needs no call and has no such delay.
    """
    register_patch_mapping({f"^{name}$": cls for name, cls in _CLASSES.items()}, overwrite=True)
    _connect_generate()
    correct_names()
    for model_type in FAMILY:
        replace_kernels(model_type)


@contextmanager
def registered(config: PreTrainedConfig | None = None) -> Iterator[None]:
    """`register` for the model of a configuration, which is made or loaded within the block.

    It has no half a second. The kernels of the family stay after it: models use them as they run.
    """
    global _num_open
    for model_type in families(config):
        replace_kernels(model_type)
    _connect_generate()
    correct_names()
    with _lock:
        _num_open += 1
        _replace(_CLASSES)
    try:
        yield
    finally:
        with _lock:
            _num_open -= 1
            if not _num_open:
                _replace(_PLAIN)


def _replace(classes: dict[str, type[nn.Module]]) -> None:
    for name, cls in classes.items():
        setattr(upstream, name, cls)


def unregister() -> None:
    """Take `register` back: layers for models that are loaded from now on, kernels for all."""
    for model_type in FAMILY:
        restore_kernels(model_type)
    known = get_patch_mapping()
    unregister_patch_mapping([f"^{name}$" for name in _CLASSES if f"^{name}$" in known])
    upstream.KimiLinearPreTrainedModel._can_record_outputs = dict(_RECORDED)


def accelerate(model: nn.Module) -> nn.Module:
    """Give a delta-rule model that is in memory hanol's layers or kernels, in place.

    Args:
        model: A `KimiLinearForCausalLM`, a `KimiLinearModel`, a Qwen3.5 or another model of the
            family, or a module that holds one. Kernels are those of all models of that type.

    Returns:
        The same object.

    Raises:
        ConfigError: There is no such layer in it, or its configuration cannot work.
    """
    found = [module for module in model.modules() if isinstance(module, upstream.KimiLinearModel)]
    served = families(model)
    if not found and not served:
        raise ConfigError(
            f"`model` is a {type(model).__name__} without layers of the delta rule: there is "
            f"nothing to accelerate. Models that have some: kimi_linear, {', '.join(FAMILY)}."
        )
    for model_type in served:
        replace_kernels(model_type)
    if not found:
        accelerate_decoding(model)
        return model
    for decoder in found:
        check_config(decoder.config)
    for module in model.modules():
        ours = _CLASSES.get(type(module).__name__)
        if ours is not None and type(module).__module__ == upstream.__name__:
            module.__class__ = ours
    for decoder in found:
        _CAN_RECORD_REGISTRY[decoder] = _RECORDED
    _connect_generate()
    correct_names()
    accelerate_decoding(model)
    return model


def _init_model(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
    # A class that was asked for by itself (`AutoModel`, `KimiLinearModel.from_config`) is
    # transformers' own, but has been filled with our layers: it needs our forward, too.
    _init_plain_model(self, config, *args, **kwargs)
    _CAN_RECORD_REGISTRY[self] = _RECORDED  # by the class
    if type(self) is _PLAIN["KimiLinearModel"] and any(
        type(module) in _CLASSES.values() for module in self.modules()
    ):
        check_config(config)
        self.__class__ = KimiLinearModel
        _CAN_RECORD_REGISTRY[self] = _RECORDED


def _init_gate(self: Any, config: Any) -> None:
    _init_plain_gate(self, config)
    self.A_log = nn.Parameter(self.A_log.float())  # also where a model is made in bfloat16


def _connect_generate() -> None:
    """Let `generate` start with our cache layers, so that models without attention work too."""
    _PLAIN["KimiLinearModel"].__init__ = _init_model
    _PLAIN["KimiLinearForgetGate"].__init__ = _init_gate
    KimiLinearForCausalLM._prepare_cache_for_generation = _prepare_our_cache
    # transformers refuses to roll back models with a recurrent state; ours can be rolled back.
    KimiLinearForCausalLM._is_stateful = property(_is_stateful)
    upstream.KimiLinearPreTrainedModel._keep_in_fp32_modules_strict = STRICT
    upstream.KimiLinearPreTrainedModel._can_record_outputs = dict(_RECORDED)


def _is_stateful(model: Any) -> bool:
    return not isinstance(getattr(model, "model", None), KimiLinearModel)


def _prepare_our_cache(
    self: Any, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
) -> None:
    _prepare_cache(self, generation_config, model_kwargs, *args, **kwargs)
    cache = model_kwargs.get(CACHE_NAME)
    # Static caches too: transformers would prepare masks of their own for them.
    if isinstance(self.model, KimiLinearModel) and isinstance(cache, Cache):
        adopt(cache, self.config)


class _ExpertLayersRename(WeightRenaming):
    """Every `block_sparse_moe` is read as `mlp`; only an expert layer's `mlp` is written as one."""

    __slots__ = ()

    def reverse_transform(self) -> WeightRenaming:
        return WeightRenaming(r"\.mlp\.(gate|experts|shared_experts)\.", r".block_sparse_moe.\1.")


@cache
def correct_names() -> None:
    """Teach transformers to rename only expert layers to `block_sparse_moe`.

    Its own rule renames every `mlp`, the dense first layer's too, and the official code then
    misses those weights. Folders that it wrote so are still read. `register` and `accelerate`
    apply this, and so does importing `hanol.models`; applying it again changes nothing.
    """
    rules = get_checkpoint_conversion_mapping("kimi_linear")
    ours = [
        _ExpertLayersRename(rule.source_patterns, rule.target_patterns)
        if isinstance(rule, WeightRenaming) and "block_sparse_moe" in str(rule.source_patterns)
        else rule
        for rule in rules
    ]
    register_checkpoint_conversion_mapping("kimi_linear", ours, overwrite=True)
