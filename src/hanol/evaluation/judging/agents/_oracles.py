"""Judges that need no model: metrics cut into levels, and people's scores with noise."""

import hashlib
import json
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hanol.engines import Completion, Engine, Message, Request
from hanol.errors import ConfigError, DataError, EngineError
from hanol.evaluation.judging._item import Item
from hanol.evaluation.judging._rubric import Rubric


@dataclass(frozen=True)
class JudgeTurn:
    """What a judge without a model is asked.

    Args:
        role: "A", "B", "judge", "scorer", a member of a panel, or a criterion's id.
        opinions: Scores that the scorers gave last, for a judge.
    """

    item: Item
    rubric: Rubric
    role: str
    round: int = 1
    repeat: int = 0
    opinions: tuple[Mapping[str, float], ...] = ()


class OfflineJudge(Engine):
    """A judge that looks at the item, not at messages; it needs no source text."""

    @abstractmethod
    def answer(self, turn: JudgeTurn) -> str:
        """A reply, as a model would write it."""

    async def complete(self, request: Request) -> Completion:
        """Refused: the judge reads items.

        Raises:
            EngineError: Always.
        """
        raise EngineError(f"{self.name!r} judges items and answers no messages.")

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """None."""
        return 0


class MetricJudge(OfflineJudge):
    """A metric whose values are cut into the levels of each criterion.

    It is a rule, not a reader: report how far it agrees with people beside its scores.

    Args:
        metric: Gives a number for an item, higher for better; NaN leaves it unscored. Those of
            `open_metric` do.
        thresholds: Where the next level begins, rising: one fewer than there are levels.
        name: The metric's.

    Raises:
        ConfigError: The thresholds do not rise.
    """

    def __init__(
        self, metric: Callable[[Item], float], thresholds: Sequence[float], *, name: str = ""
    ) -> None:
        if not thresholds or any(a >= b for a, b in pairwise(thresholds)):
            raise ConfigError(f"`thresholds` are {list(thresholds)}, but must rise.")
        self._metric, self._thresholds = metric, tuple(thresholds)
        names = (name, getattr(metric, "name", ""), getattr(metric, "__name__", ""))
        label = next(filter(None, names), type(metric).__name__)
        self.name = f"metric:{label}:{','.join(f'{one:g}' for one in thresholds)}"
        self._label = label

    def answer(self, turn: JudgeTurn) -> str:
        """The level of the metric's value, for each criterion.

        Raises:
            ConfigError: A criterion has another number of levels.
        """
        value = self._metric(turn.item)
        if math.isnan(value):  # no level stands for that
            return f"{self._label} does not apply to this item."
        level = sum(value >= one for one in self._thresholds)
        scores = {}
        for one in turn.rubric.criteria:
            if len(one.scale) != len(self._thresholds) + 1:
                raise ConfigError(
                    f"Criterion {one.id!r} has {len(one.scale)} levels, which {len(one.scale) - 1} "
                    f"thresholds cut, but the metric {self._label!r} has {len(self._thresholds)}."
                )
            scores[one.id] = one.scale[level]
        return _reply(scores, f"{self._label} = {value:.4g}", _verdict(turn))


class NoisyOracle(OfflineJudge):
    """The scores of people with noise: what a debate gains can be computed without a model.

    With probability `noise` all criteria of an item get one random level in place of the truth. As
    a judge it takes what the scorers agree on, and otherwise its own noisy reading.

    Args:
        truth: Scores of an item by criterion. None takes the item's `meta["human"]`.
        noise: Probability of a random level.
        seed: Of all draws; roles and repetitions draw apart.
        shared: Share of the items on which every oracle of this seed makes the same draws: the
            correlation of their noise.
    """

    def __init__(
        self,
        truth: Callable[[Item], Mapping[str, float]] | None = None,
        *,
        noise: float = 0.35,
        seed: int = 0,
        shared: float = 0.0,
    ) -> None:
        if not (0 <= noise <= 1 and 0 <= shared <= 1):
            raise ConfigError(f"`noise` is {noise} and `shared` {shared}, but they are shares.")
        self._truth, self._noise, self._seed, self._shared = truth, noise, seed, shared
        self.name = f"oracle:{noise:g}:{seed}:{shared:g}"

    def answer(self, turn: JudgeTurn) -> str:
        """The scores of one draw.

        Raises:
            DataError: There are no scores of people for the item.
        """
        if (
            turn.role == "judge"
            and turn.opinions
            and all(x == turn.opinions[0] for x in turn.opinions)
        ):
            return _reply(turn.opinions[0], "they agree", verdict="yes")
        truth = self._truth(turn.item) if self._truth else turn.item.meta.get("human", {})
        if missing := [one.id for one in turn.rubric.criteria if one.id not in truth]:
            raise DataError(
                f"Item {turn.item.id!r} has no score of people for {missing[0]!r}: an oracle needs "
                "`truth`, or `human` in the item's `meta`."
            )
        common = _draw(self._seed, turn.item.id, turn.repeat, "shared") < self._shared
        who = "all" if common else turn.role
        is_wrong = _draw(self._seed, turn.item.id, turn.repeat, who, "wrong") < self._noise
        place = _draw(self._seed, turn.item.id, turn.repeat, who, "level")
        scores = {}
        for one in turn.rubric.criteria:
            nearest = min(one.scale, key=lambda level, of=truth[one.id]: abs(level - of))  # type: ignore[misc]
            scores[one.id] = one.scale[int(place * len(one.scale))] if is_wrong else nearest
        return _reply(scores, "drawn", _verdict(turn))


def _verdict(turn: JudgeTurn) -> str | None:
    return "yes" if turn.role == "judge" else None


def _draw(*place: object) -> float:
    """A uniform number in [0, 1) that follows from its place alone."""
    text = "\x1f".join(map(str, place))
    return random.Random(hashlib.sha256(text.encode()).digest()).random()  # noqa: S311


def _reply(scores: Mapping[str, float], reason: str, verdict: str | None = None) -> str:
    said = {"thoughts": reason} if verdict is None else {"judge_reasons": reason, "judge": verdict}
    return json.dumps({**said, **scores}, ensure_ascii=False)
