"""Strategies side by side on many problems: accuracy against tokens, FLOPs and seconds.

Every generation is kept in a log, with the seconds that it took, and the rows of every finished
problem in a file: a sweep that was killed repeats none, and its rows are the same to the last byte
as far as they come from the log.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hanol.engines import CachedEngine, Engine
from hanol.errors import ConfigError, DataError
from hanol.rows import JsonLines
from hanol.runs import ResumeGuard, alone, in_thread, synchronous
from hanol.scoring import Interval, StepScorer, bootstrap, parse_verifier
from hanol.test_time._accounting import flops_multiplier
from hanol.test_time._policy import PolicyRecord, policy_key
from hanol.test_time._prompts import ThinkSettings
from hanol.test_time._run import arun, check_fits
from hanol.test_time._think import agreement, make_search
from hanol.test_time.searches import strategy_class
from hanol.worlds import MathProblem

_PROBES = 4  # answers from which the difficulty of a problem is told, as `athink` does


@dataclass(frozen=True)
class SweepPlan:
    """A strategy of a sweep.

    Args:
        strategy: Its name.
        options: Its further arguments.
    """

    strategy: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As tables and figures show it."""
        more = ",".join(f"{name}={value}" for name, value in sorted(self.options.items()))
        return f"{self.strategy}:{more}" if more else self.strategy

    @classmethod
    def parse(cls, text: str) -> "SweepPlan":
        """Read "beam" or "beam:width=4,lookahead=1".

        Raises:
            UnknownNameError: There is no such strategy.
            ConfigError: An option is not written as NAME=VALUE.
        """
        name, _, rest = text.partition(":")
        strategy_class(name)
        options: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise ConfigError(f"{part!r} of {text!r} is no option: write NAME=VALUE.")
            try:
                options[key] = json.loads(value)
            except ValueError:
                options[key] = value
        return cls(name, options)


@dataclass(frozen=True)
class SweepRow:
    """How one strategy did on one problem at one budget.

    Attributes:
        question: Id of the problem.
        plan: Name of the plan.
        budget: Complete answers that were paid for at most.
        answer: What was answered; None if nothing could be read.
        right: Whether the problem's verifier takes the solution.
        difficulty: Share of the first answers that agree; more is easier.
        generated_tokens: In all samples.
        verifier_tokens: That the verifier read.
        flops: Of the generated and verified tokens, and of the problem once.
        truncated: Share of the solutions that were cut off.
        seconds: In calls of the model, as they were measured when they were made.
    """

    question: str
    plan: str
    budget: int
    answer: str | None
    right: bool
    difficulty: float
    generated_tokens: int
    verifier_tokens: int
    flops: float
    truncated: float
    seconds: float


async def asweep(
    problems: Sequence[MathProblem],
    engine: Engine,
    verifier: StepScorer | None,
    plans: Sequence[SweepPlan],
    budgets: Sequence[int],
    folder: str | Path,
    *,
    settings: ThinkSettings | None = None,
    resume: bool = False,
    on_row: Callable[[int, int], None] | None = None,
) -> list[SweepRow]:
    """Run strategies on problems at several budgets.

    Whole answers are drawn once and shared: the budget of 16 has the answers of the budget of 4
    among its own, and votes have those of best-of-N.

    Args:
        problems: With answers and verifiers.
        engine: Samples solutions.
        verifier: Scores steps, for strategies that need it.
        plans: Strategies.
        budgets: Complete answers, ascending.
        folder: Keeps the rows (results.jsonl), finished generations (calls.jsonl) and settings.
        settings: How solutions are sampled.
        resume: Continue in a folder that has a sweep.
        on_row: Told how many problems are done, and of how many.

    Raises:
        DataError: There are no problems, or one has no answer.
        ConfigError: A strategy needs a verifier, or a budget does not fit it.
        CapabilityError: The engine cannot do what a strategy needs.
        RunError: The folder has a sweep of other settings, or has one and `resume` is not set.
    """
    settings, folder = settings or ThinkSettings(), Path(folder)
    if not problems:
        raise DataError("There are no problems to think about.")
    for plan in plans:  # all of them, before anything is generated
        check_fits(strategy_class(plan.strategy), engine, verifier)
        for budget in budgets:
            make_search(plan.strategy, budget, plan.options)
    with alone(folder):
        kept = {
            "key": policy_key(engine, settings, ""),
            "sampling": asdict(settings.sampling),
            "plans": [plan.name for plan in plans],
            "budgets": list(budgets),
            "questions": [problem.id for problem in problems],
        }
        guard = ResumeGuard(folder, kept, what="sweep", made=["results.jsonl"])
        if not guard.check(resume=resume):
            guard.write()
        results = JsonLines(folder / "results.jsonl")
        rows = [SweepRow(**row) for row in results.read()]
        done = {row.question for row in rows}
        known = CachedEngine(engine, folder / "calls.jsonl")
        for number, problem in enumerate(problems, start=1):
            if problem.id not in done:
                new = [
                    await _row(problem, plan, budget, known, verifier, settings)
                    for budget in sorted(budgets)
                    for plan in plans
                ]
                # Last, so that the smallest budget was timed with samples of its own.
                probe = make_search("majority", _PROBES, seed=settings.sampling.seed or 0)
                first = await arun(probe, known, None, problem.problem, settings)
                new = [replace(row, difficulty=agreement(first)) for row in new]
                results.append(*map(asdict, new))  # all of a problem, or none
                rows += new
            if on_row is not None:
                on_row(number, len(problems))
    return rows


sweep = synchronous(asweep)


