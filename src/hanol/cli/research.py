"""`hanol research`: questions to one's own documents, answered by an agent that can be checked."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from hanol.cli._agent import (
    CompactOption,
    GreedyOption,
    IndexOption,
    JsonOption,
    ModelOption,
    PrivateOption,
    UnsafeOption,
    WebOption,
    Workshop,
    opened,
    workshop_of,
)
from hanol.cli._report import reported
from hanol.errors import ResearchError

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.research import Budget, Event, Tool
    from hanol.retrieval import Library

Mode = Literal["react", "markov", "resum"]


class _Group(TyperGroup):
    """Takes a first word that is no command for the folder of a question."""

    # `Any`: which click the context comes from depends on typer's version.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["ask", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Research over your own documents, with citations that were checked. "
    '`hanol research FOLDER "question" --model SPEC` asks; a folder that is named like a command '
    "is written ./name.",
)

_Mode = Annotated[
    Mode | None,
    typer.Option(help="How the context is kept; react when left out, markov with --heavy."),
]
_Heavy = Annotated[
    int | None, typer.Option(help="Make N rollouts and a synthesis over their reports.")
]
_Calls = Annotated[int | None, typer.Option(help="Most calls of the model.")]
_Tokens = Annotated[int | None, typer.Option(help="Most tokens, prompts and answers together.")]
_Seconds = Annotated[float | None, typer.Option(help="Most seconds in calls.")]
_Money = Annotated[float | None, typer.Option(help="Most money, in the currency of the prices.")]
_PromptPrice = Annotated[float, typer.Option(help="Price of a million prompt tokens.")]
_CompletionPrice = Annotated[float, typer.Option(help="Price of a million written tokens.")]
_Prompt = Annotated[
    Path | None, typer.Option(help="File with the system prompt, in the place of ours.")
]
_Seed = Annotated[int, typer.Option(help="Of the sampling.")]
_Today = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Date in the system prompt.")
]
_Run = Annotated[Path, typer.Argument(help="Folder of a run.")]
_OtherModel = Annotated[
    str | None, typer.Option("--model", "-m", help="If not as the log says: the model.")
]


@app.command()
def ask(
    folder: Annotated[Path, typer.Argument(help="Folder with the documents.")],
    question: Annotated[str, typer.Argument(help="In your own words.")],
    model: ModelOption,
    mode: _Mode = None,
    heavy: _Heavy = None,
    max_calls: _Calls = None,
    max_tokens: _Tokens = None,
    max_seconds: _Seconds = None,
    max_money: _Money = None,
    prompt_price: _PromptPrice = 0.0,
    completion_price: _CompletionPrice = 0.0,
    system_prompt_file: _Prompt = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    compact: CompactOption = False,
    greedy: GreedyOption = False,
    index: IndexOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run; a new one beside the index when left out."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and make no call.")
    ] = False,
    seed: _Seed = 0,
    today: _Today = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a folder of documents; the answer's citations are checked.

    Steps go to standard error, the answer to standard output, all of it to a folder with
    `report.html`.

    Example: hanol research notes "How are keys rotated?" --model http://localhost:8000/v1#qwen3
    """
    limits = _limits(max_calls, max_tokens, max_seconds, max_money, prompt_price, completion_price)
    workshop = _workshop(folder, index, model, web, private, unsafe, compact)
    with reported(as_json=as_json), opened(workshop) as (library, engine, tools):
        options = _options(library, engine, tools, mode or ("markov" if heavy else "react"), limits)
        options |= _sampling(greedy)
        options |= {"seed": seed, "system_prompt": _text(system_prompt_file)}
        options["today"] = today.date() if today else date.today()
        if dry_run:
            _print_plan(library, engine, options, question, heavy, as_json)
            return
        run = out or _new_run(folder, index, question)
        if heavy is None:
            from hanol.research import Researcher

            events = Researcher(library, engine, run_folder=run, **options).ask(question)
        else:
            from hanol.research import heavy_research

            on_rollout = None if as_json else _rollout_steps()
            events = heavy_research(
                library,
                engine,
                question,
                n=heavy,
                run_folder=run,
                on_rollout=on_rollout,
                **options,
            )
        _follow(events, run, library, as_json)


