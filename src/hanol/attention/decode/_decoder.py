"""Decoders of transformers with a short way for one token: kernels of whole layers.

A model's class becomes a subclass whose forward takes this way where it fits and else that of
transformers: one new token a row, at most `MOST_ROWS` rows, no gradients, float32 on a CPU, layers
that are what transformers made or `PackedLinear`, and nobody who listens to a layer.

Shape suffixes: R rows, K model width, D head width, L tokens.
"""

from functools import cache as remembered
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from hanol.attention._cache import CACHE_NAME
from hanol.attention.decode._llama import LlamaStep
from hanol.attention.decode._step import DecodeStep, Positions, is_own
from hanol.attention.decode._weights import MOST_ROWS, OutputLinear
from hanol.attention.kda._backend import numba_kernels_exist

MODELS = ("LlamaModel", "Qwen2Model", "Qwen3Model", "Qwen3_5TextModel")
_LISTENING = ("output_hidden_states", "output_attentions", "output_router_logits")
_PACKED = ("cu_seqlens", "cu_seq_lens_q")


class FastDecoder:
    """What a decoder of transformers becomes: its own forward, and a short way for one token."""

    _step: DecodeStep | None = None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the decoder, with the arguments of transformers' own."""
        model: Any = self
        held: Any = kwargs.get("past_key_values") if cache is None else cache
        step = self._step_for(input_ids, attention_mask, position_ids, held, inputs_embeds, kwargs)
        if step is None:
            if cache is not None:
                kwargs[CACHE_NAME] = cache
            return super().forward(  # type: ignore[misc]
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                inputs_embeds=inputs_embeds, use_cache=use_cache, **kwargs,
            )  # fmt: skip
        embeds = model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        seen = held.get_seq_length()
        cos = sin = None
        if hasattr(model, "rotary_emb"):
            if position_ids is None:
                position_ids = torch.tensor([[seen]])
            if model.config.model_type == "qwen3_5_text":  # time, height, width, maybe with text
                position_ids = position_ids[-3:] if position_ids.ndim == 3 else position_ids[None]
                position_ids = position_ids.expand(3, -1, -1)
            cos, sin = model.rotary_emb(embeds, position_ids=position_ids)
        valid = np.empty((len(embeds), 0), np.bool_)
        if attention_mask is not None and not bool(attention_mask.all()):
            valid = attention_mask[:, -(seen + 1) :].bool().contiguous().numpy()
        hidden = step(embeds, Positions(cos, sin, valid), held)
        return step.output(last_hidden_state=hidden, **{CACHE_NAME: held})

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles go without the step, and name transformers' class."""
        made: Any = super().__reduce_ex__(protocol)
        _new, _cls, state, *more = made
        state = {key: value for key, value in state.items() if key != "_step"}
        return (_remade, (type(self).__mro__[2],), state, *more)

    def _step_for(
        self, input_ids: Any, mask: Any, positions: Any, cache: Any, embeds: Any,
        options: dict[str, Any],
    ) -> DecodeStep | None:  # fmt: skip
        """The step, if it can do what is asked."""
        model: Any = self
        tokens: Any = input_ids if embeds is None else embeds
        if tokens is None or (input_ids is not None and embeds is not None):
            return None
        if tokens.shape[1] != 1 or not 0 < len(tokens) <= MOST_ROWS:
            return None
        way = _way(type(self))
        if not way.fits(cache, len(tokens)) or any(options.get(x) is not None for x in _PACKED):
            return None
        listens = any(options.get(x, getattr(model.config, x, False)) for x in _LISTENING)
        if listens or model.training or torch.is_grad_enabled():
            return None
        if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return None
        # Kernels check no bounds: anything of another shape is for transformers to judge.
        rows, seen = len(tokens), cache.get_seq_length()
        if mask is not None and getattr(mask, "shape", None) != (rows, seen + 1):
            return None
        if mask is not None and not bool(mask[:, -1].all()):
            return None
        if positions is not None and positions.shape[-2:] not in ((1, 1), (rows, 1)):
            return None
        step = self._step
        if step is None or not step.is_current(model.config):
            step = way.of(self) if numba_kernels_exist() else None
            self._step = step
            if step is not None and not step.is_current(model.config):  # somebody listens
                return None
        return step


def accelerate_decoding(model: nn.Module) -> bool:
    """Give the decoders in a model their short way for one token; whether there is one."""
    found = [one for one in model.modules() if is_own(one, MODELS) or _is_kimi(type(one))]
    for module in found:
        if not isinstance(module, FastDecoder):
            module.__class__ = _fast_class(type(module))  # type: ignore[arg-type]
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if found and type(head) is nn.Linear:
        head.__class__ = OutputLinear
    return bool(found)


@remembered
def _fast_class(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (FastDecoder, cls), {"__module__": cls.__module__})


def _remade(cls: type[nn.Module]) -> nn.Module:
    fast = _fast_class(cls)  # type: ignore[arg-type]
    return fast.__new__(fast)


def decode_step(model: nn.Module) -> "DecodeStep | None":
    """The step of the decoder in a model that `accelerate_decoding` has met, if it has one."""
    decoder = next((one for one in model.modules() if isinstance(one, FastDecoder)), None)
    if decoder is None or not numba_kernels_exist():
        return None
    return _way(type(decoder)).of(decoder)


def _is_kimi(cls: type) -> bool:
    """Whether it is hanol's Kimi-Linear, which is imported where it is used."""
    return cls.__name__ == "KimiLinearModel" and cls.__module__ == "hanol.attention._model"


def _way(cls: type) -> Any:
    """The class of steps for a class of decoders."""
    if _is_kimi(cls):
        from hanol.attention.decode._kimi import KimiStep

        return KimiStep
    return LlamaStep
