"""`hanol research batch`: many questions at once, here or over Ray."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._agent import (
    Workshop,
    given_limits,
    given_sampling,
    opened,
    researcher_options,
    workshop_over,
)
from hanol.cli._options import (
    CallsOption,
    CompactOption,
    CompletionPriceOption,
    FolderArgument,
    GreedyOption,
    HeavyOption,
    IndexOption,
    JsonOption,
    ModelOption,
    ModeOption,
    MoneyOption,
    OwnSamplingOption,
    PrivateOption,
    PromptPriceOption,
    SamplingSeedOption,
    SecondsOption,
    SystemPromptOption,
    TodayOption,
    TokensOption,
    UnsafeOption,
    WebOption,
)
from hanol.cli._progress import interruptible
from hanol.cli._report import reported

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.retrieval import Index
    from hanol.runs import Task

_Row = dict[str, Any]


def batch(
    folder: FolderArgument,
    questions: Annotated[
        Path, typer.Argument(help='JSON lines with "question", and "id" and "answer" if wanted.')
    ],
    model: ModelOption,
    mode: ModeOption = None,
    heavy: HeavyOption = None,
    max_calls: CallsOption = None,
    max_tokens: TokensOption = None,
    max_seconds: SecondsOption = None,
    max_money: MoneyOption = None,
    prompt_price: PromptPriceOption = 0.0,
    completion_price: CompletionPriceOption = 0.0,
    system_prompt_file: SystemPromptOption = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    compact: CompactOption = False,
    greedy: GreedyOption = False,
    own_sampling: OwnSamplingOption = False,
    index: IndexOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the batch; named after QUESTIONS if left out.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once, a process.")] = 8,
    ray: Annotated[
        int | None, typer.Option(min=1, help="Spread over N processes of a Ray cluster.")
    ] = None,
    seed: SamplingSeedOption = 0,
    today: TodayOption = None,
    as_json: JsonOption = False,
) -> None:
    """Research many questions at once; started again, it goes on where it was.

    Writes `results.jsonl`. Exits with 1 when a question failed; the others are done all the same.

    Example: hanol research batch notes questions.jsonl --model Qwen/Qwen3-4B --concurrency 4
    """
    sampling = given_sampling(greedy, own_sampling)
    limits = given_limits(
        max_calls, max_tokens, max_seconds, max_money, prompt_price, completion_price
    )
    workshop = workshop_over(folder, index, model, web, private, unsafe, compact)
    with reported(as_json=as_json):
        from hanol.runs import read_tasks

        tasks = read_tasks(questions)
        place = out or Path(index or folder / ".hanol") / "batches" / questions.stem
        with opened(workshop) as (corpus, engine, tools):
            options = researcher_options(
                corpus, engine, tools, mode, heavy, limits, sampling, system_prompt_file
            )
            options |= {"seed": seed, "heavy": heavy, "concurrency": concurrency}
            options["today"] = today.date() if today else None
            rows = _run(tasks, workshop, corpus, engine, place, options, ray)
        _print_rows(rows, place, as_json)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


def _run(
    tasks: "Sequence[Task]",
    workshop: Workshop,
    corpus: "Index | None",
    engine: "Engine",
    place: Path,
    options: dict[str, Any],
    ray: int | None,
) -> list[_Row]:
    """Run the questions, here or over Ray, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with interruptible(), Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(tasks))
        failed = 0

        def on_result(row: _Row) -> None:
            nonlocal failed
            failed += row["error"] is not None
            progress.update(bar, advance=1, description=f"{failed} failed" if failed else "")

        options = options | {"on_result": on_result}
        if ray is not None:
            return _over_ray(tasks, workshop, place, ray, options)
        from hanol.research import run_batch

        return run_batch(tasks, corpus, engine, place, **options)


def _over_ray(
    tasks: "Sequence[Task]", workshop: Workshop, place: Path, workers: int, options: dict[str, Any]
) -> list[_Row]:
    from hanol.research import run_batch_on_ray

    del options["tools"]  # each worker makes its own

    def make() -> tuple[Any, Any, dict[str, Any]]:
        corpus = workshop.corpus()
        return corpus, workshop.engine(), {"tools": workshop.tools(corpus)}

    return run_batch_on_ray(tasks, make, place, workers=workers, **options)


def _print_rows(rows: Sequence[_Row], place: Path, as_json: bool) -> None:
    """How many were answered, what failed, where the results lie."""
    path = place / "results.jsonl"
    failed = [row for row in rows if row["error"]]
    answered = sum(row["prediction"] is not None for row in rows)
    if as_json:
        counts = {"questions": len(rows), "answered": answered, "failed": len(failed)}
        typer.echo(json.dumps({"results": str(path), **counts, "rows": rows}, ensure_ascii=False))
        return
    typer.echo(f"{len(rows)} questions, {answered} answered, {len(failed)} failed")
    for row in failed:
        message = " ".join(row["error"]["message"].split())
        print(f"failed: {row['id']}: {row['error']['kind']}: {message}", file=sys.stderr)
    typer.echo(f"results: {path}")
