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
    EntitiesOption,
    IndexOption,
    JsonOption,
    SeedOption,
    SourceArgument,
    SplitOption,
)
from hanol.cli._progress import bar, interruptible
from hanol.cli._report import reported
from hanol.cli._subject import Subject, opened_subject

if TYPE_CHECKING:
    from hanol.synthesis import ExtractReport, QuestionReport, SynthQuestion
    from hanol.worlds import KnowledgeGraph


def questions(
    source: SourceArgument,
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
    entities: EntitiesOption = 300,
    split: SplitOption = "train",
    seed: SeedOption = 0,
    index: IndexOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; .hanol/synth or runs/synth/...")
    ] = None,
    concurrency: ConcurrencyOption = 8,
    as_json: JsonOption = False,
) -> None:
    """Make multi-hop questions with unique answers from a folder or a world.

    Writes questions.jsonl, webshaper.jsonl, graph.jsonl and report.json. Started again after an
    interruption, it asks no model anything twice.

    Example: hanol synth questions encyclopedia:7 --n 200 --hops 1,2,3
    """
    with reported(as_json=as_json):
        from hanol import synthesis

        wanted = _numbers(hops)
        place = out or _place(source, index)
        with opened_subject(source, index, place, entities, split) as subject:
            make = _Questions(subject, place, model, closed_book, concurrency)
            options = {"hops": wanted, "level": level, "sets": sets, "seed": seed}
            with interruptible():
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


class _Questions:
    """The steps of `questions`."""

    def __init__(
        self,
        subject: Subject,
        place: Path,
        model: str | None,
        closed_book: str | None,
        concurrency: int,
    ) -> None:
        from hanol.engines import open_engine
        from hanol.synthesis import Replies

        self._corpus, self._world = subject.corpus, subject.world

        def replies(spec: str | None) -> Replies | None:
            if spec is None:
                return None
            return Replies(open_engine(spec), place / "replies.jsonl", concurrency=concurrency)

        self._model = replies(model) if self._world is None else None
        self._closed_book = replies(closed_book)

    def all(
        self, number: int, options: dict[str, Any]
    ) -> "tuple[KnowledgeGraph, ExtractReport | None, list[SynthQuestion], QuestionReport]":
        """The facts and the questions, and what became of the rest."""
        from hanol.synthesis import asynthesize_questions

        async def run() -> Any:
            try:
                graph, extracted = await self._graph()
                with bar("questions") as step:
                    found, report = await asynthesize_questions(
                        graph,
                        self._corpus,
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
        from hanol import synthesis
        from hanol.errors import DataError

        if self._world is not None:
            return synthesis.world_graph(self._world, self._corpus), None
        base = None
        try:
            base = synthesis.folder_graph(self._corpus)
        except DataError:
            if self._model is None:
                raise  # with a model, no links are needed
        if self._model is None:
            assert base is not None
            return base, None
        with bar("passages") as step:
            return await synthesis.aextract_graph(
                self._corpus,
                self._model,
                base=base,
                on_passage=lambda total: step(None, total),
            )


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 1,2,3", param_hint="--hops"
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
        print(f"{wanted} were wanted, but nothing new was found for long.", file=sys.stderr)
    typer.echo(f"questions: {summary['questions']}")
