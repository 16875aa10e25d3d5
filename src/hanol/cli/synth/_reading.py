"""`hanol synth reading`: questions about passages and what answers them, for readers."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hanol.cli._command import Result, command, option
from hanol.cli._console import tell
from hanol.cli._options import SeedOption
from hanol.cli._progress import interruptible, progress
from hanol.cli.documents import open_indexed
from hanol.files import refuse_links, replace_json
from hanol.rows import replace_rows

FoldersArgument = Annotated[
    list[Path],
    typer.Argument(help="Folders of documents. One that is given twice gets twice its share."),
]


@command
def reading(
    folders: FoldersArgument,
    output: Path = option(Path("reading.jsonl"), "File of the rows.", "--output"),
    num_rows: int = option(1_000, "Number of rows, held-out ones included.", min=1),
    held_out: float = option(
        0.1, "Share of the documents whose rows go to a file of their own.", min=0, max=1
    ),
    questions: Path | None = option(
        None,
        'Questions that people wrote: JSON lines with "question", "document", "answer".'
        " Omitted: none.",
    ),
    wordnet: Path | None = option(
        None, "Folder of WordNet's files, for synonyms. Omitted: a short list of synonyms."
    ),
    model: str | None = option(
        None,
        "Model that writes a part of the questions. Omitted: all are made by rule.",
        "--model",
        "-m",
    ),
    model_share: float = option(
        0.2, "Share of the rows with a question by the model.", min=0, max=1
    ),
    seed: SeedOption = 0,
) -> Result:
    """Generate training data of a reader: sentences, questions, which one answers.

    Writes OUTPUT, the rows about held-out documents beside it as NAME.held-out.jsonl, and
    NAME.report.json. Recipes of the kind sft read the rows. Run again after an interruption, it
    repeats no model call.

    Example: hanol synth reading manuals papers --output rows.jsonl --num-rows 2000
    """  # fmt: skip
    import asyncio

    from hanol import synthesis
    from hanol.engines import open_engine
    from hanol.research import sentence_prompt, sentences_of

    for suffix in (output.suffix, ".held-out.jsonl", ".replies.jsonl", ".report.json"):
        refuse_links(output.with_suffix(suffix), is_named=False)
    reader = synthesis.Reader(sentences_of, sentence_prompt)
    lexicon = synthesis.Lexicon(wordnet)
    with ExitStack() as stack:
        corpora = []
        for folder in dict.fromkeys(folders):
            index = stack.enter_context(open_indexed(folder, None))
            corpora.append(synthesis.ReadingDocuments(folder.resolve().name, index, held_out, seed))
        by_folder = dict(zip(dict.fromkeys(folders), corpora, strict=True))
        written = list(synthesis.written_questions(questions, corpora)) if questions else []
        replies = None
        if model is not None:
            log = output.with_suffix(".replies.jsonl")
            replies = synthesis.Replies(open_engine(model), log)

        async def made() -> "tuple[list[dict[str, Any]], synthesis.ReadingReport]":
            try:
                with progress("rows") as on_row:
                    return await synthesis.asynthesize_reading(
                        [by_folder[folder] for folder in folders], num_rows, reader,
                        lexicon=lexicon, written=written, model=replies,
                        model_share=model_share, seed=seed,
                        on_row=lambda total: on_row(total, num_rows),
                    )  # fmt: skip
            finally:
                if replies is not None:
                    await replies.engine.aclose()

        with interruptible():
            rows, report = asyncio.run(made())
    for name, held in ((".jsonl", False), (".held-out.jsonl", True)):
        replace_rows(
            output.with_suffix(name), (row for row in rows if row["meta"]["held_out"] is held)
        )
    summary = {
        "output": str(output),
        "folders": [str(folder) for folder in folders],
        **asdict(report),
        "spent": None if replies is None else asdict(replies.engine.spent),
    }
    replace_json(output.with_suffix(".report.json"), summary)
    return Result(summary, _lines(summary, num_rows))


def _lines(summary: dict[str, Any], wanted: int) -> Iterator[str]:
    places = (("questions", "to train on"), ("held_out", "about held-out documents"))
    for rows, (name, place) in zip(summary["rows"], places, strict=True):
        kinds = summary[name]
        parts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
        yield f"{rows:,} rows {place}, {sum(kinds.values()):,} questions: {parts or 'none'}"
    for reason, number in summary["dropped"].items():
        yield f"dropped: {number:,} {reason.replace('_', ' ')}"
    if sum(summary["rows"]) < wanted:
        tell(f"{wanted} were wanted, but no more were found.")
    yield f"rows: {summary['output']}"
