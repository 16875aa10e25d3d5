"""autodeco.training-fixed-points: where the published losses lead a free temperature.

Shape suffixes: N positions, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from claims.figures import mean_and_spread
from hanol.autodeco import LossSettings, autodeco_loss
from hanol.claims import Claim, Measurement

_VOCAB = 20
_POSITIONS = 20_000
_MISCALIBRATED = (0.5, 1.0, 1.5)  # k: the base's logits are k log q
_DROP = 0.6
_TOLERANCE = 0.03


class _FreeTemperature(nn.Module):
    """One temperature in (0, 2) for every position, in the place of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, hidden_NH: Tensor) -> Tensor:
        return (2 * self.logit.sigmoid()).expand(len(hidden_NH))


def found(logits_V: Tensor, labels_N: Tensor, seed: int, steps: int, **options: Any) -> float:
    """The temperature to which the loss leads; the mean of the last fifth of the steps."""
    head = _FreeTemperature()
    as_head: Any = head
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    logits_NV = logits_V.expand(len(labels_N), -1)
    hidden_NH = torch.zeros(len(labels_N), 1)
    settings = LossSettings(chunk=len(labels_N), **options)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        result = autodeco_loss(
            logits_NV, hidden_NH, labels_N, as_head, None, settings, generator=generator
        )
        result.loss.backward()
        optimizer.step()
        scheduler.step()
        seen.append(2 * head.logit.detach().sigmoid().item())
    tail = seen[-max(1, steps // 5) :]
    return sum(tail) / len(tail)


def masked_root(logits_V: Tensor, q_V: Tensor) -> float:
    """T with E_softmax(l/T)[l] = E_r[l], r ~ q p_base (0.4 if it is the argmax, else 1)."""
    keep_V = torch.ones_like(q_V)
    keep_V[logits_V.argmax()] = 1 - _DROP
    r_V = q_V * logits_V.softmax(-1) * keep_V
    wanted = float((r_V / r_V.sum() * logits_V).sum())
    low, high = 0.01, 5.0  # the mean logit falls as the temperature rises
    for _ in range(50):
        middle = (low + high) / 2
        if ((logits_V / middle).softmax(-1) * logits_V).sum() > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    values: dict[str, list[float]] = {}
    worst = 0.0
    collapsed = 0.0
    steps = 5 if quick else 300
    for seed in seeds:
        rng = torch.Generator().manual_seed(seed)
        q_V = torch.rand(_VOCAB, generator=rng, dtype=torch.float64).pow(2).add(0.02)
        q_V /= q_V.sum()
        # As many labels of each token as its probability says: no noise but that of the drops.
        counts_V = (q_V * (200 if quick else _POSITIONS)).round().long()
        labels_N = torch.arange(_VOCAB).repeat_interleave(counts_V)
        q_V = counts_V.double() / counts_V.sum()
        for k in _MISCALIBRATED:
            logits_V = k * q_V.log()
            cases = {
                "cross-entropy": (k, {"dft": False, "easy_token_drop": 0.0}),
                "DFT": (k / (1 + k), {"easy_token_drop": 0.0}),
                "DFT, masked": (masked_root(logits_V, q_V), {"easy_token_drop": _DROP}),
            }
            for name, (theory, options) in cases.items():
                t = found(logits_V, labels_N, seed, steps, **options)
                values.setdefault(f"{name}, k = {k}: theory", []).append(theory)
                values.setdefault(f"{name}, k = {k}: found", []).append(t)
                worst = max(worst, abs(t - theory))
        t = found(q_V.log(), labels_N, seed, steps, recipe="megatron", easy_token_drop=0.0)
        values.setdefault("Megatron's DFT, k = 1: found", []).append(t)
        collapsed = max(collapsed, t)
    pairs = {name: mean_and_spread(over_seeds) for name, over_seeds in values.items()}
    figures = {name: pair[0] for name, pair in pairs.items()} | {"largest error": worst}
    return Measurement(
        verdict="shown" if worst <= _TOLERANCE and collapsed < 0.1 else "not shown",
        summary=f"Nine closed forms are met within {worst:.3f}: for a calibrated base "
        f"cross-entropy leads to T = {figures['cross-entropy, k = 1.0: found']:.3f}, the official "
        f"weighted loss to {figures['DFT, k = 1.0: found']:.3f}, with easy tokens dropped to "
        f"{figures['DFT, masked, k = 1.0: found']:.3f}; the other official trainer's weight "
        f"without drops to {collapsed:.3f}.",
        figures=figures,
        spread={name: pair[1] for name, pair in pairs.items()},
    )


TRAINING_FIXED_POINTS = Claim(
    id="autodeco.training-fixed-points",
    title="The published training losses lead to temperatures that can be computed beforehand, "
    "and they are not those that calibrate the model.",
    paper="Not in the paper: it trains with a likelihood weighted by the base's probability, and "
    "drops 60 % of the tokens that greedy decoding gets right (arXiv 2510.26697, section 2.3).",
    scale="20 tokens, logits k log q for k = 0.5, 1, 1.5, one free temperature, about 20,000 "
    "labels in the exact proportions of q, 300 steps; a new q for each seed.",
    expectation="Shown if plain cross-entropy leads to T = k, the weighted loss to k / (1 + k), "
    "with drops to the root of E_softmax(l/T)[l] = E_r[l], each within 0.03, and the weight by the "
    "tempered probability, without drops, below 0.1 (it maximises the expected accuracy).",
    larger="Nothing: the statement is exact.",
    experiment=_measure,
)
