"""Formalised questions in words: by a template, or rewritten by a model and checked."""

import re
from collections.abc import Iterable, Sequence

from hanol.scoring import normalise
from hanol.synthesis._graph import SLOT, span_of
from hanol.synthesis._samples import Triple

_LETTERS = "ABCDEFGHIJ"

_REWRITE = """\
Rewrite the puzzle below as one natural question of at most two sentences.

# Puzzle
{puzzle}

# Rules
1. Ask for the same thing, under exactly the same conditions. Leave no condition out, add none.
2. Copy every name in quotation marks letter for letter; the quotation marks may go.
3. Do not name what the letters stand for, and do not use the letters.

Write the question and nothing else."""


def template_question(formalization: Iterable[Triple], *, is_page: bool) -> str:
    """A question in words that leave no doubt: letters for what is not named.

    Args:
        formalization: Triples in the order in which they are told.
        is_page: Whether a document is asked for.

    Example:
        >>> template_question(
        ...     [("C@Ada", "was born in", "V@1"), ("V@1", "lies on", "?")], is_page=False
        ... )
        '“Ada” was born in A. A lies on B. What is B?'
    """
    letters: dict[str, str] = {}
    told = []
    for head, relation, tail in formalization:
        subject, thing = (_shown(end, letters) for end in (head, tail))
        is_slotted = SLOT in relation
        sentence = relation.replace(SLOT, thing) if is_slotted else f"{relation} {thing}"
        told.append(f"{subject} {sentence}.")
    return f"{' '.join(told)} {'Which page' if is_page else 'What'} is {letters['?']}?"


def rewrite_prompt(text: str) -> str:
    """What a model is asked for a more natural wording."""
    return _REWRITE.format(puzzle=text)


def wording_problem(text: str, constants: Sequence[str], answers: Iterable[str]) -> str | None:
    """What makes a wording unusable: "constant" lost, "answer" told, "form"; None if nothing.

    Args:
        text: The wording.
        constants: Names that it must hold.
        answers: What it must not tell.
    """
    if not text.endswith(("?", ".")) or "\n" in text or len(text) > 1_000:
        return "form"
    folded = f" {normalise(text)} "
    if any(f" {normalise(constant)} " not in folded for constant in constants):
        return "constant"
    if any(f" {normalise(answer)} " in folded for answer in answers if normalise(answer)):
        return "answer"
    return None


def _shown(end: str, letters: dict[str, str]) -> str:
    if end.startswith("C@"):
        # Spans are words of ours, not names.
        is_span = re.fullmatch(r"(?:a (?:day|year) )?between \d+ and \d+", end[2:])
        is_plain = is_span or span_of(end[2:]) is not None
        return end[2:] if is_plain else f"“{end[2:]}”"
    return letters.setdefault(end, _LETTERS[len(letters)])
