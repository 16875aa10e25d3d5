"""AutoDeco on a model that is not wrapped: a hook on its output embedding.

Shape suffixes: B batch, T positions, V vocabulary, H hidden width.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList, PreTrainedModel

from hanol import models
from hanol.autodeco._config import neutral, warn_of_sampling
from hanol.autodeco._formats import StoredHeads
from hanol.autodeco._heads import DecodingLimits, predict, rescale
from hanol.autodeco._load import head_width, vocab_size
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.errors import CheckpointError, ConfigError

# Keys of models that change their logits after the output embedding, with the value that does not.
_AFTER_THE_HEAD = {
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "output_multiplier": 1.0,
    "lm_head_multiplier": 1.0,
}


class AutoDecoHook:
    """Tempers and truncates the logits of a model where it computes them, until it is removed.

    The model keeps its class, its file format and its `generate`. Prefer `AutoDecoForCausalLM`
    where the class does not matter: a hook changes all logits, those of scoring and beam search
    too, and is not saved with the model.

    Args:
        model: Any causal language model whose logits are the result of its output embedding.
        heads: Heads-only or merged checkpoint, or a model that has heads.
        limits: Limits of temperature and top-p.

    Attributes:
        temperature_BT: Temperatures of the last pass.
        top_p_BT: Top-p of the last pass.

    Raises:
        ConfigError: The model changes its logits after the output embedding (a soft-cap, a
            scale), so that the hook would temper the wrong ones; or it has heads already.
        CheckpointError: The heads do not fit the model.

    Example:
        >>> with AutoDecoHook(model, "heads/") as hook:  # doctest: +SKIP
        ...     model.generate(**inputs, do_sample=True)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        heads: str | Path | AutoDecoForCausalLM,
        *,
        limits: DecodingLimits | None = None,
    ) -> None:
        _check_model(model)
        if isinstance(heads, AutoDecoForCausalLM):
            theirs, ours = ((head_width(m), vocab_size(m)) for m in (heads.llm, model))
            if theirs != ours:
                raise CheckpointError(
                    f"The heads were trained on (hidden width, vocabulary) {theirs}, but this "
                    f"model has {ours}: they belong to another base."
                )
            self._heads = heads._active_heads()
        else:
            stored = StoredHeads.read(models.fetch(heads), str(heads))
            stored.check(head_width(model), vocab_size(model))
            self._heads = stored.build(model.device)
        self.temperature_BT: Tensor | None = None
        self.top_p_BT: Tensor | None = None
        self._limits = DecodingLimits() if limits is None else limits
        self._model = model
        self._generation_config = model.generation_config
        warn_of_sampling(
            model.generation_config,
            "These values of the model's generation config are put aside until the hook is "
            "removed.",
            stacklevel=2,
        )
        model.generation_config = neutral(model.generation_config)
        self._handle = model.get_output_embeddings().register_forward_hook(self._rescale)

    def _rescale(self, module: nn.Module, inputs: tuple[Any, ...], logits_BTV: Tensor) -> Tensor:
        chosen = predict(inputs[0], logits_BTV, *self._heads)
        self.temperature_BT, self.top_p_BT = self._limits.hold(*chosen)
        truncates = self._heads[1] is not None
        return rescale(
            logits_BTV, self.temperature_BT, self.top_p_BT if truncates else None, "hard"
        )

    def remove(self) -> None:
        """Restore the model."""
        self._handle.remove()
        self._model.generation_config = self._generation_config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def custom_generate(
    heads: str | Path | AutoDecoForCausalLM, *, limits: DecodingLimits | None = None
) -> Callable[..., Any]:
    """A decoding loop for transformers' `generate` that samples with heads, for one call.

    Args:
        heads: Heads-only or merged checkpoint, or a model that has heads.
        limits: Limits of temperature and top-p.

    Returns:
        A value for the argument `custom_generate`; no remote code is involved. Temperature,
        top-p, top-k and the like of `generate` are left out; penalties, bans, stopping and
        streaming work as usual.

    Example:
        >>> model.generate(**inputs, custom_generate=custom_generate("heads/"))  # doctest: +SKIP
    """

    def decode(model: Any, input_ids: Tensor, **kwargs: Any) -> Any:
        # transformers calls them so; a top-k of 50 is always among them unless switched off.
        kept = [
            processor
            for processor in kwargs.pop("logits_processor")
            if not type(processor).__name__.endswith("LogitsWarper")
        ]
        config = copy.copy(kwargs.pop("generation_config"))
        config.do_sample = True
        with AutoDecoHook(model, heads, limits=limits):
            return model._sample(
                input_ids,
                logits_processor=LogitsProcessorList(kept),
                generation_config=config,
                **kwargs,
            )

    return decode


@torch.no_grad()
def _check_model(model: PreTrainedModel) -> None:
    """Refuse a model that a hook would make wrong, by its configuration and a pass over tokens."""
    if isinstance(model, AutoDecoForCausalLM):
        raise ConfigError("The model has heads of its own: put the hook on its base, `model.llm`.")
    head_width(model)
    for config in (model.config, model.config.get_text_config()):
        for key, harmless in _AFTER_THE_HEAD.items():
            if (value := getattr(config, key, None)) not in (None, harmless):
                raise ConfigError(
                    f"`{key}` of the model is {value}: it changes the logits after the output "
                    "embedding, where a hook cannot see them. Use `AutoDecoForCausalLM`, which "
                    "reads the final logits."
                )
    head = model.get_output_embeddings()
    hooks = head._forward_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), AutoDecoHook) for hook in hooks):
        raise ConfigError("The model has a hook already: two would temper its logits twice.")
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _, __, output: seen.append(output.float()))
    try:
        # More than one: a padding token may have an embedding of zeros, and so logits of zero.
        tokens = torch.arange(8, device=model.device)[None]
        logits_BTV = model(input_ids=tokens, use_cache=False).logits.float()
    finally:
        handle.remove()
    if len(seen) != 1 or not torch.equal(seen[0], logits_BTV):
        raise ConfigError(
            f"The logits of {type(model).__name__} are not what its output embedding gives (a "
            "soft-cap or a scale follows?), so a hook there would temper the wrong ones. Use "
            "`AutoDecoForCausalLM`, which reads the final logits."
        )
