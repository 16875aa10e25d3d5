"""Soft top-p, the differentiable truncation that AutoDeco's heads are trained through.

`soft_top_p` is the definition. Training needs only the negative log-likelihood of the labels and
its derivatives by temperature and top-p, two numbers a row: `soft_top_p_nll_of_rows` and
`temperature_nll_of_rows` compute them in closed form on the way forward, some rows at a time, and
save nothing as large as the vocabulary. The logits get no gradient: the base model is frozen.

With z = logits / T, p = softmax(z) in descending order and c its running sum (equations 1 to 3):

    m = exp(-steepness * relu(c - P));   pt = p m / (sum(p m) + 1e-9);   nll = -log(pt[y] + 1e-9)

Since dp/dT = p g with g = (mean(z) - z) / T and the mean taken under p, dc/dT is the running sum
G of p g, and with [.] for "c > P":

    d log(p m)/dT = g - steepness [.] G;    d log(p m)/dP = steepness [.]

Shape suffixes: N rows (of `soft_top_p`: any leading dimensions), V vocabulary, M the rows that are
asked for, C the rows in work.
Source: arXiv 2510.26697, section 2.3.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hanol.errors import ConfigError, ShapeError
from hanol.sampling._top_p import sort_rows_

Cumsum = Literal["inclusive", "exclusive"]

STEEPNESS = 30.0  # alpha in the paper
_EPSILON = 1e-9  # in the sum and in the logarithm, as in the official code
_LEAST = 1e-8  # temperature
# exp(-1e4) is 0 and 0 * 1e4 too, while 0 * inf is not a number.
_FAR = 1e4


def soft_top_p(
    logits_NV: Tensor,
    temperature_N: Tensor,
    top_p_N: Tensor,
    *,
    steepness: float = STEEPNESS,
    cumsum: Cumsum = "inclusive",
) -> Tensor:
    """Probabilities with the tail beyond P faded out, by plain differentiable operations.

    Args:
        logits_NV: Logits before the temperature, any float dtype.
        temperature_N: Temperature of each row; below 1e-8 counts as 1e-8.
        top_p_N: Top-p of each row.
        steepness: How fast tokens fade beyond P.
        cumsum: "inclusive" is the paper's: the token that crosses P fades too, even the most
            likely one when it holds more than P. With "exclusive" the limit of a large steepness
            is hard top-p.

    Returns:
        `probs_NV`, float32 (float64 for float64 logits), in the order of the vocabulary. Rows sum
        to 1, but for a mass before P of about 1e-9 or less: the official epsilon takes its part.

    Raises:
        ShapeError: `temperature_N` or `top_p_N` does not have one value per row.
        ConfigError: `steepness` is negative or `cumsum` another name.

    Source: equations 1 to 3.
    """
    _check_options(steepness, cumsum)
    for name, value_N in (("temperature_N", temperature_N), ("top_p_N", top_p_N)):
        if value_N.shape != logits_NV.shape[:-1]:
            raise ShapeError(
                f"`{name}` has shape {tuple(value_N.shape)}, but `logits_NV` "
                f"{tuple(logits_NV.shape)} needs one value per row: {tuple(logits_NV.shape[:-1])}."
            )
    dtype = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
    p_NV = tempered(logits_NV.to(dtype), temperature_N.to(dtype).clamp_min(_LEAST)).softmax(-1)
    kept_NV = p_NV * torch.exp(-steepness * excess(p_NV, top_p_N.to(dtype), cumsum))
    return kept_NV / (kept_NV.sum(-1, keepdim=True) + _EPSILON)


def tempered(logits_NV: Tensor, temperature_N: Tensor) -> Tensor:
    """Logits / T. Where they are -inf, the derivative by T is 0 instead of 0 * -inf."""
    if not (torch.is_grad_enabled() and temperature_N.requires_grad):
        return logits_NV / temperature_N.unsqueeze(-1)
    outside_NV = logits_NV.isneginf()
    inside_NV = logits_NV.masked_fill(outside_NV, 0) / temperature_N.unsqueeze(-1)
    return inside_NV.masked_fill(outside_NV, -torch.inf)


def excess(p_NV: Tensor, top_p_N: Tensor, cumsum: Cumsum = "inclusive") -> Tensor:
    """relu(c - P) of each token, in the order of the vocabulary: m = exp(-steepness * excess)."""
    # Equal probabilities stay in the order of the vocabulary.
    sorted_NV, token_NV = p_NV.sort(dim=-1, descending=True, stable=True)
    c_NV = sorted_NV.cumsum(-1).clamp_max(1)  # rounding must not put it beyond P = 1
    if cumsum == "exclusive":
        c_NV = c_NV - sorted_NV
    beyond_NV = (c_NV - top_p_N.unsqueeze(-1)).relu()
    return torch.zeros_like(beyond_NV).scatter(-1, token_NV, beyond_NV)


def soft_top_p_nll_of_rows(
    logits_NV: Tensor,
    rows_M: Tensor,
    temperature_M: Tensor,
    top_p_M: Tensor,
    labels_M: Tensor,
    steepness: float = STEEPNESS,
    cumsum: Cumsum = "inclusive",
    chunk: int = 256,
) -> Tensor:
    """Negative log-likelihood of labels under `soft_top_p`, with gradients for T and P only.

    Args:
        logits_NV: Logits before the temperature, any float dtype.
        rows_M: Rows of the logits that are asked for; they are never gathered all at once.
        temperature_M: Temperature of each of these rows, float32 (float64 for float64 logits).
        top_p_M: Top-p of each, in the same type.
        labels_M: The token of each, in [0, V).
        steepness: How fast tokens fade beyond P.
        cumsum: "inclusive" or "exclusive", see `soft_top_p`.
        chunk: Bounds the memory: less than 3 * chunk * V numbers beyond the arguments (from
            chunk = 2 on).

    Returns:
        `nll_M` = -log(soft_top_p(...)[label] + 1e-9).

    Raises:
        ShapeError: The logits are not a matrix, or `chunk` is below 1.
        ConfigError: `steepness` is negative or `cumsum` another name.
    """
    _check_options(steepness, cumsum)
    rows_nll = partial(_soft_rows, steepness=steepness, exclusive=cumsum == "exclusive")
    return _closed_form(rows_nll, logits_NV, rows_M, labels_M, chunk, temperature_M, top_p_M)


def temperature_nll_of_rows(
    logits_NV: Tensor,
    rows_M: Tensor,
    temperature_M: Tensor,
    labels_M: Tensor,
    min_temperature: float = 1e-2,
    chunk: int = 256,
) -> Tensor:
    """Cross-entropy of labels under softmax(logits / T), with gradients for T only.

    Temperatures below `min_temperature` count as this one, and get no gradient. The other
    arguments are those of `soft_top_p_nll_of_rows`.

    Raises:
        ShapeError: The logits are not a matrix, or `chunk` is below 1.
        ConfigError: `min_temperature` is not above 0.
    """
    if not min_temperature > 0:
        raise ConfigError(
            f"`min_temperature` is {min_temperature}, but logits are divided by it: above 0."
        )
    rows_nll = partial(_temperature_rows, min_temperature=min_temperature)
    return _closed_form(rows_nll, logits_NV, rows_M, labels_M, chunk, temperature_M)


def in_work(rows_M: Tensor, chunk: int) -> Iterator[Tensor]:
    """Some rows at a time: a quarter of a chunk, as allocators may hold twice what is in use.

    The losses need up to six copies of them.
    """
    if chunk < 1:
        raise ShapeError(f"`chunk` is {chunk}, but must be at least 1.")
    yield from rows_M.split(max(1, chunk // 4))


def _closed_form(
    rows_nll: Callable[..., tuple[Tensor, ...]],
    logits_NV: Tensor,
    rows_M: Tensor,
    labels_M: Tensor,
    chunk: int,
    *parameters_M: Tensor,
) -> Tensor:
    if logits_NV.ndim != 2:
        raise ShapeError(f"`logits_NV` has shape {tuple(logits_NV.shape)}. Flatten the rows first.")
    # Within `forward` the gradient mode is always off.
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in parameters_M)
    return _ClosedForm.apply(
        rows_nll, needs_gradient, logits_NV.detach(), rows_M, labels_M, chunk, *parameters_M
    )


class _ClosedForm(torch.autograd.Function):
    """A loss of rows whose derivatives by its parameters are computed on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        rows_nll: Callable[..., tuple[Tensor, ...]],
        needs_gradient: bool,
        logits_NV: Tensor,
        rows_M: Tensor,
        labels_M: Tensor,
        chunk: int,
        *parameters_M: Tensor,
    ) -> Tensor:
        parts = [
            rows_nll(
                logits_NV.index_select(0, rows_M[at_C]),
                labels_M[at_C].unsqueeze(-1),
                needs_gradient,
                *(parameter[at_C].unsqueeze(-1) for parameter in parameters_M),
            )
            for at_C in in_work(torch.arange(len(rows_M), device=rows_M.device), chunk)
        ]
        nll_M, *derivatives_M = (torch.cat(part).squeeze(-1) for part in zip(*parts, strict=True))
        ctx.save_for_backward(*derivatives_M)
        return nll_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, ...]:
        derivatives = [grad_M * derivative_M for derivative_M in ctx.saved_tensors]
        return (None, None, None, None, None, None, *derivatives)


