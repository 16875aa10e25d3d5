"""`hanol eval meta`, `correct`, `plan` and `drift`: judges and metrics against people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.cli._options import SeedOption
from hanol.cli._progress import progress
from hanol.errors import DataError

if TYPE_CHECKING:
    from hanol.evaluation import LabelledItem, ScoreTable

_WITH_REFERENCE = ("bleu", "chrf", "chrf++", "ter", "rouge1", "rouge2", "rougeL", "residue",
                   "length", "wrong-sentence")  # fmt: skip

HumanOption = Annotated[
    Path,
    typer.Option(
        "--human",
        help="Outputs that people scored: JSONL, CSV or TSV with `id` and `human` or "
        "`annotations`, or an export of Label Studio.",
    ),
]
CriterionOption = Annotated[
    str, typer.Option(help="Criterion of people's scores and of judgements; total is their sum.")
]


@command
def meta(
    human: HumanOption,
    metrics: str | None = option(
        None,
        "Metrics to compute, separated by commas, such as bleu,chrf,residue,similarity:e5-small. "
        "Omitted: with --scores none, else all that need no file and no model.",
    ),
    scores: list[Path] | None = option(
        None,
        "Judgements of `hanol eval judge`, or rows with `id`, `metric` and `score`; repeatable. "
        "A judge that scored an output more than once is tested for repeatability. Omitted: none.",
    ),
    criterion: CriterionOption = "total",
    seed: SeedOption = 0,
    output: Path | None = option(
        None, "JSONL file to write the metrics' scores to. Omitted: none."
    ),
    fail_under: float | None = option(
        None, "Exit with 3 if Spearman's rho of a judge or metric is below this. Omitted: never."
    ),
) -> Result:
    """Measure how far judges and metrics agree with people.

    Prints correlations with intervals from resampling outputs and their sources, accuracy on pairs
    beside its chance level, agreement of the raters, and what else scores follow (length, their own
    family).

    Example: hanol eval meta --human labels.jsonl --metrics bleu,chrf,residue
    """
    from hanol import evaluation
    from hanol.rows import replace_rows

    items = evaluation.read_labels(human)
    found = evaluation.read_scores(scores or (), criterion)
    computed = _computed(items, _names(metrics, items, bool(found)))
    if output is not None:
        replace_rows(
            output,
            (
                {"id": name, "metric": one.name, "score": value}
                for one in computed
                for name, value in one.means.items()
            ),
        )
    report = evaluation.meta_evaluate(items, [*found, *computed], criterion=criterion, seed=seed)
    is_low = fail_under is not None and not all(
        one.pooled.spearman is not None and one.pooled.spearman >= fail_under
        for one in report.metrics
    )
    return Result(report, report.lines(), exit_code=3 if is_low else 0)


def _names(metrics: str | None, items: list["LabelledItem"], has_scores: bool) -> list[str]:
    if metrics is not None:
        return [name.strip() for name in metrics.split(",") if name.strip()]
    if has_scores:
        return []
    return [*(_WITH_REFERENCE if all(item.reference for item in items) else ()), "defects"]


def _computed(items: list["LabelledItem"], names: list[str]) -> list["ScoreTable"]:
    from hanol import evaluation

    found = []
    with progress("metrics") as report:
        for number, name in enumerate(names):
            report(number, len(names), name)
            metric = evaluation.open_metric(name)
            values = evaluation.metric_scores(metric, items)
            found.append(
                evaluation.ScoreTable(
                    name=metric.label,
                    values={key: [value] for key, value in values.items()},
                    signature=metric.signature,
                )
            )
    return found


def _one(paths: list[Path], criterion: str) -> "ScoreTable":
    """The scores of the one judge that files hold."""
    from hanol import evaluation

    found = evaluation.read_scores(paths, criterion)
    if len(found) != 1:
        names = ", ".join(repr(one.name) for one in found) or "none"
        shown = ", ".join(repr(str(path)) for path in paths)
        raise DataError(f"{shown} must hold the scores of one judge, but has those of {names}.")
    return found[0]


@command
def correct(
    human: HumanOption,
    scores: list[Path] = option(
        ..., "Scores of one judge for outputs with and without labels; see `hanol eval meta`."
    ),
    outputs: Path | None = option(
        None,
        "File of all outputs with `id` and `system`. Omitted: the systems that the scores and the "
        "labels name.",
    ),
    criterion: CriterionOption = "total",
    finite: bool = option(
        False,
        "Estimate the means of exactly these outputs, not of all that the systems could write.",
    ),
    pass_from: str | None = option(
        None,
        "Compare shares that pass (Rogan-Gladen): scores of people and of the judge from which an "
        "output passes, such as 4,5. Omitted: means.",
    ),
) -> Result:
    """Correct a judge's means by a few labels of people, and rank systems by them.

    The labelled outputs must be a random sample of each system's outputs. The intervals hold
    whatever the judge is like; a good one makes them narrower.

    Example: hanol eval correct --human labels.jsonl --scores judgements.jsonl
    """
    from hanol import evaluation
    from hanol.rows import read_rows

    systems: dict[str, str] = {}
    if outputs is not None:
        for number, row in read_rows(outputs):
            system = row.get("system") or row.get("model")
            if row.get("id") is None or system is None:
                raise DataError(f"{str(outputs)!r}, line {number}: no `id` or no `system`.")
            systems[str(row["id"])] = str(system)
    report = evaluation.correct_scores(
        evaluation.read_labels(human),
        _one(scores, criterion),
        systems,
        criterion=criterion,
        finite=finite,
        pass_from=None if pass_from is None else _two(pass_from),
    )
    return Result(report, report.lines())


def _two(text: str) -> tuple[float, float]:
    try:
        people, judge = map(float, text.split(","))
    except ValueError as err:
        raise typer.BadParameter(f"{text!r}: give two numbers, such as 4,5.") from err
    return people, judge


@command
def plan(
    half_width: float = option(
        ..., "Wanted half of the 95 % interval of a system's mean, on people's scale."
    ),
    human: Path | None = option(
        None, "Labels of a pilot, as for `hanol eval meta`. Omitted: give --deviation and --rho."
    ),
    scores: list[Path] | None = option(
        None, "Scores of one judge for the outputs of the pilot. Omitted: as without --human."
    ),
    criterion: CriterionOption = "total",
    deviation: float | None = option(
        None, "Standard deviation of people's scores. Omitted: that of the pilot."
    ),
    rho: float | None = option(
        None, "Pearson correlation of judge and people. Omitted: that of the pilot."
    ),
    num_outputs: int | None = option(
        None, "Outputs of a system that the judge scores. Omitted: those with scores.", min=1
    ),
) -> Result:
    """Estimate how many outputs people must label for an interval of a given width.

    Example: hanol eval plan --half-width 0.2 --deviation 1.5 --rho 0.7 --num-outputs 1000
    """
    from hanol import evaluation

    if human is not None and scores:
        found = evaluation.plan_from(
            half_width,
            evaluation.read_labels(human),
            _one(scores, criterion),
            criterion=criterion,
            num_outputs=num_outputs,
        )
    else:
        known: dict[str, Any] = {"deviation": deviation, "rho": rho, "num_outputs": num_outputs}
        if missing := [name for name, value in known.items() if value is None]:
            option_name = f"--{missing[0].replace('_', '-')}"
            raise DataError(f"Give a pilot (--human and --scores), or {option_name}.")
        found = evaluation.plan_labels(half_width, **known)
    return Result(found, found.lines())


@command
def drift(
    old: Path = argument("Scores of the frozen outputs by the judge as it was.", metavar="OLD"),
    new: Path = argument("Scores of the same outputs by the judge as it is now.", metavar="NEW"),
    human: Path | None = option(
        None, "Labels of the outputs, as for `hanol eval meta`. Omitted: none."
    ),
    criterion: CriterionOption = "total",
    seed: SeedOption = 0,
) -> Result:
    """Tell whether a judge has changed: two runs over the same frozen outputs.

    Exits with 3 if the scores moved, or their agreement with people did (p below 0.05).

    Example: hanol eval drift anchors-june.jsonl anchors-today.jsonl
    """
    from hanol import evaluation

    report = evaluation.find_drift(
        _one([old], criterion),
        _one([new], criterion),
        evaluation.read_labels(human) if human is not None else (),
        criterion=criterion,
        seed=seed,
    )
    return Result(report, report.lines(), exit_code=3 if report.is_drift else 0)
