"""Claims about test-time compute, journeys and verifiable rewards: their decision rules."""

from collections import defaultdict
from collections.abc import Callable

import pytest

from claims.figures import Figures
from claims.journey import beats_shortcut, distillation, dpo
from claims.rlvr import improves
from claims.test_time import (
    aggregation,
    beats_14x_model,
    compute_optimal_4x,
    flip_rate,
    revision_parallel_mix,
)
from claims.test_time import beam_vs_best_of_n_by_difficulty as beam
from hanol.claims import Measurement


def made(said: dict[str, float]) -> Figures:
    """Figures of two seeds that are 1 unless it is said otherwise."""
    figures = Figures()
    figures.values = defaultdict(lambda: [1.0, 1.0])
    figures.values.update({name: [value, value] for name, value in said.items()})
    return figures


BEAM = "beam - best-of-n, budget"
SHORT = "medium, journeys - "
CASES: list[tuple[Callable[[Figures], Measurement], dict[str, float], dict[str, float]]] = [
    (aggregation.verdict, {}, {"last over prod, 64 answers": -2}),
    (aggregation.verdict, {"last over min, 64 answers": -0.4},
     {"last over outcome, 64 answers, low": -0.1}),
    (beam.verdict, {f"{BEAM} 64, easy bins": 0}, {f"{BEAM} 64, easy bins": 0.5}),
    (beam.verdict, {f"{BEAM} 64, easy bins": -3},
     {f"{BEAM} 64, easy bins": -3, f"{BEAM} 16, medium bins, low": 0}),
    (compute_optimal_4x.optimal_verdict, {"times the budget, oracle bins, at 16": 2},
     {"times the budget, oracle bins, at 16": 1.9}),
    (beats_14x_model.larger_verdict,
     {"larger model, bin 1, %": 1, "larger model, bin 2, %": 0, "larger model, bin 5, %": 9},
     {"larger model, bin 1, %": 2, "larger model, bin 2, %": 0, "larger model, bin 5, %": 9}),
    (beats_14x_model.larger_verdict, {"larger model, bin 2, %": 0, "larger model, bin 5, %": 1.5},
     {"larger model, bin 2, %": 0, "larger model, bin 5, %": 0.5}),
    (revision_parallel_mix.mix_verdict, {"4 chains, bin 4, %": 2, "4 chains, bin 5, %": 2},
     {"4 chains, bin 4, %": 2, "one chain over parallel": 0}),
    (flip_rate.flip_verdict, {"right answers that became wrong, %": 5.1},
     {"right answers that became wrong, %": 5}),
    (flip_rate.flip_verdict, {"right answers that became wrong, %": 40},
     {"right answers that became wrong, %": 40, "chosen over last, low": 0}),
    (beats_shortcut.verdict, {}, {f"{SHORT}token-matched, 3270 trees, low": -1}),
    (dpo.dpo_verdict, {}, {"gain": -0.1}),
    (distillation.distillation_verdict, {"student - teacher": 2}, {"student - teacher": 2.1}),
    (improves.verdict, {"gain, verified": 6}, {"gain, verified": 5.9}),
    (improves.verdict, {"gain, verified": 30, "gain, random": 25},
     {"gain, verified": 30, "gain, random": 26}),
]  # fmt: skip


@pytest.mark.parametrize(("decide", "enough", "too_little"), CASES)
def test_verdicts_follow_the_expectations(
    decide: Callable[[Figures], Measurement],
    enough: dict[str, float],
    too_little: dict[str, float],
) -> None:
    assert decide(made(enough)).verdict == "shown"
    assert decide(made(too_little)).verdict == "not shown"
