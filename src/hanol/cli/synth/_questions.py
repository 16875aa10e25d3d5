"""`hanol synth questions`: multi-hop questions with unique answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hanol.cli._command import Result, command, option
from hanol.cli._console import tell
from hanol.cli._options import (
    HOPS,
    ConcurrencyOption,
    IndexOption,
    SeedOption,
    SourceArgument,
    WorldOptions,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.documents import open_indexed
from hanol.errors import ConfigError, SearchIndexError
from hanol.files import refuse_links, replace_json

if TYPE_CHECKING:
    from hanol.retrieval import Index
    from hanol.synthesis import ExtractReport, QuestionReport, Replies
    from hanol.tools import Tool
    from hanol.worlds import AnyPage, GraphQuestion, KnowledgeGraph, World


@command
def questions(
    source: SourceArgument,
    num_questions: int = option(100, "Number of questions.", min=1),
    hops: Sequence[int] = HOPS,
    level: int = option(
        0, "How the first entity is given: by name (0), or by a description (1, 2).", min=0, max=2
    ),
    sets: bool = option(False, "Also ask questions with several answers."),
    model: str | None = option(
        None,
        "Model that extracts the facts of a folder and writes the questions. Omitted: facts from "
        "links, titles and mentions.",
        "--model",
        "-m",
    ),
    closed_book_model: str | None = option(
        None, "Drop the questions that this model answers without documents. Omitted: none."
    ),
    seed: SeedOption = 0,
    index: IndexOption = None,
    output: Path | None = option(
        None, "Folder of the results. Omitted: .hanol/synth, or runs/synth for a world."
    ),
    concurrency: ConcurrencyOption = 8,
    world: WorldOptions = WorldOptions(),
) -> Result:
    """Generate multi-hop questions with unique answers from a folder or a world.

    Writes questions.jsonl, webshaper.jsonl, graph.jsonl and report.json. Run again after an
    interruption, it repeats no model call.

    Example: hanol synth questions encyclopedia:7 --num-questions 200 --hops 1,2,3
    """
    import asyncio

    from hanol import synthesis
    from hanol.engines import open_engine
    from hanol.runs import Ledger
    from hanol.worlds import is_world

    place = output or _place(source, index)
    refuse_links(place)
    if model is not None and is_world(source):
        raise ConfigError("--model is for a folder: a world has facts and wordings.")
    with opened_subject(source, index, place, world.given) as subject:
        options = {"hops": tuple(hops), "level": level, "sets": sets, "seed": seed}

        def replies(spec: str | None) -> "Replies | None":
            log = place / "replies.jsonl"
            if spec is None:
                return None
            return synthesis.Replies(open_engine(spec), log, concurrency=concurrency)

        wording = replies(model)
        closed_book = replies(closed_book_model)
        made = _made(subject, num_questions, wording, closed_book, **options)
        with interruptible():
            graph, extracted, found, report = asyncio.run(made)
        place.mkdir(parents=True, exist_ok=True)
        graph.write(place / "graph.jsonl")
        synthesis.write_questions(place / "questions.jsonl", found)
        synthesis.write_webshaper(place / "webshaper.jsonl", found)
        summary = {
            "questions": str(place / "questions.jsonl"),
            "source": source,
            **synthesis.world_report(subject.world),
            **options,
            "facts": len(graph.edges),
            **asdict(report),
            "extracted": None if extracted is None else asdict(extracted),
            "spent": asdict(sum((r.engine.spent for r in (wording, closed_book) if r), Ledger())),
        }
        replace_json(place / "report.json", summary)
    return Result(summary, _lines(summary, num_questions))


class Subject(NamedTuple):
    """The documents, open; in a world also the world whose pages they are, and its tools."""

    corpus: "Index"
    world: "World[AnyPage] | None" = None
    tools: "list[Tool] | None" = None


@contextmanager
def opened_subject(
    source: str, index: Path | None, place: Path, made: dict[str, Any]
) -> Iterator[Subject]:
    """Open a folder, indexing it first if nobody has, or make a world with its pages in `place`."""
    from hanol.agent_training import WorldEnvironment
    from hanol.worlds import is_world, open_world

    if not is_world(source):
        if made:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in made)
            raise ConfigError(f"{source!r} is a folder: {options} is for worlds.")
        with open_indexed(source, index) as corpus:
            if not corpus.documents():
                raise SearchIndexError(
                    f"There is no document with words in {source!r}: put some there that "
                    "`hanol index` reads, such as pdf, docx, html, md or txt files."
                )
            yield Subject(corpus)
        return
    if index is not None:
        raise ConfigError(f"--index is for a folder of documents; {source} keeps its own index.")
    world = open_world(source, **made)
    with WorldEnvironment(world, place / "world") as environment:
        assert environment.index is not None
        yield Subject(environment.index, world, list(environment.tools))


async def _made(
    subject: Subject,
    number: int,
    model: "Replies | None",
    closed_book: "Replies | None",
    **options: Any,
) -> "tuple[KnowledgeGraph, ExtractReport | None, list[GraphQuestion], QuestionReport]":
    """The facts and the questions, and what became of the rest."""
    from hanol import synthesis

    corpus, world = subject.corpus, subject.world
    try:
        with progress("passages") as passages:
            graph, extracted = await synthesis.abuild_graph(
                corpus, world=world, model=model, on_passage=lambda total: passages(None, total)
            )
        with progress("questions") as asked:
            found, report = await synthesis.asynthesize_questions(
                graph, corpus, number, world=world, closed_book=closed_book, wording=model,
                on_question=lambda kept: asked(kept, number), **options,
            )  # fmt: skip
        return graph, extracted, found, report
    finally:
        for replies in filter(None, (model, closed_book)):
            await replies.engine.aclose()


def _place(source: str, index: Path | None) -> Path:
    from hanol.worlds import is_world

    if is_world(source):
        return Path("runs/synth") / source.replace(":", "-")
    return (index or Path(source) / ".hanol") / "synth"


def _lines(summary: dict[str, Any], wanted: int) -> Iterator[str]:
    kept = summary["kept"]
    yield f"{kept} questions from {summary['facts']:,} facts: {summary['drawn']} drawn"
    for reason, number in summary["dropped"].items():
        yield f"dropped: {number} {reason.replace('_', ' ')}"
    if summary["extracted"] is not None:
        parts = (f"{value} {name}" for name, value in summary["extracted"].items())
        yield f"extracted: {', '.join(parts)}"
    if kept < wanted:
        tell(f"{wanted} were wanted, but no more were found.")
    yield f"questions: {summary['questions']}"
