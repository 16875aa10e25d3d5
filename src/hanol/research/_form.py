"""The form of a run's turns: what holds a model to it, and what is no answer whatever its form."""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Literal

from hanol.engines import Constraint, Engine
from hanol.research._prompts import is_small
from hanol.runs import Purpose
from hanol.tools import Tool, block_constraint, turn_constraint

Turns = Literal["auto", "constrained", "free"]

_log = logging.getLogger(__name__)
# A small model repeats itself in whatever is long: what its turns and thoughts may have at most.
_SMALL_TURN, _SMALL_THOUGHT = 512, 128
_STEP = 64  # lengths are multiples of it, so that few grammars are compiled
_SHINGLE = 4  # words in a row that only a repetition shares with the instructions
_WORD = re.compile(r"\w+")
# The placeholders of the forms that prompts show, and words around them.
_PLACEHOLDERS = frozenset({"answer", "thoughts"})
_AROUND = _PLACEHOLDERS | {"your", "my", "the", "final", "last", "definitive", "here", "is"}


class TurnForm:
    """The constraints of one run's calls of the model, by purpose.

    Args:
        engine: Turns are constrained if it can follow a grammar.
        tools: What a turn may call.
        turns: "auto" goes on without constraints where they turn out to be impossible.
    """

    def __init__(self, engine: Engine, tools: Sequence[Tool], turns: Turns) -> None:
        self.is_small = is_small(engine.context_window)
        self.report_tokens = 0  # of the report that each turn begins with; Markov mode sets it
        self._tools, self._turns = tools, turns
        is_able = "grammar" in engine.capabilities
        self._is_on = turns == "constrained" or (turns == "auto" and is_able)
        self._made = lru_cache(maxsize=16)(self._make)

    def constraint(self, purpose: Purpose, tokens: int) -> Constraint | None:
        """What an answer of at most so many tokens must follow; None leaves it free."""
        if not self._is_on or purpose == "extract":
            return None
        if self.is_small:
            tokens = min(tokens, _SMALL_TURN)
        return self._made(purpose, max(tokens // _STEP * _STEP, min(tokens, _STEP)))

    def is_given_up(self, error: Exception) -> bool:
        """Whether the run goes on without constraints after this error; said once."""
        if self._turns == "constrained":
            return False
        self._is_on = False
        _say_once(f"Turns are not constrained, and read leniently instead. {error}")
        return True

    def _make(self, purpose: Purpose, tokens: int) -> Constraint:
        if purpose == "summary" or purpose == "condense":
            return block_constraint("summary" if purpose == "summary" else "report", tokens)
        return turn_constraint(
            self._tools,
            tokens,
            thought_tokens=_SMALL_THOUGHT if self.is_small else None,
            report_tokens=self.report_tokens if purpose == "turn" else 0,
            answer_only=purpose != "turn",
            prose=not self.is_small,
        )


def is_echo(answer: str, instructions: Iterable[str], question: str) -> bool:
    """Whether an answer only repeats what the model was told, such as "Your answer: Your answer".

    An echo has no word but those of the placeholders, or is the question, or half of its runs of
    four words and more stand in the instructions.
    """
    words = _words(answer)
    named = set(words)
    if (named <= _AROUND and named & _PLACEHOLDERS) or words == _words(question):
        return True
    own = _shingles(words)
    known = frozenset().union(*(_shingles_of(text) for text in instructions))
    return bool(own) and 2 * sum(shingle in known for shingle in own) >= len(own)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _shingles(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1)]


@lru_cache(maxsize=64)
def _shingles_of(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_shingles(_words(text)))


@cache
def _say_once(text: str) -> None:
    _log.warning("%s", text)
