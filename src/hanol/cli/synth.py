"""`hanol synth`: questions and training data for research agents, from documents or a world."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hanol.cli._report import reported

if TYPE_CHECKING:
    from hanol.research import (
        Attempt,
        ExtractReport,
        KnowledgeGraph,
        QuestionReport,
        SynthQuestion,
        Tool,
    )
    from hanol.retrieval import Library
    from hanol.worlds import Encyclopedia

app = typer.Typer(no_args_is_help=True, help="Make questions and training data for agents.")

_Source = Annotated[
    str, typer.Argument(help="Folder of documents, or encyclopedia:SEED, a generated world.")
]
_Entities = Annotated[int, typer.Option(help="Of a world: its pages.")]
_Split = Annotated[
    Literal["train", "dev", "test"], typer.Option(help="Of a world: whose names to use.")
]
_Index = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index, if not FOLDER/.hanol.")
]
_Concurrency = Annotated[int, typer.Option(min=1, help="Requests or runs at once.")]
_Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def pages(
    source: Annotated[str, typer.Argument(help="encyclopedia:SEED, a generated world.")],
    folder: Annotated[Path, typer.Argument(help="New folder for its pages.")],
    entities: _Entities = 300,
    split: _Split = "test",
    as_json: _Json = False,
) -> None:
    """Write the pages of a generated world as Markdown files, to search and to ask.

    Example: hanol synth pages encyclopedia:7 world
    """
    with reported(as_json=as_json):
        from hanol.errors import DataError
        from hanol.research import world_seed
        from hanol.worlds import Encyclopedia

        if (seed := world_seed(source)) is None:
            raise DataError(f"{source!r} is no world. Write it as encyclopedia:SEED.")
        files = Encyclopedia(seed, entities, split=split).write(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "pages": len(files)}))
        return
    typer.echo(f"{len(files)} pages in {folder}")


@app.command()
def questions(
    source: _Source,
    number: Annotated[int, typer.Option("--n", min=1, help="Questions wanted.")] = 100,
    hops: Annotated[str, typer.Option(help="Facts to follow: 1 to 5, several with commas.")] = (
        "1,2,3"
    ),
    level: Annotated[
        int, typer.Option(min=0, max=2, help="0 names the start, 1 and 2 describe it.")
    ] = 0,
    sets: Annotated[bool, typer.Option("--sets", help="Also ask for several answers.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Of a folder: extracts facts, words the questions."),
    ] = None,
    closed_book: Annotated[
        str | None,
        typer.Option("--closed-book-model", help="Drop what this model answers by heart."),
    ] = None,
    entities: _Entities = 300,
    split: _Split = "train",
    seed: _Seed = 0,
    index: _Index = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; .hanol/synth or runs/synth/...")
    ] = None,
    concurrency: _Concurrency = 8,
    as_json: _Json = False,
) -> None:
    """Make multi-hop questions with unique answers from a folder or a world.

    Writes questions.jsonl, webshaper.jsonl, graph.jsonl and report.json. Started again after an
    interruption, it asks no model anything twice.

    Example: hanol synth questions encyclopedia:7 --n 200 --hops 1,2,3
    """
    with reported(as_json=as_json), ExitStack() as stack:
        from hanol.research import _synthesis as synthesis

        wanted = _numbers(hops)
        place = out or _place(source, index)
        world, library, _ = _opened(stack, source, index, place, entities, split)
        make = _Questions(library, world, place, model, closed_book, concurrency)
        options = {"hops": wanted, "level": level, "sets": sets, "seed": seed}
        with _interruptible():
            graph, extracted, found, report = make.all(number, options)
        place.mkdir(parents=True, exist_ok=True)
        graph.write(place / "graph.jsonl")
        synthesis.write_questions(place / "questions.jsonl", found)
        synthesis.write_webshaper(place / "webshaper.jsonl", map(synthesis.shaper_task, found))
        made_of = {"source": source, "entities": entities, "split": split}
        summary = {"questions": str(place / "questions.jsonl"), **made_of, **options}
        summary |= {"facts": len(graph.edges), **asdict(report)}
        summary["extracted"] = None if extracted is None else asdict(extracted)
        (place / "report.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    if as_json:
        typer.echo(json.dumps(summary))
        return
    _print_questions(summary, number)


@app.command()
def trajectories(
    source: _Source,
    file: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help='JSON lines with "question" and "answer".')
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Checkpoint, endpoint, or expert (of a world).")
    ],
    attempts: Annotated[int, typer.Option("--n", min=1, help="Runs a question.")] = 4,
    mode: Annotated[
        Literal["react", "markov", "resum"], typer.Option(help="How the agent keeps its context.")
    ] = "react",
    max_calls: Annotated[int | None, typer.Option(min=1, help="Model calls of one run.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the sampling; 0.85, in worlds 0.7.")
    ] = None,
    entities: _Entities = 300,
    split: _Split = "train",
    seed: _Seed = 0,
    index: _Index = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; beside QUESTIONS if left out.")
    ] = None,
    concurrency: _Concurrency = 8,
    as_json: _Json = False,
) -> None:
    """Run an agent at each question, and keep the right runs and their steps as training data.

    Writes trajectories.jsonl (official lines), sft.jsonl (conversations) and midtrain.jsonl
    (planning, reasoning and decision steps). Started again, it goes on where it was. Exits with 1
    when a run failed; the others are done all the same.

    Example: hanol synth trajectories encyclopedia:7 questions.jsonl --model expert --n 1
    """
    with reported(as_json=as_json), ExitStack() as stack:
        from hanol.research import _synthesis as synthesis

        found = synthesis.read_questions(file)
        place = out or file.parent / "trajectories"
        entities, split = _made_of(file, source, entities, split)
        world, library, tools = _opened(stack, source, index, place, entities, split)
        synthesis.check_questions(found, _known_graph(world, library, file))
        run = _Trajectories(found, library, world, place, model, concurrency)
        options: dict[str, Any] = {"mode": mode, "seed": seed, "attempts": attempts}
        options |= _sampling(world is not None, temperature)
        if tools is not None:
            options["tools"] = tools
        if max_calls is not None:
            options["budget"] = _budget(mode, max_calls)
        with _interruptible():
            tried, reasoned = run.all(options)
        summary = run.write(tried, reasoned)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print_trajectories(summary)
    if summary["failed"]:
        raise typer.Exit(1)


class _Questions:
    """The steps of `questions`."""

    def __init__(
        self,
        library: "Library",
        world: "Encyclopedia | None",
        place: Path,
        model: str | None,
        closed_book: str | None,
        concurrency: int,
    ) -> None:
        from hanol.engines import open_engine
        from hanol.research import Replies

        self._library, self._world = library, world

        def replies(spec: str | None) -> Replies | None:
            if spec is None:
                return None
            return Replies(open_engine(spec), place / "replies.jsonl", concurrency=concurrency)

        self._model = replies(model) if world is None else None
        self._closed_book = replies(closed_book)

    def all(
        self, number: int, options: dict[str, Any]
    ) -> "tuple[KnowledgeGraph, ExtractReport | None, list[SynthQuestion], QuestionReport]":
        """The facts and the questions, and what became of the rest."""
        from hanol.research import asynthesize_questions

        async def run() -> Any:
            try:
                graph, extracted = await self._graph()
                with _bar("questions") as step:
                    found, report = await asynthesize_questions(
                        graph,
                        self._library,
                        number,
                        world=self._world,
                        closed_book=self._closed_book,
                        wording=self._model,
                        on_question=lambda kept: step(kept, number),
                        **options,
                    )
                return graph, extracted, found, report
            finally:
                for replies in filter(None, (self._model, self._closed_book)):
                    await replies.engine.aclose()

        return asyncio.run(run())

    async def _graph(self) -> "tuple[KnowledgeGraph, ExtractReport | None]":
        from hanol.errors import DataError
        from hanol.research import _synthesis as synthesis

        if self._world is not None:
            return synthesis.world_graph(self._world, self._library), None
        base = None
        try:
            base = synthesis.folder_graph(self._library)
        except DataError:
            if self._model is None:
                raise  # with a model, no links are needed
        if self._model is None:
            assert base is not None
            return base, None
        with _bar("passages") as step:
            return await synthesis.aextract_graph(
                self._library,
                self._model,
                base=base,
                on_passage=lambda total: step(None, total),
            )


class _Trajectories:
    """The steps of `trajectories`."""

    def __init__(
        self,
        questions: "list[SynthQuestion]",
        library: "Library",
        world: "Encyclopedia | None",
        place: Path,
        model: str,
        concurrency: int,
    ) -> None:
        from hanol.engines import open_engine
        from hanol.research import _synthesis as synthesis

        self._questions, self._library, self._world = questions, library, world
        self._place, self._concurrency = place, concurrency
        if world is not None and model == "expert":
            self._engine = synthesis.world_expert(world, questions)
        else:
            self._engine = open_engine(model)

    def is_right(self, question: "SynthQuestion", text: str) -> bool:
        """By the world where there is one: it knows other names and ways to write numbers."""
        from hanol.research import world_question

        if self._world is None:
            return question.is_right(text)
        return self._world.is_right(world_question(question), text)

    def all(self, options: dict[str, Any]) -> "tuple[list[Attempt], list[dict[str, Any]]]":
        """Every run, and the reasoning rows: from the runs in worlds, else the model is asked."""
        from hanol.research import _synthesis as synthesis

        total = len(self._questions) * options["attempts"]

        async def run() -> "tuple[list[Attempt], list[dict[str, Any]]]":
            try:
                tried = await synthesis.asynthesize_trajectories(
                    self._questions,
                    self._library,
                    self._engine,
                    self._place,
                    is_right=self.is_right,
                    concurrency=self._concurrency,
                    on_attempt=lambda attempt: step(None, total),
                    **options,
                )
                if self._world is not None:  # models of a world know no other instructions
                    return tried, synthesis.reasoning_rows(tried)
                log = self._place / "replies.jsonl"
                replies = synthesis.Replies(self._engine, log, concurrency=self._concurrency)
                seed = options["seed"]
                return tried, await synthesis.areason(
                    self._questions, self._library, replies, seed=seed
                )
            finally:
                await self._engine.aclose()

        with _bar("runs") as step:
            return asyncio.run(run())

    def write(self, tried: "list[Attempt]", reasoned: list[dict[str, Any]]) -> dict[str, Any]:
        """Write everything, and say how much there is."""
        from hanol.research import _synthesis as synthesis
        from hanol.research import write_official_runs

        rows = {
            "planning": synthesis.planning_rows(tried),
            "reasoning": reasoned,
            "decision": synthesis.decision_rows(tried),
        }
        sft = synthesis.trajectory_rows(tried)
        names = ("trajectories.jsonl", "sft.jsonl", "midtrain.jsonl")
        official, conversations, steps = (self._place / name for name in names)
        write_official_runs(official, synthesis.official_lines(tried))
        synthesis.write_rows(conversations, sft)
        synthesis.write_rows(steps, [row for kind in rows.values() for row in kind])
        right = [attempt for attempt in tried if attempt.is_right]
        failed = [attempt for attempt in tried if attempt.error is not None]
        return {
            "folder": str(self._place),
            "questions": len(self._questions),
            "solved": len({attempt.question.id for attempt in right}),
            "attempts": len(tried),
            "right": len(right),
            "failed": len(failed),
            "first_failure": failed[0].error if failed else None,
            "rows": {"trajectory": len(sft)} | {kind: len(each) for kind, each in rows.items()},
        }


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 1,2,3", param_hint="--hops"
        )
    return tuple(map(int, parts))


def _place(source: str, index: Path | None) -> Path:
    from hanol.research import world_seed

    if world_seed(source) is not None:
        return Path("runs/synth") / source.replace(":", "-")
    return (index or Path(source) / ".hanol") / "synth"


def _opened(
    stack: ExitStack,
    source: str,
    index: Path | None,
    place: Path,
    entities: int,
    split: Literal["train", "dev", "test"],
) -> "tuple[Encyclopedia | None, Library, list[Tool] | None]":
    """The world if there is one, the documents, and the tools if they are not the usual ones."""
    from hanol.cli._agent import index_first
    from hanol.research import world_seed
    from hanol.retrieval import Library

    seed = world_seed(source)
    if seed is None:
        library = stack.enter_context(Library.open(source, index=index))
        if not library.documents():
            index_first(library)
        return None, library, None
    from hanol.research._training._environment import WorldEnvironment
    from hanol.worlds import Encyclopedia

    world = Encyclopedia(seed, entities, split=split)
    environment = stack.enter_context(WorldEnvironment(world, place / "world"))
    assert environment.library is not None
    return world, environment.library, list(environment.tools)


def _made_of(
    file: Path, source: str, entities: int, split: Literal["train", "dev", "test"]
) -> "tuple[int, Literal['train', 'dev', 'test']]":
    """The sizes of the world that questions were made from, where their report tells."""
    report = file.parent / "report.json"
    if report.is_file():
        made = json.loads(report.read_text("utf-8"))
        if made.get("source") == source:
            return made["entities"], made["split"]
    return entities, split


def _known_graph(
    world: "Encyclopedia | None", library: "Library", file: Path
) -> "KnowledgeGraph | None":
    """The facts that the questions can be checked against."""
    from hanol.research import KnowledgeGraph, world_graph

    if world is not None:
        return world_graph(world, library)
    beside = file.parent / "graph.jsonl"
    return KnowledgeGraph.read(beside) if beside.is_file() else None


def _sampling(is_world: bool, temperature: float | None) -> dict[str, Any]:
    from hanol.research import Sampling

    if is_world:  # tiny models: no penalty on what they must copy
        return {"sampling": Sampling(0.7 if temperature is None else temperature, 1.0, 0.0, 512)}
    return {} if temperature is None else {"sampling": Sampling(temperature=temperature)}


def _budget(mode: str, calls: int) -> Any:
    from hanol.research import Budget

    return Budget(model_calls=calls, **({"context_tokens": 32 * 1024} if mode == "resum" else {}))


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int | None, int], None]]:
    """A progress bar on standard error; called with how many are done (None: one more) of all."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(name), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=None)

        def step(done: int | None, total: int) -> None:
            progress.update(task, total=total)
            if done is None:
                progress.advance(task)
            else:
                progress.update(task, completed=done)

        yield step


def _print_questions(summary: dict[str, Any], wanted: int) -> None:
    kept, dropped = summary["kept"], summary["dropped"]
    typer.echo(f"{kept} questions from {summary['facts']:,} facts: {summary['drawn']} drawn")
    for reason, number in dropped.items():
        typer.echo(f"dropped: {number} {reason.replace('_', ' ')}")
    if summary["extracted"] is not None:
        parts = (f"{value} {name}" for name, value in summary["extracted"].items())
        typer.echo(f"extracted: {', '.join(parts)}")
    if kept < wanted:
        print(f"{wanted} were wanted, but nothing new was found for long.", file=sys.stderr)
    typer.echo(f"questions: {summary['questions']}")


def _print_trajectories(summary: dict[str, Any]) -> None:
    typer.echo(
        f"{summary['right']} of {summary['attempts']} runs are right, {summary['failed']} failed; "
        f"{summary['solved']} of {summary['questions']} questions are solved"
    )
    if summary["first_failure"]:
        print(f"failed: {' '.join(summary['first_failure'].split())}", file=sys.stderr)
    typer.echo(", ".join(f"{number} {kind}" for kind, number in summary["rows"].items()))
    typer.echo(f"results: {summary['folder']}")
