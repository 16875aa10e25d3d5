"""The parser of one `<tool_call>` block: its JSON, its code, its end, and the schema check."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hanol.engines import ToolCall, ToolSchema
from hanol.errors import require
from hanol.tools._tool import PYTHON_INTERPRETER

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CODE, END_CODE = "<code>", "</code>"
_Unusable = Literal["malformed_tool_call", "unknown_tool", "invalid_arguments"]
ErrorKind = _Unusable | Literal["empty_output", "no_action", "empty_answer"]

# Bounds that keep a hostile turn cheap; no honest call comes near them.
_DEPTH = 32
_ITEMS = 100
_JSON5_CHARACTERS = 800  # of one turn: json5 reads only about 40 characters a millisecond

_FENCE = re.compile(r"\s*(?:```[\w-]*\s*)?")
_END_FENCE = re.compile(r"\s*(?:```\s*)?")
# Where a block with code is followed by another block, its code must end before that.
_NEXT_BLOCK = re.compile(r"</code>\s*(?:</tool_call>[^<]*)?(<tool_call>)\s*(?:```[\w-]*\s*)?\{")
_CODE_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)


@dataclass(eq=False)
class CallError(Exception):
    """A block that cannot be run. The parser turns it into a result; it never reaches a user."""

    kind: ErrorKind
    detail: str


class CallReader:
    """Reads the blocks of one turn, and of JSON5 so many characters at most."""

    def __init__(self, tools: Mapping[str, ToolSchema], json5: int = _JSON5_CHARACTERS) -> None:
        self._tools = tools
        self._json5_left = json5

    def read(self, text: str, start: int) -> tuple[ToolCall, int, bool]:
        """The call of the block at `start`, where it ends, and whether it had to be repaired."""
        value, end, listed = self._json(text, _skip(_FENCE, text, start + len(OPEN)))
        name = value.get("name")
        if not isinstance(name, str):
            raise CallError("malformed_tool_call", 'The call has no "name".')
        code: str | None = None
        end = _skip(_END_FENCE, text, end)
        if text.startswith(CODE, end):
            code, end, repaired = _code(text, end + len(CODE))
        else:
            end, repaired = _closing(text, end)
        return self.checked(name, value.get("arguments", {}), code), end, repaired or listed

    def bare(self, text: str) -> ToolCall | None:
        """The call that a text is, without tags; None where it is something else."""
        try:
            value = _DECODER.decode(text)
            _check(value, _DEPTH)
        except (ValueError, RecursionError):
            return None
        if not (isinstance(value, dict) and value.keys() == {"name", "arguments"}):
            return None
        return self.checked(str(value["name"]), value["arguments"])

    def _json(self, text: str, start: int) -> tuple[dict[str, Any], int, bool]:
        """The object at `start`, where it ends, and whether a list stood around it."""
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as err:
            value, end = self._json5(text, start, str(err))
        try:
            _check(value, _DEPTH)
        except ValueError as err:
            raise CallError("malformed_tool_call", f"The JSON {err}.") from None
        if listed := isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, dict):
            raise CallError(
                "malformed_tool_call", 'A call is an object with "name" and "arguments".'
            )
        return value, end, listed

    def _json5(self, text: str, start: int, reason: str) -> tuple[Any, int]:
        """Single quotes, comments, trailing commas: what models write when they slip."""
        window = text[start : start + self._json5_left]
        json5 = require("json5", extra="research", feature="The parser of tool calls")
        try:
            value, problem, length = json5.parse(
                window, object_pairs_hook=_unique, consume_trailing=False
            )
        except (ValueError, RecursionError) as err:
            value, problem, length = None, str(err), 0
        failed = problem is not None or not isinstance(value, dict | list)
        self._json5_left -= len(window) if failed else length
        if failed:
            raise CallError("malformed_tool_call", f"The block holds no JSON object: {reason}.")
        return value, start + length

    def checked(self, name: str, arguments: Any, code: str | None = None) -> ToolCall:
        """A call whose arguments, perhaps encoded as a string, match the tool's schema."""
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            raise CallError("unknown_tool", f"There is no tool {name[:80]!r}; there are: {known}.")
        try:
            if isinstance(arguments, str):
                arguments = _DECODER.decode(arguments)
                _check(arguments, _DEPTH)
        except (ValueError, RecursionError) as err:
            detail = f"The arguments are a string that is not JSON: {err}."
            raise CallError("invalid_arguments", detail) from None
        if not isinstance(arguments, dict):
            raise CallError("invalid_arguments", f"The arguments of {name} are no JSON object.")
        if name == PYTHON_INTERPRETER.name:
            arguments = _with_code(arguments, code)
        elif code is not None:
            raise CallError("invalid_arguments", f"{name} takes no {CODE} block.")
        return ToolCall(name, _fitted(arguments, tool))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