@app.command()
def resume(
    run: _Run,
    model: _OtherModel = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was interrupted; no finished call is made again.

    Example: hanol research resume notes/.hanol/runs/20251121-101502-keys
    """
    with reported(as_json=as_json):
        from hanol.research import resume as resume_run

        workshop = workshop_of(run, model, index, web, private, unsafe)
        with opened(workshop) as (library, engine, tools):
            _follow(resume_run(run, engine, library, tools=tools), run, library, as_json)


@app.command()
def replay(run: _Run, as_json: JsonOption = False) -> None:
    """Repeat a finished run from its log, without model, documents or network.

    Example: hanol research replay notes/.hanol/runs/20251121-101502-keys
    """
    with reported(as_json=as_json):
        from hanol.research import replay as replay_run

        _follow(replay_run(run), run, None, as_json, write=False)


@app.command()
def fork(
    run: _Run,
    at: Annotated[int, typer.Option(help="First step that is made anew, from 1.")],
    seed: _Seed = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new run; beside the old one if left out.")
    ] = None,
    model: _OtherModel = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a new run with the first steps of another one, and go on differently.

    Example: hanol research fork notes/.hanol/runs/20251121-101502-keys --at 3
    """
    with reported(as_json=as_json):
        from hanol.research import fork as fork_run

        new = out or run.with_name(f"{run.resolve().name}-at{at}-seed{seed}")
        workshop = workshop_of(run, model, index, web, private, unsafe)
        with opened(workshop) as (library, engine, tools):
            events = fork_run(run, at, new, engine, library, seed=seed, tools=tools)
            _follow(events, new, library, as_json)


@app.command()
def export(
    run: _Run,
    form: Annotated[
        Literal["tongyi", "md", "html"], typer.Option("--format", help="What to print.")
    ] = "md",
    answer: Annotated[
        str, typer.Option(help="Reference answer, which tongyi's format has a place for.")
    ] = "",
) -> None:
    """Print a run as Markdown, as a page, or as a line of the official trajectory format.

    Example: hanol research export notes/.hanol/runs/20251121-101502-keys --format tongyi
    """
    with reported():
        from hanol.research import RunFolder, official_run, write_report

        if form == "tongyi":
            text = official_run(RunFolder(run).events(), answer).to_line() + "\n"
        else:
            text = write_report(run).with_suffix(f".{form}").read_text("utf-8")
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


@app.command()
def batch(
    folder: Annotated[Path, typer.Argument(help="Folder with the documents.")],
    questions: Annotated[
        Path, typer.Argument(help='JSON lines with "question", and "id" and "answer" if wanted.')
    ],
    model: ModelOption,
    mode: _Mode = None,
    heavy: _Heavy = None,
    max_calls: _Calls = None,
    max_tokens: _Tokens = None,
    max_seconds: _Seconds = None,
    max_money: _Money = None,
    prompt_price: _PromptPrice = 0.0,
    completion_price: _CompletionPrice = 0.0,
    system_prompt_file: _Prompt = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    compact: CompactOption = False,
    greedy: GreedyOption = False,
    index: IndexOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the batch; named after QUESTIONS if left out.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once, a process.")] = 8,
    ray: Annotated[
        int | None, typer.Option(min=1, help="Spread over N processes of a Ray cluster.")
    ] = None,
    seed: _Seed = 0,
    today: _Today = None,
    as_json: JsonOption = False,
) -> None:
    """Research many questions at once; started again, it goes on where it was.

    Writes `results.jsonl`. Exits with 1 when a question failed; the others are done all the same.

    Example: hanol research batch notes questions.jsonl --model Qwen/Qwen3-4B --concurrency 4
    """
    limits = _limits(max_calls, max_tokens, max_seconds, max_money, prompt_price, completion_price)
    workshop = _workshop(folder, index, model, web, private, unsafe, compact)
    with reported(as_json=as_json):
        from hanol.cli import _batch
        from hanol.research import read_tasks

        tasks = read_tasks(questions)
        place = out or Path(index or folder / ".hanol") / "batches" / questions.stem
        with opened(workshop) as (library, engine, tools):
            options = _options(
                library, engine, tools, mode or ("markov" if heavy else "react"), limits
            )
            options |= _sampling(greedy)
            options |= {"seed": seed, "system_prompt": _text(system_prompt_file), "heavy": heavy}
            options["today"] = today.date() if today else None
            rows = _batch.run(tasks, workshop, (library, engine), place, options, concurrency, ray)
        _batch.print_rows(rows, place, as_json)
    if any(row["error"] for row in rows):
        raise typer.Exit(1)


@app.command("eval")
def evaluate(
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="results.jsonl of one batch, or of several: runs 1 to k."),
    ] = None,
    metric: Annotated[
        Literal["exact", "set", "numeric", "judge"],
        typer.Option(help="Of RESULTS: what counts as right."),
    ] = "exact",
    judge: Annotated[
        str | None, typer.Option(help="Model that judges, for --metric judge.")
    ] = None,
    world: Annotated[
        Literal["encyclopedia"] | None,
        typer.Option(help="Instead of RESULTS: ask about a generated world that nobody has seen."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Of --world: checkpoint or endpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the world and its questions.")] = 12345,
    n: Annotated[int, typer.Option("--n", min=1, help="Questions of each kind.")] = 200,
    hops: Annotated[str, typer.Option(help="Facts to follow: 1 to 5, with commas.")] = "1,2,3",
    mode: Annotated[Mode, typer.Option(help="How the context is kept.")] = "react",
    max_calls: Annotated[int, typer.Option(min=1, help="Most calls of the model, a question.")] = (
        16
    ),
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 64,
    fillers: Annotated[
        int, typer.Option(min=0, help="Sentences a page that state no fact; 7 make 120 words.")
    ] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the sampling; left out, the likeliest token.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score the answers of a batch, or a model on a generated world.

    RESULTS give Avg@k, Pass@k with intervals, citations and effort; --world gives accuracy by
    number of hops, format errors and skills.

    Example: hanol research eval run1/results.jsonl run2/results.jsonl --metric exact

    Example: hanol research eval --world encyclopedia --seed 12345 --n 200 --model tiny-researcher
    """
    if bool(results) == (world is not None):
        raise typer.BadParameter(
            "give either RESULTS, files of batches, or --world encyclopedia --model SPEC"
            + (", not both." if results else ".")
        )
    if world is not None and model is None:
        raise typer.BadParameter("--world needs a model to ask: --model SPEC.")
    if results and model is not None:
        raise typer.BadParameter("--model is for --world: RESULTS have their answers already.")
    with reported(as_json=as_json):
        if results:
            from hanol.cli import _batch

            _batch.print_scores(*_batch.scores(results, metric, judge), as_json)
            return
        assert model is not None
        from hanol.cli import _examine

        exam = _examine.Exam(
            model, seed, n, hops, mode, max_calls, concurrency, fillers, temperature
        )
        _examine.print_result(exam, *_examine.run(exam), as_json)


def _follow(
    events: "Iterator[Event]",
    run: Path,
    library: "Library | None",
    as_json: bool,
    *,
    write: bool = True,
) -> None:
    """Show a run until it ends, then its answer; an interruption says how to go on."""
    from hanol.cli._steps import Steps, answer_dict, print_answer
    from hanol.research import RunView, write_report

    steps = Steps()
    log = []
    try:
        # They come from a generator, which is to be stopped with its run.
        with closing(events):  # type: ignore[type-var]
            for event in events:
                log.append(event)
                if not as_json:
                    steps.show(event)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: hanol research resume {run}", file=sys.stderr)
        raise typer.Exit(130) from None
    except Exception:
        if log and write:
            print(f"The run can go on: hanol research resume {run}", file=sys.stderr)
        raise
    page = write_report(run, library=library) if write else run / "report.html"
    view = RunView.of(log)
    if as_json:
        typer.echo(json.dumps(answer_dict(view, str(run), str(page)), ensure_ascii=False))
        return
    print_answer(view)
    print(view.summary, file=sys.stderr)
    if write:
        print(f"report: {page}", file=sys.stderr)


def _rollout_steps() -> "Callable[[int, Event], None]":
    from hanol.cli._steps import Steps

    return lambda number, event: Steps(f"{number}: ").show(event)


def _workshop(
    folder: Path,
    index: Path | None,
    model: str,
    web: str | None,
    private: bool,
    unsafe: bool,
    compact: bool,
) -> Workshop:
    # Absolute, because workers of Ray stand elsewhere.
    place = None if index is None else str(index.absolute())
    return Workshop(str(folder.absolute()), place, model, web, private, unsafe, compact=compact)


def _limits(
    calls: int | None,
    tokens: int | None,
    seconds: float | None,
    money: float | None,
    prompt_price: float,
    completion_price: float,
) -> dict[str, Any]:
    given = {"model_calls": calls, "tokens": tokens, "seconds": seconds, "money": money}
    prices = {"prompt_price": prompt_price, "completion_price": completion_price}
    return {name: value for name, value in given.items() if value is not None} | prices


def _options(
    library: "Library | None",
    engine: "Engine",
    tools: "list[Tool] | Any",
    mode: Mode,
    limits: dict[str, Any],
) -> dict[str, Any]:
    """Options of a `Researcher`: the mode's own budget with the given limits."""
    from hanol.research import Researcher

    budget = Researcher(library, engine, mode=mode, tools=tools).settings.budget
    return {"mode": mode, "tools": tools, "budget": replace(budget, **limits)}


def _sampling(greedy: bool) -> dict[str, Any]:
    from hanol.research import GREEDY

    return {"sampling": GREEDY} if greedy else {}


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise ResearchError(f"The system prompt {str(path)!r} cannot be read: {err}") from err


def _new_run(folder: Path, index: Path | None, question: str) -> Path:
    """Beside the index, which is never indexed itself."""
    words = "-".join(re.findall(r"\w+", question.lower())[:6])[:60]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{words}".rstrip("-")
    return (index or folder / ".hanol") / "runs" / name


def _print_plan(
    library: "Library | None",
    engine: "Engine",
    options: dict[str, Any],
    question: str,
    heavy: int | None,
    as_json: bool,
) -> None:
    from hanol.engines import Message
    from hanol.research import Researcher

    researcher = Researcher(library, engine, **options)
    prompt = [Message("system", researcher.system), Message("user", question)]
    budget: Budget = options["budget"]
    times = heavy or 1
    plan = {
        "model": engine.name,
        "context_window": engine.context_window,
        "mode": options["mode"],
        "heavy": heavy,
        "tools": [tool.name for tool in options["tools"]],
        "documents": 0 if library is None else len(library.documents()),
        "prompt_tokens": engine.count_tokens(prompt),
        "budget": asdict(budget),
        "cost_at_most": times * _most(budget, researcher.settings.sampling.max_tokens),
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    plan["tools"] = ", ".join(plan["tools"])
    shown = {name: value for name, value in asdict(budget).items() if value is not None}
    plan["budget"] = ", ".join(f"{name} {value:,}" for name, value in shown.items())
    if times > 1:
        plan["budget"] = f"of each rollout: {plan['budget']}"
    if not (budget.prompt_price or budget.completion_price):
        plan["cost_at_most"] = "unknown: give --prompt-price and --completion-price"
    for name, value in plan.items():
        typer.echo(f"{name.replace('_', ' '):16}{'-' if value is None else value}")
    typer.echo("No call was made.")


def _most(budget: "Budget", max_tokens: int) -> float:
    """Upper bound on the price of a run by its limits."""
    calls = budget.model_calls + 1
    bounds = [budget.cost(calls * budget.context_tokens, calls * max_tokens)]
    if budget.tokens is not None:
        price = max(budget.prompt_price, budget.completion_price)
        bounds.append(budget.tokens * price / 1_000_000)
    if budget.money is not None:
        bounds.append(budget.money)
    return min(bounds)