def _soft_rows(
    logits_CV: Tensor,
    labels_C1: Tensor,
    needs_gradient: bool,
    temperature_C1: Tensor,
    top_p_C1: Tensor,
    steepness: float,
    exclusive: bool,
) -> tuple[Tensor, ...]:
    """Loss and derivatives (equations 1 to 3); x is -z, so that ascending is most likely first."""
    clamped_C1 = temperature_C1.clamp_min(_LEAST)
    x_CV = logits_CV / -clamped_C1
    del logits_CV
    label_C1 = x_CV.gather(1, labels_C1)
    column_V = torch.arange(x_CV.shape[1], device=x_CV.device)
    ties_CV = (x_CV == label_C1).logical_and_(column_V < labels_C1)
    rank_C1 = (x_CV < label_C1).sum(-1, keepdim=True) + ties_CV.sum(-1, keepdim=True)
    del ties_CV
    sort_rows_(x_CV)
    x_CV.sub_(x_CV[:, :1].clone()).clamp_max_(_FAR)
    p_CV = x_CV.neg().exp_()
    p_CV.div_(p_CV.sum(-1, keepdim=True))
    over_CV = p_CV.cumsum(-1).clamp_max_(1)
    if exclusive:
        over_CV.sub_(p_CV)
    over_CV.sub_(top_p_C1)
    beyond_CV = over_CV > 0
    kept_CV = over_CV.clamp_min_(0).mul_(-steepness).exp_().mul_(p_CV)
    total_C1 = kept_CV.sum(-1, keepdim=True) + _EPSILON
    label_p_C1 = kept_CV.gather(1, rank_C1) / total_C1
    nll_C1 = -(label_p_C1 + _EPSILON).log()
    if not needs_gradient:
        return (nll_C1,)

    # From here on the buffers take the names of what they hold next.
    label_beyond_C1 = beyond_CV.gather(1, rank_C1)
    mean_C1 = (p_CV * x_CV).sum(-1, keepdim=True)
    g_CV = x_CV.sub_(mean_C1).div_(clamped_C1)
    pg_CV = p_CV.mul_(g_CV)
    label_log_dT_C1 = g_CV.gather(1, rank_C1)
    total_dT_C1 = g_CV.mul_(kept_CV).sum(-1, keepdim=True)
    G_CV = torch.cumsum(pg_CV, -1, out=g_CV)
    if exclusive:
        G_CV.sub_(pg_CV)
    label_log_dT_C1 -= steepness * label_beyond_C1 * G_CV.gather(1, rank_C1)
    inside_CV = torch.mul(kept_CV, beyond_CV.logical_not_(), out=pg_CV)
    inside_C1 = inside_CV.sum(-1, keepdim=True)
    kept_CV.sub_(inside_CV)  # only what lies beyond
    total_dT_C1 -= steepness * G_CV.mul_(kept_CV).sum(-1, keepdim=True)
    # d log(label_p) by each parameter, written so that nothing nearly equal is subtracted.
    log_dP_C1 = torch.where(
        label_beyond_C1, inside_C1 + _EPSILON, -kept_CV.sum(-1, keepdim=True)
    ) * (steepness / total_C1)
    log_dT_C1 = label_log_dT_C1 - total_dT_C1 / total_C1
    chain_C1 = -label_p_C1 / (label_p_C1 + _EPSILON)
    unclamped_C1 = temperature_C1 >= _LEAST
    return nll_C1, chain_C1 * log_dT_C1 * unclamped_C1, chain_C1 * log_dP_C1


