"""The gated delta net hybrid: the baseline that differs from Kimi Linear in its forget gate alone.

One log decay for each head and token in place of one for each channel; convolution, delta rule,
sigmoid output gate, latent attention and blocks are the same.

Shape suffixes: B batch, T tokens, D model width, H heads.
Source: arXiv 2412.06464 for the layer; arXiv 2510.26692, section 5, "GDN-H", for the hybrid.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import KimiLinearConfig, KimiLinearForCausalLM

from hanol.attention._delta import KimiLinearDeltaAttention, KimiLinearForgetGate
from hanol.attention._model import KimiLinearModel
from hanol.attention._register import accelerate
from hanol.attention.kda._gate import kda_gate


class GdnHybridConfig(KimiLinearConfig):
    """Configuration of the baseline: the keys and values are those of Kimi Linear."""

    model_type = "hanol_gdn_hybrid"


class GdnForgetGate(KimiLinearForgetGate):
    """One log decay for each head, from a projection of full rank."""

    def __init__(self, config: GdnHybridConfig) -> None:
        super().__init__(config)
        del self.f_b_proj
        self.f_a_proj = nn.Linear(config.hidden_size, self.num_heads, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(self.num_heads))

    def gate(self, low_rank_BTR: Tensor) -> Tensor:
        """Log decay g, [B, T, H], in float32, from the projection."""
        return kda_gate(low_rank_BTR.unsqueeze(-1), self.A_log, self.dt_bias).squeeze(-1)


class GatedDeltaNet(KimiLinearDeltaAttention):
    """A gated delta net layer that runs on the operators of Kimi Delta Attention."""

    def __init__(self, config: GdnHybridConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.forget_gate = GdnForgetGate(config)


class GdnHybridModel(KimiLinearModel):
    """Kimi Linear's decoder with gated delta net layers."""

    config_class = GdnHybridConfig

    def __init__(self, config: GdnHybridConfig) -> None:
        super().__init__(config)
        for i, kind in enumerate(config.layer_types):
            if kind == "linear_attention":
                self.layers[i].self_attn = GatedDeltaNet(config, i)
        accelerate(self)
        self.post_init()


class GdnHybridForCausalLM(KimiLinearForCausalLM):
    """The gated delta net hybrid with a language-model head.

    `hanol.models` registers it with transformers' Auto classes; the layout of its checkpoints is
    the one of its parameters.

    Source: arXiv 2510.26692, section 5, "GDN-H".
    """

    config_class = GdnHybridConfig

    def __init__(self, config: Any) -> None:
        super(KimiLinearForCausalLM, self).__init__(config)
        self.model = GdnHybridModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
