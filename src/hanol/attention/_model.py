"""The Kimi-Linear model around its layers: padding, packing and the cache are sorted out once.

Shape suffixes: B batch, T tokens, D model width.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, KimiLinearConfig
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.models.kimi_linear import modeling_kimi_linear as upstream
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from hanol.attention._cache import CACHE_NAME, adopt
from hanol.attention._config import check_config
from hanol.attention.kda._packing import find_packing
from hanol.errors import ShapeError

# Names of tensors that stay float32 whatever dtype a model is loaded in: they are exponents and
# selection scores, and bfloat16 keeps three digits of them.
FLOAT32 = ("A_log", "dt_bias", "e_score_correction_bias")
STRICT = frozenset({*FLOAT32, "gate.weight"})  # what transformers loads in float32: routers, too


def _renamed(forward: Any) -> Any:
    """Warns of `past_key_values` as transformers' own models do, from 5.24 on."""
    old, new = "past_key_values", CACHE_NAME
    return forward if old == new else deprecate_kwarg(old, "5.40.0", new_name=new)(forward)


class KimiLinearModel(upstream.KimiLinearModel):
    """transformers' Kimi-Linear decoder, exact under padding, packing and any split."""

    _keep_in_fp32_modules_strict = STRICT

    def __init__(self, config: KimiLinearConfig) -> None:
        check_config(config)
        super().__init__(config)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        # transformers looks for its decorator in the file of this class; the experts are its own.
        return True

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @merge_with_config_defaults
    @capture_outputs
    @_renamed
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        *,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> MoeModelOutputWithPast:
        """Run the decoder, with the arguments of transformers' own.

        The mask, [B, cached + T], may have padding on either side. Positions that start again mark
        packed documents; `cu_seqlens` or `cu_seq_lens_q` give them directly. The cache is an empty
        `DynamicCache` or one that this model filled; transformers 5.23 passes it as
        `past_key_values`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ShapeError("Pass either `input_ids` or `inputs_embeds`, and not both.")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if cache is not None:
            adopt(cache, self.config)
        cu_seqlens, cu_seq_lens_q = (kwargs.pop(x, None) for x in ("cu_seqlens", "cu_seq_lens_q"))
        cu_seqlens = cu_seq_lens_q if cu_seqlens is None else cu_seqlens
        for key in ("cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"):
            kwargs.pop(key, None)
        packing = find_packing(hidden.shape[:2], attention_mask, position_ids, cu_seqlens)
        if packing is not None and not len(packing.position_N):  # padding alone
            width = self.config.kv_lora_rank + self.config.qk_rope_head_dim
            for state in () if cache is None else cache.layers:
                state.pad(hidden.new_zeros(*hidden.shape[:2], width))
            return MoeModelOutputWithPast(
                last_hidden_state=torch.zeros_like(hidden), **{CACHE_NAME: cache}
            )
        if packing is not None:
            hidden = packing.pack(hidden)
        for layer in self.layers[: self.config.num_hidden_layers]:
            hidden = layer(
                hidden, use_cache=use_cache, packing=packing, **{CACHE_NAME: cache}, **kwargs
            )
        hidden = self.norm(hidden)
        if packing is not None:
            hidden = packing.unpack(hidden)
        return MoeModelOutputWithPast(last_hidden_state=hidden, **{CACHE_NAME: cache})


class KimiLinearRMSNorm(upstream.KimiLinearRMSNorm):
    """Root mean square norm in float32, in one operation."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Weight * x / rms(x)."""
        x = torch.nn.functional.rms_norm(
            hidden_states.float(), (hidden_states.shape[-1],), None, self.variance_epsilon
        )
        return self.weight * x.to(hidden_states.dtype)
