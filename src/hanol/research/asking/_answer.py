"""What `ask` returns."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hanol.research.asking._prompt import REFUSAL
from hanol.runs import Ledger


@dataclass(frozen=True)
class Evidence:
    """A place in a document.

    Args:
        document: Path relative to the folder.
        page: Page, slide or sheet, from 1; None for formats without pages.
        text: What stands there: the sentence that holds the statement.
        doubt: Why the text may have been read wrong; empty for a page that was read without doubt.
    """

    document: str
    page: int | None
    text: str
    doubt: str = ""


@dataclass(frozen=True)
class CitedSentence:
    """One sentence of an answer.

    Args:
        text: The sentence, without citation marks.
        citations: Where it is from; the first place holds it best.
        supported: Whether a cited passage holds what it says.
    """

    text: str
    citations: tuple[Evidence, ...] = ()
    supported: bool = True


@dataclass(frozen=True)
class Answer:
    """An answer from documents, each sentence with its sources.

    Args:
        question: Question that was asked.
        sentences: The answer; none if nothing was found.
        quoted: Whether the sentences are quotations of the documents, not words of a model.
        note: Why there is no answer of the model although one was given; empty if there is.
        doubt: Why the sentences may not answer, such as "no words show it"; empty without doubt.
        ledger: What it has cost.
    """

    question: str
    sentences: tuple[CitedSentence, ...] = ()
    quoted: bool = False
    note: str = ""
    doubt: str = ""
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def found(self) -> bool:
        """Whether the documents answer the question."""
        return bool(self.sentences)

    @property
    def sources(self) -> tuple[Evidence, ...]:
        """The places cited, in order, each once: number 1 is the first."""
        return tuple(dict.fromkeys(entry for s in self.sentences for entry in s.citations))

    @property
    def text(self) -> str:
        """The answer with the numbers of its `sources`, or the refusal.

        Example:
            >>> place = Evidence("fees.txt", None, "The fee is 30 euros.")
            >>> Answer("What is it?", (CitedSentence("It is 30 euros.", (place,)),)).text
            'It is 30 euros. [1]'
        """
        return " ".join(self.marked()) or REFUSAL

    def marked(self) -> Iterator[str]:
        """The sentences with the numbers of their `sources`."""
        numbers = {source: i for i, source in enumerate(self.sources, start=1)}
        for sentence in self.sentences:
            marks = "".join(f"[{numbers[source]}]" for source in sentence.citations)
            yield f"{sentence.text} {marks}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The answer as `hanol ask --json` prints it."""
        return {
            "question": self.question,
            "answer": self.text,
            "found": self.found,
            "doubt": self.doubt,
            "note": self.note,
            "sentences": [
                {
                    "text": sentence.text,
                    "citations": [vars(entry).copy() for entry in sentence.citations],
                    "supported": sentence.supported,
                }
                for sentence in self.sentences
            ],
            "ledger": self.ledger.to_dict(),
        }
