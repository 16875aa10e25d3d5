"""Readers of the samples released with the WebAgent papers, and of official output lines.

WebDancer (arXiv 2505.22648), SailorFog (WebSailor), WebShaper (2507.15061), WebWalkerQA,
ParallelMuse (2510.24698). Their dialogues become `Sample`s with the same messages, whatever the
key they stand under. Everything comes from a file of one JSON object a line (or one JSON list).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanol.engines import Message
from hanol.errors import DataError
from hanol.evaluation import read_rows

Triple = tuple[str, str, str]


@dataclass(frozen=True)
class Sample:
    """One row of a released sample.

    Args:
        question: The task.
        answer: Its reference answer; None in a trajectory that has none.
        messages: The dialogue, tool results as the user's; empty for plain questions.
        step_ppl: ParallelMuse's perplexities, one entry a message, None where it has none.
        details: All other keys of the row.
    """

    question: str
    answer: str | None
    messages: tuple[Message, ...] = ()
    step_ppl: tuple[Any, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfficialRun:
    """One line of the official inference script's output files (`iter1.jsonl`).

    Args:
        question: What was asked.
        answer: The reference.
        messages: The whole dialogue.
        prediction: The answer found, or an official excuse for none.
        termination: Why the run stopped, in the official words ("answer", "answer not found", ...).
    """

    question: str
    answer: str
    messages: tuple[Message, ...]
    prediction: str
    termination: str

    def to_line(self) -> str:
        """The line, without its end."""
        row = {
            "question": self.question,
            "answer": self.answer,
            "messages": [message.to_dict() for message in self.messages],
            "prediction": self.prediction,
            "termination": self.termination,
        }
        # A lone surrogate of a model cannot be written in UTF-8, but it can be escaped.
        line = json.dumps(row, ensure_ascii=False)
        return line if _is_utf8(line) else json.dumps(row)


@dataclass(frozen=True)
class ShaperTask:
    """A WebShaper question with its formalisation.

    Args:
        id: Its number in the release.
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
    for place, row in _rows(path):
        key = "rollout" if "rollout" in row else "messages"
        messages = _messages(row, key, place)
        question = row.get("question") or row.get("task")
        if question is None:
            question = next((m.content for m in messages if m.role == "user"), None)
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
    for place, row in _rows(path):
        names = {name.casefold(): name for name in row}
        question = _text(row, names.get("question", "question"), place)
        answer = _text(row, names.get("answer", "answer"), place)
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
    for place, row in _rows(path):
        triples = _triples(row.get("formalization"), place)
        urls = row.get("urls", [])
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise DataError(f"{place}: `urls` is no list of texts.")
        if "id" not in row:
            raise DataError(f"{place}: there is no `id`.")
        question, answer = _text(row, "question", place), _text(row, "answer", place)
        tasks.append(ShaperTask(str(row["id"]), question, answer, tuple(urls), triples))
    return tasks


def read_official_runs(path: str | Path) -> list[OfficialRun]:
    """Read an official output file.

    Raises:
        DataError: A row lacks one of the five keys.
    """
    return [
        OfficialRun(
            question=_text(row, "question", place),
            answer=_text(row, "answer", place),
            messages=_messages(row, "messages", place),
            prediction=_text(row, "prediction", place),
            termination=_text(row, "termination", place),
        )
        for place, row in _rows(path)
    ]


def write_official_runs(path: str | Path, runs: Iterable[OfficialRun]) -> None:
    """Write an official output file, one line a run."""
    Path(path).write_text("".join(run.to_line() + "\n" for run in runs), "utf-8")


def evaluate_formalization(triples: Sequence[Triple], graph: Iterable[Triple]) -> set[str]:
    """Answers of a formalised question on a knowledge graph.

    A triple stands for the knowledge projection R(S) = {u : R(u, v) or R(v, u), v in S} of
    WebShaper (arXiv 2507.15061, section 3): a relation holds in either direction. Triples that
    share a variable intersect. The union R(S1 ∪ S2) is one triple whose constant names several
    entities, "C@a|b".

    Args:
        triples: Each end is a variable "V@X", a constant "C@text", or what is asked: "?".
        graph: Facts (head, relation, tail).

    Returns:
        Every entity that "?" can stand for.

    Raises:
        DataError: "?" does not occur, or an end is none of the three kinds.
    """
    ends = [end for subject, _, thing in triples for end in (subject, thing)]
    for end in ends:
        if end != "?" and not end.startswith(("V@", "C@")):
            raise DataError(f"{end!r} is neither a variable (V@X), a constant (C@text) nor '?'.")
    if "?" not in ends:
        raise DataError("The formalisation asks for nothing: '?' stands in none of its triples.")
    # A relation holds in either direction, so each fact counts twice.
    neighbours: dict[str, dict[str, set[str]]] = {}
    for head, relation, tail in graph:
        neighbours.setdefault(relation, {}).setdefault(head, set()).add(tail)
        neighbours.setdefault(relation, {}).setdefault(tail, set()).add(head)
    # Rows of a growing join: one value for each variable met so far.
    rows: list[dict[str, str]] = [{}]
    waiting = list(triples)
    while waiting and rows:
        # The triple with the most ends known keeps the join small.
        chosen = max(waiting, key=lambda triple: _num_known(triple, rows[0]))
        waiting.remove(chosen)
        facts = neighbours.get(chosen[1], {})
        rows = _distinct(new for row in rows for new in _extended(row, chosen, facts))
    return {row["?"] for row in rows}


def _num_known(triple: Triple, row: Mapping[str, str]) -> int:
    return sum(_values(end, row) is not None for end in (triple[0], triple[2]))


def _values(end: str, row: Mapping[str, str]) -> list[str] | None:
    """What an end of a triple can be; None for a variable without value."""
    if end.startswith("C@"):
        return [end[2:], *end[2:].split("|")]
    return [row[end]] if end in row else None


def _extended(
    row: Mapping[str, str], triple: Triple, facts: Mapping[str, set[str]]
) -> Iterator[dict[str, str]]:
    """A row with the values that the triple's variables take in the facts of its relation."""
    first, _, second = triple
    if _values(first, row) is None:
        first, second = second, first
    starts = _values(first, row)
    for start in facts if starts is None else starts:
        with_start = dict(row) if first.startswith("C@") else {**row, first: start}
        allowed = _values(second, with_start)
        for entity in facts.get(start, ()):
            if allowed is None:
                yield {**with_start, second: entity}
            elif entity in allowed:
                yield with_start


def _distinct(rows: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return list({tuple(sorted(row.items())): row for row in rows}.values())


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for line, row in read_rows(path):
        yield f"{str(path)!r}, line {line}", row


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{place}: `{key}` is {value!r:.80}, but must be a text.")
    return value


def _messages(row: Mapping[str, Any], key: str, place: str) -> tuple[Message, ...]:
    messages = row.get(key)
    if isinstance(messages, str):  # some releases hold the dialogue as JSON in a text
        try:
            messages = json.loads(messages)
        except ValueError as err:
            raise DataError(f"{place}: `{key}` is a text, but no JSON ({err}).") from err
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place}: `{key}` is no list of messages.")
    found = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role == "tool":  # official checkpoints read tool results as the user's
            role = "user"
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise DataError(
                f"{place}: message {number} of `{key}` needs a `role` (system, user, assistant or "
                f"tool) and a text as `content`, but is {message!r:.80}."
            )
        found.append(Message(role, content))
    return tuple(found)


def _step_ppl(row: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    """Perplexities that stand in the messages, or beside them."""
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


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
