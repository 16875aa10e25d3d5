"""Reading data from indexed documents: statements, questions, rows, and what was dropped."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.synthesis._replies import Replies
from hanol.synthesis.reading._asking import asked_by_model
from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._rows import (
    Reader,
    ReadingDocuments,
    answered,
    counted,
    refused,
    row_problem,
)
from hanol.synthesis.reading._rules import Draft, drafts
from hanol.synthesis.reading._statements import Statement, statements
from hanol.synthesis.reading._wording import content, keywords, reworded

# Most rows of a kind, as a share: patterns that fit everywhere leave room for the others.
_MOST = dict.fromkeys(("field", "row", "whether", "heading", "condition"), 0.06)
_MOST |= {"word": 0.02, "which word": 0.03, "entry": 0.01}
_MOST_OTHERS = 0.12
_WRITTEN = 0.12  # most rows with a written question
_ROUNDS = 4  # through all passages, for small folders
_ASKED = 2  # questions that a model is asked for, per one that is kept


@dataclass(frozen=True)
class ReadingReport:
    """Counts of rows of reading data.

    Args:
        rows: Rows to train on, by kind of question.
        held_out: Rows about held-out documents, by kind.
        dropped: Questions that were dropped, by reason.
        documents: Documents, and how many of them are held out.
    """

    rows: dict[str, int]
    held_out: dict[str, int]
    dropped: dict[str, int]
    documents: tuple[int, int]


async def asynthesize_reading(
    corpora: Sequence[ReadingDocuments],
    num_rows: int,
    reader: Reader,
    *,
    refusals: float = 0.25,
    lexicon: Lexicon | None = None,
    written: Sequence[tuple[Draft, ReadingDocuments]] = (),
    model: Replies | None = None,
    model_share: float = 0.2,
    seed: int = 0,
    on_row: Callable[[int], None] = lambda total: None,
) -> tuple[list[dict[str, Any]], ReadingReport]:
    """Make rows of reading data in equal parts from every corpus, refusals among them.

    Args:
        corpora: The documents.
        num_rows: Number of rows, held-out ones included; fewer are made when no more are found.
        reader: How rows are laid out.
        refusals: Share of rows whose passages do not hold the answer.
        lexicon: Synonyms and base forms.
        written: Questions that people wrote; they come first.
        model: Writes questions too.
        model_share: Share of the answered rows with a question by the model.
        seed: The same seed, documents and model give the same rows.
        on_row: Called with the number of rows whenever it grows.

    Raises:
        ConfigError: A share is out of its range.
        DataError: Nothing can be asked about the documents.
        EngineError: The model did not answer; earlier answers are stored.
    """
    if not 0 <= refusals < 1 or not 0 <= model_share <= 1:
        raise ConfigError("The shares of refusals and of a model's questions are from 0 to 1.")
    rng = Random(f"reading {seed}")  # noqa: S311
    lexicon = lexicon or Lexicon()
    made = _Rows(reader, rng, on_row)
    wanted = round(num_rows * (1 - refusals))
    for draft, corpus in written:
        if made.answered >= _WRITTEN * wanted:
            break
        made.answer(draft, corpus)
    if model is not None:
        await made.ask(corpora, model, _ASKED * round(wanted * model_share))
    part = (wanted - made.answered) / max(1, len(corpora))
    for number, corpus in enumerate(corpora, start=1):
        goal = wanted - round(part * (len(corpora) - number))
        for draft in _ruled(corpus, lexicon, rng):
            if made.answered >= goal:
                break
            if made.kinds[draft.kind] < _MOST.get(draft.kind, _MOST_OTHERS) * wanted:
                made.answer(draft, corpus)
    if not made.rows:
        raise DataError(
            "Nothing could be asked about these documents: they hold no sentences in English, or "
            "no search finds them. Give more documents."
        )
    made.refuse(corpora, round(made.answered * refusals / (1 - refusals)))
    rows = made.rows
    rng.shuffle(rows)
    return rows, ReadingReport(
        counted([row for row in rows if not row["meta"]["held_out"]]),
        counted([row for row in rows if row["meta"]["held_out"]]),
        dict(made.dropped),
        (
            sum(len(corpus.topics) for corpus in set(corpora)),
            sum(corpus.is_held_out(name) for corpus in set(corpora) for name in corpus.topics),
        ),
    )


class _Rows:
    """Rows that were made, and counts of the questions that made none."""

    def __init__(self, reader: Reader, rng: Random, on_row: Callable[[int], None]) -> None:
        self.reader, self._rng, self._on_row = reader, rng, on_row
        self.rows: list[dict[str, Any]] = []
        self.dropped: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.answered = 0
        self._asked: list[tuple[Draft, ReadingDocuments]] = []
        self._texts: set[str] = set()

    async def ask(self, corpora: Sequence[ReadingDocuments], model: Replies, number: int) -> None:
        """Answer a model's questions about some statements of each corpus."""
        chosen = [
            (statement, corpus)
            for corpus in corpora
            for statement in _some(corpus, self._rng, number // len(corpora))
        ]
        topics = [(one, corpus.topics[one.passage.document]) for one, corpus in chosen]
        found = await asked_by_model(topics, model)
        most = self.answered + number // _ASKED
        for draft, (_, corpus) in zip(found, chosen, strict=True):
            if draft is None:
                self.dropped["unusable_question"] += 1
            elif self.answered < most:
                self.answer(draft, corpus)

    def answer(self, draft: Draft, corpus: ReadingDocuments) -> None:
        if draft.text.casefold() in self._texts:
            self.dropped["repeated"] += 1
            return
        row = answered(draft, corpus, self.reader, self._rng)
        self._asked.append((draft, corpus))
        if self._keep(row):
            self.answered += 1
            self.kinds[draft.kind] += 1
            self._texts.add(draft.text.casefold())

    def refuse(self, corpora: Sequence[ReadingDocuments], wanted: int) -> None:
        """Ask again where the answer is not: in the other passages, or in other documents."""
        rng = self._rng
        drafts = rng.sample(self._asked, len(self._asked))
        start = len(self.rows)
        for draft, home in drafts:
            if len(self.rows) - start >= wanted:
                break
            others = [corpus for corpus in corpora if corpus is not home]
            corpus = rng.choice(others) if others and rng.random() < 0.15 else home
            self._keep(refused(draft, corpus, home, self.reader, rng))

    def _keep(self, row: dict[str, Any] | str) -> bool:
        if isinstance(row, dict) and (problem := row_problem(row, self.reader.refusal)):
            row = problem
        if isinstance(row, str):
            self.dropped[row] += 1
            return False
        self.rows.append(row)
        self._on_row(len(self.rows))
        return True


def _ruled(corpus: ReadingDocuments, lexicon: Lexicon, rng: Random) -> Iterator[Draft]:
    """Questions by rule, one for each statement, in other words for the most part."""
    for _ in range(_ROUNDS):
        for statement in _some(corpus, rng):
            topic = corpus.topics[statement.passage.document]
            found = list(drafts(statement, topic, lexicon, rng))
            if found:
                yield _worded(rng.choice(found), lexicon, rng)


def _some(corpus: ReadingDocuments, rng: Random, most: int | None = None) -> Iterator[Statement]:
    """Statements of passages in random order, at most two of each; only sentences if counted."""
    passages = list(chain.from_iterable(corpus.passages.values()))
    rng.shuffle(passages)
    for passage in passages:
        found = list(statements(passage, corpus.topics[passage.document]))
        if most is not None:
            found = [one for one in found if one.kind == "sentence"][:1] if most > 0 else []
            most -= len(found)
        yield from rng.sample(found, min(2, len(found)))


def _worded(draft: Draft, lexicon: Lexicon, rng: Random) -> Draft:
    """A question as it is, or in other words, or as keywords."""
    chance, text = rng.random(), draft.text
    if chance > 0.3 and draft.kind != "heading":
        text = reworded(text, lexicon, rng, rng.choice((0.3, 0.6, 1.0)))
    if chance > 0.7 and draft.kind not in ("which word", "field"):
        text = keywords(text, rng)
    is_long = len(content(text)) >= min(3, len(content(draft.text)))
    return replace(draft, text=text) if is_long else draft
