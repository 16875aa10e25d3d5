"""Rewriting a draft in better prose, and the check that nothing of it was lost.

The paper had a model smooth its drafts, told to keep every step, and checked nothing. Here a
rewrite counts only if every calculation of every event stands in it, in order, with no other
number, and its answer is the draft's.
"""

import re
from dataclasses import dataclass

from hanol.engines import Engine, Message, Request, Sampling
from hanol.errors import ConfigError
from hanol.scoring import last_answer
from hanol.synthesis.journeys._walk import Walk

_ASK = """\
Rewrite the solution below so that it reads as one train of thought.

Rules:
1. Keep every step, the wrong ones and the remarks about them too, in the same order.
2. Copy every number and every calculation exactly. Add none.
3. End with the same last line.

Problem:
{problem}

Solution:
{draft}

Write the new solution and nothing else."""
_SIGNS = str.maketrans("×·÷−", "**/-")
_TOKEN = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+|[-+*/=^@%<>()]")
_NUMBER = re.compile(r"\d")
_OPERATOR = frozenset("-+*/=^@%<>()")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|(?:step\s*)?\d{1,2}[.):](?=\s))\s*", re.I | re.M)


@dataclass(frozen=True)
class RewriteCheck:
    """Whether a rewrite keeps its draft; it is true in a condition when it does.

    Attributes:
        problems: What was lost or added; empty when nothing was.
    """

    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether the rewrite can stand in for the draft."""
        return not self.problems


def validate_rewrite(draft: Walk | str, text: str) -> RewriteCheck:
    r"""Check that a rewrite kept every step and the final answer of a draft.

    Of a line with numbers, each calculation has to be found in the text, sign for sign, behind that
    of the line before; of a step without numbers, its words. Numbers that neither the draft nor its
    problem has are refused, but for those that number lines.

    Args:
        draft: A walk, or its text with one event a line.
        text: The rewrite.

    Example:
        >>> draft = "1 + 2 = 3\nThe answer is 3."
        >>> bool(validate_rewrite(draft, "Well, 1 + 2 = 3, so the answer is 3."))
        True
        >>> validate_rewrite(draft, "The answer is 3.").problems
        ("the line '1 + 2 = 3' is missing",)
    """
    lines = draft.text.splitlines() if isinstance(draft, Walk) else draft.splitlines()
    steps = set(draft.steps) if isinstance(draft, Walk) else set(lines)
    known = {token for line in lines for token in _tokens(line)}
    if isinstance(draft, Walk):
        known |= set(_tokens(draft.problem))
    written = _tokens(_LIST_MARK.sub("", text))
    problems = []
    at = 0
    for line in filter(str.strip, lines):
        tokens = _tokens(line)
        parts = _calculations(tokens)
        if not parts and line in steps:
            parts = [tokens]
        for part in parts:
            found = _find(written, part, at)
            if found < 0:
                problems.append(f"the line {line!r} is missing")
                break
            at = found + len(part)
    new = [token for token in written if _NUMBER.match(token) and token not in known]
    if new:
        problems.append(f"the number {new[0]} is not in the draft")
    whole = "\n".join(lines)
    before, after = last_answer(whole), last_answer(text)
    if before != after:
        problems.append(f"the final answer is {after}, not {before}")
    return RewriteCheck(tuple(problems))


def _tokens(text: str) -> list[str]:
    """Numbers, words and signs; other punctuation may change."""
    return _TOKEN.findall(text.translate(_SIGNS).casefold())


def _calculations(tokens: list[str]) -> list[list[str]]:
    """The longest runs of numbers and signs with a number in them."""
    runs: list[list[str]] = [[]]
    for token in tokens:
        if _NUMBER.match(token) or token in _OPERATOR:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if any(_NUMBER.match(token) for token in run)]


def _find(tokens: list[str], part: list[str], start: int) -> int:
    """Where a run begins; it may not be a piece of a longer number or calculation."""
    for at in range(start, len(tokens) - len(part) + 1):
        if tokens[at : at + len(part)] == part and not _goes_on(tokens, at, len(part)):
            return at
    return -1


def _goes_on(tokens: list[str], at: int, length: int) -> bool:
    before, after = tokens[at - 1 : at] if at else [], tokens[at + length : at + length + 1]
    signs = {"=", "*", "/", "+", "-", "@", "^"}
    return bool(signs & {*before, *after})


async def arewrite(
    walk: Walk, engine: Engine, *, max_tokens: int = 2048, tries: int = 2, seed: int = 0
) -> tuple[str, RewriteCheck]:
    """A draft in a model's words, if they keep all of it.

    Args:
        walk: The draft.
        engine: The model that rewrites it.
        max_tokens: Most tokens of a rewrite.
        tries: How often it is asked for one, each time with another seed.
        seed: Seed of the first one.

    Returns:
        The rewrite and a check without problems; or, when no try kept everything, the draft's own
        text with what was wrong with the last try.

    Raises:
        ConfigError: There is no try.
        EngineError: The model did not answer.
    """
    if tries < 1:
        raise ConfigError(f"`tries` is {tries}, but must be 1 or more.")
    asked = _ASK.format(problem=walk.problem, draft=walk.text)
    check = RewriteCheck()
    for number in range(tries):
        sampling = Sampling(temperature=0.7, max_tokens=max_tokens, seed=seed + number)
        completion = await engine.complete(Request((Message("user", asked),), sampling))
        text = completion.text.rpartition("</think>")[2].strip()
        check = validate_rewrite(walk, text)
        if check:
            return text, check
    return walk.text, check
