"""Writers of the sample formats released with the WebAgent papers; `_samples` reads them.

WebShaper (arXiv 2507.15061), questions with answers as of WebDancer and SailorFog (2505.22648,
2507.02592), and WebDancer's trajectories.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.files import replace_text
from hanol.synthesis._questions import SynthQuestion
from hanol.synthesis._samples import Sample, ShaperTask


def shaper_task(question: SynthQuestion) -> ShaperTask:
    """A question as WebShaper's row; several answers become one text, with commas.

    Raises:
        DataError: The question has no triples.
    """
    if not question.formalization:
        raise DataError(
            f"The question {question.id!r} has no `formalization`, which WebShaper's format needs."
        )
    return ShaperTask(
        id=question.id,
        question=question.question,
        answer=", ".join(question.answers),
        urls=question.sources,
        triples=question.formalization,
    )


def write_webshaper(path: str | Path, tasks: Iterable[ShaperTask]) -> None:
    """Write WebShaper's format, which `read_webshaper` reads."""
    rows = (
        {
            "id": task.id,
            "question": task.question,
            "answer": task.answer,
            "urls": list(task.urls),
            "formalization": [list(triple) for triple in task.triples],
        }
        for task in tasks
    )
    write_rows(path, rows)


def write_qa(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write questions with answers, which `read_qa` reads.

    Raises:
        DataError: A sample has no answer.
    """
    rows = []
    for sample in samples:
        if sample.answer is None:
            raise DataError(f"The sample {sample.question[:80]!r} has no answer to write.")
        rows.append({"question": sample.question, "answer": sample.answer, **sample.details})
    write_rows(path, rows)


def write_trajectories(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write dialogues in WebDancer's format, which `read_trajectories` reads.

    Perplexities stand in the messages, as ParallelMuse (arXiv 2510.24698) has them.

    Raises:
        DataError: A sample has no dialogue.
    """
    rows = []
    for sample in samples:
        if not sample.messages:
            raise DataError(f"The sample {sample.question[:80]!r} has no dialogue to write.")
        messages: list[dict[str, Any]] = [dict(message.to_dict()) for message in sample.messages]
        for message, perplexity in zip(messages, sample.step_ppl, strict=False):
            if perplexity is not None:
                message["step_ppl"] = perplexity
        row = {"question": sample.question, "answer": sample.answer, "messages": messages}
        rows.append({**row, **sample.details})
    write_rows(path, rows)


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, one JSON object a line; the file is whole or not there."""
    # Escaped, because models write halves of surrogate pairs, which UTF-8 cannot hold.
    replace_text(Path(path), "".join(json.dumps(row) + "\n" for row in rows))
