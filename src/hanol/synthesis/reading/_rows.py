"""Rows of training data: a question, the passages that a search finds, the cited answer."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hanol.engines import Message
from hanol.retrieval import Index, Passage, SourceList, check_citations, split_sentences
from hanol.scoring import CITATION
from hanol.synthesis.reading._rules import Draft
from hanol.synthesis.reading._statements import plain
from hanol.synthesis.reading._wording import content

Layout = Callable[[str, Sequence[Passage]], Sequence[Message]]

_POOL = 4  # times the passages that are shown are searched for, because some are left out
_TOKEN = re.compile(r"\d|[A-Za-z]{1,7}|[^\w\s]|_|\n|[^\W\d_A-Za-z]|(?<=[^\x00-\x7f])")
_LENGTHS = (0.55, 0.7, 0.85, 1.0)  # of rows, as shares of the longest
_NEAR = 0.6  # share of a question's words in one sentence from which it may hold the answer


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
        layout: Makes the prompt of a question and its passages.
        refusal: What the reader answers where no passage holds the answer.
        k: Most passages.
        max_tokens: Most tokens of a row, estimated without a tokenizer.
    """

    layout: Layout
    refusal: str
    k: int = 5
    max_tokens: int = 900

    def fitting(
        self, question: str, passages: Sequence[Passage], answer: str, rng: Random
    ) -> list[Passage]:
        """The best passages, two to `k` of them, that fit; in the order of the index.

        Most rows get less than `max_tokens`: short ones teach the same in less time.
        """
        found: list[Passage] = []
        most = rng.choice(_LENGTHS) * self.max_tokens
        for passage in passages[: rng.randint(min(2, self.k), self.k)]:
            more = sorted([*found, passage], key=lambda passage: passage.id)
            prompt = (estimated_tokens(m.text) + 6 for m in self.layout(question, more))
            limit = most if len(found) > 1 else self.max_tokens
            if sum(prompt) + estimated_tokens(answer) <= limit:
                found = more
        return found

    def row(
        self, draft: Draft, passages: Sequence[Passage], answer: str, **meta: Any
    ) -> dict[str, Any]:
        """A row as recipes of the kind "sft" read it; `meta` says where it comes from."""
        messages = [{"role": m.role, "content": m.text} for m in self.layout(draft.text, passages)]
        messages.append({"role": "assistant", "content": answer})
        meta |= {"question": draft.text, "exact": draft.exact}
        meta |= {"document": draft.statement.passage.document}
        return {"messages": messages, "meta": meta}


def estimated_tokens(text: str) -> int:
    """About the number of tokens in a vocabulary of 50,000 pieces whose digits are single."""
    return len(_TOKEN.findall(text))


def answered(
    draft: Draft, corpus: ReadingDocuments, reader: Reader, rng: Random
) -> dict[str, Any] | str:
    """A row whose passages hold the answer, or why there is none."""
    held_out = corpus.is_held_out(draft.statement.passage.document)
    hits = corpus.search(draft.text, reader.k, held_out)
    shown = reader.fitting(draft.text, hits, draft.answer, rng)
    texts = [plain(passage.text) for passage in shown]
    gold = next((i for i, text in enumerate(texts) if draft.statement.text in text), None)
    if gold is None:
        return "not_found"
    if draft.kind != "written" and _is_rivalled(draft, shown):
        return "ambiguous"
    first, *others = draft.answer.split("\n")
    sentences = [
        part[span.start : span.end]
        for part in (first, *(other for other in others if other in texts[gold]))
        for span in split_sentences(part)
    ]
    answer = " ".join(f"{sentence} [{gold + 1}]" for sentence in sentences)
    place = {"corpus": corpus.name, "held_out": held_out, "cited": gold + 1}
    return reader.row(draft, shown, answer, kind=draft.kind, **place)


def refused(
    draft: Draft, corpus: ReadingDocuments, home: ReadingDocuments, reader: Reader, rng: Random
) -> dict[str, Any] | str:
    """A question of `home`, asked in `corpus`, without the passages that hold its answer."""
    held_out = home.is_held_out(draft.statement.passage.document)
    hits = corpus.search(draft.text, reader.k, held_out)
    hits = [hit for hit in hits if draft.statement.text not in plain(hit.text)]
    shown = reader.fitting(draft.text, hits, reader.refusal, rng)
    if not shown:
        return "not_found"
    if _may_answer(draft, shown):
        return "answered"
    place = {"corpus": corpus.name, "held_out": held_out, "cited": 0}
    return reader.row(draft, shown, reader.refusal, kind="refusal", **place)


def _is_rivalled(draft: Draft, shown: Sequence[Passage]) -> bool:
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


def _may_answer(draft: Draft, shown: Sequence[Passage]) -> bool:
    """Whether a sentence of the passages may answer the question."""
    asked = set(content(draft.asked))
    stated = set(content(draft.statement.text))
    for text, passage in _sentences(shown):
        words = set(content(text))
        around = words | set(content(passage.title))
        is_near = asked & words and len(asked & around) > _NEAR * len(asked)
        if is_near or len(stated & words) > _NEAR * len(stated):
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


def row_problem(row: dict[str, Any], refusal: str) -> str | None:
    """What is wrong with a row, judged by its text alone; None for a good one.

    An answer must cite a passage that is there and holds it; a refusal's passages must not hold
    what was to be found.
    """
    *prompt, answer = (message["content"] for message in row["messages"])
    passages = re.split(r"(?:^|\n\n)\[\d+\] ", prompt[-1].rpartition("\n\nQuestion: ")[0])[1:]
    exact = row["meta"].get("exact", "")
    if answer == refusal:
        return None if row["meta"]["kind"] == "refusal" else "refuses an answered question"
    cited = [int(match[1]) for match in CITATION.finditer(answer)]
    if not cited or not all(1 <= number <= len(passages) for number in cited):
        return "cites no passage"
    source_list = SourceList()
    for text in passages:
        title, _, body = text.partition("\n")
        source_list.cite(body, address=title, title=title, sha256="")
    report = check_citations(answer, source_list)
    if report.precision != 1.0:
        return "cites a passage that does not hold the answer"
    if exact and exact not in answer:
        return "lacks what was to be found"
    return None


def counted(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of rows of each kind."""
    return dict(sorted(Counter(row["meta"]["kind"] for row in rows).items()))
