"""The mixture of experts' small parts: fused gate and up projections, a router that counts.

Shape suffixes: E experts.
"""

import torch
from torch import Tensor, nn
from transformers.models.kimi_linear import modeling_kimi_linear as upstream

from hanol.attention._fuse import project


class KimiLinearMLP(upstream.KimiLinearMLP):
    """SwiGLU with both input projections in one product."""

    def forward(self, x: Tensor) -> Tensor:
        """down(act(gate x) * up x)."""
        gate, up = project([self.gate_proj, self.up_proj], x)
        return self.down_proj(self.act_fn(gate) * up)


class KimiLinearTopkRouter(upstream.KimiLinearTopkRouter):
    """The router, which counts the tokens of each expert while training."""

    load_E: Tensor | None = None  # tokens that chose each since the last `update_router_bias`

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, weights and indices of the chosen experts."""
        logits, weights, indices = super().forward(hidden_states)
        if self.training and torch.is_grad_enabled():
            load = torch.bincount(indices.flatten(), minlength=self.num_experts)
            self.load_E = load if self.load_E is None else self.load_E + load
        return logits, weights, indices


@torch.no_grad()
def update_router_bias(model: nn.Module, rate: float = 1e-3) -> float:
    """Balance experts without an auxiliary loss: bias += rate * sign(mean load - load).

    The bias takes part in the choice of experts only, never in their weights. Call it after each
    optimizer step.

    Args:
        model: Any module with `KimiLinearTopkRouter` layers.
        rate: Step of the bias; 1e-3 is usual, the paper's value is not published.

    Returns:
        Largest load divided by the mean load, over all layers; 1.0 is perfect balance, 0.0 when
        no router has counted anything.

    Source: arXiv 2412.19437, section 2.1.2.
    """
    worst = 0.0
    for router in model.modules():
        if not isinstance(router, KimiLinearTopkRouter) or router.load_E is None:
            continue
        load_E = router.load_E.float()
        router.load_E = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(load_E)
        router.e_score_correction_bias += rate * torch.sign(load_E.mean() - load_E)
        worst = max(worst, (load_E.max() / load_E.mean()).item())
    return worst
