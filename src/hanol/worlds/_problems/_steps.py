"""Which step of a solution is the first wrong one: exact where a problem says enough about it."""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from hanol.errors import ConfigError, DataError
from hanol.scoring import CountdownVerifier, after_step, check_answer
from hanol.worlds._problems._countdown import countdown_way
from hanol.worlds._problems._problem import MathProblem

_RESULT = re.compile(r"=\s*(-?\d{1,15})\s*\.?\s*$")
_EQUATION = re.compile(r"(\d{1,15}(?: *[-+*/] *\d{1,15}){1,32}) *= *(-?\d{1,15})\s*\.?\s*$")
_SAID = re.compile(r"\banswer\b", re.IGNORECASE)


def is_last_step(step: str) -> bool:
    """Whether a step states the answer, as the last step of the worlds' solutions does."""
    return _SAID.search(step) is not None


def wrong_step(problem: MathProblem, steps: Sequence[str]) -> tuple[int, str] | None:
    """The first wrong step of a solution, or of the beginning of one, and what is wrong with it.

    Of countdown a step is right when it is calculated rightly and the target can still be reached.
    Of chains, stories and sums it is when its result is that of the problem's own solution, or of
    several of its steps at once; a line without "=" passes. The step that states the answer is
    right when the answer is, and nothing is left to be done.

    Args:
        problem: Of one of these worlds, or with `steps` of its own.
        steps: Lines of a solution.

    Returns:
        Index and reason; None when all are right so far.

    Raises:
        ConfigError: The problem has neither a verifier of countdown nor a solution.
    """
    if problem.verifier.startswith("countdown:"):
        return _wrong_in_countdown(CountdownVerifier(problem.verifier[10:]), steps)
    if not problem.steps:
        raise ConfigError(
            f"{problem.where} has no solution to compare steps with. Use a process reward model, "
            "or a model as judge."
        )
    return _other_than_known(problem, steps)


def _wrong_in_countdown(asked: CountdownVerifier, steps: Sequence[str]) -> tuple[int, str] | None:
    pool = tuple(sorted(asked.numbers))
    for index, step in enumerate(steps):
        if is_last_step(step):
            if pool != (asked.target,):
                return index, f"{_numbers(pool)} left, not {asked.target} alone"
            if not check_answer(step, str(asked.target)).right:
                return index, f"the target is {asked.target}"
            continue
        left = after_step(pool, step)
        if left is None:
            return index, f"this is no right calculation with two of {_numbers(pool)}"
        pool = left
        if countdown_way(pool, asked.target) is None:
            return index, f"{asked.target} cannot be made from {_numbers(pool)}"
    return None


def _numbers(pool: Sequence[int]) -> str:
    return " and ".join(map(str, pool))


def _other_than_known(problem: MathProblem, steps: Sequence[str]) -> tuple[int, str] | None:
    known = [found[1] if (found := _RESULT.search(s)) else "" for s in problem.steps[:-1]]
    done = 0  # results that were reached
    for index, step in enumerate(steps):
        if is_last_step(step):
            if done < len(known):
                return index, "not everything is calculated yet"
            if not check_answer(step, problem.answer).right:
                return index, "this is not what was calculated"
            continue
        if "=" not in step:  # words of a model that writes more than calculations
            continue
        if done == len(known):
            return index, "everything is calculated already"
        found = _RESULT.search(step)
        # Several operations may stand in one line, if plain arithmetic bears them out.
        ahead = known[done : done + max(1, _true_operations(step))]
        if found is None or found[1] not in ahead:
            said = found[1] if found else step
            return index, f"{said} is not the result of this step"
        done += ahead.index(found[1]) + 1
    return None


def _true_operations(step: str) -> int:
    """Operations of the last equation of a step if it holds from left to right, else 0."""
    match = _EQUATION.search(step)
    if match is None:
        return 0
    value, *rest = re.findall(r"\d+|[-+*/]", match[1])
    total = Fraction(int(value))
    for sign, operand in zip(rest[::2], map(int, rest[1::2]), strict=True):
        if sign == "/" and not operand:
            return 0
        total = {
            "+": total + operand, "-": total - operand, "*": total * operand,
            "/": total / (operand or 1),
        }[sign]  # fmt: skip
    return len(rest) // 2 if total == int(match[2]) else 0


class ExactSteps:
    """Scores of steps by `wrong_step`: 1 up to the first wrong one, 0 from there on.

    A `hanol.scoring.StepScorer`, which a process reward model can be compared with.

    Args:
        problems: What may be asked about; it is found by its text.
    """

    def __init__(self, problems: Iterable[MathProblem]) -> None:
        self._problems = {one.problem: one for one in problems}

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        """A score for each step.

        Raises:
            DataError: The problem is none of these.
        """
        if problem not in self._problems:
            raise DataError(f"There is no problem {problem!r:.80} among those that are known.")
        wrong = wrong_step(self._problems[problem], steps)
        first = len(steps) if wrong is None else wrong[0]
        return [float(index < first) for index in range(len(steps))]
