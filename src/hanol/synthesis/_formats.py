"""Readers and writers of the sample formats released with the WebAgent papers.

WebDancer (arXiv 2505.22648), SailorFog (WebSailor), WebShaper (2507.15061), WebWalkerQA,
ParallelMuse (2510.24698). All of their dialogues are read as `Sample`s. Files hold one JSON object
per line, or one JSON list.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanol.engines import Message
from hanol.errors import DataError
from hanol.files import replace_rows
from hanol.synthesis._questions import SynthQuestion
from hanol.tools import located_rows, messages_field, text_field
from hanol.worlds import Triple


@dataclass(frozen=True)
class Sample:
    """One row of a released sample.

    Args:
        question: The task.
        answer: Its reference answer; None in a trajectory that has none.
        messages: The dialogue, with tool results as user messages; empty for plain questions.
        step_ppl: ParallelMuse's perplexity of each message, None where it has none.
        details: All other keys of the row.
    """

    question: str
    answer: str | None
    messages: tuple[Message, ...] = ()
    step_ppl: tuple[Any, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShaperTask:
    """A WebShaper question with its formalisation.

    Args:
        id: Number of the task in the release.
        question: The question in words.
        answer: The reference answer.
        urls: Pages that it was made from.
        triples: (subject, relation, object); see `evaluate_formalization`.
    """

    id: str
    question: str
    answer: str
    urls: tuple[str, ...]
    triples: tuple[Triple, ...]


def read_trajectories(path: str | Path) -> list[Sample]:
    """Read dialogues: WebDancer's trajectories (`messages`) and ParallelMuse's (`rollout`).

    Raises:
        DataError: A row lacks its dialogue, or a message its role or text.
    """
    samples = []
    for place, row in located_rows(path):
        key = "rollout" if "rollout" in row else "messages"
        messages = messages_field(row, key, place)
        question = row.get("question") or row.get("task")
        if question is None:
            question = next((m.text for m in messages if m.role == "user"), None)
        if not isinstance(question, str):
            raise DataError(f"{place}: there is no question and no message of the user.")
        answer = row.get("answer")
        answer = None if answer is None else str(answer)
        used = ("question", "answer", key)
        details = {name: value for name, value in row.items() if name not in used}
        samples.append(Sample(question, answer, messages, _step_ppl(row, key), details))
    return samples


def read_qa(path: str | Path) -> list[Sample]:
    """Read questions with answers: WebDancer's, SailorFog's and WebWalkerQA's.

    WebWalkerQA's capitals and its `Info` are kept in `details` as they are.

    Raises:
        DataError: A row lacks question or answer.
    """
    samples = []
    for place, row in located_rows(path):
        names = {name.casefold(): name for name in row}
        question = text_field(row, names.get("question", "question"), place)
        answer = text_field(row, names.get("answer", "answer"), place)
        details = {
            name: value
            for name, value in row.items()
            if name.casefold() not in ("question", "answer")
        }
        samples.append(Sample(question, answer, details=details))
    return samples


def read_webshaper(path: str | Path) -> list[ShaperTask]:
    """Read WebShaper's tasks.

    Raises:
        DataError: A row lacks a key, or its formalisation is no list of triples of texts.
    """
    tasks = []
    for place, row in located_rows(path):
        triples = _triples(row.get("formalization"), place)
        urls = row.get("urls", [])
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise DataError(f"{place}: `urls` is no list of texts.")
        if "id" not in row:
            raise DataError(f"{place}: there is no `id`.")
        question, answer = text_field(row, "question", place), text_field(row, "answer", place)
        tasks.append(ShaperTask(str(row["id"]), question, answer, tuple(urls), triples))
    return tasks


def shaper_task(question: SynthQuestion) -> ShaperTask:
    """A question in WebShaper's format; several answers become one text with commas.

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
    """Write tasks in WebShaper's format, which `read_webshaper` reads."""
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
    replace_rows(path, rows)


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
    replace_rows(path, rows)


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
    replace_rows(path, rows)


def _step_ppl(row: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Perplexities stored in the messages, or beside them."""
    if isinstance(messages := row[key], list) and any("step_ppl" in m for m in messages):
        return tuple(message.get("step_ppl") for message in messages)
    return tuple(beside) if isinstance(beside := row.get("step_ppl"), list) else ()


def _triples(value: Any, place: str) -> tuple[Triple, ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: `formalization` is no list of triples.")
    for triple in value:
        is_triple = isinstance(triple, list) and len(triple) == 3
        if not is_triple or not all(isinstance(part, str) for part in triple):
            raise DataError(f"{place}: {triple!r:.80} is no triple [subject, relation, object].")
    return tuple((subject, relation, thing) for subject, relation, thing in value)
