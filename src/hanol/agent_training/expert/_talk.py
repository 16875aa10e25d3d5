"""What an expert reads in a conversation: the question, its own turns, hits and passages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from hanol.engines import Message, ToolCall
from hanol.tools import SEARCH, render_call

NOT_FOUND = "The pages that were found do not say it."  # an answer that no program calls right
NOT_AMONG = "It is not among them."  # the page that is looked for, among the hits
LINK = re.compile(r"\[([^\[\]]+)\]\(([^()\s]+)\)")
_PASSAGE = re.compile(r"^\[(\d+)\] (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Talk:
    """A conversation of ReAct mode so far.

    Args:
        question: The question.
        made: The turns.
        seen: The visited passages by number.
        hits: What the last turn found, if it searched.
        has_hits: Whether it searched.
    """

    question: str
    made: str
    seen: Mapping[str, str]
    hits: str
    has_hits: bool

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Self:
        """Read a conversation."""
        talk = [message.text for message in messages if message.role != "system"]
        has_hits = len(talk) > 2 and f'"{SEARCH.name}"' in talk[-2]
        return cls(
            question=talk[0].split("\n")[0],
            made="\n".join(talk[1::2]),
            seen=dict(_PASSAGE.findall("\n".join(talk[2::2]))),
            hits=talk[-1] if has_hits else "",
            has_hits=has_hits,
        )


def plain(text: str) -> str:
    """A text on one line, without addresses."""
    return " ".join(LINK.sub(r"\1", text).split())


def rendered(name: str, arguments: dict[str, object]) -> str:
    """A call as a turn has it."""
    return render_call(ToolCall(name, arguments))


def thought(parts: Sequence[str]) -> str:
    """A thought in its tags; nothing where there is none."""
    return f"<think>\n{' '.join(parts)}\n</think>\n" if parts else ""
