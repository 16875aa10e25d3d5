"""`hanol think compare` and `fit`: strategies side by side, and the policy that follows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hanol.cli._command import Result, command, option
from hanol.cli._console import new_console, say
from hanol.cli._options import LoadOptions, numbers
from hanol.cli._progress import interruptible, progress
from hanol.cli.think._options import (
    SOLUTIONS,
    ModelArgument,
    SolutionOptions,
    opened,
)

if TYPE_CHECKING:
    from hanol.test_time import MatchedPoint, SweepPoint, SweepRow
    from hanol.worlds import MathProblem


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Strategies on problems."""

    panel: ClassVar = "Sweep"
    problems: str = option(
        ...,
        "File of rows with problem and answer, or a world: chains:level=3, sums, gym:NAME.",
    )
    output: Path = option(..., "Folder for rows, finished generations and the result.")
    num_problems: int | None = option(
        None, "Number of problems. Omitted: 100 of a world, all of a file.", min=1
    )
    strategy: list[str] = option(
        ("majority", "adaptive"), "Strategy with its options, as beam:width=4; repeatable."
    )
    budgets: str = option(
        "1,4,16",
        "Budgets in complete answers, separated by commas.",
        parser=numbers(int, "numbers from 1, like 1,4,16"),
        metavar="N,N,...",
    )
    verifier: str | None = option(
        None,
        "What scores steps: folder or hub id of a process reward model, or judge:MODEL. "
        "Omitted: none.",
    )
    resume: bool = option(False, "Continue the sweep in --output.")

    def asked(self, seed: int, split: Literal["train", "test"]) -> "list[MathProblem]":
        """The problems."""
        from hanol.worlds import open_problems

        return open_problems(self.problems, count=self.num_problems, seed=seed, split=split)

    def rows(
        self,
        model: str,
        loading: LoadOptions,
        solutions: SolutionOptions,
        asked: "list[MathProblem]",
    ) -> "tuple[list[SweepRow], dict[str, str], int | None]":
        """The rows of the sweep, what they are of, and the model's parameters."""
        from hanol.runs import synchronous
        from hanol.test_time import SweepPlan, asweep, policy_key

        plans = [SweepPlan.parse(text) for text in self.strategy]
        budgets: Any = self.budgets  # numbers, once parsed
        with (
            interruptible("continue with --resume"),
            opened(model, loading, None, self.verifier) as (engine, scorer),
            progress(f"{model} thinks") as report,
        ):
            rows = synchronous(asweep)(
                asked, engine, scorer, plans, sorted(budgets), self.output,
                settings=solutions.settings, resume=self.resume, on_row=report,
            )  # fmt: skip
            return rows, policy_key(engine, solutions.settings, self.problems), engine.parameters


