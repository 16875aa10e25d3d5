"""Learning rates over a run, as shares of the peak rates."""

import math

from hanol.training.pretraining._pretrain_recipe import ScheduleSection


def learning_rate(schedule: ScheduleSection, tokens: int, total: int) -> float:
    """Share of the peak rate after `tokens` of `total` tokens: warm-up, stable, decay.

    Example:
        >>> plan = ScheduleSection(warmup_tokens=10, decay_tokens=20, decay="linear")
        >>> [learning_rate(plan, n, 100) for n in (0, 5, 50, 90, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if tokens < schedule.warmup_tokens:
        return tokens / schedule.warmup_tokens
    left = max(total - tokens, 0)
    if left >= schedule.decay_tokens:
        return 1.0
    share = left / schedule.decay_tokens
    if schedule.decay == "cosine":
        share = 0.5 - 0.5 * math.cos(math.pi * share)
    return schedule.final + (1 - schedule.final) * share
