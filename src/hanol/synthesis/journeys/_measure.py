"""What thoughts are like, and how good a judge of steps is.

Source: arXiv 2410.18982, section 6 counts connectives and reports F1 of step judges, without saying
of which class: here it is that of the wrong steps.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hanol.errors import DataError
from hanol.scoring import parse_verifier
from hanol.worlds import MathProblem

_REFLECTS = re.compile(
    r"\b(?:wait|hmm|alternatively|but|let me check|let's pause|let me think)\b", re.IGNORECASE
)
_RETURNS = re.compile(r"\b(?:go back|back to|back at)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ThoughtScores:
    """Means over thoughts.

    Attributes:
        accuracy: Share with a right answer.
        reflections: Marks of reflection ("wait", "alternatively") of a thought.
        backtracks: Returns to an earlier step of a thought.
        recovery: Share with a right answer among those that return at least once; None without any.
        truncated: Share that a limit ended.
        tokens: Tokens of a thought.
        number: Number of thoughts.
    """

    accuracy: float
    reflections: float
    backtracks: float
    recovery: float | None
    truncated: float
    tokens: float
    number: int


def score_thoughts(
    problems: Sequence[MathProblem],
    texts: Sequence[str],
    *,
    tokens: Sequence[int],
    truncated: Sequence[bool],
) -> ThoughtScores:
    """Score a thought for each problem.

    Args:
        problems: The problems.
        texts: A thought for each.
        tokens: Its length.
        truncated: Whether a limit ended it.

    Raises:
        DataError: There are no thoughts, or not one of everything for each problem.
    """
    number = len(problems)
    if not number or not number == len(texts) == len(tokens) == len(truncated):
        raise DataError(
            f"There are {number} problems, {len(texts)} texts, {len(tokens)} lengths and "
            f"{len(truncated)} marks of truncation: one of each for every problem is needed."
        )
    right = [
        parse_verifier(one.verifier)(one.problem, text, one)
        for one, text in zip(problems, texts, strict=True)
    ]
    returns = [len(_RETURNS.findall(text)) for text in texts]
    recovered = [is_right for is_right, count in zip(right, returns, strict=True) if count]
    return ThoughtScores(
        accuracy=sum(right) / number,
        reflections=sum(len(_REFLECTS.findall(text)) for text in texts) / number,
        backtracks=sum(returns) / number,
        recovery=sum(recovered) / len(recovered) if recovered else None,
        truncated=sum(truncated) / number,
        tokens=sum(tokens) / number,
        number=number,
    )


@dataclass(frozen=True)
class JudgeScores:
    """How well a judge finds wrong steps; each a share, None where nothing of its kind occurs.

    Attributes:
        precision: Of the steps that it calls wrong, those that are.
        recall: Of the wrong steps, those that it calls so.
        f1: Harmonic mean of the two.
        balanced_accuracy: Mean share of right verdicts on wrong steps and on right ones.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    balanced_accuracy: float | None


def score_judge(said_wrong: Sequence[bool], is_wrong: Sequence[bool]) -> JudgeScores:
    """Compare verdicts on steps with the truth.

    Args:
        said_wrong: Whether the judge calls each step wrong.
        is_wrong: Whether it is.

    Raises:
        DataError: Both are not equally long.

    Example:
        >>> score_judge([True, True, False, False], [True, False, False, False]).f1
        0.6666666666666666
    """
    if len(said_wrong) != len(is_wrong):
        raise DataError(f"There are {len(said_wrong)} verdicts on {len(is_wrong)} steps.")
    both = list(zip(said_wrong, is_wrong, strict=True))
    hits, called = sum(said and true for said, true in both), sum(said_wrong)
    wrong, passed = sum(is_wrong), sum(not said and not true for said, true in both)
    recall = hits / wrong if wrong else None
    passing = passed / (len(both) - wrong) if len(both) > wrong else None
    return JudgeScores(
        precision=hits / called if called else None,
        recall=recall,
        f1=2 * hits / (called + wrong) if called + wrong else None,
        balanced_accuracy=None if recall is None or passing is None else (recall + passing) / 2,
    )
