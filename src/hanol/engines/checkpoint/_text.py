"""The text of an answer as its tokens come, and where a stop string ends it."""

from functools import lru_cache
from typing import Any

from hanol.engines._engine import beginnings, cut_at_stop, sure_length

_CONTEXT = 5  # tokens of the prompt that are decoded too: some tokenizers begin texts differently


class Decoder:
    """A tokenizer's texts of short runs of tokens; the same runs come again and again."""

    def __init__(self, tokenizer: Any) -> None:
        @lru_cache(maxsize=1 << 16)
        def text_of(ids: tuple[int, ...]) -> str:
            text: str = tokenizer.decode(list(ids), skip_special_tokens=False)
            return text

        self.text_of = text_of


class TextStream:
    """Text of the tokens of one answer.

    Each piece is the difference of two decodings that begin at the same token before it. Special
    tokens that a model writes are part of the text: agents' tags may be such tokens.

    Args:
        decoder: Texts of tokens.
        prompt: Tokens before the answer.
        stop: Stop strings.

    Attributes:
        text: What is there so far; a character whose bytes are not complete is held back.
        starts: For each token, the length of the text before it.
        stopped: Whether a stop string ended the text, which is cut there.
    """

    def __init__(self, decoder: Decoder, prompt: list[int], stop: tuple[str, ...]) -> None:
        self._decoder = decoder
        self._ids = list(prompt[-_CONTEXT:])
        self._begin, self._end = 0, len(self._ids)
        self._stop = tuple(word for word in stop if word)
        self._longest = max(map(len, self._stop), default=0)
        self._beginnings = beginnings(self._stop)
        self.text = ""
        self.starts: list[int] = []
        self.stopped = False

    def push(self, token: int) -> None:
        """Add a token."""
        self.starts.append(len(self.text))
        self._ids.append(token)
        self._show(hold=True)

    def end(self) -> None:
        """Show what was held back: no more tokens come."""
        self._show(hold=False)

    @property
    def may_be_stopping(self) -> bool:
        """Whether the text ends with the beginning of a stop string."""
        return self.text.endswith(self._beginnings)

    @property
    def sure(self) -> int:
        """Characters that stay, whatever comes: a stop string may begin behind them."""
        return sure_length(self.text, self._beginnings)

    @property
    def kept_tokens(self) -> int:
        """Tokens that begin before the end of the text."""
        if not self.stopped:
            return len(self.starts)
        return sum(start < len(self.text) for start in self.starts)

    def pieces(self) -> tuple[str, ...]:
        """The text of each kept token; together they are the text."""
        starts = self.starts[: self.kept_tokens]
        ends = [*starts[1:], len(self.text)] if starts else []
        return tuple(self.text[a:b] for a, b in zip(starts, ends, strict=True))

    def _show(self, *, hold: bool) -> None:
        if self.stopped:
            return
        before = self._decoder.text_of(tuple(self._ids[self._begin : self._end]))
        text = self._decoder.text_of(tuple(self._ids[self._begin :]))
        if len(text) <= len(before) or (hold and text.endswith("\ufffd")):
            return
        self._begin, self._end = self._end, len(self._ids)
        searched = max(0, len(self.text) - self._longest + 1)
        tail = self.text[searched:] + text[len(before) :]
        tail, self.stopped = cut_at_stop(tail, self._stop)
        self.text = self.text[:searched] + tail
