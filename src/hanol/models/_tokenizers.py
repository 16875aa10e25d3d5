"""Tokenizers of strangers: rules and regular expressions that run in native code.

No exception ends native code, and its panics are no `Exception`. So rules by which a letter grows
without end, and expressions that try every way to divide a text, are refused before they are used;
any other expression runs in a thread that is left behind when it takes too long.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from hanol.errors import CheckpointError
from hanol.files import open_regular

_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_GROWTH = 1_000  # letters that one may become; by Unicode's rules it may become 18
_STEPS = 1_000  # that replace something
_REPEATED = 4  # parts of an expression, one after the other, that each match any number of letters
_FEW, _ANY = 10, 10**9  # times
_QUANTIFIERS = {"*": (0, _ANY), "+": (1, _ANY), "?": (0, 1)}
_SECONDS, _LETTERS = 10.0, 50_000  # for any text, and for each second more


def check_files(folder: Path, spec: str | Path) -> None:
    """Refuse the tokenizer in a folder before it is loaded: its own tokens go through its rules.

    Raises:
        CheckpointError: A letter may become thousands, or an expression may never end.
        OSError, ValueError: A file cannot be read, or is no JSON.
    """
    for file in folder.glob("tokenizer*.json"):
        with open_regular(file) as stream:
            data = stream.read()
        if any(mark in data for mark in (b"Replace", b"Precompiled", b"\\u")):
            _check(json.loads(data), spec)


def bounded(tokenizer: Any, spec: str | Path) -> Any:
    """The tokenizer, whose native code is kept within limits, and whose panics are errors.

    Raises:
        CheckpointError: As `check_files`.
    """
    if not tokenizer.is_fast:
        return tokenizer
    backend = tokenizer.backend_tokenizer
    found = ((name, getattr(backend, name)) for name in _PARTS)
    parts = {name: json.loads(part.__getstate__()) for name, part in found if part is not None}
    _check(parts, spec)
    has_expression = any(True for _ in _expressions(parts))
    encode, decode = tokenizer._encode_plus, tokenizer._decode
    tokenizer._encode_plus = partial(_guarded, encode, str(spec), has_expression)
    tokenizer._decode = partial(_guarded, decode, str(spec), False)
    return tokenizer


def _check(parts: Mapping[str, Any], spec: str | Path) -> None:
    for name in ("normalizer", "decoder"):
        if _grows(list(_steps(parts.get(name)))):
            raise CheckpointError(
                f"The {name} of the tokenizer of {str(spec)!r} may write one letter as more than "
                f"{_GROWTH:,}: it is not used."
            )
    for expression in _expressions({name: parts.get(name) for name in _PARTS}):
        if _may_never_end(expression):
            raise CheckpointError(
                f"The tokenizer of {str(spec)!r} has the regular expression {expression[:60]!r}, "
                "which may take for ever: it is not used."
            )


def _guarded(
    call: Callable[..., Any], spec: str, in_thread: bool, *arguments: Any, **options: Any
) -> Any:
    try:
        if in_thread:
            return _in_time(call, spec, *arguments, **options)
        return call(*arguments, **options)
    except BaseException as err:
        # All that the library raises itself; a panic derives from `BaseException` alone.
        if type(err) is not Exception and type(err).__name__ != "PanicException":
            raise
        cause = " ".join(str(err).split())[:200]
        raise CheckpointError(f"The tokenizer of {spec!r} fails at a text: {cause}") from err


def _in_time(
    call: Callable[..., Any], spec: str, text: Any, *arguments: Any, **options: Any
) -> Any:
    ended: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(call(text, *arguments, **options))
        except BaseException as err:
            raised.append(err)

    size = len(text) if isinstance(text, str) else sum(map(len, text))
    seconds = _SECONDS + size / _LETTERS
    thread = Thread(target=run, name="hanol-tokens", daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not ended:
        raise CheckpointError(
            f"The tokenizer of {spec!r} takes more than {seconds:.0f} s for a text of {size:,} "
            "characters: one of its regular expressions tries too much."
        )
    return ended[0]


# -- rules


def _steps(part: Any) -> Iterator[tuple[str | None, str | None]]:
    """What is replaced by what; None is whatever is there, and a text that is not known."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "Sequence":
        for inner in part.get("normalizers") or part.get("decoders") or ():
            yield from _steps(inner)
    elif kind == "Replace":
        yield part["pattern"].get("String"), part["content"]
    elif kind == "Precompiled":
        data = b64decode(part["precompiled_charsmap"] or "")
        texts = data[4 + int.from_bytes(data[:4], "little") :]  # behind the tree that finds them
        yield None, max(texts.split(b"\0"), key=len).decode(errors="replace")
    elif kind is not None:
        yield None, None


