"""Reading data from indexed documents: statements, questions, rows, and what was dropped."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from random import Random
from typing import Any

from hanol.errors import ConfigError, DataError
from hanol.synthesis._replies import Replies
from hanol.synthesis.reading._asking import asked_by_model
from hanol.synthesis.reading._lexicon import Lexicon
from hanol.synthesis.reading._rows import (
    Reader,
    ReadingDocuments,
    counted,
    grouped,
    is_rivalled,
)
from hanol.synthesis.reading._rules import Draft, drafts
from hanol.synthesis.reading._statements import Statement, statements
from hanol.synthesis.reading._wording import content, keywords, reworded

# Most rows of a kind, as a share: patterns that fit everywhere leave room for the others.
_MOST = dict.fromkeys(("field", "row", "whether", "heading", "condition"), 0.06)
_MOST |= {"word": 0.02, "which word": 0.03, "entry": 0.01}
_MOST_OTHERS = 0.12
_ROUNDS = 4  # through all passages, for small folders
_ASKED = 2  # questions that a model is asked for, per one that is kept


@dataclass(frozen=True)
class ReadingReport:
    """Counts of rows of reading data.

    Args:
        rows: Number of rows to train on, and of those about held-out documents.
        questions: Questions in rows to train on, by kind.
        held_out: Questions about held-out documents, by kind.
        dropped: Questions that were dropped, by reason.
        documents: Documents, and how many of them are held out.
    """

    rows: tuple[int, int]
    questions: dict[str, int]
    held_out: dict[str, int]
    dropped: dict[str, int]
    documents: tuple[int, int]


async def asynthesize_reading(
    corpora: Sequence[ReadingDocuments],
    num_rows: int,
    reader: Reader,
    *,
    lexicon: Lexicon | None = None,
    written: Sequence[tuple[Draft, ReadingDocuments]] = (),
    model: Replies | None = None,
    model_share: float = 0.2,
    seed: int = 0,
    on_row: Callable[[int], None] = lambda total: None,
) -> tuple[list[dict[str, Any]], ReadingReport]:
    """Make rows of reading data: those with written questions, then equal parts of every corpus.

    Args:
        corpora: The documents.
        num_rows: Number of rows, held-out ones included; fewer are made when no more are found.
        reader: How rows are laid out.
        lexicon: Synonyms and base forms.
        written: Questions that people wrote; they come first.
        model: Writes questions too.
        model_share: Share of the rows with a question by the model.
        seed: The same seed, documents and model give the same rows.
        on_row: Called with the number of rows whenever it grows.

    Raises:
        ConfigError: A share is out of its range.
        DataError: Nothing can be asked about the documents.
        EngineError: The model did not answer; earlier answers are stored.
    """
    if not 0 <= model_share <= 1:
        raise ConfigError(f"The share of a model's questions is from 0 to 1, not {model_share}.")
    rng = Random(f"reading {seed}")  # noqa: S311
    lexicon = lexicon or Lexicon()
    made = _Rows(reader, rng, on_row)
    about: dict[tuple[str, int], list[tuple[Draft, ReadingDocuments]]] = {}
    for draft, corpus in written:
        about.setdefault((corpus.name, draft.statement.passage.id), []).append((draft, corpus))
    for group in about.values():
        for start in range(0, len(group), reader.num_questions):
            part = group[start : start + reader.num_questions]
            if len(made.rows) < num_rows:
                made.add([draft for draft, _ in part], part[0][1])
    if model is not None:
        await made.ask(corpora, model, _ASKED * round(num_rows * model_share))
    share = (num_rows - len(made.rows)) / max(1, len(corpora))
    most = reader.num_questions * num_rows
    for number, corpus in enumerate(corpora, start=1):
        goal = num_rows - round(share * (len(corpora) - number))
        for drafts_ in _ruled(corpus, lexicon, rng):
            if len(made.rows) >= goal:
                break
            fitting = [
                d for d in drafts_ if made.kinds[d.kind] < _MOST.get(d.kind, _MOST_OTHERS) * most
            ]
            fitting = [d for d in fitting if not is_rivalled(d, [d.statement.passage])]
            fitting = fitting[: reader.num_questions]
            if fitting:
                made.add(fitting, corpus)
    if not made.rows:
        raise DataError(
            "Nothing could be asked about these documents: they hold no sentences in English. Give "
            "more documents."
        )
    rows = made.rows
    rng.shuffle(rows)
    train, held_out = (
        [row for row in rows if row["meta"]["held_out"] is side] for side in (False, True)
    )
    return rows, ReadingReport(
        (len(train), len(held_out)),
        counted(train),
        counted(held_out),
        dict(made.dropped),
        (
            sum(len(corpus.topics) for corpus in set(corpora)),
            sum(corpus.is_held_out(name) for corpus in set(corpora) for name in corpus.topics),
        ),
    )


class _Rows:
    """Rows that were made, and counts of the questions in them and of those that made none."""

    def __init__(self, reader: Reader, rng: Random, on_row: Callable[[int], None]) -> None:
        self.reader, self._rng, self._on_row = reader, rng, on_row
        self.rows: list[dict[str, Any]] = []
        self.dropped: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self._texts: set[str] = set()

    async def ask(self, corpora: Sequence[ReadingDocuments], model: Replies, number: int) -> None:
        """Rows of a model's questions about some statements of each corpus."""
        chosen = [
            (statement, corpus)
            for corpus in corpora
            for statement in _some(corpus, self._rng, number // len(corpora))
        ]
        topics = [(one, corpus.topics[one.passage.document]) for one, corpus in chosen]
        found = await asked_by_model(topics, model)
        most = len(self.rows) + number // _ASKED
        for draft, (_, corpus) in zip(found, chosen, strict=True):
            if draft is None:
                self.dropped["unusable_question"] += 1
            elif len(self.rows) < most:
                self.add([draft], corpus)

    def add(self, drafts: Sequence[Draft], corpus: ReadingDocuments) -> None:
        """A row of questions about one passage that were not asked yet."""
        new = [draft for draft in drafts if draft.text.casefold() not in self._texts]
        self.dropped["repeated"] += len(drafts) - len(new)
        row = grouped(new, corpus, self.reader, self._rng) if new else "repeated"
        if isinstance(row, str):
            self.dropped[row] += len(new)
            return
        self._texts |= {draft.text.casefold() for draft in new}
        self.kinds.update(row["meta"]["kinds"])
        self.rows.append(row)
        self._on_row(len(self.rows))


def _ruled(corpus: ReadingDocuments, lexicon: Lexicon, rng: Random) -> Iterator[list[Draft]]:
    """Questions by rule about each passage, one for a statement, most in other words."""
    passages = list(chain.from_iterable(corpus.passages.values()))
    for _ in range(_ROUNDS):
        for passage in rng.sample(passages, len(passages)):
            topic = corpus.topics[passage.document]
            stated = list(statements(passage, topic))
            found = [list(drafts(one, topic, lexicon, rng)) for one in stated]
            chosen = [_worded(rng.choice(ways), lexicon, rng) for ways in found if ways]
            if chosen:
                yield rng.sample(chosen, len(chosen))


def _some(corpus: ReadingDocuments, rng: Random, most: int) -> Iterator[Statement]:
    """Sentences of passages in random order, one of each."""
    passages = list(chain.from_iterable(corpus.passages.values()))
    rng.shuffle(passages)
    found = (statements(passage, corpus.topics[passage.document]) for passage in passages)
    sentences = ([one for one in stated if one.kind == "sentence"][:1] for stated in found)
    yield from islice(chain.from_iterable(sentences), most)


def _worded(draft: Draft, lexicon: Lexicon, rng: Random) -> Draft:
    """A question as it is, or in other words, or as keywords."""
    chance, text = rng.random(), draft.text
    if chance > 0.3 and draft.kind != "heading":
        text = reworded(text, lexicon, rng, rng.choice((0.3, 0.6, 1.0)))
    if chance > 0.7 and draft.kind not in ("which word", "field"):
        text = keywords(text, rng)
    is_long = len(content(text)) >= min(3, len(content(draft.text)))
    return replace(draft, text=text) if is_long else draft
