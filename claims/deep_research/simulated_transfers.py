"""deep-research.simulated-transfers: the run of rl-improves where tools fail."""

from collections.abc import Sequence
from statistics import correlation

from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    Tools,
    add_attempts,
    right,
    shuffled,
)
from claims.deep_research.reinforced import (
    CHECKPOINTS,
    STEPS,
    asked,
    base,
    checkpoint_of,
    reinforced,
)
from claims.deep_research.unreliable import ResultCache, SteadyTool, UnreliableTool
from claims.figures import Figures, gain
from claims.small import one_thread
from hanol.claims import Claim, Measurement, Verdict
from hanol.retrieval import Index
from hanol.tools import Tool

_FAILURES, _LATENCY_S = 0.2, 0.005


def unreliable(seed: int, *, steady: bool) -> Tools:
    """Tools as the web has them, behind the layer that hides it or bare."""

    def tools(index: Index) -> Sequence[Tool]:
        kept = ResultCache()
        failing = [
            UnreliableTool(tool, failures=_FAILURES, latency_s=_LATENCY_S, seed=seed)
            for tool in shuffled(seed + 1)(index)
        ]
        return [SteadyTool(tool, kept) for tool in failing] if steady else failing

    return tools


def _simulated(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        with one_thread():
            _one_simulated(seed, quick, figures)
    return simulated_verdict(figures)


def _one_simulated(seed: int, quick: bool, figures: Figures) -> None:
    run = reinforced(seed, quick, "rl-kept", (1, 2), no_answer="kept")
    for number, step in enumerate(_curve(quick)):
        checkpoint = checkpoint_of(run, step) if step else base(seed, quick)
        # The first and the last are those of the claim about reinforcement learning.
        shared = {0: "fine-tuned", len(_curve(quick)) - 1: "rl-kept"}
        name = shared.get(number, f"rl-kept-{step}")
        clean = asked(seed, quick, name, checkpoint)
        steady = asked(
            seed, quick, f"{name}-steady", checkpoint, tools=unreliable(seed, steady=True)
        )
        add_attempts(figures, f"simulated, step {step}", clean)
        add_attempts(figures, f"unreliable, step {step}", steady)
    figures.add_gain("unreliable over simulated, last", gain(right(clean), right(steady)))
    bare = asked(seed, quick, f"{name}-bare", checkpoint, tools=unreliable(seed, steady=False))
    add_attempts(figures, "unreliable without the layer, last", bare)


def _curve(quick: bool) -> list[int]:
    steps = 1 if quick else STEPS
    return list(range(0, steps + 1, max(1, steps // CHECKPOINTS)))


def simulated_verdict(figures: Figures) -> Measurement:
    """Whether both environments see the same curve and nearly the same end."""
    steps = [int(name.split()[-1]) for name in figures.values if _is_point(name)]
    simulated = [figures[f"simulated, step {step}"] for step in steps]
    steady = [figures[f"unreliable, step {step}"] for step in steps]
    same = rank_correlation(simulated, steady)
    figures.add("rank correlation of the mean curves", same)
    drop = -figures["unreliable over simulated, last"]
    verdict: bool | Verdict = same >= 0.8 and drop <= 10
    if max(simulated) - min(simulated) < 5:
        verdict = "cannot be shown at this scale"  # noise has an order too
    return figures.measurement(
        verdict,
        f"Right answers over the run, mean of seeds: "
        f"{', '.join(f'{value:.0f}' for value in simulated)} % where it was trained and "
        f"{', '.join(f'{value:.0f}' for value in steady)} % with tools that fail in {_FAILURES:.0%}"
        f" of the calls behind retries and a cache (rank correlation {same:.2f}, {drop:.1f} points "
        "fewer at the end); without that layer "
        f"{figures['unreliable without the layer, last']:.0f} %.",
    )


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, with mean ranks for equal values; 0 where either does not change."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    first, second = (
        [sum(b < a for b in values) + sum(b == a for b in values) / 2 for a in values]
        for values in (x, y)
    )
    return correlation(first, second)


def _is_point(name: str) -> bool:
    return name.startswith("simulated, step ") and ":" not in name


SIMULATED_TRANSFERS = Claim(
    id="deep-research.simulated-transfers",
    title="What is learned in a quiet simulated environment holds where tools fail.",
    paper="Rewards in the simulated environment (a 2024 Wikipedia and local retrieval) and in the "
    "real one rise with the same shape, about 0.48 to 0.75 and 0.48 to 0.65 (Tongyi DeepResearch, "
    f"{PAPER}, read off plots).",
    scale="The run of deep-research.rl-improves with lost attempts kept, trained with tools that "
    f"never fail. Its checkpoints after every {STEPS // CHECKPOINTS} steps answer 400 unseen "
    f"questions there, and where each call fails with a chance of {_FAILURES:.0%}, takes "
    f"{1000 * _LATENCY_S:.0f} ms on average, and results come in another order, behind the layer "
    "that tries three times and keeps results; the last one also without that layer. The live web "
    "itself is not tried.",
    expectation="Shown if the curves of right answers over the run, means over seeds, have a rank "
    "correlation of at least 0.8, and the last checkpoint loses at most 10 points behind the "
    "layer. Cannot be shown at this scale if the curve where it was trained moves by less than 5 "
    "points. Without the layer a large drop is expected: the expert never showed a failure.",
    larger="Tools over the web (`hanol research --web`), rewards of both environments from "
    f"`metrics.jsonl` of two runs of `hanol train`. {BENCHMARKS}.",
    experiment=_simulated,
)
