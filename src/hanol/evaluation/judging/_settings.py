"""How judges work: protocol, rounds, what becomes of replies, and what a run may spend."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hanol.errors import ConfigError
from hanol.evaluation.judging._record import Protocol, ScoreMode
from hanol.runs import Ledger

Aggregate = Literal["median", "mean", "majority"]
_FREE = {"seed", "repeat", "constrain"}  # no part of the protocol


class JudgeSettings(BaseModel):
    """How judges come to a score.

    Args:
        protocol: "paper": two scorers begin independently, then answer each other, and a judge
            decides when they are done; "official": the call order of DITING's code, in which the
            second scorer reads the first, without gates; "single": one scorer; "panel": several
            scorers that do not talk; "roles": one scorer a criterion, and a judge.
        max_rounds: Rounds of a debate, at most.
        judge_optional: Stop without the judge where both scorers give the same scores.
        judge_may_override: Whether the judge's scores count where both scorers agree on others.
        final_scores: Whose scores count where they do not: the judge's, or the mean, median or
            strict majority of the scorers and the judge.
        aggregate: How a panel comes to one score. The result has to be the same whatever a member
            without a valid reply would have said; otherwise the item is unscored.
        members: Members of a panel of one engine.
        enforce_gates: Apply the rubric's gates; None is yes, but no for "official".
        parse_retries: How often an invalid reply is asked for again, with the reason.
        swap_order: Vary the order of criteria and speakers from item to item.
        score_mode: One reply ("single"), the mean of `samples` replies, or the levels weighted by
            the probabilities of their tokens; the last two for protocol "single" alone.
        samples: Replies that are averaged by "sampled-mean".
        constrain: Hold replies to a JSON schema where the engine can.
        temperature: Of all replies. None is 0, but 0.7 where one engine is asked several times for
            the same.
        max_tokens: Longest reply.
        seed: Of replies and orders.
        repeat: How often each item is judged, for test and retest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Protocol = "paper"
    max_rounds: int = Field(4, ge=1, le=32)
    judge_optional: bool = False
    judge_may_override: bool = False
    final_scores: Literal["judge", "mean", "median", "majority"] = "judge"
    aggregate: Aggregate = "median"
    members: int = Field(3, ge=1, le=64)
    enforce_gates: bool | None = None
    parse_retries: int = Field(2, ge=0, le=10)
    swap_order: bool = True
    score_mode: ScoreMode = "single"
    samples: int = Field(5, ge=2, le=100)
    constrain: bool = True
    temperature: float | None = Field(None, ge=0)
    max_tokens: int = Field(2048, ge=1)
    seed: int = 0
    repeat: int = Field(1, ge=1, le=100)

    def __init__(self, **content: Any) -> None:
        try:
            super().__init__(**content)
        except ValidationError as err:
            one = err.errors()[0]
            name = ".".join(map(str, one["loc"]))
            message = str(one["msg"]).removeprefix("Value error, ")
            known = ", ".join(
                sorted({*JudgeSettings.model_fields, *JudgeLimits.__dataclass_fields__})
            )
            hint = f" Known: {known}." if one["type"] == "extra_forbidden" else ""
            raise ConfigError(f"`{name or 'judge'}`: {message}.{hint}") from err

    @model_validator(mode="after")
    def _modes_fit(self) -> Self:
        if self.score_mode != "single" and self.protocol != "single":
            raise ValueError(
                f"`score_mode` {self.score_mode!r} needs `protocol` 'single', not {self.protocol!r}"
            )
        return self

    @property
    def gates(self) -> bool:
        """Whether gates are applied."""
        return self.protocol != "official" if self.enforce_gates is None else self.enforce_gates

    @property
    def hash(self) -> str:
        """SHA-256 of what decides scores, without seed and repetitions."""
        return digest(self.model_dump(exclude=_FREE))


@dataclass(frozen=True)
class JudgeLimits:
    """What a run may do at a time and spend; None for no limit. Calls in flight are finished.

    Args:
        concurrency: Calls at a time.
        max_calls: Calls of models.
        max_tokens_total: Prompt and generated tokens together.
        max_cost: In the currency of the prices, which are for a million tokens.
    """

    concurrency: int = 16
    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_cost: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"`concurrency` is {self.concurrency}, but must be at least 1.")
        if self.max_cost is not None and not (self.prompt_price or self.completion_price):
            raise ConfigError(
                f"`max_cost` is {self.max_cost}, but no price is given, so nothing would ever be "
                "counted. Give `prompt_price` and `completion_price` for a million tokens."
            )

    def cost(self, prompt_tokens: int, generated_tokens: int) -> float:
        """Price of one call."""
        priced = prompt_tokens * self.prompt_price + generated_tokens * self.completion_price
        return priced / 1_000_000

    def reached(self, spent: Ledger, started: int) -> str | None:
        """The limit that forbids another call.

        Args:
            started: Calls so far, those in flight too.
        """
        if self.max_calls is not None and started >= self.max_calls:
            return f"the limit of {self.max_calls} calls"
        if self.max_tokens_total is not None and spent.tokens >= self.max_tokens_total:
            return f"the limit of {self.max_tokens_total} tokens"
        if self.max_cost is not None and spent.money >= self.max_cost:
            return f"the limit of {self.max_cost:g} for the cost"
        return None


def digest(*content: Any) -> str:
    """SHA-256 of JSON values."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
