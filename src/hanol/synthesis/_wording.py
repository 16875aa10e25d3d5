"""Wordings of questions by a model, and whether one still asks the same."""

from collections.abc import Iterable, Sequence

from hanol.scoring import normalise

_REWRITE = """\
Rewrite the puzzle below as one natural question of at most two sentences.

# Puzzle
{puzzle}

# Rules
1. Ask for the same thing, under exactly the same conditions. Leave no condition out, add none.
2. Copy every name in quotation marks letter for letter; the quotation marks may go.
3. Do not name what the letters stand for, and do not use the letters.

Write the question and nothing else."""


def rewrite_prompt(text: str) -> str:
    """The prompt for a more natural wording."""
    return _REWRITE.format(puzzle=text)


def wording_problem(text: str, constants: Sequence[str], answers: Iterable[str]) -> str | None:
    """Why a wording is unusable: a "constant" is missing, it gives the "answer", its "form".

    Args:
        text: The wording.
        constants: Names that it must contain.
        answers: Texts that it must not contain.
    """
    if not text.endswith(("?", ".")) or "\n" in text or len(text) > 1_000:
        return "form"
    folded = f" {normalise(text)} "
    if any(f" {normalise(constant)} " not in folded for constant in constants):
        return "constant"
    if any(f" {normalise(answer)} " in folded for answer in answers if normalise(answer)):
        return "answer"
    return None
