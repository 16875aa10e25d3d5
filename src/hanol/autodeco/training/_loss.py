"""What AutoDeco's heads are trained with: two likelihoods of the next token, no labels for T or P.

The two official trainers optimise different things under one name; `recipe` tells them apart:

| | "hf" | "megatron" |
|---|---|---|
| weight of the temperature loss | softmax(l)[y] | softmax(l / T)[y] |
| easy tokens are dropped from | the temperature loss | both losses |
| the top-p head sees T | without gradient | with gradient |
| T counts as at least | 1e-2, in the soft top-p 1e-8 | 1e-8 |
| entropy for the top-p head | -sum q log(q + 1e-8) | exact |

Where they lead, with base logits l = k log(true q): plain cross-entropy (`dft=False`) takes a free
T to k. "hf" without dropping takes it to k / (1 + k), which is 0.5 for a perfectly calibrated base;
dropping 60 % of the easy tokens corrects most of that. "megatron" maximises the expected accuracy:
without dropping, T collapses to 0.

Shape suffixes: N positions, V vocabulary, H hidden width, M positions with a label.
Source: arXiv 2510.26697, section 2.3; the weight by the token's probability ("dynamic
fine-tuning") is that of arXiv 2508.05629.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hanol.autodeco._heads import TemperatureHead, TopPHead, statistics
from hanol.errors import ConfigError, DataError, ShapeError
from hanol.sampling import (
    STEEPNESS,
    Cumsum,
    in_work,
    soft_top_p_nll_of_rows,
    temperature_nll_of_rows,
)
from hanol.training import Section

IGNORED = -100


class LossSettings(Section):
    """Options of the loss of the heads; the defaults are the paper's."""

    recipe: Literal["hf", "megatron"] = Field("hf", description="Official trainer to follow.")
    top_p_loss: Literal["soft", "mse"] = Field(
        "soft",
        description='"soft" is the likelihood under soft top-p. "mse" is the older official loss: '
        "squared distance to the mass of the label and all more likely tokens, twice as heavy "
        "where P is too low, without easy tokens.",
    )
    easy_token_drop: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Share of easy tokens (those that greedy decoding gets right) that are "
        "ignored, drawn anew each time.",
    )
    dft: bool = Field(True, description="Weight each token by its probability.")
    train_temperature: bool = Field(
        True, description="Train the temperature head; its T is always used."
    )
    train_top_p: bool = Field(True, description="Train the top-p head.")
    steepness: float = Field(STEEPNESS, ge=0, description="How fast tokens fade beyond P.")
    cumsum: Cumsum = Field("inclusive", description='"exclusive" tends to hard top-p.')
    reduction: Literal["token", "micro_mean"] = Field(
        "token",
        description='"token" weights a micro-batch by its share of the labels. "micro_mean" does '
        'not, as the official trainer under "hf": accumulation gives a mean of means.',
    )
    chunk: int = Field(
        256, ge=1, description="Bounds memory: under 3 * chunk * vocabulary numbers (from 2 on)."
    )


@dataclass(frozen=True)
class AutoDecoLoss:
    """One loss and its parts, all but `loss` detached; None for a head that is not trained."""

    loss: Tensor  # 0 with a graph when no position has a label
    temperature_loss: Tensor | None  # mean over the positions that counted
    top_p_loss: Tensor | None
    temperature_M: Tensor  # of each position with a label
    top_p_M: Tensor | None
    num_labels: int
    num_dropped: Tensor  # positions dropped as easy; a tensor, so that nothing waits for it


