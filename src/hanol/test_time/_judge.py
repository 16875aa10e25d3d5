"""Verifiers by name: a process reward model, or a chat model that is asked."""

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hanol.engines import Engine, Message, Request, Scored
from hanol.errors import CapabilityError, ConfigError
from hanol.runs import synchronous
from hanol.scoring import StepScorer

_ASKS = (
    "Problem:\n{problem}\n\nSolution so far:\n{steps}\n\nIs every step of this solution right? "
    "Answer with Yes or No."
)


class JudgeVerifier:
    """A model that is asked whether a solution is right so far: the share of "Yes" is the score.

    It needs no training, and is worth as much as the model's judgement. Each step is judged with
    those before it.

    Args:
        engine: Must be able to `score`.

    Raises:
        CapabilityError: The engine cannot score.
    """

    def __init__(self, engine: Engine) -> None:
        if "score" not in engine.capabilities:
            raise CapabilityError(
                f"A judge compares the probabilities of two answers, and the engine "
                f"{engine.name!r} cannot score; a checkpoint in this process can."
            )
        self._engine, self.parameters = engine, engine.parameters
        self.tokens_scored = 0

    async def ascore_batch(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """Scores of the steps of several solutions."""
        return [
            [await self._one(problem, steps[: i + 1]) for i in range(len(steps))]
            for problem, steps in pairs
        ]

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        """One value in [0, 1] a step."""
        return synchronous(self.ascore_batch)([(problem, steps)])[0]

    async def _one(self, problem: str, steps: Sequence[str]) -> float:
        text = _ASKS.replace("{problem}", problem).replace("{steps}", "\n".join(steps))
        messages = (Message("user", text),)
        yes, no = await self._engine.score(Request(messages), ["Yes", "No"])
        self.tokens_scored += self._engine.count_tokens(messages) - yes.cached_tokens
        return _share(yes, no)


def _share(yes: Scored, no: Scored) -> float:
    return 1 / (1 + math.exp(min(no.logprob - yes.logprob, 700.0)))


def open_verifier(spec: str, engine: Engine | None = None) -> StepScorer:
    """The verifier that a text names.

    Args:
        spec: Folder or hub id of a process reward model; "judge:MODEL", a model that is asked.
        engine: The opened MODEL of a judge.

    Raises:
        ConfigError: A judge without its engine.
        CheckpointError: Nothing loadable is there.
    """
    if spec.startswith("judge:"):
        if engine is None:
            raise ConfigError(f"{spec!r} needs its engine: open it with `hanol.engines`.")
        return JudgeVerifier(engine)
    models: Any = import_module("hanol.test_time")  # each name of it loads what it needs
    return models.ProcessRewardModel.from_pretrained(spec)
