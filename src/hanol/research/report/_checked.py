"""The verdicts of the citation check, sentence by sentence, for all kinds of report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hanol.retrieval import CITATION, citation_numbers
from hanol.runs import RunEnded

SYMBOLS = {"unsupported": "≠", "invented": "✗", "uncited": "○"}  # of the sentences to look at
MEANINGS = {
    "supported": "its words, numbers and names occur in the passages it cites",
    "unsupported": "something in it does not occur in the passages it cites",
    "invented": "it cites a number that stands for nothing in this run",
    "uncited": "a statement without a source",
}


@dataclass(frozen=True)
class AnswerSentence:
    """One sentence of an answer and the verdict on its citations.

    Args:
        text: The sentence.
        start: Where it begins in the answer, in characters.
        end: Where it ends, exclusive.
        verdict: "supported", "unsupported", "invented" or "uncited".
        note: Why, for a reader.
    """

    text: str
    start: int
    end: int
    verdict: str
    note: str

    @property
    def symbol(self) -> str:
        """Its mark, "" for a supported one."""
        return SYMBOLS.get(self.verdict, "")


def sentences_of(ended: RunEnded | None) -> list[AnswerSentence]:
    """The checked claims of a finished run, in order; none when nothing was checked."""
    if ended is None or not ended.citations:
        return []
    return [
        AnswerSentence(
            text=entry["text"],
            start=entry["start"],
            end=entry["end"],
            verdict=entry["status"],
            note=_note(entry),
        )
        for entry in ended.citations["sentences"]
        if entry["status"] in MEANINGS
    ]


def _note(entry: Mapping[str, Any]) -> str:
    unknown = sorted({str(c["number"]) for c in entry["citations"] if not c["known"]})
    notes = []
    if unknown:
        notes.append(f"This run retrieved no source {', '.join(unknown)}.")
    if entry["missing"]:
        quoted = ", ".join(f"“{text}”" for text in entry["missing"])
        notes.append(f"Not in the passages it cites: {quoted}.")
    elif entry["status"] == "unsupported":
        share = entry["overlap"] or 0.0
        notes.append(f"Only {share:.0%} of its words occur in the passages it cites.")
    if entry["status"] == "uncited":
        notes.append("No source is given.")
    return " ".join(notes) or f"Here {MEANINGS[entry['status']]}."


def cited_numbers(answer: str) -> list[int]:
    """Numbers in brackets, in order of appearance, repeated ones too."""
    return [number for found in CITATION.finditer(answer) for number in citation_numbers(found[1])]