def autodeco_loss(
    logits_NV: Tensor,
    hidden_NH: Tensor,
    labels_N: Tensor,
    temperature_head: TemperatureHead | None,
    top_p_head: TopPHead | None,
    settings: LossSettings | None = None,
    *,
    generator: torch.Generator | None = None,
    num_items: int | Tensor | None = None,
) -> AutoDecoLoss:
    """Loss of a micro-batch for the heads; logits and hidden states get no gradient.

    The heads run only on the positions with a label, and everything as wide as the vocabulary is
    made for some rows at a time.

    Args:
        logits_NV: The base's logits before any temperature, any float dtype.
        hidden_NH: The hidden states that they were computed from.
        labels_N: The token that each row of logits predicts (so already shifted by one); -100
            where there is none.
        temperature_head: None takes T = 1.
        top_p_head: None when there is none.
        settings: Options; None takes the defaults.
        generator: Draws the dropped tokens, one number for each label. Save its state to resume;
            None is torch's global one.
        num_items: Labels of the whole global batch, for the reduction "token"; None when this is
            all of it.

    Raises:
        ShapeError: Rows or widths do not fit.
        DataError: A label is neither -100 nor a token that the logits can give.
        ConfigError: There is no head to train.

    Source: section 2.3; the weights of the two losses are 1 and 1.
    """
    settings = settings or LossSettings()
    chunk = settings.chunk
    train_temperature = settings.train_temperature and temperature_head is not None
    train_top_p = settings.train_top_p and top_p_head is not None
    if not train_temperature and not train_top_p:
        raise ConfigError("There is no head to train: pass one whose `train_...` switch is on.")
    if (
        logits_NV.ndim != 2
        or hidden_NH.ndim != 2
        or not logits_NV.shape[:1] == hidden_NH.shape[:1] == labels_N.shape
    ):
        raise ShapeError(
            f"`logits_NV` {tuple(logits_NV.shape)}, `hidden_NH` {tuple(hidden_NH.shape)} and "
            f"`labels_N` {tuple(labels_N.shape)} must be (rows, vocabulary), (rows, width) and "
            "(rows,). Flatten the batch first."
        )
    logits_NV = logits_NV.detach()
    rows_M = (labels_N != IGNORED).nonzero().squeeze(-1)
    labels_M = labels_N[rows_M]
    V = logits_NV.shape[1]
    wrong_M = (labels_M < 0) | (labels_M >= V)
    if wrong_M.any():
        raise DataError(
            f"A label is {labels_M[wrong_M][0].item()}, but the logits have {V} columns: labels "
            f"must be in [0, {V}), or {IGNORED} where nothing is to be predicted."
        )
    hidden_MH = hidden_NH.detach()[rows_M]
    base_log_p_M, is_easy_M = _under_base(logits_NV, rows_M, labels_M, chunk)
    counts_M = ~(is_easy_M & (_uniform(rows_M, generator) < settings.easy_token_drop))
    base_weight_M = base_log_p_M.exp() if settings.dft else torch.ones_like(base_log_p_M)
    is_megatron = settings.recipe == "megatron"

    if temperature_head is None:
        temperature_M = torch.ones_like(base_log_p_M)
    else:
        with torch.set_grad_enabled(train_temperature and torch.is_grad_enabled()):
            temperature_M = temperature_head(hidden_MH).to(base_log_p_M.dtype)
    means: dict[str, Tensor] = {}
    if train_temperature:
        least = 1e-8 if is_megatron else 1e-2
        nll_M = temperature_nll_of_rows(logits_NV, rows_M, temperature_M, labels_M, least, chunk)
        weight_M = nll_M.detach().neg().exp() if is_megatron and settings.dft else base_weight_M
        means["temperature"] = _mean(weight_M * nll_M, counts_M)
    top_p_M = None
    if train_top_p:
        assert top_p_head is not None
        seen_M = temperature_M if is_megatron else temperature_M.detach()
        top_p_M = _top_p(top_p_head, logits_NV, rows_M, hidden_MH, seen_M, is_megatron, chunk)
        top_p_M = top_p_M.to(base_log_p_M.dtype)
        if settings.top_p_loss == "soft":
            nll_M = soft_top_p_nll_of_rows(
                logits_NV, rows_M, temperature_M, top_p_M, labels_M, settings.steepness,
                settings.cumsum, chunk,
            )  # fmt: skip
            everything = torch.ones_like(counts_M)
            means["top_p"] = _mean(base_weight_M * nll_M, counts_M if is_megatron else everything)
        else:
            short_M = _mass_at_label(logits_NV, rows_M, temperature_M, labels_M, chunk) - top_p_M
            heavier_M = torch.where(short_M.detach() > 0, 2.0, 1.0)
            means["top_p"] = _mean(heavier_M * short_M.square(), counts_M)

    loss = torch.stack(list(means.values())).sum()
    if settings.reduction == "token" and num_items is not None:
        loss = loss * len(rows_M) / torch.as_tensor(num_items, device=loss.device).clamp_min(1)
    return AutoDecoLoss(
        loss=loss,
        temperature_loss=means["temperature"].detach() if train_temperature else None,
        top_p_loss=means["top_p"].detach() if train_top_p else None,
        temperature_M=temperature_M.detach(),
        top_p_M=None if top_p_M is None else top_p_M.detach(),
        num_labels=len(rows_M),
        num_dropped=(~counts_M).sum(),
    )


