"""Probes: does a judge follow length, its own family or the order of presentation?"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from hanol import scoring
from hanol.errors import DataError
from hanol.evaluation.meta._figures import Figure, defined
from hanol.evaluation.meta._labels import LabelledItem
from hanol.evaluation.meta._metrics import MetricItem
from hanol.evaluation.meta._report import Bias

Preference = Literal["first", "second", "tie"]

# By parts of the names of models; the first that occurs counts.
_FAMILIES = {
    "deepseek": "DeepSeek", "gpt": "GPT", "chatgpt": "GPT", "openai": "GPT", "o1": "GPT",
    "o3": "GPT", "claude": "Claude", "gemini": "Gemini", "gemma": "Gemini", "qwen": "Qwen",
    "qwq": "Qwen", "llama": "Llama", "glm": "GLM", "mistral": "Mistral", "mixtral": "Mistral",
    "phi": "Phi", "seed": "Doubao", "doubao": "Doubao", "kimi": "Kimi", "moonshot": "Kimi",
    "exaone": "EXAONE", "smollm": "SmolLM", "solar": "Solar", "hyperclova": "HyperCLOVA",
}  # fmt: skip


def family_of(model: str) -> str | None:
    """The family of a model by its name, such as "Qwen"; None where it is not known.

    Example:
        >>> family_of("Qwen3-8B"), family_of("bleu")
        ('Qwen', None)
    """
    for word in re.findall(r"[a-z]+\d?", model.casefold()):
        for part in (word, word.rstrip("0123456789")):
            if part in _FAMILIES:
                return _FAMILIES[part]
    return None


def find_bias(
    items: Sequence[LabelledItem], people: Sequence[float], given: Sequence[float], judge: str
) -> Bias:
    """Length and own family of a judge's scores.

    Args:
        items: The outputs.
        people: What people gave them.
        given: What the judge gave them.
        judge: Its name, which tells its family.
    """
    lengths = [math.log(len(item.candidate) + 1) for item in items]
    family = family_of(judge)
    is_own = [family is not None and family_of(item.system or "") == family for item in items]
    gap = None
    if any(is_own) and not all(is_own):
        gap = _own_gap(people, given, is_own, [item.system for item in items])
    return Bias(length=partial_spearman(given, lengths, people), own_family=gap, family=family)


def partial_spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> Figure:
    """Rank correlation of two columns with a third one held constant; None where undefined.

    Where the third one is constant, it is the plain correlation.
    """
    if (r_xy := defined(scoring.spearman, x, y)) is None:
        return None
    if defined(scoring.spearman, x, given) is None:
        return float(r_xy)
    r_xz, r_yz = (defined(scoring.spearman, one, given) for one in (x, y))
    left = (1 - r_xz**2) * (1 - r_yz**2)
    return None if left < 1e-9 else float(np.clip((r_xy - r_xz * r_yz) / math.sqrt(left), -1, 1))


def _own_gap(
    people: Sequence[float],
    given: Sequence[float],
    is_own: Sequence[bool],
    systems: Sequence[str | None],
) -> scoring.Interval | None:
    """Mean of scores beside people's, own systems minus others, resampling systems."""
    people_P, beside = np.asarray(people, float), np.asarray(given, float)
    degree = 1 if len(set(people)) > 1 else 0
    beside = beside - np.polyval(np.polyfit(people_P, beside, degree), people_P)

    def gap(rest: np.ndarray, own: np.ndarray) -> float | None:
        is_mine = own > 0.5
        if is_mine.all() or not is_mine.any():
            return None
        return float(rest[is_mine].mean() - rest[~is_mine].mean())

    columns = np.stack([beside, np.asarray(is_own, float)], 1)
    return scoring.bootstrap(columns, statistic=gap, clusters=systems)


class PositionReport(BaseModel):
    """Verdicts of a pairwise judge that saw every pair in both orders."""

    pairs: int
    flip_rate: float = Field(description="Share of pairs whose verdict turned with the order.")
    first_rate: float = Field(description="Share of all verdicts for the text that came first.")
    verdicts: list[Preference] = Field(
        description="For each pair as given: a side that won in both orders, else tie."
    )


def position_probe(
    prefer: Callable[[MetricItem, MetricItem], Preference],
    pairs: Iterable[tuple[MetricItem, MetricItem]],
) -> PositionReport:
    """Ask a pairwise judge in both orders.

    Args:
        prefer: Which of two outputs is better: "first", "second" or "tie".
        pairs: Two outputs of one source each.

    Returns:
        A verdict only where both orders agree; a judge that always takes the first one gives ties
        alone, and a flip rate of 1.

    Raises:
        DataError: There are no pairs, or the judge answers something else.
    """
    turned: dict[str, Preference] = {"first": "second", "second": "first", "tie": "tie"}
    asked = [(prefer(a, b), prefer(b, a)) for a, b in pairs]
    if not asked:
        raise DataError("There are no pairs to judge.")
    for answer in (answer for both in asked for answer in both):
        if answer not in turned:
            raise DataError(f"A preference is first, second or tie, but the judge said {answer!r}.")
    flips = [one != turned[other] for one, other in asked]
    return PositionReport(
        pairs=len(asked),
        flip_rate=sum(flips) / len(asked),
        first_rate=sum((a == "first") + (b == "first") for a, b in asked) / (2 * len(asked)),
        verdicts=[
            "tie" if flipped else one for (one, _), flipped in zip(asked, flips, strict=True)
        ],
    )
