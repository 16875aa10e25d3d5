"""How tokens are drawn, as one object that requests, recipes and the command line share."""

import math
from dataclasses import dataclass
from numbers import Integral

from hanol.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are drawn.

    Args:
        temperature: 0 takes the likeliest token. None is the engine's own choice: 1, or what the
            AutoDeco heads of a checkpoint choose for each token.
        top_p: Draw from the smallest set of likeliest tokens that holds this share, in (0, 1];
            None as with `temperature`.
        top_k: Draw from this many likeliest tokens; None from all.
        presence_penalty: Subtracted once from the logits of tokens that the answer has.
        frequency_penalty: Subtracted from them once for each time that they occur.
        repetition_penalty: Logits of tokens of prompt and answer are divided by it where they are
            positive, else multiplied; 1 changes nothing.
        seed: Equal seeds give equal answers in process; servers promise less. A whole number of
            64 bits; None is random.
        stop: Texts that end the answer; they are not part of it.
        max_tokens: At most this many new tokens; None leaves it to the engine's window.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str)
                           else tuple(self.stop))  # fmt: skip
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise ConfigError(
                f"`temperature` is {self.temperature}, but must be 0 (greedy) or more."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"`top_p` is {self.top_p}, but must be above 0 and at most 1.")
        for name, least in (("top_k", 1), ("max_tokens", 1), ("seed", -(2**63))):
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, Integral) and least <= int(value) < 2**63
            ):
                raise ConfigError(
                    f"`{name}` is {value!r}, but must be a whole number of 64 bits, "
                    f"at least {least}."
                )
        if not all(isinstance(text, str) for text in self.stop):
            raise ConfigError(f"`stop` is {self.stop!r}, but must hold texts.")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"`repetition_penalty` is {self.repetition_penalty}, but must be above 0; 1 is off."
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"`{name}` is {getattr(self, name)}, but must be a number.")
