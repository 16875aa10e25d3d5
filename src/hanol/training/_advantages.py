"""Advantages of sampled answers: how much better each was than the others to its question.

GRPO (arXiv 2402.03300) divides the distance from the group's mean by the group's spread, Dr. GRPO
(arXiv 2503.20783) does not, and RLOO (arXiv 2402.14740) compares each with the mean of the others.
Plain Python in float64: groups are small, and equal rewards must give exactly 0.
"""

import math
from collections.abc import Sequence
from statistics import stdev
from typing import Literal, get_args

import torch
from torch import Tensor

from hanol.errors import ConfigError, DataError, ShapeError

AdvantageKind = Literal["grpo", "rloo", "dr_grpo"]
AdvantageScale = Literal["group", "batch", "none"]
_SCALE: dict[str, AdvantageScale] = {"grpo": "group", "rloo": "none", "dr_grpo": "none"}
_EPSILON = 1e-4  # added to every spread, as in TRL


def group_advantages(
    rewards: Sequence[float | None] | Tensor,
    group: int | Sequence[object] | Tensor,
    *,
    kind: AdvantageKind = "grpo",
    scale: AdvantageScale | None = None,
) -> Tensor:
    """How much better each answer was than the others of its group.

    Args:
        rewards: One per answer; None where an answer could not be scored, which keeps it out of
            means and spreads.
        group: What tells the questions apart, one entry per answer, in any order; or a number of
            answers: each so many in a row are a group.
        kind: What an answer is compared with: "grpo" and "dr_grpo" take the mean of its group,
            "rloo" that of the others in it.
        scale: What differences are divided by: "group" is the standard deviation (n - 1) of the
            rewards of the group, "batch" that of all rewards ("rloo": of all differences, as TRL's
            `normalize_advantages`), each plus 1e-4; "none" is 1. None takes what the source of
            `kind` has: "group" for "grpo", else "none".

    Returns:
        The advantages, float64, in the order of the rewards: 0 for an answer that could not be
        scored, and exactly 0 where nothing distinguishes the answers of a group.

    Raises:
        ConfigError: An unknown `kind` or `scale`.
        DataError: A reward is not a finite number.
        ShapeError: `group` does not fit the rewards.

    Example:
        >>> group_advantages([1.0, 0.0, 0.0, None], 4, kind="rloo").tolist()
        [1.0, -0.5, -0.5, 0.0]
        >>> group_advantages([2.0, 5.0, 0.0, 5.0], "abab", kind="dr_grpo").tolist()
        [1.0, 0.0, -1.0, 0.0]
    """
    for name, value, known in (
        ("kind", kind, get_args(AdvantageKind)),
        ("scale", scale, (None, *get_args(AdvantageScale))),
    ):
        if value not in known:
            raise ConfigError(f"`{name}` is {value!r}: give one of {', '.join(map(repr, known))}.")
    values = rewards.flatten().tolist() if isinstance(rewards, Tensor) else list(rewards)
    if wrong := [x for x in values if x is not None and not math.isfinite(x)]:
        raise DataError(f"A reward is {wrong[0]}. An answer that cannot be scored has None.")
    scored = [(i, float(x)) for i, x in enumerate(values) if x is not None]
    groups: dict[object, list[tuple[int, float]]] = {}
    keys = _keys(group, len(values))
    for i, x in scored:
        groups.setdefault(keys[i], []).append((i, x))
    differences: dict[int, float] = {}
    spreads: dict[int, float] = {}
    for members in groups.values():
        own = [x for _, x in members]
        if len(own) < 2:
            continue
        total, count = math.fsum(own), len(own)
        same = len(set(own)) < 2  # by comparison: a mean of equal numbers may differ from them
        for i, x in members:
            others = (total - x) / (count - 1) if kind == "rloo" else total / count
            differences[i] = 0.0 if same else x - others
            spreads[i] = stdev(own)
    scale = _SCALE[kind] if scale is None else scale
    if scale == "batch" and differences:
        # TRL also subtracts the mean of RLOO's differences, which is 0 in every group.
        of_all = list(differences.values()) if kind == "rloo" else [x for _, x in scored]
        spreads = dict.fromkeys(differences, stdev(of_all))
    advantages = torch.zeros(len(values), dtype=torch.float64)
    for i, difference in differences.items():
        advantages[i] = difference / (1.0 if scale == "none" else spreads[i] + _EPSILON)
    return advantages


def _keys(group: int | Sequence[object] | Tensor, count: int) -> list[object]:
    """The group of each reward."""
    if isinstance(group, int):
        if group < 1 or count % group:
            raise ShapeError(
                f"{count} rewards do not make groups of {group}. Give a number that divides them, "
                "or one entry per reward."
            )
        return [i // group for i in range(count)]
    keys = group.flatten().tolist() if isinstance(group, Tensor) else list(group)
    if len(keys) != count:
        raise ShapeError(f"{count} rewards, but `group` has {len(keys)} entries.")
    return keys
