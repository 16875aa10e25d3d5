"""JSON objects in text that a model wrote: found by balanced braces, wherever they stand."""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

_MOST_STARTS = 32  # braces that begin nothing are passed over this often: the time stays linear
_SIGNS = str.maketrans("“”„‟″＂‘’‚‛＇：，｛｝［］", '""""""\'\'\'\'\'' + ":,{}[]")
_DEEPEST = 64
_BRACES = str.maketrans("｛｝", "{}")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|“[^”]*+”|["“{}]', re.DOTALL)
_FORMAT = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")


def plain_signs(text: str) -> str:
    """A text with ASCII quotation marks, braces, colons and commas."""
    return text.translate(_SIGNS)


def folded(text: str, *, case: bool = True) -> str:
    """A text in one width and without invisible signs; with `case` in one case too."""
    text = _FORMAT.sub("", unicodedata.normalize("NFKC", text))
    return text.casefold() if case else text


@dataclass(frozen=True)
class NotOne:
    """Text in braces that is no JSON; `conflict` is a key that it has twice with two values."""

    text: str
    conflict: str | None = None


@dataclass(frozen=True)
class FoundObjects:
    """What was found.

    Args:
        values: Pairs of value and status, or `NotOne`.
        strict: Where those lie that are JSON as they stand.
        tail: From the first brace that is never closed to the end of the text.
    """

    values: list[tuple[Any, str] | NotOne] = field(default_factory=list)
    strict: list[tuple[int, int]] = field(default_factory=list)
    tail: NotOne | None = None

    @property
    def contents(self) -> list[Any]:
        """The values alone."""
        return [one[0] for one in self.values if isinstance(one, tuple)]


class _ConflictError(ValueError):
    """A key twice, with different values."""


def find_objects(text: str) -> FoundObjects:
    """The outermost balanced braces of a text, read as JSON."""
    text = text.translate(_BRACES)
    values: list[tuple[Any, str] | NotOne] = []
    strict: list[tuple[int, int]] = []
    tail, at, starts = None, 0, 0
    while (at := text.find("{", at)) >= 0 and starts < _MOST_STARTS:
        end = _close(text, at)
        if end < 0:
            starts += 1
            tail = tail or NotOne(text[at:])
            at += 1
            continue
        value = _load(text[at:end])
        values.append(value)
        if isinstance(value, tuple) and value[1] == "ok":
            strict.append((at, end))
        at = end
    return FoundObjects(values, strict, tail)


def _close(text: str, at: int) -> int:
    """Where the braces that open at a place are closed, strings passed over; -1 if nowhere."""
    depth = 0
    for found in _TOKEN.finditer(text, at):
        if found[0] == "{":
            depth += 1
            if depth > _DEEPEST:
                break
        elif found[0] == "}":
            depth -= 1
            if depth == 0:
                return found.end()
        elif len(found[0]) == 1:
            break  # a string that never ends
    return -1


def _load(text: str) -> tuple[Any, str] | NotOne:
    for status, form, strict in (("ok", text, True), ("repaired", text, False),
                                 ("repaired", plain_signs(text), False)):  # fmt: skip
        try:
            return json.loads(form, strict=strict, object_pairs_hook=_unique), status
        except _ConflictError as err:
            return NotOne(text, str(err))
        except (ValueError, RecursionError):  # also a number of thousands of digits
            continue
    return NotOne(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made and repr(made[key]) != repr(value):
            raise _ConflictError(key)
        made[key] = value
    return made
