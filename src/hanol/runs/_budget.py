"""The budget of a run, and what it has spent."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Self

from hanol.errors import RunError
from hanol.runs._events import Event, ModelAnswered, Termination, ToolReturned
from hanol.runs._ledger import Ledger

# Kept back from the tokens and the money for the forced answer, in tokens: enough for a paragraph.
ANSWER_RESERVE = 1024
# The share of the seconds after which a run is asked for its answer; the rest is for writing it.
# Where calls are slow, more is kept: as long as the longest call so far, at most half of the time.
SOFT_SHARE, _KEPT_SHARE = 0.9, 0.5


@dataclass(frozen=True)
class Budget:
    """Limits of one run; when one is reached, the run answers with what it has found.

    The defaults are those of the official code of Tongyi DeepResearch (arXiv 2510.24701).

    Args:
        model_calls: Calls of the model by the agent itself, at least 1; one more is kept for the
            forced answer. Calls by which a tool reads a page are not counted here.
        tool_calls: Tool calls; None for no limit.
        tokens: Prompt and completion tokens of all calls together; None for no limit.
        context_tokens: Longest prompt; the engine's window lowers it where it is smaller.
        observation_tokens: Longest text that the tool calls of one turn may add to a prompt.
        seconds: Time in calls of the model and of tools. At 90 %, earlier where calls are slow, the
            answer is asked for, at 100 % a call is cut off. The runs of heavy mode share one
            clock. None for no limit.
        money: Spending limit, in the same currency as the prices; None for no limit.
        prompt_price: Price of a million prompt tokens.
        completion_price: Price of a million completion tokens.

    Raises:
        RunError: A limit is not a positive number (of calls and tokens, a whole one), or there is
            a limit on money but no price.
    """

    model_calls: int = 100
    tool_calls: int | None = None
    tokens: int | None = None
    context_tokens: int = 110 * 1024
    observation_tokens: int = 8192
    seconds: float | None = 150 * 60.0
    money: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            price = limit.name.endswith("price")
            whole = limit.type in (int, int | None)
            if value is None or (price and value == 0):
                continue
            if not 0 < value < math.inf or (whole and not isinstance(value, int)):
                raise RunError(
                    f"`{limit.name}` of the budget is {value}, but must be a positive "
                    f"{'whole ' if whole else ''}number."
                )
        if self.money is not None and not (self.prompt_price or self.completion_price):
            raise RunError(
                f"The budget has `money={self.money}` but no prices, so nothing would ever be "
                "counted. Give `prompt_price` and `completion_price` for a million tokens."
            )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of one call."""
        return (
            prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        ) / 1_000_000

    def cost_at_most(self, max_tokens: int) -> float:
        """Upper bound on the price of a run."""
        calls = self.model_calls + 1
        bounds = [self.cost(calls * self.context_tokens, calls * max_tokens)]
        if self.tokens is not None:
            bounds.append(self.tokens * max(self.prompt_price, self.completion_price) / 1_000_000)
        if self.money is not None:
            bounds.append(self.money)
        return min(bounds)


@dataclass
class Spent:
    """What a run has spent of its budget, computed from its events only, so also when resumed.

    While calls are made, the time between them counts too: a replay ends where its events do.

    Args:
        turns: Calls of the model by the agent itself, which the budget limits.
        longest: Seconds of the longest of them.
    """

    budget: Budget
    ledger: Ledger = field(default_factory=Ledger)
    turns: int = 0
    longest: float = 0.0
    _began: float | None = None  # on this process's clock, had all events been made in it

    def start(self) -> None:
        """Count the time that passes from now on."""
        if self._began is None:
            self._began = time.monotonic() - self.ledger.seconds

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """What events have spent, of no budget in particular."""
        spent = cls(Budget())
        for event in events:
            spent.add(event)
        return spent

    def add(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, ModelAnswered):
            self.ledger += Ledger(
                model_calls=1,
                prompt_tokens=event.prompt_tokens,
                cached_tokens=event.cached_tokens,
                generated_tokens=event.completion_tokens,
                money=event.money,
            )
            if event.purpose != "extract":  # a tool's call: its seconds are the tool's
                self.turns += 1
                self.ledger.seconds += event.seconds
                self.longest = max(self.longest, event.seconds)
        elif isinstance(event, ToolReturned):
            self.ledger += Ledger(tool_calls=1, seconds=event.seconds)

    def room(self, prompt_tokens: int, *, forced: bool = False) -> float:
        """Completion tokens that can be paid for with a prompt of this length; maybe negative.

        What a forced answer after this call needs is kept back, unless this is the forced answer.
        """
        return min(self._rooms(prompt_tokens, forced=forced))

    def _rooms(self, prompt_tokens: int, *, forced: bool) -> tuple[float, float]:
        """The room that the tokens leave, and the room that the money leaves."""
        prompts = prompt_tokens if forced else 2 * prompt_tokens
        reserve = 0 if forced else ANSWER_RESERVE
        by_tokens = by_money = math.inf
        if self.budget.tokens is not None:
            by_tokens = self.budget.tokens - self.ledger.tokens - prompts - reserve
        if self.budget.money is not None:
            left = self.budget.money - self.ledger.money - self.budget.cost(prompts, reserve)
            if self.budget.completion_price:
                by_money = left * 1_000_000 / self.budget.completion_price
            elif left < 0:
                by_money = -1
        return by_tokens, by_money

    def prompt_room(self) -> float:
        """Longest prompt that a forced answer can be paid for with."""
        budget, room = self.budget, math.inf
        if budget.tokens is not None:
            room = budget.tokens - self.ledger.tokens - ANSWER_RESERVE
        if budget.money is not None and budget.prompt_price:
            left = budget.money - self.ledger.money - budget.cost(0, ANSWER_RESERVE)
            room = min(room, left * 1_000_000 / budget.prompt_price)
        return room

    def reached(self, prompt_tokens: int) -> Termination | None:
        """The limit that forbids another turn with a prompt of this length."""
        budget = self.budget
        if self.turns >= budget.model_calls:
            return "max_calls"
        if budget.tool_calls is not None and self.ledger.tool_calls >= budget.tool_calls:
            return "max_calls"
        if self.seconds_left(forced=False) <= self.longest / 2:  # it would be cut off
            return "max_seconds"
        by_tokens, by_money = self._rooms(prompt_tokens, forced=False)
        if min(by_tokens, by_money) < 1:
            return "max_tokens" if by_tokens < 1 else "max_money"
        return None

    def seconds_left(self, *, forced: bool) -> float:
        """Seconds that the next call may take."""
        if self.budget.seconds is None:
            return math.inf
        used = self.ledger.seconds
        if self._began is not None:
            used = max(used, time.monotonic() - self._began)
        return max(0.0, self.budget.seconds - used) if forced else self._soft_limit() - used

    def cut_off(self) -> None:
        """A call was cut off for its time: it left no event, but used up what turns may use."""
        if self.budget.seconds is not None:
            self.ledger.seconds = max(self.ledger.seconds, self._soft_limit())

    def _soft_limit(self) -> float:
        """Seconds after which the answer is asked for."""
        most = self.budget.seconds or 0.0
        return min(SOFT_SHARE * most, max(most - self.longest, _KEPT_SHARE * most))
