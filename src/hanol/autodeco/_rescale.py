"""What the heads choose for rows of logits, and the logits that follow from it.

Shape suffixes: B batch, T positions, V vocabulary, H hidden width; both functions take any leading
dimensions.
Source: arXiv 2510.26697, section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from torch import Tensor

from hanol.autodeco._heads import TemperatureHead, TopPHead, statistics
from hanol.errors import ConfigError
from hanol.sampling import STEEPNESS, excess, tempered, top_p_keep

Apply = Literal["hard", "soft", "none", "off"]
Mask = Literal["finite", "inf"]

MIN_TEMPERATURE = 1e-2
# Tokens outside of the nucleus: exp(-1000) is exactly 0 in float32, so sampling never takes them.
# Not -inf: when a grammar bans the whole nucleus, what is left keeps its tempered order.
EXCLUDED = 1000.0


@dataclass(frozen=True)
class DecodingLimits:
    """What the heads' choices are held to when they are served.

    Args:
        min_temperature: Above 0.
        max_temperature: At least `min_temperature`; the heads choose below 2.
        min_top_p: In [0, 1].

    Raises:
        ConfigError: A value is out of its range.
    """

    min_temperature: float = MIN_TEMPERATURE
    max_temperature: float = 2.0
    min_top_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_temperature <= self.max_temperature < float("inf"):
            raise ConfigError(
                f"`min_temperature` is {self.min_temperature} and `max_temperature` "
                f"{self.max_temperature}, but they must be above 0 and in this order."
            )
        if not 0 <= self.min_top_p <= 1:
            raise ConfigError(f"`min_top_p` is {self.min_top_p}, but must be between 0 and 1.")

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Self:
        """The limits of a configuration file.

        Raises:
            ConfigError: A key is not known, or a value no number or out of its range.
        """
        known = {field.name for field in fields(cls)}
        for key, value in (values or {}).items():
            if key not in known or type(value) not in (int, float):
                raise ConfigError(
                    f"`autodeco_limits` has {key!r}: {value!r}, but takes numbers for "
                    f"{', '.join(sorted(known))}."
                )
        return cls(**(values or {}))

    def hold(self, temperature_BT: Tensor, top_p_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Both values, moved to the nearest that is allowed."""
        temperature_BT = temperature_BT.clamp(self.min_temperature, self.max_temperature)
        return temperature_BT, top_p_BT.clamp_min(self.min_top_p) if self.min_top_p else top_p_BT


def predict(
    hidden_BTH: Tensor,
    logits_BTV: Tensor,
    temp_head: TemperatureHead | None,
    top_p_head: TopPHead | None,
) -> tuple[Tensor, Tensor]:
    """`temperature_BT` and `top_p_BT`; 1 where there is no head."""
    ones_BT = torch.ones(hidden_BTH.shape[:-1], device=hidden_BTH.device)
    temperature_BT = ones_BT if temp_head is None else temp_head(hidden_BTH)
    if top_p_head is None:
        return temperature_BT, ones_BT
    # What the top-p head reads is an input, not a way for its gradient into the temperature head.
    detached_BT = temperature_BT.detach()
    read = statistics(logits_BTV, detached_BT) if top_p_head.enhanced else None
    return temperature_BT, top_p_head(hidden_BTH, detached_BT, read)


def rescale(
    logits_BTV: Tensor,
    temperature_BT: Tensor,
    top_p_BT: Tensor | None,
    apply: Apply,
    mask: Mask = "finite",
) -> Tensor:
    """The logits to sample from at temperature 1 and top-p 1, in float32.

    Args:
        logits_BTV: Logits of the base, any dtype.
        temperature_BT: Temperatures, above 0.
        top_p_BT: None cuts nothing.
        apply: "hard", "soft" or "none", which cuts nothing either.
        mask: With "hard", whether excluded tokens are moved down by 1000 or to -inf.

    Raises:
        DataError: Logits on CPU that are not numbers.
    """
    tempered_BTV = tempered(logits_BTV.float(), temperature_BT)
    if top_p_BT is None or apply == "none":
        return tempered_BTV
    if apply == "soft":
        # The logarithm of `soft_top_p` but for its epsilons and a constant. Finite, so that here
        # too a grammar may ban every likely token.
        return tempered_BTV - STEEPNESS * excess(tempered_BTV.softmax(-1), top_p_BT)
    keep_NV = top_p_keep(
        tempered_BTV.flatten(0, -2),
        top_p_BT.flatten(),
        # Looking for NaN would make an accelerator wait at every token.
        check=tempered_BTV.device.type == "cpu",
    )
    keep_BTV = keep_NV.view_as(tempered_BTV)
    if mask == "inf":
        return tempered_BTV.masked_fill(~keep_BTV, -torch.inf)
    return torch.where(keep_BTV, tempered_BTV, tempered_BTV - EXCLUDED)
