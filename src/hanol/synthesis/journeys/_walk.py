"""Shortcuts and journeys: the right way through a tree alone, and with wrong turns that are undone.

Source: arXiv 2410.18982, section 6.6. The paper's draft goes depth first; behind a step on the
right way it takes at most one wrong turn, walks it to its end without branching, says what is
wrong, comes back, and goes on rightly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, overload

from hanol.errors import ConfigError, DataError
from hanol.synthesis.journeys._tree import ReasoningNode, ReasoningTree, StepOpinion

EventType = Literal["step", "reflect", "backtrack", "terminate"]

_REFLECTIONS = ("Wait, {reason}.", "But {reason}.", "Let me check: {reason}.", "Hmm, {reason}.")
_RETURNS = ("Back to {place}.", "Let me go back to {place}.", "Alternatively, back at {place}:")
_START = "the start"
_UNSAID = "this does not lead to the answer"


@dataclass(frozen=True)
class JourneyEvent:
    """One event of a thought.

    Attributes:
        type: "step"; "reflect", what is wrong; "backtrack", to which step it returns; "terminate",
            the step that states the final answer.
        node: Node of the tree it is about; of "backtrack" the one that is returned to, 0 being the
            question.
        parent: The node before that one.
        text: The line as it is written.
        verdict: What the judge said of the node.
    """

    type: EventType
    node: int
    parent: int
    text: str
    verdict: StepOpinion | None = None


@dataclass(frozen=True)
class Walk(Sequence[JourneyEvent]):
    """A thought: a sequence of events.

    Attributes:
        events: The events in order.
        problem: What is asked.
        answer: The right answer.
        final: The answer it ends with.
    """

    events: tuple[JourneyEvent, ...]
    problem: str
    answer: str
    final: str | None = None

    @property
    def text(self) -> str:
        """What a model learns to write, an event a line."""
        return "\n".join(event.text for event in self.events)

    @property
    def steps(self) -> list[str]:
        """Its steps alone, the one with the answer included."""
        return [event.text for event in self.events if event.type in ("step", "terminate")]

    @property
    def num_backtracks(self) -> int:
        """How often it returns."""
        return sum(event.type == "backtrack" for event in self.events)

    def __len__(self) -> int:
        """Number of events."""
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> JourneyEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JourneyEvent]: ...
    def __getitem__(self, index: int | slice) -> JourneyEvent | Sequence[JourneyEvent]:
        """An event."""
        return self.events[index]

    def __iter__(self) -> Iterator[JourneyEvent]:
        """The events in order."""
        return iter(self.events)


def shortcut(tree: ReasoningTree, *, leaf: int | None = None) -> Walk:
    """The steps to a correct answer, and nothing else.

    Args:
        tree: With a correct leaf.
        leaf: Number of a correct leaf; None takes the nearest one.

    Raises:
        DataError: The tree has no correct leaf, or this is none.
    """
    path = _right_path(tree, leaf)
    return Walk(tuple(map(_step, path)), tree.problem, tree.answer, path[-1].answer)


def journey(
    tree: ReasoningTree,
    seed: int = 0,
    *,
    leaf: int | None = None,
    wrong_turns: float = 1.0,
    varied: bool = True,
) -> Walk:
    """A long thought: the shortcut with wrong turns of the tree before its steps.

    Behind each step on the way, the question included, it may try one step that fails, follows it
    to its end without branching, says why it is wrong and returns. Its shortcut is a subsequence.

    Args:
        tree: With a correct leaf.
        seed: The same seed gives the same text.
        leaf: Number of a correct leaf; None takes the nearest one, as `shortcut` does.
        wrong_turns: Chance of a wrong turn where the tree has one, in [0, 1].
        varied: Draw the wordings of reflection and return; else each has one, which is less to
            learn for a small model.

    Raises:
        ConfigError: The chance is out of range.
        DataError: The tree has no correct leaf, or this is none.
    """
    if not 0 <= wrong_turns <= 1:
        raise ConfigError(f"`wrong_turns` is {wrong_turns}, but is a chance from 0 to 1.")
    rng = Random(f"journey {tree.id} {seed}")  # noqa: S311
    path = _right_path(tree, leaf)
    events: list[JourneyEvent] = []
    before = 0
    for node in path:
        failing = [
            child
            for child in tree.children(before)
            if child.id in tree.failing and child.id not in tree.on_path
        ]
        if failing and rng.random() < wrong_turns:
            events += _wrong_turn(tree, rng.choice(failing), rng, varied)
        events.append(_step(node))
        before = node.id
    return Walk(tuple(events), tree.problem, tree.answer, path[-1].answer)


def _right_path(tree: ReasoningTree, leaf: int | None) -> list[ReasoningNode]:
    leaves = tree.correct_leaves
    if not leaves:
        raise DataError(
            f"The tree {tree.id!r} has no correct leaf: nothing can be learned from it."
        )
    if leaf is None:
        return tree.path(leaves[0].id)
    if leaf not in {one.id for one in leaves}:
        known = ", ".join(str(one.id) for one in leaves)
        raise DataError(
            f"Node {leaf} of the tree {tree.id!r} is no correct leaf; these are {known}."
        )
    return tree.path(leaf)


def _step(node: ReasoningNode, *, is_final: bool | None = None) -> JourneyEvent:
    final = node.is_leaf if is_final is None else is_final
    kind: EventType = "terminate" if final else "step"
    return JourneyEvent(kind, node.id, node.parent, node.step, node.verdict)


def _wrong_turn(
    tree: ReasoningTree, node: ReasoningNode, rng: Random, varied: bool
) -> Iterator[JourneyEvent]:
    """A wrong step and what follows it, why it is wrong, and the return."""
    first, last = node, node
    yield _step(node, is_final=False)
    while behind := [child for child in tree.children(last.id) if child.id in tree.failing]:
        last = rng.choice(behind)
        yield _step(last, is_final=False)
    drawn = rng if varied else None
    yield reflection(last.id, last.parent, last.reason or first.reason, drawn)
    path = tree.path(first.parent)
    before = path[-1].parent if path else 0
    yield backtrack_to(first.parent, before, path[-1].step if path else None, drawn)


def reflection(node: int, parent: int, reason: str, rng: Random | None = None) -> JourneyEvent:
    """What is wrong with a node; its wording is drawn, or always the same without `rng`."""
    said = rng.choice(_REFLECTIONS) if rng else _REFLECTIONS[0]
    text = said.format(reason=reason.rstrip(".") or _UNSAID)
    return JourneyEvent("reflect", node, parent, text, "incorrect")


def backtrack_to(
    node: int, parent: int, step: str | None, rng: Random | None = None
) -> JourneyEvent:
    """The return to a node, whose step is given; None is the question."""
    said = rng.choice(_RETURNS) if rng else _RETURNS[0]
    place = _START if step is None else f'"{step}"'
    return JourneyEvent("backtrack", node, parent, said.format(place=place))
