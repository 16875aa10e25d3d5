"""Judges of steps: a verifier, a process reward model, or a model that is asked."""

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hanol.engines import Engine, Message, Request, Sampling
from hanol.errors import ConfigError, DataError
from hanol.scoring import StepScorer
from hanol.synthesis.journeys._tree import StepOpinion, check_opinion
from hanol.worlds import MathProblem, wrong_step

_ASK = """\
Problem:
{problem}

Solution so far, one step a line:
{steps}

Judge the last step only. Write two lines and nothing else:
Verdict: correct or incorrect
Reason: one short sentence that says what is wrong, or "none\""""
_VERDICT = re.compile(r"^\W*verdict\W+(\w+)", re.IGNORECASE | re.MULTILINE)
_REASON = re.compile(r"^\W*reason\W+(.+)$", re.IGNORECASE | re.MULTILINE)
_TOKENS = 128


@dataclass(frozen=True)
class JudgedStep:
    """What a judge says of the last of some steps.

    Attributes:
        verdict: "correct" or "incorrect"; None leaves it to the score.
        score: In [0, 1]; None where the judge gives no scores.
        reason: Why it is wrong.

    Raises:
        DataError: The verdict is unknown, the score out of range, or both are missing.
    """

    verdict: StepOpinion | None = None
    score: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        check_opinion(self.verdict, self.score)


class StepJudge(Protocol):
    """Whoever judges steps."""

    @property
    def name(self) -> str:
        """What it is, for the provenance of rows."""

    async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
        """Judge the last of these steps."""


class VerifierJudge:
    """Exact where a problem says enough about its steps, as `hanol.worlds.wrong_step` reads it.

    Of any other problem every step passes, and the final answers alone tell right from wrong.
    """

    name = "verifier"

    async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
        """Judge the last of these steps, given that the others are right."""
        try:
            wrong = wrong_step(problem, steps)
        except ConfigError:
            return JudgedStep("correct")
        if wrong is None:
            return JudgedStep("correct", 1.0)
        return JudgedStep("incorrect", 0.0, wrong[1])


class ScorerJudge:
    """By the score of a process reward model, or of any other `hanol.scoring.StepScorer`.

    Args:
        scorer: Gives a value in [0, 1] for each step.
        threshold: Steps below it are incorrect; at 0 the scores only rank.
        name: What the scorer is.
    """

    def __init__(self, scorer: StepScorer, *, threshold: float = 0.5, name: str = "scorer") -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"`threshold` is {threshold}, but is a number from 0 to 1.")
        self._scorer, self._threshold, self.name = scorer, threshold, name

    async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
        """Judge the last of these steps."""
        scores = await asyncio.to_thread(self._scorer.score, problem.problem, list(steps))
        if len(scores) != len(steps) or math.isnan(scores[-1]):
            raise DataError(
                f"{self.name} gave {len(scores)} scores for {len(steps)} steps, the last of which "
                f"is {scores[-1:]}: one number for each step is needed."
            )
        score = float(scores[-1])
        if score >= self._threshold:
            return JudgedStep("correct", score)
        return JudgedStep("incorrect", score, "this step does not look right")


class ModelJudge:
    """By a model that is asked for a verdict and a reason.

    Args:
        engine: The model.
        seed: Seed of its answers, which are greedy.
    """

    def __init__(self, engine: Engine, *, seed: int = 0) -> None:
        self._engine, self._seed = engine, seed

    @property
    def name(self) -> str:
        """The model's name."""
        return self._engine.name

    async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
        """Judge the last of these steps.

        Raises:
            DataError: The reply holds no verdict.
            EngineError: The model did not answer.
        """
        asked = _ASK.format(problem=problem.problem, steps="\n".join(steps))
        sampling = Sampling(temperature=0.0, max_tokens=_TOKENS, seed=self._seed)
        completion = await self._engine.complete(Request((Message("user", asked),), sampling))
        reply = completion.text.rpartition("</think>")[2]
        found = _VERDICT.search(reply)
        if found is None:
            raise DataError(f"The judge {self.name!r} gave no verdict, but {reply!r:.80}.")
        reason = _REASON.search(reply)
        said = reason[1].strip().rstrip(".") if reason else ""
        verdict = found[1].casefold()
        return JudgedStep(verdict, None, said if verdict == "incorrect" else "")  # type: ignore[arg-type]
