"""The commands of `hanol research`: a question, many questions, and what can be done with a run."""

import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import one_line, say, tell
from hanol.cli._options import (
    ConcurrencyOption,
    DryRunOption,
    FolderArgument,
    ResearchOptions,
    SeedOption,
    ToolOptions,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.research._agent import new_workplace, opened, reopened, researcher_options

_Run = Annotated[Path, typer.Argument(help="Folder of a run.")]
_OtherModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model to use. Omitted: the one that the run's log names."),
]


@command
def ask(
    folder: FolderArgument,
    options: ResearchOptions,
    question: str = argument("Question, in plain words."),
    output: Path | None = option(None, "Folder of the run. Omitted: a new one beside the index."),
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> Result:
    """Answer a question from a folder of documents, with checked citations.

    The steps go to standard error, the answer to standard output, and everything to a folder with
    `report.html`.

    Example: hanol research notes "How are keys rotated?" --model http://localhost:8000/v1#qwen3
    """
    if not question.strip():
        raise typer.BadParameter("the question is empty.")
    from hanol.research import Researcher, heavy_research

    with opened(new_workplace(folder, options), options) as workplace:
        corpus, engine, _ = workplace
        settings = researcher_options(workplace, options)
        settings["today"] = settings["today"] or date.today()
        if dry_run:
            plan = Researcher(corpus, engine, **settings).plan(question) | {"heavy": options.heavy}
            plan["cost_at_most"] *= options.heavy or 1
            return Result(plan, _plan_lines(plan))
        from hanol.cli.research._steps import follow, show_step

        settings["run_folder"] = run = output or _new_run(folder, options.index, question)
        if options.heavy is None:
            events = Researcher(corpus, engine, **settings).ask(question)
        else:
            settings["n"] = options.heavy
            settings["turn_sampling"] = settings.pop("sampling", None)
            if not as_json:
                settings["on_rollout"] = lambda n, event: show_step(event, f"{n}: ")
            events = heavy_research(corpus, engine, question, **settings)
        return follow(events, run, corpus, as_json)


@command
def resume(
    run: _Run,
    model: _OtherModel = None,
    tools: ToolOptions = ToolOptions(),
    as_json: JsonOption = False,
) -> Result:
    """Resume an interrupted run without repeating a finished call.

    Example: hanol research resume notes/.hanol/runs/20251121-101502-keys
    """
    from hanol.cli.research._steps import follow
    from hanol.research import resume as resume_run

    with reopened(run, model, tools) as (corpus, engine, found):
        return follow(resume_run(run, engine, corpus, tools=found), run, corpus, as_json)


@command
def replay(run: _Run, as_json: JsonOption = False) -> Result:
    """Replay a finished run from its log, without model, documents or network.

    Example: hanol research replay notes/.hanol/runs/20251121-101502-keys
    """
    from hanol.cli.research._steps import follow
    from hanol.research import replay as replay_run

    return follow(replay_run(run), run, None, as_json, write=False)


@command
def fork(
    run: _Run,
    at: int = option(..., "First step to run again, counted from 1.", min=1),
    seed: SeedOption = 1,
    output: Path | None = option(None, "Folder of the new run. Omitted: beside the old one."),
    model: _OtherModel = None,
    tools: ToolOptions = ToolOptions(),
    as_json: JsonOption = False,
) -> Result:
    """Start a new run from the first steps of another one.

    Example: hanol research fork notes/.hanol/runs/20251121-101502-keys --at 3
    """
    from hanol.cli.research._steps import follow
    from hanol.research import fork as fork_run

    new = output or run.with_name(f"{run.resolve().name}-at{at}-seed{seed}")
    with reopened(run, model, tools) as (corpus, engine, found):
        events = fork_run(run, at, new, engine, corpus, seed=seed, tools=found)
        return follow(events, new, corpus, as_json)


@command
def export(
    run: _Run,
    layout: Literal["tongyi", "md", "html"] = option(
        "md", "Markdown, HTML page, or a line of the official trajectory format.", "--format"
    ),
    answer: str | None = option(None, "Reference answer for the tongyi format. Omitted: empty."),
) -> None:
    """Print a run as Markdown, as an HTML page, or in the official trajectory format.

    Example: hanol research export notes/.hanol/runs/20251121-101502-keys --format tongyi
    """
    from hanol.research import official_run, write_report
    from hanol.runs import RunFolder

    RunFolder(run).started()  # or an error that names the folder
    if layout == "tongyi":
        text = official_run(RunFolder(run).events(), answer or "").to_line() + "\n"
    else:
        text = write_report(run).with_suffix(f".{layout}").read_text("utf-8")
    say(text, end="")


@command
def batch(
    folder: FolderArgument,
    options: ResearchOptions,
    questions: Path = argument('JSON lines with "question", and "id" and "answer" where known.'),
    output: Path | None = option(
        None, "Folder of the batch. Omitted: one beside the index, named after QUESTIONS."
    ),
    concurrency: ConcurrencyOption = 8,
    ray: int | None = option(
        None,
        "Number of processes of a Ray cluster to spread over. Omitted: this process.",
        metavar="N",
        min=1,
    ),
) -> Result:
    """Research many questions; run again after an interruption, it continues.

    Writes `results.jsonl`. Exits with 1 if a question failed; the others are still answered.

    Example: hanol research batch notes questions.jsonl --model Qwen/Qwen3-4B --concurrency 4
    """
    from hanol.research import run_batch, run_batch_on_ray
    from hanol.runs import Ledger, read_tasks

    tasks = read_tasks(questions)
    place = output or Path(options.index or folder / ".hanol") / "batches" / questions.stem
    fresh = new_workplace(folder, options)
    with opened(fresh, options) as workplace, interruptible(), progress("questions") as report:
        failed = 0

        def on_result(row: dict[str, Any]) -> None:
            nonlocal failed
            failed += row["error"] is not None
            report(None, len(tasks), f"{failed} failed" if failed else "")

        settings = researcher_options(workplace, options)
        settings |= {"heavy": options.heavy, "concurrency": concurrency, "on_result": on_result}
        if ray is None:
            rows = run_batch(tasks, *workplace[:2], place, **settings)
        else:
            del settings["tools"]  # each worker makes its own

            def make() -> tuple[Any, Any, dict[str, Any]]:
                corpus, engine, tools = fresh()
                return corpus, engine, {"tools": tools}

            rows = run_batch_on_ray(tasks, make, place, workers=ray, **settings)
    ended = [row for row in rows if row["error"] is None]
    plain = {
        "results": str(place / "results.jsonl"),
        "questions": len(rows),
        "answered": sum(row["prediction"] is not None for row in rows),
        "failed": sum(row["error"] is not None for row in rows),
        "spent": sum(map(Ledger.of_run, ended), Ledger()).to_dict(),
        "rows": rows,
    }
    return Result(plain, _batch_lines(plain), exit_code=1 if plain["failed"] else 0)


def _new_run(folder: Path, index: Path | None, question: str) -> Path:
    """Beside the index, which is never indexed itself."""
    words = "-".join(re.findall(r"\w+", question.lower())[:6])[:60]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{words}".rstrip("-")
    return (index or folder / ".hanol") / "runs" / name


def _plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    limits = {name: value for name, value in plan["budget"].items() if value is not None}
    budget = ", ".join(f"{name} {value:,}" for name, value in limits.items())
    shown = plan | {"tools": ", ".join(plan["tools"])}
    shown["budget"] = f"per rollout: {budget}" if plan["heavy"] else budget
    if not (limits["prompt_price"] or limits["completion_price"]):
        shown["cost_at_most"] = "unknown without --prompt-price and --completion-price"
    for name, value in shown.items():
        yield f"{name.replace('_', ' '):16}{'-' if value is None else value}"
    yield "Dry run: no call was made."


def _batch_lines(plain: dict[str, Any]) -> Iterator[str]:
    """How many were answered, what failed, where the results lie."""
    yield "{questions} questions, {answered} answered, {failed} failed".format_map(plain)
    for row in plain["rows"]:
        if error := row["error"]:
            message = one_line(error["message"])
            tell(f"failed: {row['id']}: {error['kind']}: {message}")
    yield f"results: {plain['results']}"
