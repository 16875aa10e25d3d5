"""What a search has found, with the tree that it made and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hanol.runs import Ledger
from hanol.test_time.searches._tree import TreeNode


@dataclass(frozen=True)
class Thought:
    """The answer to a problem, and how it was found.

    Attributes:
        problem: What was asked.
        answer: The chosen answer; None when no solution had one that could be read.
        text: The solution that gives it; empty without one.
        strategy: Name of the search.
        options: What it was made with.
        votes: Weight of each answer.
        nodes: Everything that was sampled, as a tree; the first node is the problem.
        chosen: The node that ends the solution.
        ledger: What it cost.
        prompt_tokens: Tokens of the problem as the model read it.
        model_seconds: Seconds in calls of the model, as measured when they were made, calls side by
            side counting once; those of answers from a log are those of then.
        note: What the reader should know, such as why a strategy was taken.
    """

    problem: str
    answer: Any
    text: str
    strategy: str
    options: Mapping[str, Any]
    votes: Mapping[Any, float]
    nodes: tuple[TreeNode, ...] = field(repr=False)
    chosen: int | None
    ledger: Ledger
    prompt_tokens: int = 0
    model_seconds: float = 0.0
    note: str = ""

    @property
    def limit(self) -> int | None:
        """Tokens that the budget allowed to generate."""
        tokens = self.options["answer_tokens"]
        return None if tokens is None else self.options["budget"] * tokens

    @property
    def truncated(self) -> float:
        """Share of the solutions that were not finished when their tokens were used up."""
        parents = {node.parent for node in self.nodes[1:]}
        leaves = [n for n in self.nodes[1:] if n.purpose == "sample" and n.id not in parents]
        return sum(not node.ends for node in leaves) / len(leaves) if leaves else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "problem": self.problem,
            "answer": self.answer,
            "text": self.text,
            "strategy": self.strategy,
            "options": dict(self.options),
            "votes": [{"answer": answer, "weight": w} for answer, w in self.votes.items()],
            "nodes": [node.to_dict() for node in self.nodes],
            "chosen": self.chosen,
            "truncated": self.truncated,
            "spent": self.ledger.to_dict(),
            "token_limit": self.limit,
            "note": self.note,
        }
