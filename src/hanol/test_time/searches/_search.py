"""The interface of every strategy: it asks for continuations and is told what they are worth."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.files import read_json, replace_json
from hanol.scoring import (
    Selection,
    SelectMethod,
    StepAggregation,
    select,
    stated_answer,
    step_score,
)
from hanol.test_time.searches._tree import Continuation, Prefix, Purpose, Step, TreeNode

_SEEDS = 1_000_000  # of a node: its continuations have seeds of their own


class SearchOptions(TypedDict, total=False):
    """What every strategy takes, by name; see `Search`."""

    method: SelectMethod
    aggregate: StepAggregation
    equal: Callable[[Any, Any], bool] | None
    final: Callable[[str], Any] | None
    seed: int
    answer_tokens: int | None
    max_rounds: int


class Search(ABC):
    """A search for the answer to one problem, whatever samples its steps.

    It is asked for prefixes, each is continued, and what follows is told with its scores, in any
    order; when every prefix was told, it asks for the next ones. Nothing is left to chance here:
    equal tells give equal asks.

    The budget is a number of complete answers' worth of generated tokens, and a maximum: where
    `answer_tokens` is given, no more than `budget * answer_tokens` tokens are ever asked for. A
    budget of 1 is one plain sample for every strategy that samples. Of equal weights the more
    frequent answer wins, then the earlier one; of equal prefixes the earlier one.

    Args:
        budget: At least 1.
        method: How the final answers are weighed (`hanol.scoring.select`).
        aggregate: How the scores of steps make that of a solution (`hanol.scoring.step_score`).
        equal: Whether two answers are the same; None as in `select`.
        final: The answer that a step given as text states, or None: it ends the solution. None
            takes `hanol.scoring.stated_answer`.
        seed: Seeds of continuations follow from it.
        answer_tokens: Tokens of one complete answer at most; None without a limit of tokens.
        max_rounds: Rounds of asking at most.

    Attributes:
        nodes: Everything that was told, in order; the first is the problem.
        chosen: The node that ends the chosen solution, once `done`; None without an answer.
        spent: Tokens that were told.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> search = BeamSearch(budget=4, width=2)  # doctest: +SKIP
        >>> while not search.done:  # doctest: +SKIP
        ...     for prefix in search.ask():
        ...         steps = [my_step(prefix.steps) for _ in range(prefix.n)]
        ...         search.tell(prefix, steps, [my_score(prefix.steps, one) for one in steps])
        >>> search.answer  # doctest: +SKIP
    """

    name: ClassVar[str]
    spends: ClassVar[str]  # what the budget goes into, in a sentence
    needs_scores: ClassVar[bool] = False  # without a verifier it cannot choose
    needs_prefixes: ClassVar[bool] = False  # solutions are continued in the middle
    needs_confidence: ClassVar[bool] = False  # log-probabilities of tokens
    is_greedy: ClassVar[bool] = False  # takes the likeliest tokens
    kinds: ClassVar[dict[str, type["Search"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            Search.kinds[cls.name] = cls

    def __init__(
        self,
        budget: int,
        own: Mapping[str, Any] | None = None,
        *,
        method: SelectMethod = "weighted",
        aggregate: StepAggregation = "last",
        equal: Callable[[Any, Any], bool] | None = None,
        final: Callable[[str], Any] | None = None,
        seed: int = 0,
        answer_tokens: int | None = None,
        max_rounds: int = 40,
    ) -> None:
        for name, value in (("budget", budget), ("answer_tokens", answer_tokens),
                            ("max_rounds", max_rounds)):  # fmt: skip
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"`{name}` is {value!r}, but must be a whole number from 1.")
        # Both also refuse a name that they do not know.
        select(["1"], [1.0], method)
        step_score([1.0], aggregate)
        self.budget, self.answer_tokens, self.seed = budget, answer_tokens, seed
        self.method, self.aggregate = method, aggregate
        self.equal, self._final = equal, final or stated_answer
        self._rounds, self._max_rounds = 0, max_rounds
        self.options: dict[str, Any] = {
            "budget": budget, **(own or {}), "method": method, "aggregate": aggregate,
            "seed": seed, "answer_tokens": answer_tokens, "max_rounds": max_rounds,
        }  # fmt: skip
        self.nodes = [TreeNode(0, 0)]
        self.chosen: int | None = None
        self.spent = 0
        self._pending: dict[int, Prefix] = {}
        self._purpose: Purpose = "sample"
        self._fresh: list[int] = []  # nodes told since the last round
        self._asked = 0
        self._told: list[Any] = []
        self._selection: Selection | None = None

    # -- for whoever samples

    @property
    def done(self) -> bool:
        """Whether the answer is there."""
        return self._selection is not None

    @property
    def answer(self) -> Any:
        """The chosen answer; None before it is `done`, or where no answer could be read."""
        return self._selection.answer if self._selection else None

    @property
    def votes(self) -> dict[Any, float]:
        """Weight of each answer, once `done`."""
        return self._selection.votes if self._selection else {}

    @property
    def left(self) -> int | None:
        """Tokens that may still be generated; None without a limit."""
        return None if self.answer_tokens is None else self.budget * self.answer_tokens - self.spent

    def ask(self) -> list[Prefix]:
        """The prefixes that wait to be continued; none once it is `done`."""
        if not self._rounds and not self.done:
            self._next_round()
        return list(self._pending.values())

    def tell(
        self,
        prefix: Prefix,
        steps: Sequence[Continuation],
        scores: Sequence[float | Sequence[float]] | None = None,
    ) -> None:
        """Say what follows a prefix.

        Args:
            prefix: One that `ask` gave.
            steps: Continuations, at most `prefix.n`: each a step, or a list of steps. A step is a
                text or a `Step`. None at all, and the prefix is a dead end.
            scores: For each continuation its score, or a list with one for each of its steps (of a
                single text: for as many steps as it holds).
                None where the strategy needs none.

        Raises:
            DataError: The prefix was not asked for, numbers do not fit, a score is not finite, or
                more tokens were generated than it allows.
        """
        if self._pending.get(prefix.id) != prefix:
            raise DataError(
                f"Prefix {prefix.id} does not wait to be continued: it was told before, or this "
                "search did not ask for it."
            )
        if scores is None and self.needs_scores:
            raise DataError(f"`scores` is missing: {self.name!r} needs one for each continuation.")
        scores = [0.0] * len(steps) if scores is None else scores
        if len(steps) != len(scores):
            raise DataError(f"There are {len(steps)} continuations but {len(scores)} scores.")
        if len(steps) > prefix.n:
            raise DataError(
                f"There are {len(steps)} continuations, but prefix {prefix.id} wants at most "
                f"{prefix.n}."
            )
        told = [
            self._checked(prefix, *pair) for pair in zip(steps, scores, strict=True)
        ]  # all of them, before anything changes
        for made, values in told:
            self._add(prefix.node, made, values, self._purpose, prefix.id)
        self._told.append(
            [prefix.id, [[_plain(step) for step in made] for made, _ in told],
             [list(values) for _, values in told]]
        )  # fmt: skip
        del self._pending[prefix.id]
        if not self._pending and not self.done:
            self._next_round()

    def path(self, node: int) -> list[TreeNode]:
        """The nodes of a solution, from its first steps to this node."""
        found: list[TreeNode] = []
        while node:
            found.append(self.nodes[node])
            node = self.nodes[node].parent
        return found[::-1]

    def text(self, node: int) -> str:
        """A solution up to a node."""
        return "".join(part.text for part in self.path(node))

    # -- save and resume

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which `from_dict` goes on; functions and classes are not among them."""
        return {"strategy": self.name, "options": self.options, "told": self._told}

    @classmethod
    def from_dict(
        cls,
        plain: Mapping[str, Any],
        *,
        equal: Callable[[Any, Any], bool] | None = None,
        final: Callable[[str], Any] | None = None,
    ) -> "Search":
        """The search that was saved, in the state that it had.

        Args:
            plain: What `to_dict` gave.
            equal: As the search was made with.
            final: Likewise.

        Raises:
            DataError: The values are not those of a search.
        """
        try:
            kind, options, told = plain["strategy"], dict(plain["options"]), plain["told"]
            search = strategy_class(kind)(equal=equal, final=final, **options)
            for number, steps, scores in told:
                made = [[_step(step) for step in one] for one in steps]
                asked = {prefix.id: prefix for prefix in search.ask()}
                search.tell(asked[number], made, scores)
        except (KeyError, TypeError, IndexError, AttributeError) as err:
            raise DataError(f"This is no saved search, or it is damaged: {err!r}.") from err
        if not isinstance(search, cls):
            raise DataError(f"This is a saved {search.name!r} search, not {cls.name!r}.")
        return search

    def save(self, path: str | Path) -> None:
        """Write the state to a file of JSON.

        Raises:
            WriteError: It cannot be written.
        """
        replace_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path, **functions: Any) -> "Search":
        """Go on from what `save` wrote; `functions` as in `from_dict`.

        Raises:
            DataError: It cannot be read, or is no saved search.
        """
        try:
            plain = read_json(path)
        except (OSError, ValueError) as err:
            raise DataError(f"{str(path)!r} could not be read: {err}") from err
        return cls.from_dict(plain, **functions)

    # -- for subclasses

    @abstractmethod
    def _advance(self) -> None:
        """Look at what was told (`self._fresh`) and ask for more (`_want`), or `_finish`."""

    def _want(self, node: int, n: int = 1, **about: Any) -> None:
        """Ask for continuations of a node, as far as its answer may still grow."""
        path = self.path(node)
        if "max_tokens" not in about and self.answer_tokens is not None:
            about["max_tokens"] = self.answer_tokens - sum(part.cost for part in path)
            if about["max_tokens"] < 1:
                return
        at = self.nodes[node]
        prefix = Prefix(
            self._asked, node, tuple(step for part in path for step in part.steps), n,
            seed=self.seed + _SEEDS * node + at.drawn, **about,
        )  # fmt: skip
        at.drawn += n
        at.kept = True
        self._asked += 1
        self._pending[prefix.id] = prefix

    def _extend(self, **about: Any) -> bool:
        """Ask for the rest of what is unfinished and has room; whether there is any."""
        for number in self._fresh:
            if not self.nodes[number].ends and self._rounds <= self._max_rounds:
                self._want(number, **about)
        return bool(self._pending)

    def _next_round(self) -> None:
        self._rounds += 1
        self._purpose = "sample"
        if self.budget > 1 or self.is_greedy:
            self._advance()
        elif self._rounds == 1:
            self._want(0)
        elif not self._extend():
            self._finish()
        self._fresh = []
        if not self.done and not self._fit():
            self._pending = {}
            self._finish()

    def _fit(self) -> bool:
        """Divide what is left of the budget; whether each continuation can have a token."""
        rows = sum(prefix.n for prefix in self._pending.values())
        if not rows:
            return False
        if self.left is None:
            return True
        most = self.left // rows
        for number, prefix in self._pending.items():
            assert prefix.max_tokens is not None
            self._pending[number] = replace(prefix, max_tokens=min(prefix.max_tokens, most))
        return most >= 1

    def _finals(self) -> Iterable[TreeNode]:
        """The nodes whose answers are weighed at the end."""
        return [node for node in self.nodes if node.ends and node.purpose == "sample"]

    def _finish(self) -> None:
        """Choose among the finals; where none of those is finished, among all that ever were."""
        finals = [node for node in self._finals() if node.ends]
        finals = finals or list(Search._finals(self))
        for node in finals:
            node.kept = True
        answers = [node.answer for node in finals]
        self._choose(finals, self._select(answers, [node.score for node in finals]))

    def _select(self, answers: Sequence[Any], scores: Sequence[float]) -> Selection:
        if not answers:
            return Selection(None, None, {})
        return select(answers, scores, self.method, self.equal)

    def _choose(self, finals: Sequence[TreeNode], selection: Selection) -> None:
        self._selection = selection
        if selection.index is not None:
            self.chosen = finals[selection.index].id

    def _add(
        self,
        parent: int,
        steps: Sequence[Step],
        scores: Sequence[float],
        purpose: Purpose,
        request: int = -1,
    ) -> TreeNode:
        before = [score for part in self.path(parent) for score in part.scores]
        node = TreeNode(
            len(self.nodes), parent, tuple(steps), tuple(scores), purpose,
            score=step_score([*before, *scores], self.aggregate) if scores else 0.0,
            round=self._rounds, request=request,
        )  # fmt: skip
        self.nodes.append(node)
        self.spent += node.cost
        self._fresh.append(node.id)
        return node

    def _checked(
        self, prefix: Prefix, steps: Continuation, scores: float | Sequence[float]
    ) -> tuple[list[Step], list[float]]:
        """Steps and scores of one continuation, in one form each."""
        raw = [steps] if isinstance(steps, str | Step) else list(steps)
        made = [self._as_step(step) for step in raw]
        if not made:
            raise DataError("A continuation has no steps: leave it out, or give an empty text.")
        if prefix.max_steps is not None and len(made) > prefix.max_steps:
            raise DataError(
                f"A continuation has {len(made)} steps, but prefix {prefix.id} wants at most "
                f"{prefix.max_steps}."
            )
        values = [scores] if isinstance(scores, int | float) else [float(x) for x in scores]
        # One text may hold several steps, as a verifier sees them.
        if not values or (len(made) > 1 and len(values) not in (1, len(made))):
            raise DataError(f"A continuation has {len(made)} steps but {len(values)} scores.")
        for value in values:
            if not math.isfinite(value):
                raise DataError(f"A score is {value}, but scores must be finite numbers.")
        cost = sum(step.cost for step in made)
        if prefix.max_tokens is not None and cost > prefix.max_tokens:
            raise DataError(
                f"A continuation has {cost} tokens, but prefix {prefix.id} allows "
                f"{prefix.max_tokens}: the budget would be exceeded."
            )
        return made, [float(value) for value in values]

    def _as_step(self, step: str | Step) -> Step:
        if isinstance(step, Step):
            return step
        answer = self._final(step)
        return Step(step, final=answer is not None, answer=answer)


def strategy_class(name: str) -> type[Search]:
    """The class of a strategy.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in Search.kinds:
        raise UnknownNameError("strategy", name, Search.kinds)
    return Search.kinds[name]


def _plain(step: Step) -> dict[str, Any]:
    """A step in JSON, without what says nothing."""
    return {
        name: value
        for name, value in asdict(step).items()
        if value is not None and value is not False and value != ()
    }


def _step(plain: Mapping[str, Any]) -> Step:
    values = dict(plain)
    for name in ("ids", "confidences"):
        values[name] = tuple(values.get(name, ()))
    return Step(**values)
