"""Sets of questions: drawn, filtered, worded, checked, written and read.

A file of questions has one JSON object a line. `hanol research batch` reads it, and so does
`read_webshaper` where every question has one answer.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from hanol.errors import ConfigError, DataError
from hanol.evaluation import exact_match, normalise, read_rows, set_match
from hanol.research._batch import Task
from hanol.research._report import replace_text
from hanol.research._samples import Triple
from hanol.research._synthesis._filters import Reason, is_searchable, problem_of, shape
from hanol.research._synthesis._graph import KnowledgeGraph
from hanol.research._synthesis._replies import Replies
from hanol.research._synthesis._walk import Draft, draft_of, draw
from hanol.research._synthesis._wording import rewrite_prompt, wording_problem
from hanol.retrieval import Library

if TYPE_CHECKING:  # they bring torch with them
    from hanol.worlds import Encyclopedia

_MOST_HOPS = 5
_DRAFTS, _WALKS = 400, 4_000  # drafts in a row without a new question; walks without a draft
_WORLD_ROUNDS = (100, 10, 1)  # questions that a world is asked for at once
_FAILURES = 3  # to draw a single one; then the world has no more
_CLOSED_BOOK = """\
Answer from what you know, without looking anything up, in as few words as you can. If you do not \
know, answer: unknown.

{question}"""
_ANSWER_TOKENS, _WORDING_TOKENS = 256, 512


@dataclass(frozen=True)
class SynthQuestion:
    """A question with its exact answers, and what it was made from.

    Args:
        id: Unique in its file; follows from the question.
        question: In words.
        answers: All of them; they are asked for together.
        formalization: The question as triples (arXiv 2507.15061); empty where it is not known.
        hops: Facts followed from the start.
        level: 0, 1 or 2: how much the start is obfuscated.
        sources: Addresses of the documents to read, in order.
        facts: The sentences there that answer it.
        entities: What is met on the way, the start first.
        details: Other keys of its row.
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
        """One text, or the list where there are several."""
        return self.answers[0] if len(self.answers) == 1 else list(self.answers)

    @property
    def constants(self) -> tuple[str, ...]:
        """What the question names, as far as its triples tell."""
        ends = (end for head, _, tail in self.formalization for end in (head, tail))
        return tuple(dict.fromkeys(end[2:] for end in ends if end.startswith("C@")))

    @property
    def task(self) -> Task:
        """As a batch asks it."""
        return Task(self.id, self.question, self.answer)

    def is_right(self, text: str | None) -> bool:
        """Whether a text is the answer, or names exactly the answers."""
        if len(self.answers) == 1:
            return exact_match(text, self.answers[0])
        return set_match(text, self.answers)

    def to_row(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            "formalization": [list(triple) for triple in self.formalization],
            "hops": self.hops,
            "level": self.level,
            "sources": list(self.sources),
            "facts": list(self.facts),
            "entities": list(self.entities),
            **self.details,
        }


@dataclass(frozen=True)
class QuestionReport:
    """What became of the questions that were drawn.

    Args:
        drawn: Walks that led to a question.
        kept: Questions of the set.
        dropped: How many each filter took.
        reworded: Questions that have a model's wording.
        refused_wordings: Wordings that had lost a name or told the answer; the template stands.
    """

    drawn: int
    kept: int
    dropped: dict[Reason, int]
    reworded: int = 0
    refused_wordings: int = 0


