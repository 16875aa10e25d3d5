"""Steps of a model, one at a time: what continues the lines so far and ends at a line break."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hanol.engines import Engine, Message, Request, Sampling
from hanol.errors import ConfigError
from hanol.worlds import MathProblem

_STATES_ANSWER = re.compile(r"\\boxed\s*\{|^####|\banswers?\b.*\d|정답|答案", re.IGNORECASE)


@dataclass(frozen=True)
class TreeSettings:
    """How trees are grown.

    Args:
        width: Steps that are tried behind a node.
        depth: Most steps of a path.
        keep: Most nodes of a level that are followed; the paper does not give its number.
        follow: Most steps by which a wrong one is followed, without branching.
        temperature: Sampling temperature; not given in the paper.
        top_p: Share of likeliest tokens to draw from; not given in the paper.
        step_tokens: Most tokens of a step.
        system: System message for the model; empty for none.

    Raises:
        ConfigError: A number is below 1, or a wrong branch below 0.
    """

    width: int = 3
    depth: int = 10
    keep: int = 3
    follow: int = 2
    temperature: float = 0.7
    top_p: float = 0.95
    step_tokens: int = 64
    system: str = ""

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 1), ("keep", 1), ("follow", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"`{name}` is {getattr(self, name)}, but must be {least} or more."
                )
        if self.step_tokens < 1:
            raise ConfigError(f"`step_tokens` is {self.step_tokens}, but must be 1 or more.")


def states_answer(step: str) -> bool:
    """Whether a step states a final answer."""
    return _STATES_ANSWER.search(step) is not None


class StepWriter:
    """Writes next steps at one problem.

    Args:
        problem: What is asked.
        engine: The model; it has to be able to continue a `prefill`.
        settings: How steps are drawn.
        seed: Every call has a seed that follows from this one, the problem and the lines so far.
    """

    def __init__(
        self, problem: MathProblem, engine: Engine, settings: TreeSettings, seed: int
    ) -> None:
        self._engine, self._settings = engine, settings
        self._problem, self._seed = problem, seed

    async def write(self, steps: Sequence[str], number: int, attempt: int = 0) -> list[str]:
        """Different next steps, fewer than asked for where some are equal or empty.

        Args:
            steps: The steps so far.
            number: How many are drawn.
            attempt: Draws others than those of another attempt.

        Raises:
            CapabilityError: The engine cannot continue a `prefill`.
            EngineError: The model did not answer.
        """
        settings = self._settings
        before = "".join(f"{step}\n" for step in steps)
        seed = _seed_of(self._seed, self._problem.id, before, attempt)
        sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.step_tokens,
            stop=("\n",),
            seed=seed,
        )
        system = [Message("system", settings.system)] if settings.system else []
        messages = (*system, Message("user", self._problem.problem))
        request = Request(messages, sampling, prefill=before)
        if number == 1 or "n" in self._engine.capabilities:
            completions = [await self._engine.complete(replace(request, n=number))]
        else:
            completions = [
                await self._engine.complete(
                    replace(request, sampling=replace(sampling, seed=seed + i))
                )
                for i in range(number)
            ]
        texts = [choice.text for completion in completions for choice in completion.choices]
        # An answer that ended before another step is no step.
        return list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))


def _seed_of(*parts: object) -> int:
    """A seed of 62 bits, with room for the numbers of the draws."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
