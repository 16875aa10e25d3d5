"""Attention whose queries, keys and values pass a short convolution: a baseline that copies early.

Keys then hold the tokens before them, so one layer finds what followed an earlier occurrence. Apart
from the convolution, with the projection itself added to its result, the model is Qwen3.

Shape suffixes: B batch, T tokens, C channels (queries, keys, values side by side), W = kernel - 1
tokens of left context.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, Qwen3Config, Qwen3ForCausalLM, Qwen3Model
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from hanol.attention._cache import MappedLayer
from hanol.attention.kda._conv import short_convolution
from hanol.errors import CacheError

_INITIAL = 0.3  # standard deviation of the kernels: at zero, copying is learned later


class ConvAttentionConfig(Qwen3Config):
    """Configuration of Qwen3, and the tokens that a convolution sees."""

    model_type = "hanol_conv_attention"

    conv_kernel_size: int = 4


class WindowedLayer(MappedLayer, DynamicLayer):
    """Keys and values of one layer, and the last projections before its convolution.

    Attributes:
        window_BCW: The last kernel - 1 projections; None before the first token.
        scatters: New tokens are all real, and each row has its own place for them, so the mask's
            last columns are not theirs.
        record_past: Keep all projections of the next tokens behind them: what is the last one is
            decided later, where rows end in padding.
    """

    parts = ("keys", "values", "window_BCW")
    window_BCW: Tensor | None = None
    record_past = False
    scatters = False

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to take tokens back: the projections before them are gone."""
        if tokens_to_remove:
            raise CacheError(
                "A cache of convolved attention keeps no past of its windows, so no tokens can be "
                "taken back. Decode without assisted generation."
            )

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.window_BCW = None


class ConvAttention(Qwen3Attention):
    """One layer of attention over convolved projections."""

    def __init__(self, config: ConvAttentionConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.widths = [self.q_proj.out_features, self.k_proj.out_features, self.v_proj.out_features]
        channels = sum(self.widths)
        self.conv1d = nn.Conv1d(
            channels, channels, config.conv_kernel_size, groups=channels, bias=False
        )

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: Cache | None = None,
        valid_BT: Tensor | None = None,
        *,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The attention of Qwen3; `valid_BT` marks real tokens, None means that all are real."""
        B, T, _ = hidden_states.shape
        cache = past_key_values if cache is None else cache  # the name until transformers 5.24
        layer = None if cache is None else _adopted(cache, self.layer_idx)
        projections_BTC = torch.cat(
            [proj(hidden_states) for proj in (self.q_proj, self.k_proj, self.v_proj)], dim=-1
        )
        scatters = layer is not None and layer.scatters
        if valid_BT is not None and not scatters:
            # Padding on the left must look like the beginning of the text.
            projections_BTC = projections_BTC * valid_BT.unsqueeze(-1)
        window_BCW = None if layer is None else layer.window_BCW
        old_BWC = None if window_BCW is None else window_BCW.transpose(1, 2)
        mixed_BTC, new_BWC = short_convolution(projections_BTC, self.conv1d.weight, old_BWC, None)
        if layer is not None:
            if layer.record_past and old_BWC is not None:
                new_BWC = torch.cat([old_BWC, projections_BTC], dim=1)
            layer.window_BCW = new_BWC.transpose(1, 2)
        parts = (projections_BTC + mixed_BTC).split(self.widths, dim=-1)
        query, key, value = (x.view(B, T, -1, self.head_dim).transpose(1, 2) for x in parts)
        query, key = self.q_norm(query), self.k_norm(key)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self, query, key, value, attention_mask, scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            sliding_window=self.sliding_window, **kwargs,
        )  # fmt: skip
        return self.o_proj(output.reshape(B, T, -1)), weights


class ConvAttentionModel(Qwen3Model):
    """Qwen3's decoder with convolved attention."""

    config_class = ConvAttentionConfig

    def __init__(self, config: ConvAttentionConfig) -> None:
        super().__init__(config)
        for i, layer in enumerate(self.layers):
            layer.self_attn = ConvAttention(config, i)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv1d):
            nn.init.normal_(module.weight, 0.0, _INITIAL)
            return
        super()._init_weights(module)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """The forward pass of Qwen3."""
        tokens = input_ids if input_ids is not None else kwargs["inputs_embeds"]
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
            kwargs["valid_BT"] = attention_mask[:, -tokens.shape[1] :].bool()
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


class ConvAttentionForCausalLM(Qwen3ForCausalLM):
    """Qwen3 with convolved attention and a language-model head.

    `hanol.models` registers it with transformers' Auto classes; the layout of its checkpoints is
    Qwen3's and one `conv1d` a layer.
    """

    config_class = ConvAttentionConfig

    def __init__(self, config: Any) -> None:
        super(Qwen3ForCausalLM, self).__init__(config)
        self.model = ConvAttentionModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        self.model._init_weights(module)


def _adopted(cache: Cache, index: int) -> WindowedLayer:
    """Layer `index` of a cache, with a window."""
    while len(cache.layers) <= index:
        cache.layers.append(WindowedLayer())
    layer = cache.layers[index]
    if not isinstance(layer, WindowedLayer):
        if getattr(layer, "is_initialized", False):
            raise CacheError(
                f"Layer {index} of the cache is a filled {type(layer).__name__}: it belongs to "
                "another model. Pass an empty cache or none."
            )
        layer = cache.layers[index] = WindowedLayer()
    return layer