def _temperature_rows(
    logits_CV: Tensor,
    labels_C1: Tensor,
    needs_gradient: bool,
    temperature_C1: Tensor,
    min_temperature: float,
) -> tuple[Tensor, ...]:
    clamped_C1 = temperature_C1.clamp_min(min_temperature)
    x_CV = logits_CV / -clamped_C1
    del logits_CV
    x_CV.sub_(x_CV.amin(-1, keepdim=True))
    label_C1 = x_CV.gather(1, labels_C1)
    p_CV = x_CV.neg().exp_()
    total_C1 = p_CV.sum(-1, keepdim=True)
    nll_C1 = label_C1 + total_C1.log()
    if not needs_gradient:
        return (nll_C1,)
    mean_C1 = p_CV.mul_(x_CV.clamp_max_(_FAR)).sum(-1, keepdim=True) / total_C1
    unclamped_C1 = temperature_C1 >= min_temperature
    return nll_C1, (mean_C1 - label_C1) / clamped_C1 * unclamped_C1


def _check_options(steepness: float, cumsum: str) -> None:
    if not 0 <= steepness < float("inf"):
        raise ConfigError(f"`steepness` is {steepness}, but must be a number of at least 0.")
    if cumsum not in ("inclusive", "exclusive"):
        raise ConfigError(f'`cumsum` is {cumsum!r}, but must be "inclusive" or "exclusive".')
