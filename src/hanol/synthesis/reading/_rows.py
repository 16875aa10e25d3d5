"""Rows of training data: sentences of a passage, and questions that one of them answers."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from hanol.retrieval import Index, Passage, split_sentences
from hanol.synthesis.reading._rules import Draft
from hanol.synthesis.reading._statements import plain
from hanol.synthesis.reading._wording import content


class Readable(Protocol):
    """A sentence as a reader sees it."""

    @property
    def text(self) -> str:
        """The sentence."""


_POOL = 4  # times the passages that are shown are searched for, because some are left out
_LONG = 30  # characters from which a part of a sentence is taken for the whole


@dataclass(eq=False)
class ReadingDocuments:
    """The passages of an index, apart by whether their document is held out.

    Args:
        name: Name of its folder.
        index: Its documents.
        held_out: Share of the documents that are held out, chosen by their paths.
        seed: Chooses other documents.
    """

    name: str
    index: Index
    held_out: float
    seed: int = 0
    passages: dict[str, list[Passage]] = field(init=False)
    topics: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        found = self.index.documents()
        self.passages = {info.document: self.index.read(info.address) for info in found}
        self.topics = {name: _topic(of_one) for name, of_one in self.passages.items()}

    def is_held_out(self, document: str) -> bool:
        """Whether a document belongs to the held-out rows."""
        digest = hashlib.sha256(f"{self.seed} {self.name} {document}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < self.held_out * 2**32

    def search(self, query: str, k: int, held_out: bool) -> list[Passage]:
        """The best passages among the documents of one side."""
        hits = self.index.search(query, _POOL * k)
        return [hit for hit in hits if self.is_held_out(hit.document) == held_out]


@dataclass(frozen=True)
class Reader:
    """How rows are laid out.

    Args:
        sentences: Takes the sentences from passages.
        prompt: What a question follows: the prompt of a sentence, or of none.
        k: Number of passages that are searched for a question.
        num_sentences: Most sentences of a row.
        num_questions: Most questions of a row.
    """

    sentences: Callable[[Sequence[Passage]], Sequence[Readable]]
    prompt: Callable[[Any], str]
    k: int = 5
    num_sentences: int = 6
    num_questions: int = 4


def grouped(
    drafts: Sequence[Draft], corpus: ReadingDocuments, reader: Reader, rng: Random
) -> dict[str, Any] | str:
    """A row of questions about one passage, or why there is none.

    Candidates are the sentences that answer, others of their passage, and of other passages those
    that a search for the questions finds.
    """
    home = drafts[0].statement.passage
    held_out = corpus.is_held_out(home.document)
    own = reader.sentences([home])
    places = [(draft, _place(draft, own)) for draft in drafts]
    known = [(draft, place) for draft, place in places if place is not None]
    known = known[: reader.num_questions]
    if not known:
        return "not_found"
    golds = list(dict.fromkeys(place for _, place in known))
    far = _similar([draft for draft, _ in known], home, corpus, reader, held_out)
    far = far[: max(0, reader.num_sentences - len(golds)) // 2]
    rest = [place for place in range(len(own)) if place not in golds]
    rest = rng.sample(rest, min(len(rest), reader.num_sentences - len(golds) - len(far)))
    shown = [*golds, *rest]
    return {
        "prompts": [*(reader.prompt(own[place]) for place in shown), *map(reader.prompt, far)],
        "continuations": [f" {draft.text}" for draft, _ in known],
        "answers": [shown.index(place) for _, place in known],
        "meta": {
            "corpus": corpus.name,
            "document": home.document,
            "held_out": held_out,
            "kinds": [draft.kind for draft, _ in known],
        },
    }


def _place(draft: Draft, sentences: Sequence[Readable]) -> int | None:
    stated = draft.statement.text
    same = (i for i, one in enumerate(sentences) if _is_same(plain(one.text), stated))
    return next(same, None)


def _is_same(sentence: str, stated: str) -> bool:
    short, long = sorted((sentence, stated), key=len)
    return long == short or (len(short) > _LONG and short in long)


def _similar(
    drafts: Sequence[Draft],
    home: Passage,
    corpus: ReadingDocuments,
    reader: Reader,
    held_out: bool,
) -> list[Readable]:
    """The sentence of another passage that shares most words with each question."""
    own, found = plain(home.text), dict[str, Readable]()
    for draft in drafts:
        hits = corpus.search(draft.text, reader.k, held_out)
        sentences = reader.sentences([hit for hit in hits if hit.address != home.address])
        asked = set(content(draft.text))
        others = [one for one in sentences if plain(one.text) not in own]
        if others:
            best = max(others, key=lambda one: len(asked & set(content(one.text))))
            found.setdefault(plain(best.text), best)
    return list(found.values())


def is_rivalled(draft: Draft, shown: Sequence[Passage]) -> bool:
    """Whether another sentence answers the question as well as the statement."""
    asked = set(content(draft.asked))
    stated = draft.statement
    own = _covered(asked, stated.text, f"{stated.passage.title} {stated.heading} {stated.item}")
    for text, passage in _sentences(shown):
        if text in stated.text or stated.text in text:
            continue
        other = _covered(asked, text, passage.title)
        if other > own or (other == own and (not draft.exact or re.search(r"\d", text))):
            return True
    return False


def _covered(asked: set[str], text: str, title: str) -> float:
    """How many words of a question a sentence has; words of its title count half."""
    words = set(content(text))
    return len(asked & words) + 0.5 * len(asked & (set(content(title)) - words))


def _sentences(passages: Sequence[Passage]) -> Iterator[tuple[str, Passage]]:
    for passage in passages:
        for span in split_sentences(passage.text):
            for line in passage.text[span.start : span.end].split("\n- "):
                yield plain(line), passage


def _topic(passages: Sequence[Passage]) -> str:
    """What a document is about, if it begins with it: "it" means that then."""
    name = re.sub(r"\s*\(.*\)$", "", plain(passages[0].title)) if passages else ""
    if len(name.split()) > 6 or re.match(r"[A-Z\d][\d.]* ", name) or " — " in name:
        return ""  # a chapter
    return name if name in plain(passages[0].text)[: 4 * len(name) + 40] else ""


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of questions of each kind."""
    return dict(sorted(Counter(kind for row in rows for kind in row["meta"]["kinds"]).items()))
