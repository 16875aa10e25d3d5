"""What servers answer: their complaints, log-probabilities, and tokens when they count none."""

import functools
import re
from typing import Any

# Parameters that a request can do without, when a server refuses them.
_OPTIONAL = ("presence_penalty", "stop", "logprobs", "seed", "temperature", "top_p")
_RETRIED = (408, 409, 425, 429)  # and everything from 500 on
_WORDS = re.compile(r"[A-Za-z]+|[^\x00-\x7f]+|\n+|[^A-Za-z\x80-\U0010ffff\s]")


def is_passing(err: Any) -> bool:
    """Whether the same request may succeed later."""
    if err.code == "insufficient_quota":
        return False
    return err.status_code in _RETRIED or err.status_code >= 500


def message(err: Any) -> str:
    """What a server says of a refused request."""
    body = err.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body.get("error") or body)
    return str(body or err.message)


def refused_parameter(err: Any, body: dict[str, Any]) -> str | None:
    """The parameter of a request that a server says it does not take."""
    if err.status_code not in (400, 422):
        return None
    said = message(err)
    if "max_tokens" in body and "max_completion_tokens" in said:
        return "max_tokens"
    for name in _OPTIONAL:
        if name in body and (err.param == name or re.search(rf"\b{name}\b", said)):
            return name
    return None


def logprobs(
    choice: Any, kept: str | None
) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Tokens and their log-probabilities; those of the kept text, if it was cut here."""
    entries = getattr(getattr(choice, "logprobs", None), "content", None)
    if not entries:
        return None, None
    tokens = tuple(str(entry.token) for entry in entries)
    logprobs = tuple(float(entry.logprob) for entry in entries)
    if kept is not None and "".join(tokens).startswith(kept):
        length, count = 0, 0
        while length < len(kept):
            length, count = length + len(tokens[count]), count + 1
        tokens, logprobs = tokens[:count], logprobs[:count]
    return tokens, logprobs


@functools.lru_cache(maxsize=4096)
def estimate(text: str) -> int:
    """About how many tokens a text has, rather more than less."""
    tokens = 0
    for word in _WORDS.findall(text):
        if word.isascii():
            tokens += -(-len(word) // 4)
        else:
            tokens += -(-len(word.encode(errors="replace")) // 2)
    return tokens