def _mean(loss_M: Tensor, counts_M: Tensor) -> Tensor:
    # Without any position this is 0, with a graph.
    return (loss_M * counts_M).sum() / counts_M.sum().clamp_min(1)


def _uniform(rows_M: Tensor, generator: torch.Generator | None) -> Tensor:
    # Drawn where the generator lives: the same numbers whatever the model runs on.
    device = "cpu" if generator is None else generator.device
    return torch.rand(len(rows_M), generator=generator, device=device).to(rows_M.device)


def _under_base(
    logits_NV: Tensor, rows_M: Tensor, labels_M: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of each label without temperature, and whether it is the most likely."""
    dtype = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
    log_p_M = torch.empty(len(rows_M), dtype=dtype, device=logits_NV.device)
    is_easy_M = torch.empty(len(rows_M), dtype=torch.bool, device=logits_NV.device)
    for at_C in in_work(torch.arange(len(rows_M), device=rows_M.device), chunk):
        logits_CV = logits_NV[rows_M[at_C]].to(dtype)
        labels_C = labels_M[at_C]
        label_logit_C = logits_CV.gather(1, labels_C.unsqueeze(-1)).squeeze(-1)
        log_p_M[at_C] = label_logit_C - logits_CV.logsumexp(-1)
        is_easy_M[at_C] = logits_CV.argmax(-1) == labels_C
    bad_M = ~log_p_M.isfinite()
    if bad_M.any():
        raise DataError(
            f"Row {int(rows_M[bad_M][0])} has label {int(labels_M[bad_M][0])} with "
            f"log-probability {log_p_M[bad_M][0].item()} under the base: its logits are not "
            "finite there (an overflow), or the label is a token that the vocabulary excludes."
        )
    return log_p_M, is_easy_M


def _top_p(
    head: TopPHead,
    logits_NV: Tensor,
    rows_M: Tensor,
    hidden_MH: Tensor,
    temperature_M: Tensor,
    is_megatron: bool,
    chunk: int,
) -> Tensor:
    if not head.enhanced:
        return head(hidden_MH, temperature_M)
    entropy: Literal["parity", "logsumexp"] = "logsumexp" if is_megatron else "parity"

    def of_rows(rows_C: Tensor, temperature_C: Tensor) -> Tensor:
        return statistics(logits_NV[rows_C], temperature_C, entropy=entropy)

    # On the way back they are computed again, instead of kept as wide as the vocabulary.
    parts = [
        checkpoint(of_rows, *block, use_reentrant=False, preserve_rng_state=False)
        for block in zip(in_work(rows_M, chunk), in_work(temperature_M, chunk), strict=True)
    ]
    return head(hidden_MH, temperature_M, torch.cat(parts))


@torch.no_grad()
def _mass_at_label(
    logits_NV: Tensor, rows_M: Tensor, temperature_M: Tensor, labels_M: Tensor, chunk: int
) -> Tensor:
    """Mass of each label and all tokens before it in descending order: the target of "mse"."""
    column_V = torch.arange(logits_NV.shape[1], device=logits_NV.device)
    masses = []
    for at_C in in_work(torch.arange(len(rows_M), device=rows_M.device), chunk):
        temperature_C1 = temperature_M[at_C].clamp_min(1e-8).unsqueeze(-1)
        z_CV = logits_NV[rows_M[at_C]].to(temperature_C1.dtype).div_(temperature_C1)
        label_C1 = labels_M[at_C].unsqueeze(-1)
        z_label_C1 = z_CV.gather(1, label_C1)
        p_CV = z_CV.softmax(-1)
        later_CV = (z_CV == z_label_C1).logical_and_(column_V > label_C1)
        p_CV.masked_fill_(later_CV, 0)
        p_CV.masked_fill_(torch.lt(z_CV, z_label_C1, out=later_CV), 0)
        masses.append(p_CV.sum(-1))
    return torch.cat(masses)
