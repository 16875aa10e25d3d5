"""Scores weighted by the probabilities of the tokens in the place of each."""

import math
import re

from hanol.engines import Choice
from hanol.evaluation.judging._rubric import Rubric


def weighted(choice: Choice, rubric: Rubric) -> dict[str, float] | None:
    """The mean level of each criterion, by the likeliest tokens where its score stands.

    None where a score cannot be found, or the engine gave no probabilities: a score never changes
    its meaning in silence.

    Args:
        choice: A reply with `tokens` and `top_logprobs`.
        rubric: Its criteria; every level must be one token.
    """
    if not choice.tokens or not choice.top_logprobs:
        return None
    text = "".join(choice.tokens)
    ends, at = [], 0
    for token in choice.tokens:
        at += len(token)
        ends.append(at)
    made: dict[str, float] = {}
    for one in rubric.criteria:
        found = list(re.finditer(rf"\"{re.escape(one.id)}\"\s*:\s*\"?(-?\d+)", text))
        if len(found) != 1:
            return None
        place = next(i for i, end in enumerate(ends) if end > found[0].start(1))
        levels = {str(level): level for level in one.scale}
        mass: dict[int, float] = {}
        for token, logprob in choice.top_logprobs[place]:
            if (level := levels.get(token.strip(' "'))) is not None:
                mass[level] = mass.get(level, 0.0) + math.exp(logprob)
        if not mass:
            return None
        made[one.id] = sum(level * share for level, share in mass.items()) / sum(mass.values())
    return made
