"""What trainers by reinforcement learning ask of an environment."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hanol.engines import Engine
from hanol.rl._rollout import Rollout
from hanol.runs import Mode, Task


class Environment(Protocol):
    """Attempts questions by an engine, and says what each attempt was worth."""

    @property
    def sampling(self) -> Any:
        """How tokens are drawn."""

    @property
    def mode(self) -> Mode:
        """How the agent remembers."""

    async def rollouts(
        self,
        engine: Engine,
        tasks: Sequence[Task],
        *,
        seeds: Sequence[int],
        concurrency: int,
        folder: str | os.PathLike[str] | None = None,
        on_rollout: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """One attempt at each question with its seed, in the order of the tasks."""
        ...