@command
def compare(
    model: ModelArgument,
    loading: LoadOptions,
    sweep: SweepOptions,
    larger: str | None = option(
        None, "Larger model, whose greedy answer is compared at equal FLOPs. Omitted: none."
    ),
    policy: Path | None = option(None, "Policy whose own questions are refused. Omitted: none."),
    solutions: SolutionOptions = SOLUTIONS,
) -> Result:
    """Compare strategies: accuracy against tokens, FLOPs and seconds.

    Writes results.jsonl, one row a problem, strategy and budget, and thinking.png. With --larger,
    the small model's best strategy stands beside the larger one's greedy answer at equal FLOPs of
    training and inference together, for three ratios of the two.

    Example: hanol think compare smollm2 --problems sums --num-problems 50 --output runs/think
    """
    from hanol.errors import ConfigError
    from hanol.test_time import PolicyTable, draw_points, flops_matched, sweep_points

    asked = sweep.asked(solutions.seed, "test")
    if policy is not None:
        PolicyTable.load(policy).check_questions([one.problem for one in asked])
    rows, _, size = sweep.rows(model, loading, solutions, asked)
    points = sweep_points(rows)
    title = f"{model}, {len(asked)} of {sweep.problems}"
    draw_points(points, sweep.output / "thinking.png", title)
    matched: list[MatchedPoint] = []
    if larger is not None:
        once = replace(
            sweep, strategy=["greedy"], budgets=(1,), verifier=None,  # type: ignore[arg-type]
            output=sweep.output / "larger",
        )  # fmt: skip
        big, _, large_size = once.rows(larger, loading, solutions, asked)
        if not (size and large_size):
            raise ConfigError("Both models must run in this process: FLOPs of others are unknown.")
        [large] = sweep_points(big)
        ratios = (0.16, 0.79, 22)  # of the paper
        matched = flops_matched(
            points, large.accuracy.value, scale=large_size / size, ratios=ratios
        )
    plain = {
        "model": model,
        "problems": sweep.problems,
        "points": [{**vars(one), "accuracy": one.accuracy.model_dump()} for one in points],
        "larger": larger,
        "matched": [vars(one) for one in matched],
    }

    def show() -> None:
        _show_points(title, points)
        for one in matched:
            small = (
                "no budget of the sweep is paid for"
                if one.budget is None
                else f"{one.plan} with {one.budget}: {one.small:.3f}"
            )
            say(
                f"R = {one.ratio:g}, {one.multiplier:.1f} times the tokens: {small}; "
                f"{larger} once: {one.large:.3f}"
            )

    return Result(plain, show)


def _show_points(title: str, points: "list[SweepPoint]") -> None:
    from rich.table import Table

    table = Table(title=title)
    for name in ("strategy", "budget", "accuracy", "95 %", "tokens", "verified", "FLOPs",
                 "seconds", "cut off"):  # fmt: skip
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for one in points:
        accuracy = one.accuracy
        table.add_row(
            one.plan, str(one.budget), f"{accuracy.value:.3f}",
            f"{accuracy.low:.3f}-{accuracy.high:.3f}", f"{one.tokens:,.0f}",
            f"{one.verifier_tokens:,.0f}", f"{one.flops:.3g}", f"{one.seconds:.2f}",
            f"{one.truncated:.0%}",
        )  # fmt: skip
    new_console(width=110).print(table)


@command
def fit(
    model: ModelArgument,
    loading: LoadOptions,
    sweep: SweepOptions,
    bins: int = option(5, "Bins of difficulty.", min=1),
    solutions: SolutionOptions = SOLUTIONS,
) -> Result:
    """Fit a policy: the best strategy for each difficulty and budget.

    Runs the strategies on the problems, sorts these into bins by how far the first answers agree,
    and chooses by two folds of each bin. Writes policy.json, for this model, task and template
    alone.

    Example: hanol think fit smollm2 --problems train.jsonl --output runs/policy
    """
    from hanol.test_time import fit_policy, policy_records

    asked = sweep.asked(solutions.seed, "train")
    rows, key, _ = sweep.rows(model, loading, solutions, asked)
    texts = {one.id: one.problem for one in asked}
    # By their texts, which tell whether others are the same; ids may be numbers of lines.
    records = [replace(one, question=texts[one.question]) for one in policy_records(rows)]
    table = fit_policy(records, bins=bins, key=key, seed=solutions.seed)
    path = sweep.output / "policy.json"
    table.save(path)

    def show() -> None:
        from rich.table import Table

        shown = Table(title=f"{path}: best strategy by difficulty (1 is easiest) and budget")
        for name in ("budget", "bin", "strategy", "accuracy", "95 %", "questions"):
            shown.add_column(name, justify="left" if name == "strategy" else "right")
        for budget, of in table.entries.items():
            for number, entry in of.items():
                more = ",".join(f"{name}={value}" for name, value in entry.options.items())
                shown.add_row(
                    str(budget), str(number), f"{entry.strategy}:{more}".rstrip(":"),
                    f"{entry.accuracy:.3f}", f"{entry.low:.3f}-{entry.high:.3f}",
                    str(entry.questions),
                )  # fmt: skip
        new_console(width=110).print(shown)

    return Result(table.to_dict(), show)
