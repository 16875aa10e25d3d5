"""AutoDeco on a model that is not wrapped: a hook on its output embedding.

Shape suffixes: B batch, T positions, V vocabulary, H hidden width.
"""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from hanol.autodeco import _formats as formats
from hanol.autodeco._config import neutral
from hanol.autodeco._load import head_width, load_heads
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco._rescale import DecodingLimits, predict, rescale
from hanol.errors import CheckpointError, ConfigError

# Keys that make a model change its logits after the output embedding, and the value of each that
# changes nothing.
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
    where the class does not matter: a hook sees every logit that is computed, those of scoring and
    of beam search too, and is not saved with the model.

    Args:
        model: Any causal language model whose logits are the result of its output embedding.
        heads: Heads-only or merged checkpoint, or a model that has heads.
        limits: What temperature and top-p are held to.

    Attributes:
        temperature_BT: Temperatures of the last pass.
        top_p_BT: Top-p of the last pass.

    Raises:
        ConfigError: The model changes its logits after the output embedding, so that the heads
            would read and the hook would temper the wrong ones.
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
        _refuse_other_heads(model)
        _refuse_changed_logits(model)
        if isinstance(heads, AutoDecoForCausalLM):
            self._heads = heads._active_heads()
            _compare("read hidden states", head_width(heads.llm), head_width(model))
            _compare("were trained on logits", *map(_vocab, (heads.llm, model)))
        else:
            self._heads = _read(heads, model)
        self.temperature_BT: Tensor | None = None
        self.top_p_BT: Tensor | None = None
        self._limits = DecodingLimits() if limits is None else limits
        self._model = model
        self._generation_config = model.generation_config
        sampling, stacking = neutral(model.generation_config)
        if stacking:
            values = ", ".join(f"{key}={value}" for key, value in stacking.items())
            warnings.warn(
                f"The model's generation config sets {values}, which would act on top of "
                "AutoDeco's own temperature and top-p. They are put aside until the hook is "
                "removed.",
                UserWarning,
                stacklevel=2,
            )
        model.generation_config = sampling
        self._handle = model.get_output_embeddings().register_forward_hook(self._rescale)

    def _rescale(self, module: nn.Module, inputs: tuple[Any, ...], logits_BTV: Tensor) -> Tensor:
        self.temperature_BT, self.top_p_BT = self._limits.hold(
            *predict(inputs[0], logits_BTV, *self._heads)
        )
        truncates = self._heads[1] is not None
        return rescale(
            logits_BTV, self.temperature_BT, self.top_p_BT if truncates else None, "hard"
        )

    def remove(self) -> None:
        """Leave the model as it was."""
        self._handle.remove()
        self._model.generation_config = self._generation_config

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


# What `generate` makes of its own temperature, top-p and the like: they would act on top of the
# heads. transformers always has a top-k of 50 among them unless it is switched off.
_WARPERS = (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)


def custom_generate(
    heads: str | Path | AutoDecoForCausalLM, *, limits: DecodingLimits | None = None
) -> Callable[..., Any]:
    """A decoding loop for transformers' `generate` that samples with heads, for one call.

    Args:
        heads: As `AutoDecoHook` takes them.
        limits: Likewise.

    Returns:
        What `generate` takes as `custom_generate`; nothing of it is remote code. Its own
        temperature, top-p, top-k and so on are left out; penalties, bans, stopping and streaming
        work as ever.

    Example:
        >>> model.generate(**inputs, custom_generate=custom_generate("heads/"))  # doctest: +SKIP
    """

    def decode(model: Any, input_ids: Tensor, **kwargs: Any) -> Any:
        processors = kwargs.pop("logits_processor")
        kept = LogitsProcessorList(p for p in processors if not isinstance(p, _WARPERS))
        config = copy.copy(kwargs.pop("generation_config"))
        config.do_sample = True
        with AutoDecoHook(model, heads, limits=limits):
            return model._sample(
                input_ids, logits_processor=kept, generation_config=config, **kwargs
            )

    return decode


def _vocab(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _compare(what: str, heads: int, model: int) -> None:
    if heads != model:
        raise CheckpointError(
            f"The heads {what} of shape (..., {heads}), but this model gives (..., {model}): they "
            "belong to another base."
        )


def _read(heads: str | Path, model: PreTrainedModel) -> Any:
    config, stored = formats.read_checked(formats.local_folder(heads), str(heads))
    formats.check_heads(
        formats.shapes_of(stored),
        config,
        what=str(heads),
        hidden=head_width(model),
        vocab=_vocab(model),
    )
    return load_heads(stored, config, model.device)


def _refuse_other_heads(model: PreTrainedModel) -> None:
    if isinstance(model, AutoDecoForCausalLM):
        raise ConfigError("The model has heads of its own: put the hook on its base, `model.llm`.")
    embedding = model.get_output_embeddings()
    hooks = () if embedding is None else embedding._forward_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), AutoDecoHook) for hook in hooks):
        raise ConfigError("The model has a hook already: two would temper its logits twice.")


def _refuse_changed_logits(model: PreTrainedModel) -> None:
    head_width(model)
    for config in (model.config, model.config.get_text_config()):
        for key, harmless in _AFTER_THE_HEAD.items():
            value = getattr(config, key, None)
            if value is not None and value != harmless:
                raise ConfigError(
                    f"`{key}` of the model is {value}: it changes the logits after the output "
                    "embedding, where a hook cannot see them. Use `AutoDecoForCausalLM`, which "
                    "reads the final logits."
                )
    _probe(model)


@torch.no_grad()
def _probe(model: PreTrainedModel) -> None:
    """Run one token: some models change their logits without a key that says so."""
    seen: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(output.float())
    )
    try:
        tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        logits_BTV = model(input_ids=tokens, use_cache=False).logits.float()
    finally:
        handle.remove()
    if len(seen) != 1 or not torch.equal(seen[0], logits_BTV):
        raise ConfigError(
            f"The logits of {type(model).__name__} are not what its output embedding gives, so a "
            "hook there would temper the wrong ones. Use `AutoDecoForCausalLM`, which reads the "
            "final logits."
        )
