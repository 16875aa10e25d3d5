"""Muon, with AdamW for what is not a matrix, as one optimizer.

torch.optim.Muon always runs its iteration in bfloat16, which processors without such units emulate:
it takes several times as long there. Here it is float32 on processors, bfloat16 on accelerators,
unless told otherwise, and matrices of one shape go through it together.

Source: Muon by K. Jordan (2024); the scale of the update is that of arXiv 2502.16982, section 2.2.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
# Names of parameters that AdamW updates although they have two or more dimensions.
_NOT_MATRICES = ("embed_tokens", "lm_head", "conv1d", "conv.conv", "A_log", "dt_bias", "norm")


@torch.no_grad()
def orthogonalised(x_BMN: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Nearest matrices with singular values near 1, by five Newton-Schulz steps.

    Args:
        x_BMN: Matrices of one shape, any float dtype.
        dtype: Data type of the iteration and of the result.
    """
    a, b, c = _COEFFICIENTS
    x = x_BMN.to(dtype)
    flipped = x.shape[-2] > x.shape[-1]
    if flipped:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.transpose(-1, -2) if flipped else x


class MuonAdamW(torch.optim.AdamW):
    """AdamW whose groups with `muon=True` are updated by Muon instead.

    Args:
        groups: Parameter groups; those with `muon=True` hold matrices or stacks of matrices, and
            may carry `parts`: for each parameter the row counts of the logical matrices that it
            holds, one below the other.
        momentum: Nesterov momentum of Muon.
        betas: Betas of AdamW.
        dtype: Data type of Muon's iteration; None is float32 on CPU and bfloat16 elsewhere.
            bfloat16 is faster on CPUs with units for it (AVX512-BF16, AMX), at two correct digits
            of an update.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype
        super().__init__(groups, betas=betas, eps=1e-8)
        for group in self.param_groups:
            group.setdefault("muon", False)
            group.setdefault("momentum", momentum)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        every_group = self.param_groups
        try:
            self.param_groups = [group for group in every_group if not group["muon"]]
            loss: float | None = super().step(closure)
        finally:
            self.param_groups = every_group
        for group in every_group:
            if group["muon"]:
                self._muon(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        updates: list[tuple[Tensor, Tensor]] = []
        for parameter, parts in zip(group["params"], group["parts"], strict=True):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["step"] = torch.zeros(())  # AdamW looks for it when a state is loaded
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            state["step"] += 1
            buffer = state["momentum_buffer"]
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            direction = whole(parameter.grad.lerp(buffer, group["momentum"]))
            update = torch.empty_like(direction, dtype=torch.float32)
            updates.append((parameter, update))
            for source, target in zip(
                direction.split(parts, dim=-2), update.split(parts, dim=-2), strict=True
            ):
                flat = source.reshape(-1, *source.shape[-2:])
                by_shape.setdefault(source.shape[-2:], []).append((flat, target))
        for shape, pairs in by_shape.items():
            joined = torch.cat([flat for flat, _ in pairs])
            on_cpu = joined.device.type == "cpu"
            dtype = self.dtype or (torch.float32 if on_cpu else torch.bfloat16)
            stacked = orthogonalised(joined, dtype).float()
            stacked *= 0.2 * max(shape) ** 0.5
            for piece, (_, target) in zip(
                stacked.split([len(flat) for flat, _ in pairs]), pairs, strict=True
            ):
                target.copy_(piece.view(target.shape))
        for parameter, update in updates:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(sharded_like(update, parameter), alpha=-group["lr"])


def muon_adamw(model: nn.Module, rates: BaseModel, **options: Any) -> MuonAdamW:
    """The optimizer of a model as settings or a section of a recipe describe it.

    Args:
        model: Any causal language model of transformers.
        rates: Settings with `muon_lr`, `adamw_lr` and `weight_decay`, as for `parameter_groups`.
        options: As for `MuonAdamW`.
    """
    values = rates.model_dump(include={"muon_lr", "adamw_lr", "weight_decay"})
    return MuonAdamW(parameter_groups(model, **values), **options)


def whole(x: Tensor) -> Tensor:
    """The full tensor of a sharded one; every process must ask for it."""
    full = getattr(x, "full_tensor", None)
    result: Tensor = x if full is None else full()
    return result


def sharded_like(x: Tensor, parameter: Tensor) -> Tensor:
    """`x` sharded as `parameter` is."""
    if not hasattr(parameter, "placements"):
        return x.to(parameter.dtype)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(parameter.dtype), parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]


def parameter_groups(
    model: nn.Module, *, muon_lr: float | None, adamw_lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Matrices of the blocks to Muon; embeddings, head, norms, convolutions and gates to AdamW.

    Args:
        model: Any causal language model of transformers.
        muon_lr: Peak rate of Muon; None sends everything to AdamW.
        adamw_lr: Peak rate of AdamW.
        weight_decay: Decay of matrices and embeddings; vectors, `A_log` and `dt_bias` have none.
    """
    matrices: list[Tensor] = []
    parts: list[list[int]] = []
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        special = any(word in name for word in _NOT_MATRICES)
        if muon_lr is not None and parameter.ndim >= 2 and not special:
            matrices.append(parameter)
            parts.append(_logical_rows(model, name, parameter))
        elif parameter.ndim == 2 and "norm" not in name and "A_log" not in name:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": adamw_lr, "weight_decay": weight_decay},
        {"params": plain, "lr": adamw_lr, "weight_decay": 0.0},
    ]
    if matrices:
        muon = {"params": matrices, "parts": parts, "lr": muon_lr, "muon": True}
        groups.append({**muon, "weight_decay": weight_decay})
    return [group for group in groups if group["params"]]


def _logical_rows(model: nn.Module, name: str, parameter: Tensor) -> list[int]:
    """Row counts of the matrices that one parameter holds: each is orthogonalised by itself."""
    rows = parameter.shape[-2]
    if "gate_up_proj" in name:
        return [rows // 2, rows // 2]
    if "kv_a_proj_with_mqa" in name:
        rank: int = model.config.kv_lora_rank  # type: ignore[union-attr, assignment]
        return [rank, rows - rank]
    return [rows]
