"""What a search asks for and what it is told: prefixes, steps, and the tree that they make."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Literal

Purpose = Literal["sample", "rollout", "forced"]


@dataclass(frozen=True)
class Step:
    """One step of a solution.

    Args:
        text: What was written, what separates steps included.
        ids: Its token ids, where they are known.
        tokens: Tokens that were generated for it; None is the number of `ids`.
        final: Whether it ends the solution.
        answer: The answer that the solution gives, in its last step; None where none can be read.
            A step with an answer is final.
        confidences: Of each token, minus the mean log-probability of the likeliest ones in its
            place, where they were asked for.
    """

    text: str
    _: KW_ONLY
    ids: tuple[int, ...] = ()
    tokens: int | None = None
    final: bool = False
    answer: Any = None
    confidences: tuple[float, ...] = ()

    @property
    def cost(self) -> int:
        """Tokens that were generated for it."""
        return len(self.ids) if self.tokens is None else self.tokens

    @property
    def ends(self) -> bool:
        """Whether nothing follows it."""
        return self.final or self.answer is not None


@dataclass(frozen=True)
class Prefix:
    """A solution so far, and what a search wants to follow it.

    Attributes:
        id: Number of the request.
        node: The node of the tree that is to be continued; 0 is the problem itself.
        path: The steps so far.
        n: Continuations that are wanted.
        max_steps: Steps of each at most; None up to the end of the solution.
        max_tokens: Tokens of each at most; None without a limit.
        greedy: Take the likeliest tokens.
        seed: Continuation i is sampled with this seed plus i.
        context: Earlier answers to the problem, which this one is to revise.
        stop: Texts at which a continuation ends, besides the ends of steps.
        top_logprobs: Likeliest tokens whose mean log-probability is wanted; 0 for none.
    """

    id: int
    node: int
    path: tuple[Step, ...] = ()
    n: int = 1
    max_steps: int | None = None
    max_tokens: int | None = None
    greedy: bool = False
    seed: int = 0
    context: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0

    @property
    def steps(self) -> tuple[str, ...]:
        """Texts of the steps so far."""
        return tuple(step.text for step in self.path)

    @property
    def text(self) -> str:
        """The solution so far."""
        return "".join(self.steps)


@dataclass
class TreeNode:
    """Steps that were sampled together, after those of their parent.

    Attributes:
        id: Number of the node; 0 is the problem.
        parent: Number of the node before.
        steps: The steps.
        scores: Of each step, or of them together.
        purpose: Whether they belong to a solution, are looked ahead and dropped, or were put there
            by the search itself.
        kept: Whether the search went on from here, or took its answer into account.
        score: Of the path up to here.
        round: The round of asking in which it was told.
        request: The request that it answers.
    """

    id: int
    parent: int
    steps: tuple[Step, ...] = ()
    scores: tuple[float, ...] = ()
    purpose: Purpose = "sample"
    kept: bool = False
    score: float = 0.0
    round: int = 0
    request: int = -1
    drawn: int = field(default=0, repr=False)  # continuations that were asked for

    @property
    def ends(self) -> bool:
        """Whether it ends a solution."""
        return bool(self.steps) and self.steps[-1].ends

    @property
    def answer(self) -> Any:
        """The answer of the solution that it ends."""
        return self.steps[-1].answer if self.steps else None

    @property
    def text(self) -> str:
        """Its steps."""
        return "".join(step.text for step in self.steps)

    @property
    def cost(self) -> int:
        """Tokens that were generated for it."""
        return sum(step.cost for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, without token ids."""
        plain = asdict(self)
        del plain["drawn"], plain["steps"]
        return plain | {"text": self.text, "tokens": self.cost, "answer": self.answer,
                        "ends": self.ends}  # fmt: skip


Continuation = str | Step | Sequence[str | Step]  # what follows a prefix: one step, or several
