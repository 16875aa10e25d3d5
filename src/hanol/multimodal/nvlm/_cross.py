"""Gated cross-attention: a layer that looks at images, put before or after one of a decoder.

Shape suffixes: B rows, T tokens, N visual tokens, D width, H heads, E width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeysValues(NamedTuple):
    """What a layer attends to, `[B, H, N, E]` each; computed once for an image."""

    keys: Tensor
    values: Tensor


class CrossPass(NamedTuple):
    """What the gated layers of a pass see."""

    layers: list[KeysValues]  # of each gated layer
    visible_BTN: Tensor  # which visual tokens each token sees


_passing: ContextVar[CrossPass | None] = ContextVar("hanol_cross_attention", default=None)


@contextmanager
def passing(cross: CrossPass | None) -> Iterator[None]:
    """Let gated layers that run inside see these images."""
    token = _passing.set(cross)
    try:
        yield
    finally:
        _passing.reset(token)


def now_passing() -> CrossPass | None:
    """What gated layers see at the moment; recomputed layers need it again."""
    return _passing.get()


class GatedCrossAttention(nn.Module):
    """Cross-attention and an MLP, each behind a gate that begins at zero, where it changes nothing.

    RMS norm, attention with norms of queries and keys and without positions, gate; RMS norm,
    SwiGLU, gate. A token that sees no visual token leaves as it came, in both branches. Parameters
    have the names of Llama-3.2-Vision's layers.

    Args:
        hidden_size: Width of the language model.
        num_heads: Heads of the queries.
        num_kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        intermediate_size: Width of the MLP; None has no MLP.
        eps: Of the norms.
        index: Number of the layer among those of a model.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        intermediate_size: int | None = None,
        eps: float = 1e-6,
        index: int = 0,
    ) -> None:
        super().__init__()
        self.head_dim, self.index = head_dim, index
        queries, held = num_heads * head_dim, num_kv_heads * head_dim
        self.input_layernorm = nn.RMSNorm(hidden_size, eps=eps)
        self.cross_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(hidden_size, queries, bias=False),
                "k_proj": nn.Linear(hidden_size, held, bias=False),
                "v_proj": nn.Linear(hidden_size, held, bias=False),
                "o_proj": nn.Linear(queries, hidden_size, bias=False),
                "q_norm": nn.RMSNorm(head_dim, eps=eps),
                "k_norm": nn.RMSNorm(head_dim, eps=eps),
            }
        )
        self.cross_attn_attn_gate = nn.Parameter(torch.zeros(1))
        self.has_ffn = intermediate_size is not None
        if intermediate_size is not None:
            self.post_attention_layernorm = nn.RMSNorm(hidden_size, eps=eps)
            self.mlp = nn.ModuleDict(
                {
                    "gate_proj": nn.Linear(hidden_size, intermediate_size, bias=False),
                    "up_proj": nn.Linear(hidden_size, intermediate_size, bias=False),
                    "down_proj": nn.Linear(intermediate_size, hidden_size, bias=False),
                }
            )
            self.cross_attn_mlp_gate = nn.Parameter(torch.zeros(1))
        for module in self.modules():
            if isinstance(module, nn.Linear) and not module.weight.is_meta:
                nn.init.normal_(module.weight, std=0.02)

    def project(self, states_BND: Tensor) -> KeysValues:
        """Keys and values of visual tokens."""
        part = self.cross_attn
        keys = part["k_proj"](states_BND).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        values = part["v_proj"](states_BND).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return KeysValues(part["k_norm"](keys), values)

    def forward(self, x_BTD: Tensor, held: KeysValues, visible_BTN: Tensor) -> Tensor:
        """The tokens, after a look at what each may see.

        Args:
            x_BTD: Hidden states of the language model.
            held: Keys and values that `project` gave.
            visible_BTN: True where a token sees a visual token.

        Returns:
            `[B, T, D]`; bit for bit `x_BTD` at tokens that see nothing, and everywhere while the
            gates are zero.
        """
        sees_BT1 = visible_BTN.any(-1, keepdim=True)
        part = self.cross_attn
        q_BHTE = part["q_proj"](self.input_layernorm(x_BTD)).unflatten(-1, (-1, self.head_dim))
        q_BHTE = part["q_norm"](q_BHTE).transpose(1, 2)
        # A row without any key has no softmax; what it gives is thrown away.
        mask_BTN = visible_BTN | ~sees_BT1
        seen_BHTE = F.scaled_dot_product_attention(
            q_BHTE, held.keys, held.values, attn_mask=mask_BTN.unsqueeze(1), enable_gqa=True
        )
        seen_BTD = part["o_proj"](seen_BHTE.transpose(1, 2).flatten(2))
        x = torch.where(sees_BT1, x_BTD + self.cross_attn_attn_gate.tanh() * seen_BTD, x_BTD)
        if not self.has_ffn:
            return x
        h = self.post_attention_layernorm(x)
        mlp = self.mlp
        h = mlp["down_proj"](F.silu(mlp["gate_proj"](h)) * mlp["up_proj"](h))
        return torch.where(sees_BT1, x + self.cross_attn_mlp_gate.tanh() * h, x)

    # Hooks are methods, so that a copy of a model runs the layers of the copy.

    def before(self, host: nn.Module, args: Any, kwargs: Any) -> Any:
        """Hook of a decoder layer: its hidden states pass through this layer first."""
        if (cross := _passing.get()) is None:
            return None
        if args:
            return (self._look(args[0], cross), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._look(kwargs["hidden_states"], cross)}

    def after(self, host: nn.Module, args: Any, output: Any) -> Any:
        """Hook of a decoder layer: what it gives passes through this layer."""
        if (cross := _passing.get()) is None:
            return None
        if isinstance(output, tuple):
            return (self._look(output[0], cross), *output[1:])
        return self._look(output, cross)

    def _look(self, x_BTD: Tensor, cross: CrossPass) -> Tensor:
        result: Tensor = self(x_BTD, cross.layers[self.index], cross.visible_BTN)
        return result
