"""Questions with exact answers, and the files that hold them: written, read, checked.

A file of questions has one JSON object per line. `hanol research batch` reads it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.files import read_rows, replace_rows
from hanol.runs import Task
from hanol.scoring import exact_match, normalise, set_match
from hanol.worlds import GraphQuestion, KnowledgeGraph, Triple

_KEYS = (
    *("id", "question", "answer", "formalization", "hops", "level", "sources", "facts"),
    "entities",
)  # of a row


@dataclass(frozen=True)
class SynthQuestion:
    """A question with its exact answers, and what it was made from.

    Args:
        id: Unique in its file; derived from the question.
        question: The question in words.
        answers: All answers; the question asks for all of them.
        formalization: The question as triples (arXiv 2507.15061); empty where unknown.
        hops: Number of facts to follow from the start.
        level: How much the start is obfuscated: 0, 1 or 2.
        sources: Addresses of the documents to read, in order.
        facts: The sentences in them that answer the question.
        entities: Entities on the way, the start first.
        details: Other keys of the row.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    formalization: tuple[Triple, ...] = ()
    hops: int = 0
    level: int = 0
    sources: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer(self) -> str | list[str]:
        """The answer as text, or the list of answers."""
        return self.answers[0] if len(self.answers) == 1 else list(self.answers)

    @property
    def constants(self) -> tuple[str, ...]:
        """Names in the question, as far as its triples tell."""
        ends = (end for head, _, tail in self.formalization for end in (head, tail))
        return tuple(dict.fromkeys(end[2:] for end in ends if end.startswith("C@")))

    @property
    def task(self) -> Task:
        """The question as a task for a batch of runs."""
        return Task(self.id, self.question, self.answer)

    def is_right(self, text: str | None) -> bool:
        """Whether a text is the answer, or lists exactly the answers."""
        if len(self.answers) == 1:
            return exact_match(text, self.answers[0])
        return set_match(text, self.answers)

    def to_row(self) -> dict[str, Any]:
        """The question as a row of a file."""
        return {name: getattr(self, name) for name in _KEYS} | dict(self.details)


def question_of(drawn: GraphQuestion, text: str | None = None) -> SynthQuestion:
    """A drawn question, with another wording if `text` is given."""
    return SynthQuestion(
        id=_id_of(text or drawn.text),
        question=text or drawn.text,
        answers=tuple(sorted(drawn.answers)),
        formalization=drawn.triples,
        hops=drawn.hops,
        level=drawn.level,
        sources=drawn.sources,
        facts=drawn.facts,
        entities=drawn.entities,
    )


def world_question(question: SynthQuestion) -> GraphQuestion:
    """A question about a world in the form that the world and its expert use."""
    described = [triple for triple in question.formalization if triple[2].startswith("C@")]
    leading = [triple for triple in question.formalization if triple not in described]
    return GraphQuestion(
        text=question.question,
        answers=frozenset(question.answers),
        triples=question.formalization,
        hops=question.hops,
        level=question.level,
        entities=question.entities,
        relations=tuple(relation for _, relation, _ in leading),
        clauses=tuple(described),
    )


def _id_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def write_questions(path: str | Path, questions: Iterable[SynthQuestion]) -> None:
    """Write questions as JSON lines."""
    replace_rows(path, (question.to_row() for question in questions))


def write_webshaper(path: str | Path, questions: Iterable[SynthQuestion]) -> None:
    """Write questions in WebShaper's format (arXiv 2507.15061), which `read_questions` reads.

    Several answers become one text with commas.

    Raises:
        DataError: A question has no triples.
    """
    rows = []
    for question in questions:
        if not question.formalization:
            raise DataError(
                f"The question {question.id!r} has no `formalization`, which WebShaper's format "
                "needs."
            )
        rows.append(
            {
                "id": question.id,
                "question": question.question,
                "answer": ", ".join(question.answers),
                "urls": list(question.sources),
                "formalization": [list(triple) for triple in question.formalization],
            }
        )
    replace_rows(path, rows)


def read_questions(path: str | Path) -> list[SynthQuestion]:
    """Read questions: ours, WebShaper's, or any rows with "question" and "answer".

    These are also the rows of WebDancer, SailorFog and WebWalkerQA, which has capitals.

    Raises:
        DataError: A row lacks a question or an answer, has invalid triples, or repeats an id.
    """
    found: dict[str, SynthQuestion] = {}
    for line, row in read_rows(path):
        question = _read(row, f"{str(path)!r}, line {line}")
        if question.id in found:
            raise DataError(f"{str(path)!r}, line {line}: the id {question.id!r} occurs twice.")
        found[question.id] = question
    if not found:
        raise DataError(f"{str(path)!r} has no questions.")
    return list(found.values())


def _read(row: dict[str, Any], place: str) -> SynthQuestion:
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
    return SynthQuestion(
        id=_id_of(text) if row.get("id") in (None, "") else str(row["id"]),
        question=text,
        answers=tuple(map(str, answers)),
        formalization=tuple((head, relation, tail) for head, relation, tail in triples),
        hops=row["hops"] if isinstance(row.get("hops"), int) else 0,
        level=row["level"] if isinstance(row.get("level"), int) else 0,
        sources=_texts(row, "sources") or _texts(row, "urls"),
        facts=_texts(row, "facts"),
        entities=_texts(row, "entities"),
        details={name: row[name] for name in row if name not in (*_KEYS, "urls", asked, told)},
    )


def _texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = row.get(key)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def check_questions(
    questions: Sequence[SynthQuestion], graph: KnowledgeGraph | None = None
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
        found = answers.setdefault(normalise(question.question), mine)
        if graph is not None and question.formalization:
            found = frozenset(map(normalise, graph.answers(question.formalization)))
        if found != mine:
            shown = ", ".join(sorted(found)[:5]) or "nothing"
            wrong.append(
                f"{question.question!r:.300} is said to have the answer {question.answer!r}, but "
                f"{len(found)} fit: {shown}"
            )
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(questions)} questions have answers that are not unique. The "
            f"first: {wrong[0]}. Remove them, or ask about the documents that they were made from."
        )
