"""Delta-rule models of transformers whose own layers are right: only their kernels are replaced.

Their modules call functions of the module (`torch_chunk_gated_delta_rule` and so on), which
transformers fills with plain PyTorch where no GPU kernel is installed. Ours stand in for those on
a CPU, also for models that are in memory; anything else (CUDA, tracing, an option that ours do not
know) goes to what was there before.

Shape suffixes: B batch, T tokens, H value heads, K key width, V value width, C channels, J kernel.
"""

import sys
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from hanol.attention.kda._conv import short_convolution
from hanol.attention.kda._kda import chunk_kda, recurrent_kda
from hanol.attention.kda._packing import find_packing
from hanol.attention.kda._step import step_

# Kinds of model, and whether they have one log decay a channel or one a head.
FAMILY = {
    "bailing_hybrid": "channel",
    "glm5_next": "channel",
    "olmo_hybrid": "head",
    "qwen3_5": "head",
    "qwen3_5_moe": "head",
    "qwen3_next": "head",
    "qwen4_exp": "head",
}


def _delta_rule(
    form: Callable[..., tuple[Tensor, Tensor | None]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """`chunk_kda` or `recurrent_kda` with the arguments of transformers' functions."""
    ends = cu_seq_lens_q if cu_seqlens is None else cu_seqlens
    state = None if initial_state is None else initial_state.float()
    is_step = form is recurrent_kda and key.shape[1] == 1 and not torch.is_grad_enabled()
    if is_step and state is not None and state.is_contiguous():
        return _one_token(query, key, value, g, beta, state, use_qk_l2norm_in_kernel)
    if state is not None and ends is not None and len(state) == 1 < len(ends) - 1:
        # One cached row goes on in its first document; the others start anew.
        state = torch.cat([state, state.new_zeros(len(ends) - 2, *state.shape[1:])])
    o_BTHV, final = form(
        query, key, value, g, beta, initial_state_BHKV=state, cu_seqlens=ends,
        output_final_state=output_final_state, use_qk_l2norm=use_qk_l2norm_in_kernel,
    )  # fmt: skip
    return o_BTHV, final


def _one_token(
    query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, state: Tensor, norm: bool
) -> tuple[Tensor, Tensor]:
    """A decode step; changes the state, which is the cache's own, in place."""
    q, k, v, gate, strength = (x[:, 0].float() for x in (query, key, value, g, beta))
    scale = key.shape[-1] ** -0.5
    o_BHV, state = step_(q, k, v, gate, strength, state, scale=scale, use_qk_l2norm=norm)
    return o_BHV.unsqueeze(1).to(query.dtype), state


def _convolution(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Causal convolution of a prompt, [B, C, T]; documents of a packed row stay apart."""
    x_BTC = hidden_states.to(weight.dtype).transpose(1, 2)
    if cu_seq_lens_q is None and seq_idx is not None:
        first = seq_idx[0].diff().nonzero().squeeze(1) + 1
        ends = torch.tensor([0, x_BTC.shape[1]])
        cu_seq_lens_q = torch.cat([ends[:1], first.cpu(), ends[1:]])
    packing = None
    if cu_seq_lens_q is not None:
        packing = find_packing(x_BTC.shape[:2], None, None, cu_seq_lens_q)
    y_BTC, _window = short_convolution(x_BTC, weight.unsqueeze(1), None, packing)
    return _activated(y_BTC, bias, activation).to(hidden_states.dtype).transpose(1, 2)


def _convolution_step(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """Causal convolution of one token, [B, C, 1], on the last J inputs, changed in place."""
    seen_BCJ = torch.cat([conv_state[..., 1:], hidden_states], dim=-1)
    conv_state.copy_(seen_BCJ)
    y_BC = (seen_BCJ.to(weight.dtype) * weight).sum(-1)
    return _activated(y_BC, bias, activation).to(hidden_states.dtype).unsqueeze(-1)


def _activated(y: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    y = y if bias is None else y + bias
    return y if activation is None else ACT2FN[activation](y)


_CHUNK, _STEP = partial(_delta_rule, chunk_kda), partial(_delta_rule, recurrent_kda)
_KERNELS: dict[str, Callable[..., Any]] = {
    "chunk_kimi_delta_attention": _CHUNK,
    "recurrent_kimi_delta_attention": _STEP,
    "torch_chunk_gated_delta_rule": _CHUNK,
    "torch_recurrent_gated_delta_rule": _STEP,
    "causal_conv1d_fn": _convolution,
    "causal_conv1d_update": _convolution_step,
}


def _on_cpu(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    """Ours where it fits, else theirs."""
    one_token_only = ours is _convolution_step

    @wraps(theirs)
    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        fits = first.is_cpu and not torch.compiler.is_compiling()
        if not fits or (one_token_only and first.shape[-1] != 1):
            return theirs(first, *args, **kwargs)
        return ours(first, *args, **kwargs)

    run.plain = theirs  # type: ignore[attr-defined]
    return run


def families(of: PreTrainedConfig | nn.Module | None) -> set[str]:
    """Members of the family that a configuration names, or whose layers a model has."""
    if isinstance(of, nn.Module):
        found = {type(module).__module__.rpartition(".modeling_")[2] for module in of.modules()}
    else:
        parts = [] if of is None else [of, of.get_text_config()]
        found = {part.model_type.removesuffix("_text") for part in parts}
    return found & FAMILY.keys()


def _module_name(model_type: str) -> str:
    return f"transformers.models.{model_type}.modeling_{model_type}"


def replace_kernels(model_type: str) -> None:
    """Let the models of this type, there or to come, compute with our kernels on a CPU."""
    module = import_module(_module_name(model_type))
    for name, ours in _KERNELS.items():
        theirs = getattr(module, name, None)
        if theirs is not None and not hasattr(theirs, "plain"):
            setattr(module, name, _on_cpu(ours, theirs))


def restore_kernels(model_type: str) -> None:
    """Take `replace_kernels` back."""
    module = sys.modules.get(_module_name(model_type))
    for name in _KERNELS if module is not None else ():
        theirs = getattr(getattr(module, name, None), "plain", None)
        if theirs is not None:
            setattr(module, name, theirs)