async def _row(
    problem: MathProblem,
    plan: SweepPlan,
    budget: int,
    engine: Engine,
    verifier: StepScorer | None,
    settings: ThinkSettings,
) -> SweepRow:
    search = make_search(plan.strategy, budget, plan.options, seed=settings.sampling.seed or 0)
    thought = await arun(search, engine, verifier, problem.problem, settings)
    spent, text = thought.ledger, thought.text
    verify = parse_verifier(problem.verifier)
    right = bool(text) and await in_thread(verify, problem.problem, text, problem)
    generated = sum(node.cost for node in thought.nodes)
    flops = 2.0 * (engine.parameters or 0) * (generated + thought.prompt_tokens)
    flops += 2.0 * (getattr(verifier, "parameters", None) or 0) * spent.verifier_tokens
    answer = None if thought.answer is None else str(thought.answer)
    return SweepRow(
        problem.id, plan.name, budget, answer, right, 0.0, generated,
        spent.verifier_tokens, flops, thought.truncated, thought.model_seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class SweepPoint:
    """One strategy at one budget, over all problems.

    Attributes:
        plan: Name of the plan.
        budget: Complete answers.
        accuracy: Share of right answers, with its interval over problems.
        tokens: Generated tokens a problem.
        verifier_tokens: Verified tokens a problem.
        flops: FLOPs a problem.
        seconds: Seconds a problem.
        truncated: Share of solutions that were cut off.
    """

    plan: str
    budget: int
    accuracy: Interval
    tokens: float
    verifier_tokens: float
    flops: float
    seconds: float
    truncated: float


def sweep_points(rows: Iterable[SweepRow], *, seed: int = 0) -> list[SweepPoint]:
    """Means over problems, for each strategy and budget, in the order of the rows."""
    groups: dict[tuple[str, int], list[SweepRow]] = defaultdict(list)
    for row in rows:
        groups[row.plan, row.budget].append(row)
    points = []
    for (plan, budget), mine in groups.items():
        [accuracy] = bootstrap([[row.right] for row in mine], seed=seed)
        means = {
            name: float(np.mean([getattr(row, name) for row in mine]))
            for name in ("verifier_tokens", "flops", "seconds", "truncated")
        }
        tokens = float(np.mean([row.generated_tokens for row in mine]))
        points.append(SweepPoint(plan, budget, accuracy, tokens, **means))
    return points


def policy_records(rows: Iterable[SweepRow]) -> list[PolicyRecord]:
    """The rows of a sweep, for `fit_policy`."""
    made = []
    for row in rows:
        plan = SweepPlan.parse(row.plan)
        made.append(
            PolicyRecord(row.question, row.difficulty, row.budget, plan.strategy, row.right,
                         plan.options)
        )  # fmt: skip
    return made


@dataclass(frozen=True)
class MatchedPoint:
    """A small model that thinks, beside a larger one that answers once, at equal FLOPs.

    Attributes:
        ratio: Tokens of inference over tokens of training.
        multiplier: Times its own tokens that the small model may generate.
        budget: The largest budget of the sweep that this pays for; None if there is none.
        plan: The best strategy at that budget.
        small: Its accuracy.
        large: Accuracy of the larger model.
    """

    ratio: float
    multiplier: float
    budget: int | None
    plan: str
    small: float
    large: float


def flops_matched(
    points: Sequence[SweepPoint], large: float, *, scale: float, ratios: Sequence[float]
) -> list[MatchedPoint]:
    """Compare with a larger model at equal FLOPs of training and inference together.

    The best strategy of each budget is chosen on the same problems, which flatters the small model
    a little; a fitted policy does not have this fault.

    Args:
        points: Of the small model.
        large: Accuracy of the larger model's greedy answer.
        scale: Its parameters over those of the small one.
        ratios: Tokens of inference over tokens of training.
    """
    matched = []
    for ratio in ratios:
        multiplier = flops_multiplier(scale, ratio)
        paid = [point for point in points if point.budget <= multiplier]
        budget = max((point.budget for point in paid), default=None)
        best = max(
            (point for point in paid if point.budget == budget),
            key=lambda point: point.accuracy.value,
            default=None,
        )
        plan, small = ("", 0.0) if best is None else (best.plan, best.accuracy.value)
        matched.append(MatchedPoint(ratio, multiplier, budget, plan, small, large))
    return matched


def draw_points(points: Sequence[SweepPoint], path: str | Path, title: str = "") -> None:
    """Accuracy against tokens, FLOPs and seconds, one line a strategy, as a picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from hanol.errors import require
    from hanol.files import whole_file

    require("matplotlib", extra="train", feature="a figure")
    from matplotlib.figure import Figure

    lines: dict[str, list[SweepPoint]] = defaultdict(list)
    for point in points:
        lines[point.plan].append(point)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    about = (("tokens", "generated tokens a problem"), ("flops", "FLOPs a problem"),
             ("seconds", "seconds a problem"))  # fmt: skip
    for axis, (name, label) in zip(axes, about, strict=True):
        for plan, mine in lines.items():
            at = [getattr(point, name) for point in mine]
            mid = [point.accuracy.value for point in mine]
            low = [point.accuracy.value - point.accuracy.low for point in mine]
            high = [point.accuracy.high - point.accuracy.value for point in mine]
            axis.errorbar(at, mid, yerr=[low, high], marker="o", capsize=2, label=plan, lw=1.2)
        if all(getattr(point, name) > 0 for point in points):
            axis.set_xscale("log", base=2 if name == "tokens" else 10)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, 95 % interval over problems")
    axes[0].legend(fontsize="small")
    figure.suptitle(title)
    with whole_file(path) as part:
        figure.savefig(part, dpi=120, format="png")
