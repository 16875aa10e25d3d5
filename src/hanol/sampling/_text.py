"""Texts of tokens as they come, and the stop strings that end an answer."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

TextOf = Callable[[tuple[int, ...]], str]
_CONTEXT = 5  # tokens of the prompt that are decoded too: some tokenizers begin texts differently


class StopStrings:
    """Texts that end an answer.

    Args:
        texts: As `Sampling.stop` has them; empty ones end nothing.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(filter(None, texts))
        self._beginnings = tuple({one[:n] for one in self._texts for n in range(1, len(one) + 1)})
        self.longest = max(map(len, self._texts), default=0)

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the earliest of them, and whether there was one."""
        places = [place for one in self._texts if (place := text.find(one)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def sure(self, text: str) -> int:
        """Number of characters before whatever may be the beginning of one of them."""
        if not text.endswith(self._beginnings):
            return len(text)
        return len(text) - max(len(one) for one in self._beginnings if text.endswith(one))


def token_texts(tokenizer: Any, *, skip_special_tokens: bool = False) -> TextOf:
    """A tokenizer's texts of short runs of tokens; the same runs come again and again."""

    @lru_cache(maxsize=1 << 16)
    def text_of(ids: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    return text_of


class TextStream:
    """Text of the tokens of one answer.

    Each piece is the difference of two decodings that begin at the same token before it. Special
    tokens that a model writes are part of the text, if `text_of` has them: agents' tags may be
    such tokens.

    Args:
        text_of: What `token_texts` gives.
        prompt: Tokens before the answer.
        stop: Stop strings.
        keep_stop: Cut nothing: the text ends with the token in which a stop string ends.

    Attributes:
        text: What is there so far; a character whose bytes are not complete is held back.
        stopped: Whether a stop string ended the text, which is cut there.
    """

    def __init__(
        self,
        text_of: TextOf,
        prompt: Sequence[int],
        stop: Iterable[str] = (),
        *,
        keep_stop: bool = False,
    ) -> None:
        self._text_of, self._stop, self._keep_stop = text_of, StopStrings(stop), keep_stop
        self._ids = list(prompt[-_CONTEXT:])
        self._begin, self._end = 0, len(self._ids)
        self._starts: list[int] = []  # for each token, the length of the text before it
        self.text, self.stopped = "", False

    def push(self, token: int) -> None:
        """Add a token."""
        self._starts.append(len(self.text))
        self._ids.append(token)
        self._show(hold=True)

    def end(self) -> None:
        """Show what was held back: no more tokens come."""
        self._show(hold=False)

    @property
    def sure(self) -> int:
        """Characters that stay, whatever comes: a stop string may begin behind them."""
        return self._stop.sure(self.text)

    @property
    def may_be_stopping(self) -> bool:
        """Whether the text ends with the beginning of a stop string."""
        return self.sure < len(self.text)

    @property
    def kept_tokens(self) -> int:
        """Tokens that begin before the end of the text."""
        if not self.stopped or self._keep_stop:
            return len(self._starts)
        return sum(start < len(self.text) for start in self._starts)

    def pieces(self) -> tuple[str, ...]:
        """The text of each kept token; together they are the text.

        Of the tokens that make one character, the last has it.
        """
        starts = self._starts[: self.kept_tokens]
        ends = [*starts[1:], len(self.text)] if starts else []
        return tuple(self.text[a:b] for a, b in zip(starts, ends, strict=True))

    def _show(self, *, hold: bool) -> None:
        if self.stopped:
            return
        before = self._text_of(tuple(self._ids[self._begin : self._end]))
        text = self._text_of(tuple(self._ids[self._begin :]))
        if len(text) <= len(before) or (hold and text.endswith("\ufffd")):
            return
        self._begin, self._end = self._end, len(self._ids)
        searched = max(0, len(self.text) - self._stop.longest + 1)
        new = self.text[searched:] + text[len(before) :]
        tail, self.stopped = self._stop.cut(new)
        self.text = self.text[:searched] + (new if self._keep_stop else tail)
