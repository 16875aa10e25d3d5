"""`hanol eval judge` and `hanol eval rescore`: outputs before judges, by a rubric."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hanol.cli._command import Result, argument, command, option
from hanol.cli._options import ConcurrencyOption, DryRunOption, SeedOption, open_engine
from hanol.cli._progress import interruptible, progress
from hanol.errors import ConfigError, DataError, EngineError

if TYPE_CHECKING:
    from hanol.evaluation import Item, Judgement, JudgePlan, JudgeReport, JudgeRun, Rubric

_Protocol = Literal["paper", "official", "single", "panel", "roles"]
_JUDGE = (
    "Model that judges, in all roles; repeatable: the scorers, then the judge of a debate. "
    "metric:NAME:T1,T2 is a metric, whose levels begin at the thresholds."
)


@dataclass(frozen=True, kw_only=True)
class JudgingOptions:
    """How judges work."""

    panel: ClassVar = "Judging"
    protocol: _Protocol = option(
        "paper",
        "Two scorers and a judge who debate (paper, official), one scorer (single), several that "
        "do not talk (panel), or one for each criterion (roles).",
    )
    max_rounds: int = option(4, "Maximum number of rounds of a debate.", min=1, max=32)
    judge_optional: bool = option(False, "Stop without the judge where both scorers agree.")
    aggregate: Literal["median", "mean", "majority"] = option(
        "median", "How a panel comes to one score."
    )
    num_members: int = option(3, "Members of a panel of one model.", min=1, max=64)
    score_mode: Literal["single", "sampled-mean", "token-weighted"] = option(
        "single", "What a score of protocol single is: one reply's, a mean, or weighted levels."
    )
    repeat: int = option(1, "How often each item is judged, for test and retest.", min=1, max=100)
    max_tokens: int = option(2048, "Maximum number of tokens of a reply.", min=1)

    def settings(self, seed: int) -> Any:
        """The settings of a run."""
        from hanol.evaluation import JudgeSettings

        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return JudgeSettings(seed=seed, members=given.pop("num_members"), **given)


@dataclass(frozen=True, kw_only=True)
class JudgeBudgetOptions:
    """What a run of judges may spend."""

    panel: ClassVar = "Budget"
    max_calls: int | None = option(None, "Maximum number of model calls. Omitted: no limit.", min=1)
    max_total_tokens: int | None = option(
        None, "Maximum number of prompt and reply tokens together. Omitted: no limit.", min=1
    )
    max_cost: float | None = option(
        None, "Spending limit, in the same currency as the prices. Omitted: no limit."
    )
    prompt_price: float = option(0.0, "Price per million prompt tokens.")
    completion_price: float = option(0.0, "Price per million generated tokens.")

    def limits(self, concurrency: int) -> Any:
        """The limits of a run."""
        from hanol.evaluation import JudgeLimits

        return JudgeLimits(
            concurrency=concurrency,
            max_calls=self.max_calls,
            max_tokens_total=self.max_total_tokens,
            max_cost=self.max_cost,
            prompt_price=self.prompt_price,
            completion_price=self.completion_price,
        )


@command
def judge(
    outputs: Path = argument(
        "Outputs to judge: JSON lines, CSV or TSV of items (id, candidate, source, task, system), "
        "a Label Studio export, or JSON of DITING's code.",
        metavar="OUTPUTS",
    ),
    judges: list[str] = option(..., _JUDGE, "--judge"),
    suite: str = option(
        "diting", "Rubric: diting, one of its tasks, summary, research-report, or a YAML file."
    ),
    judging: JudgingOptions = JudgingOptions(),
    budget: JudgeBudgetOptions = JudgeBudgetOptions(),
    sources: Path | None = option(
        None, "JSON lines with the id and the source of items that have pointers. Omitted: none."
    ),
    output: Path | None = option(
        None, "Folder of the run; what it has is not judged again. Omitted: OUTPUTS.judged."
    ),
    html: Path | None = option(None, "Page with all debates to write. Omitted: none."),
    official: Path | None = option(
        None, "JSON as DITING's code writes it, to write. Omitted: none."
    ),
    concurrency: ConcurrencyOption = 16,
    seed: SeedOption = 0,
    allow_coverage: bool = option(
        False, "Rank systems although different shares of their items are scored."
    ),
    dry_run: DryRunOption = False,
) -> Result:
    """Judge outputs by a rubric: one judge, a panel or a debate, with reasons.

    A run goes on where it was stopped, and judges nothing twice.

    Example: hanol eval judge outputs.jsonl --suite diting --judge http://localhost:8000/v1#qwen3
    """
    from hanol.evaluation import Rubric, read_outputs

    run = output or outputs.with_name(outputs.name + ".judged")
    return _judged(
        read_outputs(outputs), Rubric.load(suite), judges, run,
        settings=judging.settings(seed), limits=budget.limits(concurrency),
        files=(sources, html, official), allow_coverage=allow_coverage, dry_run=dry_run,
    )  # fmt: skip


@command
def rescore(
    run: Path = argument("Folder of an earlier run, or its judgements.jsonl.", metavar="RUN"),
    judges: list[str] = option(..., _JUDGE, "--judge"),
    suite: str | None = option(None, "Another rubric. Omitted: that of the run."),
    judging: JudgingOptions = JudgingOptions(),
    budget: JudgeBudgetOptions = JudgeBudgetOptions(),
    sources: Path | None = option(
        None, "JSON lines with the id and the source of items that have pointers. Omitted: none."
    ),
    output: Path | None = option(None, "Folder of the new run. Omitted: RUN.rescored."),
    html: Path | None = option(None, "Page with all debates to write. Omitted: none."),
    official: Path | None = option(
        None, "JSON as DITING's code writes it, to write. Omitted: none."
    ),
    concurrency: ConcurrencyOption = 16,
    seed: SeedOption = 0,
    allow_coverage: bool = option(
        False, "Rank systems although different shares of their items are scored."
    ),
    dry_run: DryRunOption = False,
) -> Result:
    """Judge the outputs of an earlier run again, by another judge.

    Nothing is generated anew, and the rubric is that of the run unless another is named.

    Example: hanol eval rescore outputs.jsonl.judged --judge http://localhost:8000/v1#gpt-oss
    """
    from hanol.evaluation import Rubric, read_judgements, stored_rubric

    earlier = read_judgements(run)
    items = list({one.id: one.item for one in earlier}.values())
    rubric = Rubric.load(suite) if suite is not None else stored_rubric(run, earlier)
    folder = run if run.is_dir() else run.parent
    return _judged(
        items, rubric, judges, output or folder.with_name(folder.name + ".rescored"),
        settings=judging.settings(seed), limits=budget.limits(concurrency),
        files=(sources, html, official), allow_coverage=allow_coverage, dry_run=dry_run,
    )  # fmt: skip


def _judged(
    items: Sequence["Item"],
    rubric: "Rubric",
    judges: Sequence[str],
    run: Path,
    *,
    settings: Any,
    limits: Any,
    files: tuple[Path | None, Path | None, Path | None],
    allow_coverage: bool,
    dry_run: bool,
) -> Result:
    from hanol.evaluation import JudgeRun, judge_report, render_judgements, write_official
    from hanol.files import replace_text
    from hanol.runs import synchronous

    sources, html, official = files
    with ExitStack() as at_end:
        engines = {spec: _open(spec, limits.concurrency) for spec in dict.fromkeys(judges)}
        for engine in engines.values():
            at_end.callback(synchronous(engine.aclose))
        team = [engines[spec] for spec in judges]
        judging = JudgeRun(
            rubric, team if len(team) > 1 else team[0], settings=settings, limits=limits, run=run,
            source_resolver=_resolver(sources),
        )  # fmt: skip
        if dry_run:
            plan = judging.estimate(items)
            return Result({**vars(plan), "run": str(run)}, _planned(plan, run))
        found: list[Judgement] = []
        with interruptible(), progress("judging") as show:

            def on_judgement(one: "Judgement") -> None:
                found.append(one)
                show(len(found), len(items) * settings.repeat, one.problem or "")

            synchronous(judging.judge)(items, on_judgement)
    order = {item.id: place for place, item in enumerate(items)}
    found.sort(key=lambda one: (order[one.id], one.repeat))
    if all(one.scores is None for one in found):
        raise EngineError(f"None of {len(found)} items got a score: {found[0].problem}")
    result = judge_report(found, rubric.most, allow_coverage=allow_coverage)
    if html is not None:
        replace_text(html, render_judgements(found, result))
    if official is not None:
        write_official(found, official)
    plain = {**result.model_dump(), "run": str(run), "reused": judging.reused,
             "spent": judging.spent.to_dict()}  # fmt: skip
    return Result(plain, _shown(result, judging, run))


def _open(spec: str, concurrency: int) -> Any:
    """An engine; an endpoint takes as many calls at a time as the run makes."""
    if spec.startswith("metric:"):
        return _metric(spec)
    is_endpoint = spec.partition(":")[0] in ("http", "https")
    return open_engine(spec, **({"max_concurrency": concurrency} if is_endpoint else {}))


def _metric(spec: str) -> Any:
    from hanol.evaluation import MetricJudge, open_metric

    name, _, cuts = spec.removeprefix("metric:").rpartition(":")
    try:
        thresholds = [float(cut) for cut in cuts.split(",")]
    except ValueError:
        raise ConfigError(
            f"{spec!r} is no metric with thresholds: write metric:chrf:30,50."
        ) from None
    return MetricJudge(open_metric(name), thresholds)


def _resolver(path: Path | None) -> Any:
    from hanol.rows import read_rows

    if path is None:
        return None
    known: dict[str, str] = {}
    for number, row in read_rows(path):
        if "id" not in row or not isinstance(row.get("source"), str):
            raise DataError(f"{str(path)!r}, line {number}: a row has `id` and `source`, not "
                            f"{json.dumps(row)[:80]}.")  # fmt: skip
        known[str(row["id"])] = row["source"]
    return lambda item: known.get(item.id)


def _planned(plan: "JudgePlan", run: Path) -> Iterator[str]:
    yield f"{plan.items} judgements to make, {plan.done} are in {run}"
    low, high = plan.calls
    yield f"{low:,} to {high:,} calls, if every reply is valid"
    low, high = plan.prompt_tokens
    yield f"{low:,} to {high:,} prompt tokens, at most {plan.generated_tokens:,} generated"
    if plan.cost:
        yield f"at most {plan.cost:.2f} at these prices"


def _shown(result: "JudgeReport", judging: "JudgeRun", run: Path) -> Iterator[str]:
    yield result.title
    yield from result.facts()
    yield f"{judging.spent.model_calls:,} calls now, {judging.reused} judgements were there"
    names = list(dict.fromkeys(name for one in result.systems for name in one.by_criterion))
    tasks = list(dict.fromkeys(task for one in result.systems for task in one.by_task))
    columns = [*(tasks if len(tasks) > 1 else []), *names]
    width = max([6, *(len(one.system) for one in result.systems)])
    heads = "".join(f"{name[:11]:>12}" for name in columns)
    yield f"\n{'system':{width}}  {f'total of {result.most:g}':>12}  {'95 % interval':>16}{heads}"
    for one in result.systems:
        values = one.by_task | one.by_criterion
        cells = "".join(
            f"{values[name]:12.2f}" if name in values else f"{'-':>12}" for name in columns
        )
        total, interval = "-", ""
        if one.total is not None:
            total = f"{one.total.value:.2f}"
            interval = f"{one.total.low:.2f} to {one.total.high:.2f}"
        yield f"{one.system or 'all':{width}}  {total:>12}  {interval:>16}{cells}"
    for name, problem in list(result.unscored.items())[:5]:
        yield f"unscored {name}: {problem}"
    if len(result.unscored) > 5:
        yield f"and {len(result.unscored) - 5} more"
    yield f"\nrun {run}"
