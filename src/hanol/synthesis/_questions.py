"""Files of questions with exact answers, one JSON object per line: written, read, checked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.rows import read_rows, replace_rows
from hanol.scoring import normalise
from hanol.worlds import GraphQuestion, KnowledgeGraph

_SAME = ("hops", "level", "sources", "facts", "entities")  # in a question and in its row
_KEYS = ("id", "question", "answer", "formalization", *_SAME)


def write_questions(path: str | Path, questions: Iterable[GraphQuestion]) -> None:
    """Write questions as JSON lines."""
    replace_rows(
        path,
        (
            {
                "id": question.id,
                "question": question.text,
                "answer": question.answer,
                "formalization": question.triples,
                **{name: getattr(question, name) for name in _SAME},
                **question.details,
            }
            for question in questions
        ),
    )


def write_webshaper(path: str | Path, questions: Iterable[GraphQuestion]) -> None:
    """Write questions in WebShaper's format (arXiv 2507.15061), which `read_questions` reads.

    Several answers become one text with commas.

    Raises:
        DataError: A question has no triples.
    """
    rows = []
    for question in questions:
        if not question.triples:
            raise DataError(
                f"The question {question.id!r} has no `formalization`, which WebShaper's format "
                "needs."
            )
        rows.append(
            {
                "id": question.id,
                "question": question.text,
                "answer": ", ".join(question.answers),
                "urls": list(question.sources),
                "formalization": [list(triple) for triple in question.triples],
            }
        )
    replace_rows(path, rows)


def read_questions(path: str | Path) -> list[GraphQuestion]:
    """Read questions: ours, WebShaper's, or any rows with "question" and "answer".

    These are also the rows of WebDancer, SailorFog and WebWalkerQA, which has capitals.

    Raises:
        DataError: A row lacks a question or an answer, has invalid triples, or repeats an id.
    """
    found: dict[str, GraphQuestion] = {}
    for line, row in read_rows(path):
        question = _read(row, f"{str(path)!r}, line {line}")
        if question.id in found:
            raise DataError(f"{str(path)!r}, line {line}: the id {question.id!r} occurs twice.")
        found[question.id] = question
    if not found:
        raise DataError(f"{str(path)!r} has no questions.")
    return list(found.values())


def _read(row: dict[str, Any], place: str) -> GraphQuestion:
    names = {name.casefold(): name for name in row}
    asked, told = names.get("question", ""), names.get("answer", "")
    text, answer = row.get(asked), row.get(told)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: `question` is missing or empty.")
    answers = answer if isinstance(answer, list) else [answer]
    if not answers or not all(isinstance(each, str | int | float) for each in answers):
        raise DataError(f"{place}: `answer` is {answer!r:.80}, but must be a text or a list.")
    triples = row.get("formalization") or []
    if isinstance(triples, str):  # tables hold the list as JSON in a text
        triples = json.loads(triples) if triples.startswith("[") else None
    if not isinstance(triples, list) or not all(
        isinstance(triple, list) and len(triple) == 3 and all(isinstance(p, str) for p in triple)
        for triple in triples
    ):
        raise DataError(f"{place}: `formalization` is not a list of triples of texts.")
    return GraphQuestion(
        text=text,
        answers=tuple(map(str, answers)),
        triples=tuple((head, relation, tail) for head, relation, tail in triples),
        hops=row["hops"] if isinstance(row.get("hops"), int) else 0,
        level=row["level"] if isinstance(row.get("level"), int) else 0,
        entities=_texts(row, "entities"),
        sources=_texts(row, "sources") or _texts(row, "urls"),
        facts=_texts(row, "facts"),
        id="" if row.get("id") is None else str(row["id"]),
        details={name: row[name] for name in row if name not in (*_KEYS, "urls", asked, told)},
    )


def _texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = row.get(key)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def check_questions(
    questions: Sequence[GraphQuestion], graph: KnowledgeGraph | None = None
) -> None:
    """Check that the answers of a set of questions are unique.

    Args:
        questions: The set.
        graph: The facts that they are about. Without it, only contradictions within the set are
            found: the same question with different answers.

    Raises:
        DataError: Some questions have other answers; the message counts them and shows one.
    """
    answers: dict[str, frozenset[str]] = {}
    wrong: list[str] = []
    for question in questions:
        mine = frozenset(map(normalise, question.answers))
        found = answers.setdefault(normalise(question.text), mine)
        if graph is not None and question.triples:
            found = frozenset(map(normalise, graph.answers(question.triples)))
        if found != mine:
            shown = ", ".join(sorted(found)[:5]) or "nothing"
            wrong.append(
                f"{question.text!r:.300} is said to have the answer {question.answer!r}, but "
                f"{len(found)} fit: {shown}"
            )
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(questions)} questions have answers that are not unique. The "
            f"first: {wrong[0]}. Remove them, or ask about the documents that they were made from."
        )
