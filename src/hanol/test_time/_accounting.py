"""What inference costs in operations, beside a larger model that was trained for longer.

A pass of one token through P parameters takes 2 P operations, its share of training 6 P.
Source: arXiv 2408.03314, section 7.
"""

import math

from hanol.errors import ConfigError


def flops_multiplier(scale: float, ratio: float) -> float:
    """How many times its own tokens a small model may generate, to cost as much as a larger one.

    The larger model has `scale` times the parameters and costs `scale` times as much to train and
    to run: m = scale + 3 (scale - 1) / ratio.

    Args:
        scale: Parameters of the larger model over those of the small one, at least 1.
        ratio: Tokens of inference over tokens of training, above 0.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> flops_multiplier(14, 0.16)
        257.75
    """
    if not 1 <= scale < math.inf:
        raise ConfigError(f"`scale` is {scale}, but the larger model has at least 1 times the "
                          "parameters.")  # fmt: skip
    if not 0 < ratio < math.inf:
        raise ConfigError(f"`ratio` is {ratio}, but must be above 0: tokens of inference over "
                          "tokens of training.")  # fmt: skip
    return scale + 3 * (scale - 1) / ratio
