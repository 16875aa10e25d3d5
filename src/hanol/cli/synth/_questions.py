"""`hanol synth questions`: multi-hop questions with unique answers."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import (
    ConcurrencyOption,
    HopsOption,
    IndexOption,
    JsonOption,
    SeedOption,
    SourceArgument,
    WorldOptions,
    command,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.synth._subject import Subject, opened_subject
from hanol.files import replace_json

if TYPE_CHECKING:
    from hanol.synthesis import ExtractReport, QuestionReport, Replies, SynthQuestion
    from hanol.worlds import KnowledgeGraph


@command
def questions(
    source: SourceArgument,
    num_questions: Annotated[
        int, typer.Option("--num-questions", "-n", min=1, help="Number of questions.")
    ] = 100,
    hops: HopsOption = "1,2,3",
    level: Annotated[
        int, typer.Option(min=0, max=2, help="0 names the start, 1 and 2 describe it.")
    ] = 0,
    sets: Annotated[
        bool, typer.Option("--sets", help="Also ask questions with several answers.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model that extracts facts of a folder and words the questions. Omitted: facts "
            "from links, titles and mentions.",
        ),
    ] = None,
    closed_book_model: Annotated[
        str | None,
        typer.Option(
            help="Model whose questions that it knows by heart are dropped. Omitted: "
            "none is dropped."
        ),
    ] = None,
    seed: SeedOption = 0,
    index: IndexOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results. Omitted: .hanol/synth, or runs/synth for a world."
        ),
    ] = None,
    concurrency: ConcurrencyOption = 8,
    world: WorldOptions = WorldOptions(),
    as_json: JsonOption = False,
) -> None:
    """Generate multi-hop questions with unique answers from a folder or a world.

    Writes questions.jsonl, webshaper.jsonl, graph.jsonl and report.json. Repeated after an
    interruption, it asks no model anything twice.

    Example: hanol synth questions encyclopedia:7 --num-questions 200 --hops 1,2,3
    """
    from hanol import synthesis
    from hanol.engines import open_engine

    wanted = _numbers(hops)
    place = output or _place(source, index)
    with opened_subject(source, index, place, world) as subject:
        options = {"hops": wanted, "level": level, "sets": sets, "seed": seed}

        def replies(spec: str | None) -> "Replies | None":
            log = place / "replies.jsonl"
            if spec is None:
                return None
            return synthesis.Replies(open_engine(spec), log, concurrency=concurrency)

        wording = replies(model) if subject.world is None else None
        made = _made(subject, num_questions, wording, replies(closed_book_model), **options)
        with interruptible():
            graph, extracted, found, report = asyncio.run(made)
        place.mkdir(parents=True, exist_ok=True)
        graph.write(place / "graph.jsonl")
        synthesis.write_questions(place / "questions.jsonl", found)
        synthesis.write_webshaper(place / "webshaper.jsonl", map(synthesis.shaper_task, found))
        made_of = {"source": source, "entities": world.num_entities, "split": world.split}
        summary = {"questions": str(place / "questions.jsonl"), **made_of, **options}
        summary |= {"facts": len(graph.edges), **asdict(report)}
        summary["extracted"] = None if extracted is None else asdict(extracted)
        replace_json(place / "report.json", summary)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    _print_questions(summary, num_questions)


async def _made(
    subject: Subject,
    number: int,
    model: "Replies | None",
    closed_book: "Replies | None",
    **options: Any,
) -> "tuple[KnowledgeGraph, ExtractReport | None, list[SynthQuestion], QuestionReport]":
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


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers such as 1,2,3", param_hint="--hops"
        )
    return tuple(map(int, parts))


def _place(source: str, index: Path | None) -> Path:
    from hanol.synthesis import world_seed

    if world_seed(source) is not None:
        return Path("runs/synth") / source.replace(":", "-")
    return (index or Path(source) / ".hanol") / "synth"


def _print_questions(summary: dict[str, Any], wanted: int) -> None:
    kept, dropped = summary["kept"], summary["dropped"]
    typer.echo(f"{kept} questions from {summary['facts']:,} facts: {summary['drawn']} drawn")
    for reason, number in dropped.items():
        typer.echo(f"dropped: {number} {reason.replace('_', ' ')}")
    if summary["extracted"] is not None:
        parts = (f"{value} {name}" for name, value in summary["extracted"].items())
        typer.echo(f"extracted: {', '.join(parts)}")
    if kept < wanted:
        print(f"{wanted} were wanted, but no more were found.", file=sys.stderr)
    typer.echo(f"questions: {summary['questions']}")
