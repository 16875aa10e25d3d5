"""A causal language model around a base model: runs it, freezes it, answers for it.

Shape suffixes: B batch, T positions whose logits are computed, V vocabulary, H hidden width.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple, Self, cast

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from hanol import attention
from hanol.autodeco._config import AutoDecoConfig, warn_of_sampling
from hanol.errors import ConfigError


class Features(NamedTuple):
    """What the heads read, and the output of the base.

    Attributes:
        hidden_BTH: Hidden states after the final norm.
        logits_BTV: Logits of the base, its own soft-cap or scale included.
        outputs: The base's output.
    """

    hidden_BTH: Tensor
    logits_BTV: Tensor
    outputs: Any


class WrappedModel(PreTrainedModel, GenerationMixin):
    """A base model as `llm`, whose hidden states before the output embedding can be read."""

    config_class = AutoDecoConfig
    base_model_prefix = "llm"
    supports_gradient_checkpointing = True
    # The base has its own answer to each of these, and was asked when it was made.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: AutoDecoConfig, llm: PreTrainedModel | None = None) -> None:
        if config.base_config is None:
            raise ConfigError(
                "The configuration has no keys of a base model, so none can be built. Load the "
                "heads with `from_pretrained(path, base_model=...)`."
            )
        super().__init__(config)
        if llm is None:
            with attention.registered(config.base_config):
                llm = AutoModelForCausalLM.from_config(config.base_config)
        if isinstance(llm, WrappedModel):
            raise ConfigError(
                "The base has heads itself, so its logits would be tempered twice. Give the model "
                "under it, `model.llm`."
            )
        self.llm = llm
        _watch(llm.get_output_embeddings())
        self.main_input_name = llm.main_input_name
        self._base_inputs = frozenset(signature(llm.forward).parameters)
        self._base_is_frozen = False

    def freeze_base(self, frozen: bool = True) -> Self:
        """Stop (or let) gradients reach the base; a frozen base stays in evaluation mode."""
        self.llm.requires_grad_(not frozen)
        self._base_is_frozen = frozen
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; not of a frozen base, whose dropout would move what heads read."""
        super().train(mode)
        if mode and self._base_is_frozen:
            self.llm.eval()
        return self

    # -- running the base

    def features(
        self,
        input_ids: Tensor | None = None,
        *,
        logits_to_keep: int | Tensor = 0,
        **inputs: Any,
    ) -> Features:
        """Run the base once and return what the heads read; `logits_to_keep` as in `forward`."""
        inputs["input_ids"] = input_ids
        inputs = {key: value for key, value in inputs.items() if value is not None}
        if "position_ids" not in self._base_inputs:  # generate passes what our signature has
            inputs.pop("position_ids", None)
        slices = "logits_to_keep" in self._base_inputs
        if slices:
            inputs["logits_to_keep"] = logits_to_keep
        with _head_inputs(self.llm.get_output_embeddings()) as seen:
            outputs = self.llm(**inputs)
        logits_BTV = outputs.logits
        if len(seen) != 1 or seen[0].shape[:-1] != logits_BTV.shape[:-1]:
            shapes = [tuple(hidden.shape) for hidden in seen]
            raise ConfigError(
                f"{type(self.llm).__name__} gave its output embedding hidden states of shapes "
                f"{shapes} for logits of shape {tuple(logits_BTV.shape)}: AutoDeco needs exactly "
                "one hidden state for each row of logits."
            )
        hidden_BTH = seen[0]
        if not slices:
            last = isinstance(logits_to_keep, int)  # 0 is all
            kept = slice(-logits_to_keep or None, None) if last else logits_to_keep
            hidden_BTH, logits_BTV = hidden_BTH[:, kept], logits_BTV[:, kept]
        return Features(hidden_BTH, logits_BTV, outputs)

    # -- what transformers asks of a model, answered by the base

    @property
    def _is_stateful(self) -> bool:
        return cast(bool, self.llm._is_stateful)

    def _check_and_adjust_experts_implementation(self, experts_implementation: Any) -> Any:
        return experts_implementation  # checked when the base was made

    def get_output_embeddings(self) -> nn.Module:
        """Output embeddings of the base."""
        return self.llm.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output embeddings of the base."""
        self.llm.set_output_embeddings(new_embeddings)
        _watch(new_embeddings)

    # transformers looks for `inputs_embeds` in this signature before it generates from them.
    def prepare_inputs_for_generation(
        self, input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Inputs of the next pass, as the base prepares them.

        Raises:
            ConfigError: There are `inputs_embeds`, and the base does not take any.
        """
        prepare = self.llm.prepare_inputs_for_generation
        if inputs_embeds is None:
            return prepare(input_ids, **kwargs)
        if "inputs_embeds" not in signature(prepare).parameters:
            raise ConfigError(
                f"{type(self.llm).__name__} does not generate from `inputs_embeds`. Pass "
                "`input_ids`."
            )
        return prepare(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    def _update_model_kwargs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.llm._update_model_kwargs_for_generation(*args, **kwargs)

    def _prepare_cache_for_generation(self, *args: Any) -> None:
        self.llm._prepare_cache_for_generation(*args)

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        ours = ("apply", "limits", "output_base_logits")
        rest = {key: value for key, value in model_kwargs.items() if key not in ours}
        self.llm._validate_model_kwargs(rest)

    def _prepare_generation_config(
        self, generation_config: Any, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        if model_kwargs.get("apply") == "off":
            return config, model_kwargs
        if (config.num_beams or 1) > 1:
            warnings.warn(
                f"num_beams is {config.num_beams}: beam search would compare sums of AutoDeco's "
                'log-probabilities, which low temperatures inflate. Pass `apply="off"` to search '
                "with the base's.",
                UserWarning,
                stacklevel=3,
            )
        if config.do_sample:
            remedy = 'Leave them out, or pass `apply="off"` to sample from the base.'
            warn_of_sampling(config, remedy, stacklevel=3)
        return config, model_kwargs


class _Passing(threading.local):
    """What the output embedding of the base that this thread runs was given."""

    head: nn.Module | None = None
    inputs: list[Tensor] | None = None


_seen = _Passing()


def _record(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    # A layer of PEFT around the head runs the head itself, which is watched too.
    if module is _seen.head and _seen.inputs is not None:
        _seen.inputs.append(inputs[0])


def _watch(head: nn.Module | None) -> None:
    """Let a module be recorded; for good, since taking it back would disturb other threads."""
    if head is not None and _record not in head._forward_pre_hooks.values():
        head.register_forward_pre_hook(_record)


@contextmanager
def _head_inputs(head: nn.Module) -> Iterator[list[Tensor]]:
    """What an output embedding is given inside, in this thread."""
    # Usually watched since the base was wrapped: a graph that was compiled with another number
    # of hooks does not hold.
    _watch(head)
    seen: list[Tensor] = []
    _seen.head, _seen.inputs = head, seen
    try:
        yield seen
    finally:
        _seen.head = _seen.inputs = None
