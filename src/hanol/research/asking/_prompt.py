"""What a reader is asked, and in which form it answers.

Readers are trained on exactly this. The passages come before the question, so that the next
question about the same passages finds them in the engine's cache.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from hanol.control import ControlTokens
from hanol.engines import Message
from hanol.scoring import CITATION
from hanol.tools import escape_observation

REFUSAL = "Not in these documents."
_SYSTEM = (
    "Answer the question from the passages in one or two sentences. After each sentence give the "
    "number of its passage in brackets, like [1]. If the passages do not hold the answer, reply: "
    + REFUSAL
)
_SHAPES_ALONE = ControlTokens()
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")


class TitledText(Protocol):
    """A passage as a reader sees it, such as a `Passage` of an index."""

    @property
    def title(self) -> str:
        """Title of its document."""

    @property
    def text(self) -> str:
        """Its own text."""


def reader_text(text: str, control: ControlTokens = _SHAPES_ALONE) -> str:
    r"""A text as it stands in the prompt: nothing in it can pass for a citation or a role.

    Numbers in square brackets get round ones, marks of roles are broken as in all observations,
    and blank lines go, because they separate the passages.

    Example:
        >>> reader_text("As shown [3],  it is\n\n\ngreen.")
        'As shown (3), it is\ngreen.'
    """
    text = CITATION.sub(r"(\1)", text)
    return escape_observation(_LINES.sub("\n", _BLANKS.sub(" ", text)).strip(), control)


def reader_messages(
    question: str, passages: Sequence[TitledText], control: ControlTokens = _SHAPES_ALONE
) -> list[Message]:
    """The prompt of a reader: instructions, numbered passages, the question.

    The answer is sentences that each end with the numbers of their passages, or `REFUSAL`.

    Args:
        question: Question, in plain words.
        passages: Passages in the order of their numbers, the first is [1].
        control: Control tokens of the model, which are broken in the passages.

    Example:
        >>> from types import SimpleNamespace
        >>> fees = SimpleNamespace(title="Fees", text="The fee is 30 euros.")
        >>> print(reader_messages("What is the fee?", [fees])[1].text)
        [1] Fees
        The fee is 30 euros.
        <BLANKLINE>
        Question: What is the fee?
    """
    blocks = [
        f"[{number}] {_line(passage.title, control)}\n{reader_text(passage.text, control)}"
        for number, passage in enumerate(passages, start=1)
    ]
    blocks.append(f"Question: {_line(question, control)}")
    return [Message("system", _SYSTEM), Message("user", "\n\n".join(blocks))]


def _line(text: str, control: ControlTokens) -> str:
    return " ".join(reader_text(text, control).split())
