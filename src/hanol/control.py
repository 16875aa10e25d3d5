"""Control tokens in strangers' text are broken: no document can begin a turn or end one.

A tokenizer reads the text of a control token as that token wherever it stands. Those of a model in
this process are known (`ControlTokens.of`); of a model behind an endpoint there are shapes, which
cover those of the public families.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import regex

__all__ = ["ControlTokens"]

# Behind the first character of a token it breaks it for parsers and tokenizers; the first two are
# invisible, the others for tokenizers that drop what is, or have it in a token.
_MARKS = ("\u200b", "\u2060", "\u00b7", "\u00a6")
_TAG = re.compile(r"[<\[]\S{1,64}[>\]]")  # small tokenizers have plain text such as "1." added
_INVISIBLE = regex.compile(r"[^\P{C}\t\n\r]")
# Only the first character is taken, the rest looked at: overlapping ones are all found.
_SHAPES = re.compile(
    r"<(?=/?(?:s|[bes]o[sptm]|unk|pad|mask|cls|sep|image|audio|video|unused\d*)>)"
    r"|<(?=\|)"  # <|im_start|>, <|turn>
    r"|<(?=[^<>\n]{1,64}\|>)"  # <turn|>
    r"|<(?=/?[a-z0-9]{0,32}[_:][a-z0-9_:]{0,64}>)"  # <start_of_turn>, <seed:bos>, <fim_prefix>
    r"|<(?=/?(?:function|parameter|invoke)\b[^<>\n]{0,64}>)"
    r"|<(?=</?SYS>>)"
    r"|>(?=>[A-Z_]{1,32}<<)"
    r"|\[(?=/?(?:INST|[gs]MASK|ARGS|AUDIO|IMG|THINK|PREFIX|MIDDLE|SUFFIX|[BES]O[DSPTM]|PAD|UNK|CLS"
    r"|SEP|MASK|SYSTEM|USER|ASSISTANT|TRANSCRIBE|SPECIAL)\])"
    r"|\[(?=/?(?-i:[A-Z0-9]{1,32}_[A-Z0-9_]{1,40})\])"  # [TOOL_CALLS], [SYSTEM_PROMPT]
    r"|\[(?=\|)"  # [|user|]
    r"|\](?=[<~]!?\w{0,16}[\[\]])|\[(?=e~\[)",  # ]~b], ]<]minimax[>[
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ControlTokens:
    """What a tokenizer reads as control tokens.

    Args:
        texts: Their texts; the common shapes are known without them.
        mark: What is put into one to break it.
    """

    texts: tuple[str, ...] = ()
    mark: str = _MARKS[0]

    @classmethod
    def of(cls, tokenizer: Any, *, special_only: bool = False) -> "ControlTokens":
        """Those of a tokenizer: special tokens, and added ones in brackets; others are text.

        Signs of ASCII alone, such as "!", stay text, though a tokenizer may pad with them.

        Args:
            tokenizer: One of transformers.
            special_only: Without added tokens that stand for text, such as <tool_call>.
        """
        added = tokenizer.added_tokens_decoder
        found = {
            token.content.strip(): number
            for number, token in added.items()
            if token.special or not (special_only or not _TAG.fullmatch(token.content.strip()))
        }
        texts = tuple(sorted(t for t in found if len(t) > 1 or (t and not t.isascii())))
        for mark in _MARKS:
            control = cls(texts, mark)
            broken = [control.escape(text) for text in texts]
            ids = tokenizer(broken, add_special_tokens=False).input_ids if texts else ()
            if not any(mark in text for text in texts) and not any(
                found[text] in row for text, row in zip(texts, ids, strict=True)
            ):
                break
        return control

    def unknown(self) -> tuple[str, ...]:
        """The texts that no common shape has, however their letters are written."""
        ways = (str, str.lower, str.upper)
        escape = self._shapes.escape
        seen = {t: self._as_read(t) for t in self.texts}
        return tuple(t for t, s in seen.items() if any(way(s) in escape(way(s)) for way in ways))

    def escape(self, text: str, *others: re.Pattern[str], shapes: bool = True) -> str:
        """The text with every control token in it broken; twice changes nothing more.

        Args:
            others: Further patterns, which take one character each.
            shapes: Also break what has the shape of a token of public models.
        """
        text = self._as_read(text)
        view, at = _as_normalized(text)
        patterns = (self._pattern, *others, *(_SHAPES,) * shapes)
        places = sorted({at(found.start()) for one in patterns for found in one.finditer(view)})
        parts, last = [], 0
        for place in places:
            if not text.startswith(self.mark, place + 1):
                parts += [text[last : place + 1], self.mark]
                last = place + 1
        return "".join([*parts, text[last:]]).translate(self._signs)

    def _as_read(self, text: str) -> str:
        """Without what the tokenizer drops, which may put a token together."""
        return text if self.mark in _MARKS[:2] else _INVISIBLE.sub("", text)

    @cached_property
    def _shapes(self) -> "ControlTokens":
        return ControlTokens(mark=self.mark)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        by_first: dict[str, list[str]] = {}
        for text in self.texts:
            if len(text) > 1:
                plain = self._as_read(text.translate(_normalized()))
                by_first.setdefault(plain[0], []).append(re.escape(plain[1:]))
        ways = (f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in by_first.items())
        return re.compile("|".join(ways) or "(?!)", re.IGNORECASE)

    @cached_property
    def _signs(self) -> dict[int, str]:
        """Tokens of one sign, which cannot be broken, by their names."""
        return {ord(text): f"(U+{ord(text):04X})" for text in self.texts if len(text) == 1}


def _as_normalized(text: str) -> tuple[str, Callable[[int], int]]:
    """A text as a tokenizer's normalizer may read it, and where a place of it is in the text."""
    view = text if text.isascii() else text.translate(_normalized())
    if len(view) == len(text):
        return view, int
    table = _normalized()
    places = [i for i, sign in enumerate(text) for _ in table.get(ord(sign), sign)]
    return view, places.__getitem__


@cache
def _normalized() -> dict[int, str]:
    """Signs in other widths and forms, and what they are read as."""
    forms = ((code, unicodedata.normalize("NFKC", chr(code))) for code in range(0xA0, 0x20000))
    return {code: form for code, form in forms if form and form != chr(code)}