# Not strict: models break lines inside strings.
_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_unique)


def _check(value: Any, depth: int) -> None:
    """Reject what an event log cannot store: deep nesting, NaN, half of a surrogate pair."""
    if depth == 0:
        raise ValueError(f"is nested deeper than {_DEPTH} levels")
    if isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(item, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite")
    elif isinstance(value, str) and value.encode("utf-8", "replace").decode() != value:
        raise ValueError("holds half of a surrogate pair")


def _skip(fence: re.Pattern[str], text: str, start: int) -> int:
    found = fence.match(text, start)
    assert found is not None  # every part of the patterns is optional
    return found.end()


def _closing(text: str, start: int) -> tuple[int, bool]:
    """End of a block whose JSON ends at `start`, and whether its closing tag was lost."""
    if text.startswith(CLOSE, start):
        return start + len(CLOSE), False
    close = text.find(CLOSE, start)
    following = text.find(OPEN, start)
    if close != -1 and (following == -1 or close < following):
        rest = text[start : min(close, start + 40)]
        raise CallError("malformed_tool_call", f"After the JSON of the call stands {rest!r}.")
    return start, True


def _code(text: str, start: int) -> tuple[str, int, bool]:
    """Code from `start`, where its block ends, and whether a closing tag was lost."""
    # The block ends at the `</tool_call>` after the last `</code>`, so that code may speak of both.
    following = _NEXT_BLOCK.search(text, start)
    limit = len(text) if following is None else following.start(1)
    last_close = text.rfind(CLOSE, start, limit)
    end = text.rfind(END_CODE, start, limit if last_close == -1 else last_close)
    if end != -1:
        close = text.find(CLOSE, end, limit)
        stop = end + len(END_CODE) if close == -1 else close + len(CLOSE)
        return read_code(text[start:end]), stop, close == -1
    if last_close != -1:
        return read_code(text[start:last_close]), last_close + len(CLOSE), True
    raise CallError("malformed_tool_call", f"The code has no {END_CODE}; it may be cut.")


def read_code(inner: str) -> str:
    """The code between two tags, without the line breaks at the tags and without a fence."""
    fenced = _CODE_FENCE.fullmatch(inner.strip())
    if fenced is not None and "```" not in fenced[1]:
        return fenced[1]
    # Code that starts on the line of its tag is not indented by the space after it.
    inner = inner[1:] if inner.startswith("\n") else inner.lstrip()
    return inner.removesuffix("\n")


def _with_code(arguments: dict[str, Any], code: str | None) -> dict[str, Any]:
    """The block's code, or what the model put into the JSON instead."""
    merged = arguments if code is None else {**arguments, "code": code}
    found = merged.get("code")
    if not isinstance(found, str) or not found.strip():
        raise CallError(
            "invalid_arguments",
            f"{PYTHON_INTERPRETER.name} got no code: put it between {CODE} and {END_CODE} after "
            f"the JSON, before {CLOSE}.",
        )
    return merged


def _fitted(arguments: dict[str, Any], tool: ToolSchema) -> dict[str, Any]:
    """The arguments, a bare string made a list where one is wanted, checked by the schema."""
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    fitted = dict(arguments)
    for key, value in arguments.items():
        wanted = properties.get(key)
        if isinstance(value, str) and isinstance(wanted, dict) and wanted.get("type") == "array":
            fitted[key] = [value]
        elif isinstance(value, list) and len(value) > _ITEMS:
            detail = f"{key} of {tool.name} has {len(value)} entries, over {_ITEMS}."
            raise CallError("invalid_arguments", detail)
    jsonschema = require("jsonschema", extra="research", feature="The parser of tool calls")
    errors = jsonschema.Draft202012Validator(tool.parameters).iter_errors(fitted)
    worst = jsonschema.exceptions.best_match(errors)
    if worst is not None:
        place = ".".join(str(part) for part in worst.absolute_path)
        where = f"{place}: " if place else ""
        detail = f"{tool.name} refuses its arguments: {where}{worst.message[:300]}."
        raise CallError("invalid_arguments", detail)
    return fitted
