"""The forget gate: from a projection to the log of the per-channel decay.

Shape suffixes: B batch, T tokens, H heads, K key width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hanol.errors import ShapeError


def kda_gate(
    x_BTHK: Tensor, A_log_H: Tensor, dt_bias_HK: Tensor, *, lower_bound: float | None = None
) -> Tensor:
    """Log decay g = -exp(A_log) * softplus(x + dt_bias), in float32.

    Args:
        x_BTHK: Gate projection, any float dtype.
        A_log_H: Logarithm of the decay rate of each head.
        dt_bias_HK: Bias of each channel.
        lower_bound: With a negative number, the bounded gate of later models instead:
            lower_bound * sigmoid(exp(A_log) * (x + dt_bias)). None for Kimi Linear's checkpoints.

    Returns:
        `g_BTHK`, at most 0; float64 when `x_BTHK` is, else float32.

    Raises:
        ShapeError: `A_log_H` or `dt_bias_HK` does not fit, or `lower_bound` is not negative.

    Source: arXiv 2510.26692, section 3.3; the bounded form is that of the `fla` kernels.
    """
    H, K = x_BTHK.shape[-2:]
    if A_log_H.numel() != H or dt_bias_HK.numel() != H * K:
        raise ShapeError(
            f"`x_BTHK` {tuple(x_BTHK.shape)} has {H} heads of {K} channels, but `A_log_H` has "
            f"{A_log_H.numel()} entries and `dt_bias_HK` {dt_bias_HK.numel()}."
        )
    if lower_bound is not None and not lower_bound < 0:
        raise ShapeError(f"`lower_bound` is {lower_bound}, but a log decay needs one below 0.")
    dtype = torch.float64 if x_BTHK.dtype == torch.float64 else torch.float32
    rate_H1 = A_log_H.to(dtype).exp().view(H, 1)
    x_BTHK = x_BTHK.to(dtype) + dt_bias_HK.to(dtype).view(H, K)
    if lower_bound is not None:
        return lower_bound * torch.sigmoid(rate_H1 * x_BTHK)
    # softplus, unlike log(1 + exp(x)), keeps its gradient finite for every x.
    return -rate_H1 * F.softplus(x_BTHK)
