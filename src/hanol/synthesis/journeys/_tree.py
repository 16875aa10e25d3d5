"""Reasoning trees: steps that a model tried at one problem, and what a judge said to each.

Source: arXiv 2410.18982, section 6.5.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, get_args

from hanol.errors import DataError

StepOpinion = Literal["correct", "incorrect"]


def check_opinion(verdict: str | None, score: float | None) -> None:
    """Refuse what a judge may not say of a step.

    Raises:
        DataError: The verdict is unknown, the score is no number in [0, 1], or both are missing.
    """
    if verdict is None and score is None:
        raise DataError("A judge gave neither a verdict nor a score: it has to give one of them.")
    if verdict is not None and verdict not in get_args(StepOpinion):
        raise DataError(f'A judge gave the verdict {verdict!r}, not "correct" or "incorrect".')
    if score is not None and not 0 <= score <= 1:
        raise DataError(f"A judge gave the score {score}, which is no number from 0 to 1.")


@dataclass(frozen=True)
class ReasoningNode:
    """A step.

    Attributes:
        id: Number of the node, from 1.
        parent: Number of the node before it; 0 is the question.
        step: Text of the step, one line.
        verdict: What the judge said of the path up to here: "correct" or "incorrect".
        score: The judge's score in [0, 1], where it gives one.
        reason: Why the step is wrong, where it is.
        is_leaf: Whether it states the final answer, or the model wrote nothing behind it.
        answer: That answer; None where the node is no leaf, or no answer can be read.
        correct: Whether the verifier takes that answer; None where the node is no leaf.
    """

    id: int
    parent: int
    step: str
    verdict: StepOpinion = "correct"
    score: float | None = None
    reason: str = ""
    is_leaf: bool = False
    answer: str | None = None
    correct: bool | None = None

    def __post_init__(self) -> None:
        check_opinion(self.verdict, self.score)


@dataclass(frozen=True)
class ReasoningTree:
    """A problem and the steps that were tried at it.

    Attributes:
        problem: What is asked.
        answer: The right answer.
        nodes: The steps, parents before their children; a node's siblings stand in the order in
            which they were tried.
        id: Name of the problem.
        provenance: Where the tree comes from: source of the problem, model, judge, settings, seed.

    Raises:
        DataError: Ids are not different, a parent does not stand before its child, or a leaf has
            children.

    Example:
        >>> tree = ReasoningTree("1 + 2 + 3?", "6", (
        ...     ReasoningNode(1, 0, "1 + 2 = 3"),
        ...     ReasoningNode(2, 1, "The answer is 6.", is_leaf=True, answer="6", correct=True),
        ... ))
        >>> [node.id for node in tree.path(2)]
        [1, 2]
    """

    problem: str
    answer: str
    nodes: tuple[ReasoningNode, ...]
    id: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: dict[int, bool] = {0: False}
        for node in self.nodes:
            if node.id in seen or node.parent not in seen:
                raise DataError(
                    f"Node {node.id} of the tree {self.id!r} occurs twice, or stands before its "
                    f"parent {node.parent}."
                )
            if seen[node.parent]:
                raise DataError(f"Node {node.parent} of the tree {self.id!r} is a leaf with steps.")
            seen[node.id] = node.is_leaf

    def children(self, parent: int) -> Sequence[ReasoningNode]:
        """The steps behind a node; 0 is the question."""
        return self._children.get(parent, ())

    def path(self, node: int) -> list[ReasoningNode]:
        """The steps from the question to a node, this one included."""
        found = []
        while node:
            found.append(self._by_id[node])
            node = found[-1].parent
        return found[::-1]

    @cached_property
    def correct_leaves(self) -> list[ReasoningNode]:
        """Leaves with a right answer on whose path no step was judged incorrect, shortest first."""
        right = [
            node
            for node in self.nodes
            if node.correct and all(one.verdict == "correct" for one in self.path(node.id))
        ]
        return sorted(right, key=lambda node: (len(self.path(node.id)), node.id))

    @cached_property
    def on_path(self) -> frozenset[int]:
        """Nodes on the way to a correct leaf."""
        return frozenset(node.id for leaf in self.correct_leaves for node in self.path(leaf.id))

    @cached_property
    def failing(self) -> frozenset[int]:
        """Nodes that are wrong as far as is known: judged incorrect, or with wrong answers alone.

        A correct step that was never followed to an answer is not among them.
        """
        found = set()
        for node in reversed(self.nodes):
            behind = self.children(node.id)
            if (
                node.verdict == "incorrect"
                or (node.is_leaf and not node.correct)
                or (behind and all(child.id in found for child in behind))
            ):
                found.add(node.id)
        return frozenset(found)

    def to_dict(self) -> dict[str, Any]:
        """Its JSON object, which `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The tree of a JSON object.

        Raises:
            DataError: A key is missing or unknown, or the nodes are no tree.
        """
        try:
            return cls(**{**row, "nodes": tuple(ReasoningNode(**node) for node in row["nodes"])})
        except (TypeError, KeyError, AttributeError) as err:
            raise DataError(f"This is no reasoning tree: {err}") from err

    @cached_property
    def _by_id(self) -> dict[int, ReasoningNode]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _children(self) -> dict[int, list[ReasoningNode]]:
        found: dict[int, list[ReasoningNode]] = {}
        for node in self.nodes:
            found.setdefault(node.parent, []).append(node)
        return found

    def __iter__(self) -> Iterator[ReasoningNode]:
        """The nodes, parents first."""
        return iter(self.nodes)
