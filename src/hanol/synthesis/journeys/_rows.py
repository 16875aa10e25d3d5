"""Rows of one tree: the shortcut, the journey, and the controls that a claim about them needs.

A journey is longer than its shortcut, so a gain may be the gain of more tokens; its steps may
matter, or only that it looks back. So there are also shortcuts of as many tokens (`token_matched`),
the journey's lines in random order, and the journey with a wrong answer (arXiv 2502.07374).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hanol.synthesis.journeys._tree import ReasoningTree
from hanol.synthesis.journeys._walk import Walk, journey, shortcut

ARMS = ("shortcuts", "journeys", "token-matched", "shuffled", "wrong-answers")
_WHOLE = re.compile(r"-?\d+")


@dataclass(frozen=True)
class PairedThoughts:
    """What one tree teaches.

    Attributes:
        tree: The tree.
        short: Its shortcut.
        long: Its journey, to the same leaf.
        text: The journey as it is learned: its draft, or a rewrite that kept all of it.
        seed: Seed of the journey.
    """

    tree: ReasoningTree
    short: Walk
    long: Walk
    text: str
    seed: int

    @classmethod
    def of(cls, tree: ReasoningTree, seed: int, *, varied: bool = True) -> "PairedThoughts":
        """The pair of a tree, not rewritten.

        Raises:
            DataError: The tree has no correct leaf.
        """
        long = journey(tree, seed, varied=varied)
        return cls(tree, shortcut(tree), long, long.text, seed)


def thought_row(pair: PairedThoughts, kind: str, text: str, **more: Any) -> dict[str, Any]:
    """A row that recipes of the kind sft read, with where it comes from."""
    return {
        **_chat(pair.tree.problem, text),
        "meta": {
            "kind": kind,
            "problem": pair.tree.id,
            "leaf": pair.short.events[-1].node,
            "journey_seed": pair.seed,
            "backtracks": pair.long.num_backtracks,
            "rewritten": pair.text != pair.long.text,
            **pair.tree.provenance,
            **more,
        },
    }


def paired_rows(pair: PairedThoughts) -> dict[str, dict[str, Any]]:
    """A row of each arm but "token-matched", which needs the other trees; equal seeds, equal rows.

    Returns:
        By the arm's name.
    """
    rng = Random(f"controls {pair.tree.id} {pair.seed}")  # noqa: S311
    *lines, last = pair.text.split("\n")
    rng.shuffle(lines)
    texts = {
        "shortcuts": pair.short.text,
        "journeys": pair.text,
        "shuffled": "\n".join([*lines, last]),
        "wrong-answers": with_wrong_answer(pair, rng),
    }
    return {arm: thought_row(pair, arm, text) for arm, text in texts.items()}


def with_wrong_answer(pair: PairedThoughts, rng: Random) -> str:
    """The journey, but its last line states a wrong answer: one of the tree's, else another number.

    The text is given back as it is where its answer is neither.
    """
    *lines, last = pair.text.split("\n")
    right = pair.long.final or pair.tree.answer
    wrong = sorted({node.answer for node in pair.tree if node.answer and node.correct is False})
    wrong = [answer for answer in wrong if answer != right]
    if not wrong and _WHOLE.fullmatch(right):
        wrong = [str(int(right) + rng.choice((1, 2, 3)))]
    if not wrong or right not in last:
        return pair.text
    head, _, tail = last.rpartition(right)
    return "\n".join([*lines, f"{head}{rng.choice(wrong)}{tail}"])


def token_matched(
    pairs: Sequence[PairedThoughts], count_tokens: Callable[[str], int]
) -> Iterator[dict[str, Any]]:
    """Shortcuts with as many tokens as the journeys: of every correct leaf, again if need be."""
    wanted = sum(count_tokens(pair.text) for pair in pairs)
    ways = [
        (pair, shortcut(pair.tree, leaf=leaf.id))
        for pair in pairs
        for leaf in pair.tree.correct_leaves
    ]
    spent = passes = 0
    while spent < wanted:
        passes += 1
        for pair, walk in ways:
            if spent >= wanted:
                return
            spent += count_tokens(walk.text)
            leaf = walk.events[-1].node
            yield thought_row(pair, "token-matched", walk.text, leaf=leaf, passes=passes)


def preference_rows(trees: Iterable[ReasoningTree]) -> Iterator[dict[str, Any]]:
    """Pairs of a right and a wrong way through a tree, for recipes of the kind preference."""
    for tree in trees:
        wrong = [node for node in tree if node.is_leaf and node.correct is False]
        for good, bad in zip(tree.correct_leaves, wrong, strict=False):
            texts = ["\n".join(one.step for one in tree.path(end.id)) for end in (good, bad)]
            yield {
                "prompt": [{"role": "user", "content": tree.problem}],
                "chosen": [{"role": "assistant", "content": texts[0]}],
                "rejected": [{"role": "assistant", "content": texts[1]}],
                "meta": {
                    "problem": tree.id, "leaves": [good.id, bad.id], **tree.provenance
                },
            }  # fmt: skip


def _chat(problem: str, text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": problem},
            {"role": "assistant", "content": text},
        ]
    }