async def asynthesize_questions(
    graph: KnowledgeGraph,
    library: Library,
    num_questions: int,
    *,
    world: "Encyclopedia | None" = None,
    hops: Sequence[int] = (1, 2, 3),
    level: int = 0,
    sets: bool = False,
    seed: int = 0,
    closed_book: Replies | None = None,
    wording: Replies | None = None,
    on_question: Callable[[int], None] = lambda kept: None,
) -> tuple[list[SynthQuestion], QuestionReport]:
    """Make questions whose answers are unique, and which nothing simpler answers.

    Args:
        graph: All facts.
        library: The documents, for the question whether one search is enough (from level 1 on).
        num_questions: Wanted, at least 1; fewer come back when nothing new is found for long.
        world: Where the graph is a world's: its own wording is used.
        hops: Facts to follow, from 1 to 5; several are drawn from equally.
        level: 0 names the start, 1 describes it by two facts, 2 by three, with spans in the place
            of numbers and dates.
        sets: Also allow questions with up to three answers, all of which are asked for.
        seed: The same seed, documents and models give the same questions.
        closed_book: A model; what it answers without any document is dropped.
        wording: A model that words the questions of documents more naturally.
        on_question: Told how many there are, whenever there are more.

    Raises:
        ConfigError: A number is out of its range.
        DataError: Not one question was found.
        EngineError: A model did not answer.
    """
    _check(num_questions, hops, level)
    # Text seeds are hashed by SHA-512: the same in every process, unlike `hash`.
    rng = Random(f"questions {seed} {tuple(hops)} {level} {sets}")  # noqa: S311
    drafts: Iterator[Draft | None]
    if world is None:
        drafts = _walks(graph, rng, hops, level, sets)
    else:
        drafts = _of_world(world, graph, hops, level, sets, seed)
    sieve = _Sieve(graph, library, closed_book)
    kept = await sieve.take(drafts, num_questions, on_question)
    if not kept:
        raise DataError(
            f"No question was found ({sieve.counted()}). Use fewer hops, a lower level, or more "
            "documents; `--model` extracts more facts."
        )
    texts, refused = [draft.text for draft in kept], 0
    if wording is not None:
        texts, refused = await _reworded(kept, wording, seed)
    questions = [_question(draft, text) for draft, text in zip(kept, texts, strict=True)]
    reworded = sum(text != draft.text for draft, text in zip(kept, texts, strict=True))
    counts = QuestionReport(sieve.drawn, len(kept), dict(sieve.dropped), reworded, refused)
    return questions, counts


def _check(num_questions: int, hops: Sequence[int], level: int) -> None:
    if num_questions < 1:
        raise ConfigError(f"`num_questions` is {num_questions}, but must be at least 1.")
    if not hops or not all(1 <= number <= _MOST_HOPS for number in hops):
        raise ConfigError(f"`hops` is {tuple(hops)}, but must be from 1 to {_MOST_HOPS}.")
    if not 0 <= level <= 2:
        raise ConfigError(f"`level` is {level}, but must be 0, 1 or 2.")


def _walks(
    graph: KnowledgeGraph, rng: Random, hops: Sequence[int], level: int, sets: bool
) -> Iterator[Draft | None]:
    while True:
        yield draw(graph, rng, hops=rng.choice(hops), level=level, sets=sets)


def _of_world(
    world: "Encyclopedia",
    graph: KnowledgeGraph,
    hops: Sequence[int],
    level: int,
    sets: bool,
    seed: int,
) -> Iterator[Draft]:
    """Questions as the world draws them, round after round."""
    number = failures = 0
    while failures < _FAILURES:
        number += 1
        # A world tells how many there are only by failing.
        for count in _WORLD_ROUNDS:
            try:
                drawn = world.questions(
                    count,
                    hops=tuple(hops),
                    level=level,  # type: ignore[arg-type]  # checked by the caller
                    sets=sets,
                    seed=seed * 1_000_003 + number,
                )
            except DataError:
                continue
            yield from (draft_of(question, graph) for question in drawn)
            break
        else:
            failures += 1


