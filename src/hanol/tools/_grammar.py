"""The grammar of a turn: what a model may write, so that `parse_turn` reads it without a repair.

One description gives two spellings: Lark as llguidance reads it, which vLLM takes too, with lengths
in tokens, and GBNF as a llama.cpp server reads it, with lengths in characters. Every text is
bounded, because a small model in an open text repeats itself until its limit, and holds no tag of
the protocol, so that nothing in it ends it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hanol.engines import Constraint, ToolSchema
from hanol.tools._tool import DEFAULT_TOOLS, PYTHON_INTERPRETER

_TAGS = "think|report|answer|tool_call|tool_response|code|tools|summary"
# What a text may hold: a tag of the protocol nowhere, something to see at the beginning where the
# parser asks for it, no fence around code, and what JSON strings hold. llguidance takes the longest
# terminal and never goes back, so a text before a tag must not hold the sign that begins one: every
# "<" of a text begins a part of its own, which is no tag.
_NO_TAG = rf" & ~/(?s:.*)<\/?({_TAGS})(?s:.*)/"
_LARK = {
    "TEXT": "/[^<]+/",
    "SAID": r"/[^\s\x00-\x1f<][^<]*/",
    "CODE": r"/[^\s\x00-\x1f<`][^<]*/",
    "SIGN": "/<[^<]*/" + _NO_TAG,
    "STRING": r'/([^"\\\x00-\x1f\x7f]|\\["\\nt])+/' + _NO_TAG,
}
_SIGNS = 12  # most parts of a text that begin with "<": they have half of its tokens
# In GBNF: the beginning, and every other character. A sign "<" before a letter may be a tag.
_CHARACTER = r'[^<] | "<" [^a-z/<]'
_GBNF = {
    "TEXT": ("", _CHARACTER),
    "SAID": (r"[^\x00-\x20\u0085\u00a0\u2000-\u200a\u3000<] ", _CHARACTER),
    "CODE": (r"[^\x00-\x20\u0085\u00a0\u2000-\u200a\u3000<`] ", _CHARACTER),
    "STRING": (
        "string-char ",
        r'[^"\\<\x00-\x1f\x7f] | "\\" ["\\nt] | "<" [^a-z/<"\\\x00-\x1f\x7f]',
    ),
}
_CHARACTERS = 3  # of a token, about, where lengths are in characters
_CHUNK, _CHUNKS = 50, 38  # llama.cpp unrolls repetitions, and refuses more than 2,000
_STRING_TOKENS, _ITEMS = 128, 3  # of our own tools' queries and addresses; others may have more
_OWN_TOOLS = {tool.name for tool in DEFAULT_TOOLS}
_TAIL_TOKENS = 16  # between a thought and what follows
_NUMBER = r"-?(0|[1-9][0-9]{0,8})"
_NOTES = {"title", "description", "default", "examples", "deprecated", "$comment"}


def turn_constraint(
    tools: Iterable[ToolSchema],
    tokens: int,
    *,
    thought_tokens: int | None = None,
    report_tokens: int = 0,
    answer_only: bool = False,
    prose: bool = True,
) -> Constraint:
    """What a turn may be: perhaps a thought, then one call that fits its tool, or the answer.

    Args:
        tools: The tools that may be called.
        tokens: Most tokens of the whole turn; every text gets a share.
        thought_tokens: Most tokens of the thought; None is a third of all.
        report_tokens: Most tokens of the report before the action; 0 for none.
        answer_only: No call is allowed.
        prose: A thought may lack its tags, or its first one, which some templates write.
    """
    shape = ([] if answer_only else list(tools), tokens, thought_tokens, report_tokens)
    lark = _Rules(*shape).text(prose)
    try:
        gbnf = _GbnfRules(*shape).text(prose)
    except _NotInGbnf:
        gbnf = None
    return Constraint.grammar(lark, gbnf)


def block_constraint(tag: str, tokens: int) -> Constraint:
    """One text in its tags, such as a summary, of at most so many tokens with its tags."""
    inner = max(16, tokens - 2 * len(tag) - 8)
    texts = []
    for kind in (_Rules, _GbnfRules):
        rules = kind((), tokens, 0, 0)
        texts.append(rules.block("start", tag, inner))
    return Constraint.grammar(*texts)


class _NotInGbnf(Exception):  # noqa: N818 - control flow of this module
    """A schema that only llguidance can follow."""


class _Rules:
    """The grammar in Lark, one rule a line."""

    assign = ":"

    def __init__(
        self, tools: Sequence[ToolSchema], tokens: int, thought: int | None, report: int
    ) -> None:
        self._lines: list[str] = []
        self._kinds: set[str] = set()
        self._tools = tools
        self._count = 0
        # What is fixed costs a token a byte at worst, where the tokenizer knows bytes alone.
        fixed = max((len(json.dumps(dict(tool.parameters))) for tool in tools), default=0)
        free = max(tokens - min(128 + fixed // 4, tokens // 2), 32)
        self._thought = free // 3 if thought is None else min(thought, free // 3)
        self._report = min(report, free // 3)
        self._action = free - self._thought - self._report

    def text(self, prose: bool) -> str:
        """The whole grammar."""
        action = [self._call(tool) for tool in self._tools]
        start = ["head?"] if self._thought else []
        if self._thought:
            self.bounded("thought", "TEXT", self._thought)
            think = '"<think>" thought "</think>"'
            if prose:
                self.bounded("tail", "TEXT", _TAIL_TOKENS)
                self.rule("head", f'{think} tail? | thought ("</think>" tail?)?')
            else:
                self.rule("head", f'{think} "\\n"?')
        if self._report:
            self.block("report", "report", self._report, after="\n")
            start.append("report")
        self.block("answer", "answer", self._action)
        self.rule("start", " ".join([*start, f"({' | '.join([*action, 'answer'])})"]))
        return self.joined()

    def block(self, name: str, tag: str, tokens: int, after: str = "") -> str:
        """A rule for a text in its tags; returns the grammar so far."""
        self.bounded(f"{tag}-text", "SAID", tokens)
        self.rule(name, f"{self.literal(f'<{tag}>')} {tag}-text {self.literal(f'</{tag}>{after}')}")
        return self.joined()

    def joined(self) -> str:
        """The rules as one text."""
        terminals = [f"{kind}: {_LARK[kind]}" for kind in sorted(self._kinds)]
        return "\n".join(["%llguidance {}", *self._lines, *terminals])

    def rule(self, name: str, body: str) -> str:
        """Add a rule; returns its name."""
        self._lines.append(f"{name}{self.assign} {body}")
        return name

    def literal(self, text: str) -> str:
        """A text that is written as it stands."""
        return json.dumps(text, ensure_ascii=False)

    def bounded(self, name: str, kind: str, tokens: int) -> str:
        """A rule for a text of a kind, of at most so many tokens."""
        self._kinds.add(kind)
        if kind == "STRING":
            self._lines.append(f"{name}[max_tokens={tokens}]: {kind}")
            return name
        self._kinds.add("SIGN")
        number = min(_SIGNS, max(1, tokens // 64))
        part = max(1, tokens // (2 * number))
        self._lines.append(f"{name}-begin[max_tokens={max(1, tokens - number * part)}]: {kind}")
        self._lines.append(f"{name}-sign[max_tokens={part}]: SIGN")
        return self.rule(name, f"{name}-begin {name}-sign{{0,{number}}}")

    def pattern(self, number: str) -> str:
        """An expression for a number."""
        return f"/{number}/"

    def schema(self, schema: Mapping[str, Any]) -> str:
        """An expression for a value of which only llguidance knows the rules."""
        options = {
            "whitespace_flexible": False,
            "key_separator": ": ",
            "item_separator": ", ",
            "lenient": True,
        }
        bounded = _bounded(schema, self._action // 2)
        return self.rule(self._name(), f"%json {json.dumps({'x-guidance': options} | bounded)}")

    def _name(self) -> str:
        self._count += 1
        return f"value-{self._count}"

    def _call(self, tool: ToolSchema) -> str:
        if tool.name == PYTHON_INTERPRETER.name:
            code = self.bounded("code", "CODE", self._action)
            before = f"{self._begin(tool)}{{}}}}\n<code>\n"
            after = "</code>\n</tool_call>"
            return self.rule(self._name(), f"{self.literal(before)} {code} {self.literal(after)}")
        length = max(8, self._action // max(_strings({"type": "object", **tool.parameters}), 1))
        if tool.name in _OWN_TOOLS:
            length = min(length, _STRING_TOKENS)
        string = self.bounded(self._name(), "STRING", length)
        value = self._value({"type": "object", **tool.parameters}, f'"\\"" {string} "\\""')
        end = self.literal("}\n</tool_call>")
        return self.rule(self._name(), f"{self.literal(self._begin(tool))} {value} {end}")

    def _begin(self, tool: ToolSchema) -> str:
        name = json.dumps(tool.name, ensure_ascii=False)
        return f'<tool_call>\n{{"name": {name}, "arguments": '

    def _value(self, schema: Any, string: str) -> str:
        """An expression for a value that fits a schema."""
        known = {key: schema[key] for key in schema.keys() - _NOTES} if _is_map(schema) else {}
        kind, others = known.get("type"), known.keys() - {"type"}
        choices = [known["const"]] if "const" in known else known.get("enum")
        if choices and others <= {"const", "enum"}:
            texts = [json.dumps(choice, ensure_ascii=False) for choice in choices]
            return f"({' | '.join(map(self.literal, texts))})"
        if kind == "string" and not others:
            return string
        if kind == "array" and others <= {"items", "minItems", "maxItems"}:
            return self._array(known, string)
        if kind == "object" and others <= {"properties", "required", "additionalProperties"}:
            return self._object(known, string)
        if kind == "boolean" and not others:
            return '("true" | "false")'
        if kind == "integer" and not others:
            return self.pattern(_NUMBER)
        if kind == "number" and not others:
            return self.pattern(_NUMBER + r"(\.[0-9]{1,6})?")
        return self.schema(schema if _is_map(schema) else {})

    def _array(self, schema: Mapping[str, Any], string: str) -> str:
        least = schema.get("minItems", 0)
        most = max(least, min(schema.get("maxItems", _ITEMS), _ITEMS))
        if most == 0:
            return '"[]"'
        item = self.rule(self._name(), self._value(schema.get("items", {}), string))
        more = f'(", " {item}){{{max(least - 1, 0)},{most - 1}}}' if most > 1 else ""
        filled = f'"[" {item} {more} "]"'
        return filled if least else f'({filled} | "[]")'

    def _object(self, schema: Mapping[str, Any], string: str) -> str:
        """Required properties first; the others, in their order, may follow."""
        properties = schema.get("properties", {})
        required = [key for key in schema.get("required", ()) if key in properties]
        if len(required) < len(schema.get("required", ())):
            return self.schema(schema)
        pairs = {
            key: f"{self.literal(json.dumps(key, ensure_ascii=False) + ': ')} "
            f"{self._value(value, string)}"
            for key, value in properties.items()
        }
        optional = [pairs[key] for key in pairs if key not in required]
        begun = ' ", " '.join(pairs[key] for key in required)
        if begun:
            tail = " ".join(f'(", " {pair})?' for pair in optional)
            return f'"{{" {begun} {tail} "}}"'
        firsts = [
            " ".join([pair, *(f'(", " {other})?' for other in optional[place + 1 :])])
            for place, pair in enumerate(optional)
        ]
        return f'"{{" ({" | ".join(firsts)})? "}}"' if firsts else '"{}"'


class _GbnfRules(_Rules):
    """The same in GBNF."""

    assign = " ::="

    def joined(self) -> str:
        kinds = [f"{kind.lower()}-char ::= {_GBNF[kind][1]}" for kind in sorted(self._kinds)]
        chunks = [
            f"{kind.lower()}-chunk ::= {kind.lower()}-char{{{_CHUNK}}}"
            for kind in sorted(self._kinds)
        ]
        start = [line for line in self._lines if line.startswith("start ")]
        start = [line.replace("start ", "root ", 1) for line in start]
        rest = [line for line in self._lines if not line.startswith("start ")]
        return "\n".join([*start, *rest, *kinds, *chunks])

    def bounded(self, name: str, kind: str, tokens: int) -> str:
        self._kinds.add(kind)
        chunks = min(tokens * _CHARACTERS // _CHUNK, _CHUNKS)
        first, char = _GBNF[kind][0], kind.lower()
        body = f"{first}{char}-chunk{{0,{chunks}}} {char}-char{{0,{_CHUNK - 1}}}"
        return self.rule(name, body)

    def pattern(self, number: str) -> str:
        whole = '"-"? ("0" | [1-9] [0-9]{0,8})'
        return f'{whole} ("." [0-9]{{1,6}})?' if "\\." in number else whole

    def schema(self, schema: Mapping[str, Any]) -> str:
        raise _NotInGbnf


def _is_map(schema: Any) -> bool:
    return isinstance(schema, Mapping)


def _strings(schema: Any) -> int:
    """How many texts a value may hold at most."""
    if not _is_map(schema):
        return 1
    if schema.get("type") == "array":
        return _ITEMS * _strings(schema.get("items"))
    if schema.get("type") == "object":
        return sum(map(_strings, schema.get("properties", {}).values()))
    return 1


def _bounded(schema: Any, characters: int) -> Any:
    """The schema with bounds where it has none: of texts, lists, numbers and unknown keys."""
    if isinstance(schema, list):
        return [_bounded(each, characters) for each in schema]
    if not _is_map(schema):
        return schema
    schema = schema or {"type": ["string", "number", "boolean", "null"]}
    maps = {"properties", "$defs", "definitions", "patternProperties"}
    made: dict[str, Any] = {
        key: {name: _bounded(each, characters) for name, each in value.items()}
        if key in maps and _is_map(value)
        else (value if key in _NOTES | {"const", "enum"} else _bounded(value, characters))
        for key, value in schema.items()
    }
    kinds = schema.get("type")
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    if "string" in kinds and not schema.keys() & {"enum", "const", "format"}:
        made.setdefault("maxLength", characters)
    if "array" in kinds:
        made.setdefault("maxItems", max(_ITEMS, made.get("minItems", 0)))
    if "object" in kinds:
        made.setdefault("additionalProperties", False)
    if kinds & {"number", "integer"} and not any("imum" in key.lower() for key in schema):
        made |= {"minimum": -999_999_999, "maximum": 999_999_999}
    return made
