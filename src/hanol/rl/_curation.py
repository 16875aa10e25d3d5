"""Which questions to train on: those that the model sometimes gets right.

A question that always fails or always succeeds teaches nothing: all its advantages are 0. Tongyi
DeepResearch (arXiv 2510.24701) therefore keeps the questions between the two, drops those that
were learned and refills from a pool that is probed with the model as it has become.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from hanol.errors import DataError
from hanol.rl._grpo_settings import GrpoSettings
from hanol.runs import Task

# Of each question, by id, the rewards (from 0 to 1) of its rollouts; broken ones are left out.
Rewards = Mapping[str, Sequence[float]]
_PARTS = ("active", "waiting", "mastered")
_STATE = (*_PARTS, "order", "passes", "steps", "means")


class Curation:
    """The questions in use, and those that wait to be probed, in the order of the tasks.

    Without `active_questions` nothing is probed or dropped: all are in use all the time.
    """

    def __init__(self, tasks: Sequence[Task], settings: GrpoSettings) -> None:
        self._tasks = {task.id: task for task in tasks}
        if not tasks or len(self._tasks) < len(tasks):
            raise DataError(f"{len(tasks)} questions with {len(self._tasks)} different ids.")
        self._settings = settings
        self._size = size = settings.active_questions
        self._active: list[str] = [] if size else list(self._tasks)
        self._waiting: list[str] = list(self._tasks) if size else []
        self._mastered: list[str] = []
        self._order: list[str] = []  # what is left of the present pass over the questions
        self._passes = 0
        self._steps = 0  # since the last refresh
        self._means: list[float] = []  # rewards of those steps

    @property
    def counts(self) -> dict[str, int]:
        """How many questions are in use, wait to be probed, and are mastered."""
        return {part: len(getattr(self, f"_{part}")) for part in _PARTS}

    def draw(self, count: int) -> list[Task]:
        """The next questions, all different; every question comes once before any comes again."""
        drawn: list[str] = []
        while len(drawn) < min(count, len(self._active)):
            fresh = [name for name in self._order if name not in drawn]
            if fresh:
                self._order.remove(fresh[0])
                drawn.append(fresh[0])
            else:
                rng = random.Random(f"{self._settings.seed} {self._passes}")  # noqa: S311 - no secret
                self._order += rng.sample(self._active, len(self._active))
                self._passes += 1
        return [self._tasks[name] for name in drawn]

    def learn(self, rewards: Rewards) -> None:
        """Take in a step of training; a question whose rollouts were all right is dropped."""
        every = [reward for group in rewards.values() for reward in group]
        self._steps += 1
        if every:
            self._means.append(sum(every) / len(every))
        for name, group in rewards.items():
            if self._size is not None and name in self._active and _success(group) == 1:
                self._active.remove(name)
                self._mastered.append(name)
        self._order = [name for name in self._order if name in self._active]

    @property
    def missing(self) -> int:
        """How many questions should be in use but are not."""
        return 0 if self._size is None else max(0, self._size - len(self._active))

    @property
    def is_due(self) -> bool:
        """Whether it is time to probe waiting questions with the model as it is now."""
        if not (self.missing and self._waiting):
            return False
        every = self._settings.refresh_every
        by_count = every is not None and self._steps >= every
        return not self._active or by_count or self._is_flat

    @property
    def candidates(self) -> list[Task]:
        """The questions that a refresh which begins now may probe, in this order."""
        return [self._tasks[name] for name in self._waiting[: self._settings.max_probes]]

    def probe(self, rewards: Rewards) -> None:
        """Take in what candidates got: those between never and always are now in use."""
        for name, group in rewards.items():
            self._waiting.remove(name)
            success = _success(group)
            if success is None or success <= 0:  # for a better model, at the end of the queue
                self._waiting.append(name)
            elif success == 1:
                self._mastered.append(name)
            else:
                self._active.append(name)

    def end_refresh(self) -> None:
        """Start counting steps and rewards anew."""
        self._steps, self._means = 0, []

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, as JSON can keep it."""
        return {name: getattr(self, f"_{name}") for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state of the same questions."""
        known = {name for part in _PARTS for name in state[part]}
        if changed := known ^ self._tasks.keys():
            raise DataError(
                f"The saved state belongs to other questions: {sorted(changed)[0]!r} is in only "
                "one of the two. Use the questions of the first start, or another folder."
            )
        for name in _STATE:
            value = state[name]
            setattr(self, f"_{name}", list(value) if isinstance(value, list) else value)

    @property
    def _is_flat(self) -> bool:
        span = self._settings.plateau_steps
        if span is None or len(self._means) < 2 * span:
            return False
        return sum(self._means[-span:]) <= sum(self._means[-2 * span : -span])


def _success(group: Sequence[float]) -> float | None:
    """Share of right answers; exactly 1 only when all are right."""
    return sum(group) / len(group) if group else None