class _Sieve:
    """Takes drafts until there are enough, and counts the others."""

    def __init__(self, graph: KnowledgeGraph, library: Library, model: Replies | None) -> None:
        self._graph, self._library, self._model = graph, library, model
        self.drawn = 0
        self.dropped: Counter[Reason] = Counter()
        self._shapes: set[str] = set()
        self._texts: set[str] = set()

    async def take(
        self, drafts: Iterator[Draft | None], number: int, on_question: Callable[[int], None]
    ) -> list[Draft]:
        """So many drafts that pass; fewer when nothing new comes for long."""
        kept: list[Draft] = []
        while len(kept) < number:
            found = self._next(drafts, number - len(kept))
            if not found:
                break
            kept += await self._unknown(found)
            on_question(len(kept))
        return kept

    def counted(self) -> str:
        """For messages: what was dropped."""
        taken = ", ".join(f"{number} {reason}" for reason, number in self.dropped.items())
        return f"{self.drawn} drawn" + (f", dropped: {taken}" if taken else "")

    def _next(self, drafts: Iterator[Draft | None], number: int) -> list[Draft]:
        found: list[Draft] = []
        walks = failures = 0
        for draft in drafts:
            walks += 1
            if walks > _WALKS or failures > _DRAFTS:
                break
            if draft is None:
                continue
            self.drawn += 1
            if (reason := self._reason(draft)) is not None:
                self.dropped[reason] += 1
                walks, failures = 0, failures + 1
                continue
            walks = failures = 0
            self._shapes.add(shape(draft.formalization))
            self._texts.add(normalise(draft.text))
            found.append(draft)
            if len(found) == number:
                break
        return found

    def _reason(self, draft: Draft) -> Reason | None:
        if normalise(draft.text) in self._texts:
            return "repeated"
        reason = problem_of(draft, self._graph, self._shapes)
        if reason is None and draft.level and is_searchable(draft, self._graph, self._library):
            return "searchable"
        return reason

    async def _unknown(self, drafts: list[Draft]) -> list[Draft]:
        """Those that the model does not answer by heart."""
        if self._model is None:
            return drafts
        prompts = [_CLOSED_BOOK.format(question=draft.text) for draft in drafts]
        replies = await self._model.ask(prompts, max_tokens=_ANSWER_TOKENS)
        kept = []
        for draft, reply in zip(drafts, replies, strict=True):
            if _question(draft, draft.text).is_right(reply):
                self.dropped["closed_book"] += 1
            else:
                kept.append(draft)
        return kept


async def _reworded(drafts: list[Draft], model: Replies, seed: int) -> tuple[list[str], int]:
    """A model's wordings, where they still ask for the same; and how many do not."""
    prompts = [rewrite_prompt(draft.text) for draft in drafts]
    replies = await model.ask(prompts, max_tokens=_WORDING_TOKENS, seed=seed)
    texts, refused = [], 0
    for draft, reply in zip(drafts, replies, strict=True):
        if wording_problem(reply, draft.constants, draft.answers) is None:
            texts.append(reply)
        else:
            refused += 1
            texts.append(draft.text)
    return texts, refused


def _question(draft: Draft, text: str) -> SynthQuestion:
    asked = draft.question
    details = {} if asked is None else {"path": asked.path, "relations": asked.relations}
    return SynthQuestion(
        id=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12],
        question=text,
        answers=tuple(sorted(draft.answers)),
        formalization=draft.formalization,
        hops=draft.hops,
        level=draft.level,
        sources=draft.sources,
        facts=draft.facts,
        entities=draft.entities,
        details={name: list(value) for name, value in details.items()},
    )


def write_questions(path: str | Path, questions: Iterable[SynthQuestion]) -> None:
    """Write questions, one JSON object a line."""
    lines = (json.dumps(question.to_row(), ensure_ascii=False) for question in questions)
    replace_text(Path(path), "".join(line + "\n" for line in lines))


def read_questions(path: str | Path) -> list[SynthQuestion]:
    """Read questions: ours, WebShaper's, or any rows with "question" and "answer".

    Raises:
        DataError: A row has no question or no answer, its triples are none, or an id comes twice.
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
    known = ("id", "question", "answer", "formalization", "hops", "level", "sources", "facts")
    text, answer = row.get("question"), row.get("answer")
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
        raise DataError(f"{place}: `formalization` is no list of triples of texts.")
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    return SynthQuestion(
        id=str(digest if row.get("id") in (None, "") else row["id"]),
        question=text,
        answers=tuple(map(str, answers)),
        formalization=tuple((head, relation, tail) for head, relation, tail in triples),
        hops=row["hops"] if isinstance(row.get("hops"), int) else 0,
        level=row["level"] if isinstance(row.get("level"), int) else 0,
        sources=_texts(row, "sources") or _texts(row, "urls"),
        facts=_texts(row, "facts"),
        entities=_texts(row, "entities"),
        details={name: row[name] for name in row if name not in (*known, "entities", "urls")},
    )


def _texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = row.get(key)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def check_questions(
    questions: Sequence[SynthQuestion], graph: KnowledgeGraph | None = None
) -> None:
    """Refuse a set in which an answer is not the only one.

    Args:
        questions: The set.
        graph: The facts that they are about; without one, only contradictions between the
            questions are found: the same words with other answers.

    Raises:
        DataError: How many questions have another set of answers, with one of them.
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
