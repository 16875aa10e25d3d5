"""What a command has cost: one record, whatever the command."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass
class Ledger:
    """Calls, tokens, computation, time and money of a command; ledgers add up.

    Args:
        cached_tokens: Prompt tokens that did not have to be computed again.
        scored_tokens: Tokens of given continuations whose probability was computed.
        verifier_tokens: Tokens that a verifier's model read.
        flops: Floating-point operations, where they are known.
        seconds: Time in calls of the model and of tools.
        money: In the currency of the prices.

    Example:
        >>> first = Ledger(model_calls=1, prompt_tokens=100, generated_tokens=20)
        >>> (first + first).prompt_tokens
        200
    """

    model_calls: int = 0
    tool_calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    money: float = 0.0
    verifier_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens together: what endpoints bill."""
        return self.prompt_tokens + self.generated_tokens

    def __add__(self, other: "Ledger") -> "Ledger":
        names = [field.name for field in fields(Ledger)]
        return Ledger(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @classmethod
    def of_run(cls, ended: Mapping[str, Any]) -> Self:
        """What a run has cost, by the fields of its `RunEnded`."""
        own = {field.name: ended[field.name] for field in fields(cls) if field.name in ended}
        return cls(generated_tokens=ended["completion_tokens"], **own)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