def _grows(steps: list[tuple[str | None, str | None]]) -> bool:
    """Whether what one step writes becomes long by those after it."""
    if len(steps) > _STEPS or any(len(content or "") > _GROWTH for _, content in steps):
        return True
    for number, (_, written) in enumerate(steps, start=1):
        text, is_known = written or "", True
        for pattern, content in steps[number:]:
            if content is None:  # lower case, other forms of letters
                is_known = False
            elif pattern is not None and is_known:
                text = text.replace(pattern, content)
            elif len(content) > 1:
                text = content * len(text)
            if len(text) > _GROWTH:
                return True
    return False


# -- expressions


def _expressions(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(expression := content.get("Regex"), str):
            yield expression
        content = list(content.values())
    for inner in content if isinstance(content, list) else ():
        yield from _expressions(inner)


class _Group:
    """What is in a pair of brackets: alternatives, and parts that match any number of letters."""

    def __init__(self) -> None:
        self.has_choice, self.repeated, self._most = False, 0, 0

    @property
    def most(self) -> int:
        """Repeated parts in the alternative that has the most of them."""
        return max(self._most, self.repeated)

    def next_branch(self) -> None:
        self.has_choice, self._most, self.repeated = True, self.most, 0


def _may_never_end(expression: str) -> bool:
    """Whether a group is repeated in which something is repeated or chosen, as in `(a+)+`.

    Such an expression can divide a text in more ways than can be tried; so can one with many
    repeated parts in a row.
    """
    groups, place = [_Group()], 0
    while place < len(expression):
        sign, inner = expression[place], None
        if sign == "(":
            groups.append(_Group())
            place += 2 if expression[place + 1 : place + 2] == "?" else 1
            continue
        if sign == "|":
            groups[-1].next_branch()
            place += 1
            continue
        if sign == ")" and len(groups) > 1:
            inner = groups.pop()
            groups[-1].has_choice |= inner.has_choice
        place = _end_of_item(expression, place)
        length, least, most = _quantifier(expression, place)
        place += length
        if inner is None:
            groups[-1].repeated += most - least > _FEW
        elif most > _FEW and (inner.most or inner.has_choice):
            return True
        else:
            groups[-1].repeated += inner.most * most
        if groups[-1].repeated > _REPEATED:
            return True
    return False


def _end_of_item(expression: str, place: int) -> int:
    """Behind a character, an escaped one or a class, which may contain others."""
    depth = 0
    while place < len(expression):
        sign = expression[place]
        place += 1
        if sign == "\\":
            place += 1
            if expression[place - 1 : place + 1] in {"p{", "P{", "x{"}:
                place = expression.find("}", place) + 1 or len(expression)
        depth += (sign == "[") - (sign == "]" and depth > 0)
        if not depth:
            break
    return place


def _quantifier(expression: str, place: int) -> tuple[int, int, int]:
    """Length of a quantifier with what makes it lazy, least and most times."""
    sign = expression[place : place + 1]
    length, least, most = 0, 1, 1
    if sign in _QUANTIFIERS:
        length, (least, most) = 1, _QUANTIFIERS[sign]
    elif sign == "{" and (end := expression.find("}", place)) > 0:
        low, comma, high = expression[place + 1 : end].partition(",")
        if f"0{low}{high}".isdecimal():
            length, least = end + 1 - place, int(low or 0)
            most = int(high or _ANY) if comma else least
    if length and expression[place + length : place + length + 1] in {"?", "+"}:
        length += 1
    return length, least, most
