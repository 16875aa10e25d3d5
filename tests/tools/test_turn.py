"""The turn protocol: the rules one by one, hostile text, and the way back."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.engines import ToolCall
from hanol.tools import DEFAULT_TOOLS, SEARCH, ToolSpec, Turn, parse_turn, render_call, render_turn


def block(name: str, arguments: object, code: str | None = None) -> str:
    tail = "" if code is None else f"<code>\n{code}\n</code>\n"
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n{tail}</tool_call>"


def search(*queries: str) -> str:
    return block("search", {"query": list(queries)})


def python(code: str) -> str:
    return block("PythonInterpreter", {}, code)


def searches(*calls: tuple[str, ...]) -> list[ToolCall]:
    return [ToolCall("search", {"query": list(queries)}) for queries in calls]


def codes(*texts: str) -> list[ToolCall]:
    return [ToolCall("PythonInterpreter", {"code": text}) for text in texts]


X = search("x")
JSON = '{"name": "search", "arguments": {"query": ["x"]}}'
VISIT = ToolCall("visit", {"url": ["doc://00000000/a"], "goal": "g"})

# name, text, calls
CALLS: list[tuple[str, str, list[ToolCall]]] = [
    ("plain", X, searches(("x",))),
    ("after prose", f"I will look it up.\n{X}", searches(("x",))),
    ("thought", f"<think>plan</think>\n{X}", searches(("x",))),
    ("thought opened by the template", f"plan\n</think>\n{X}", searches(("x",))),
    ("call mentioned in the thought", f"<think>maybe {search('no')}?</think>{X}", searches(("x",))),
    ("call mentioned, template's tag", f"maybe {search('no')}?</think>{X}", searches(("x",))),
    ("answer mentioned in the thought", f"<think><answer>no</answer></think>{X}", searches(("x",))),
    ("two thoughts", f"<think>a</think> b <think>{search('no')}</think>{X}", searches(("x",))),
    ("thought that names its end", f"<think>a </think> b </think>{X}", searches(("x",))),
    ("thought between calls", f"{X}<think>{search('no')}</think>{search('y')}",
     searches(("x",), ("y",))),
    ("stray end of thought later", f"<think>a</think>{X}</think>", searches(("x",))),
    ("cut at an invented result",
     f"{X}<tool_response>{search('no')}</tool_response><answer>no</answer>", searches(("x",))),
    ("invented result, then an end of thought",
     f"{X}\n<tool_response>fake</tool_response>\nso </think><answer>no</answer>", searches(("x",))),
    ("two calls", search("x") + "\n" + search("y"), searches(("x",), ("y",))),
    ("call and answer", f"{X}<answer>no</answer>", searches(("x",))),
    ("answer and call", f"<answer>no</answer>{X}", searches(("x",))),
    ("call inside an answer", f"<answer>first {X}</answer>", searches(("x",))),
    ("JSON that names the end tag", block("search", {"query": ["a </tool_call> b"]}),
     searches(("a </tool_call> b",))),
    ("JSON that names the start tag", block("search", {"query": ["<tool_call>"]}),
     searches(("<tool_call>",))),
    ("JSON that names the end of thought", search("what does </think> do"),
     searches(("what does </think> do",))),
    ("fence", f"<tool_call>\n```json\n{JSON}\n```\n</tool_call>", searches(("x",))),
    ("fence without language", f"<tool_call>```{JSON}```</tool_call>", searches(("x",))),
    ("single quotes", "<tool_call>{'name': 'search', 'arguments': {'query': ['x']}}</tool_call>",
     searches(("x",))),
    ("trailing commas and a comment",
     '<tool_call>{"name": "search", "arguments": {"query": ["x",],}, // one\n}</tool_call>',
     searches(("x",))),
    ("line break inside a string",
     '<tool_call>{"name": "search", "arguments": {"query": ["a\nb"]}}</tool_call>',
     searches(("a\nb",))),
    ("arguments as a string", block("search", json.dumps({"query": ["x"]})), searches(("x",))),
    ("bare string for a list", block("search", {"query": "x"}), searches(("x",))),
    ("bare string for one list of two",
     block("visit", {"url": "doc://00000000/a", "goal": "g"}), [VISIT]),
    ("python in a query", search("Monty Python and PythonInterpreter"),
     searches(("Monty Python and PythonInterpreter",))),
    ("python in an address",
     block("visit", {"url": ["https://docs.python.org/3/"], "goal": "python"}),
     [ToolCall("visit", {"url": ["https://docs.python.org/3/"], "goal": "python"})]),
    ("Korean", search("서울특별시의 인구는"), searches(("서울특별시의 인구는",))),
    ("code", python("print(1)"), codes("print(1)")),
    ("indented code", python("    x = 1\n    y = 2"), codes("    x = 1\n    y = 2")),
    ("code on the tag's line",
     '<tool_call>{"name": "PythonInterpreter", "arguments": {}}<code> print(1) </code></tool_call>',
     codes("print(1) ")),
    ("code in a fence", python("```python\nprint(1)\n```"), codes("print(1)")),
    ("code in the JSON", block("PythonInterpreter", {"code": "print(1)"}), codes("print(1)")),
    ("code that names its end", python("print('</code>')"), codes("print('</code>')")),
    ("code that names the block's end", python("print('</tool_call>')"),
     codes("print('</tool_call>')")),
    ("code that names both", python("print('</code>\\n</tool_call>')\nprint(2)"),
     codes("print('</code>\\n</tool_call>')\nprint(2)")),
    ("code that names the end of thought", python("print('</think>')"),
     codes("print('</think>')")),
    ("code that prints an answer", python("print('<answer>42</answer>')"),
     codes("print('<answer>42</answer>')")),
    ("two blocks of code", python("print(1)") + "\n" + python("print(2)"),
     codes("print(1)", "print(2)")),
    ("code, then a search", python("print(1)") + " and " + X,
     codes("print(1)") + searches(("x",))),
    ("report before the call", f"<think>a</think><report>S</report>{X}", searches(("x",))),
    ("call quoted in a report", f"<report>I ran {search('no')}</report>{X}", searches(("x",))),
]  # fmt: skip

# name, text, calls: a closing tag is missing behind complete JSON, or the block has another form
REPAIRED: list[tuple[str, str, list[ToolCall]]] = [
    ("end of text", f"<tool_call>\n{JSON}", searches(("x",))),
    ("prose follows", f"<tool_call>{JSON}\nLet me see.", searches(("x",))),
    ("next block follows", f"<tool_call>{JSON}\n{search('y')}", searches(("x",), ("y",))),
    ("cut by an invented result", f"<tool_call>{JSON}\n<tool_response>", searches(("x",))),
    ("block's end after code",
     '<tool_call>{"name": "PythonInterpreter", "arguments": {}}<code>\nprint(1)\n</code>',
     codes("print(1)")),
    ("code's end",
     '<tool_call>{"name": "PythonInterpreter", "arguments": {}}<code>\nprint(1)\n</tool_call>',
     codes("print(1)")),
    ("thought's end", f"<think>plan {X}", searches(("x",))),
    ("a list around it", f"<tool_call>[{JSON}]</tool_call>", searches(("x",))),
    ("a list in a fence", f"<tool_call>\n```json\n[{JSON}]\n```\n</tool_call>", searches(("x",))),
    ("a list in JSON5", "<tool_call>[{'name': 'search', 'arguments': {'query': 'x'}},]</tool_call>",
     searches(("x",))),
    ("a fence instead of tags", f"I will look.\n```json\n{JSON}\n```\n", searches(("x",))),
    ("a fence without a language", f"</think>```\n{JSON}\n```", searches(("x",))),
]  # fmt: skip

REPAIRED_ANSWERS: list[tuple[str, str, str]] = [
    ("no end", "<think>a</think><answer>42 [1].", "42 [1]."),
    ("no end, twice", "<answer>41? <answer>42", "42"),
    ("no end, in a thought without one", "<think>hm <answer>42", "42"),
    ("cut by an invented result", "<answer>42\n<tool_response>41</tool_response>", "42"),
    ("a fence instead of tags", "So:\n```answer\n42\n```", "42"),
]

ANSWERS: list[tuple[str, str, str]] = [
    ("plain", "<answer>42</answer>", "42"),
    ("after a thought", "<think>a</think><answer>42 [1].</answer>", "42 [1]."),
    ("template's tag", "a</think>\n<answer>42</answer>", "42"),
    ("last of several", "<answer>41</answer> no, <answer>42</answer>", "42"),
    ("outermost of nested", "<answer>a <answer>b</answer> c</answer>", "a <answer>b</answer> c"),
    ("lost outer end", "<answer>I mean <answer>42</answer>", "42"),
    ("stray end", "<answer>42</answer></answer>", "42"),
    ("not the one in the thought", "<think><answer>41</answer></think><answer>42</answer>", "42"),
    ("not the one in a later thought", "<answer>42</answer><think><answer>41</answer></think>",
     "42"),
    ("tag mentioned", "<answer>The <tool_call> tag opens a call.</answer>",
     "The <tool_call> tag opens a call."),
    ("before an invented result", "<answer>42</answer><tool_response><answer>41</answer>", "42"),
]  # fmt: skip

ERRORS: list[tuple[str, str, str]] = [
    ("nothing", "", "empty_output"),
    ("blanks", " \n\t\u3000", "empty_output"),
    ("prose", "I do not know.", "no_action"),
    ("only a thought", f"<think>{X}</think>", "no_action"),
    ("only a thought, template's tag", f"{X}</think>", "no_action"),
    ("answer only in the thought", "<think>is it <answer>42</answer>?</think>", "no_action"),
    ("answer that is opened only", "<answer> \n", "empty_answer"),
    ("answer without a start", "42</answer>", "no_action"),
    ("answer invented by a result", "<tool_response><answer>42</answer></tool_response>",
     "no_action"),
    ("call only in the report", f"<report>{X}</report>", "no_action"),
    ("upper case", "<TOOL_CALL>{}</TOOL_CALL>", "no_action"),
    ("JSON without tags", JSON, "no_action"),
    ("empty answer", "<answer> \n </answer>", "empty_answer"),
    ("corrected to nothing", "<answer>42</answer><answer></answer>", "empty_answer"),
    ("no JSON", "<tool_call>search for x</tool_call>", "malformed_tool_call"),
    ("empty block", "<tool_call></tool_call>", "malformed_tool_call"),
    ("open block", "<tool_call>", "malformed_tool_call"),
    ("cut JSON", '<tool_call>{"name": "search", "arguments": {"query": ["x', "malformed_tool_call"),
    ("cut JSON, with its tag", '<tool_call>{"name": "search", "argu</tool_call>',
     "malformed_tool_call"),
    ("one brace too many", f"<tool_call>{JSON}}}</tool_call>", "malformed_tool_call"),
    ("two objects", f"<tool_call>{JSON} {JSON}</tool_call>", "malformed_tool_call"),
    ("a list of two", f"<tool_call>[{JSON}, {JSON}]</tool_call>", "malformed_tool_call"),
    ("a list in a list", f"<tool_call>[[{JSON}]]</tool_call>", "malformed_tool_call"),
    ("a fence, then prose", f"```json\n{JSON}\n```\nThat would be a call.", "no_action"),
    ("two fences", f"```json\n{JSON}\n```\n```json\n{JSON}\n```", "no_action"),
    ("a fence in the thought", f"<think>```json\n{JSON}\n```</think>", "no_action"),
    ("a fence of code", "```python\nprint(1)\n```", "no_action"),
    ("a fence that a result invents", f"<tool_response>\n```json\n{JSON}\n```", "no_action"),
    ("a fence with more than a call", f'```json\n{JSON[:-1]}, "x": 1}}\n```', "no_action"),
    ("a fence with an unknown tool", '```json\n{"name": "rm", "arguments": {}}\n```',
     "unknown_tool"),
    ("a number", "<tool_call>1</tool_call>", "malformed_tool_call"),
    ("a number in JSON5", "<tool_call>+1</tool_call>", "malformed_tool_call"),
    ("no name", '<tool_call>{"arguments": {"query": ["x"]}}</tool_call>', "malformed_tool_call"),
    ("name is a number", '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
     "malformed_tool_call"),
    ("key twice",
     '<tool_call>{"name": "search", "name": "visit", "arguments": {}}</tool_call>',
     "malformed_tool_call"),
    ("argument twice",
     '<tool_call>{"name": "search", "arguments": {"query": ["x"], "query": ["y"]}}</tool_call>',
     "malformed_tool_call"),
    ("key twice in JSON5",
     "<tool_call>{'name': 'search', 'name': 'search', 'arguments': {}}</tool_call>",
     "malformed_tool_call"),
    ("not a number", '<tool_call>{"name": "search", "arguments": {"query": NaN}}</tool_call>',
     "malformed_tool_call"),
    ("half a surrogate pair",
     '<tool_call>{"name": "search", "arguments": {"query": ["\\ud800"]}}</tool_call>',
     "malformed_tool_call"),
    ("deep", f'<tool_call>{{"name": "search", "arguments": {"[" * 60 + "]" * 60}}}</tool_call>',
     "malformed_tool_call"),
    ("deeper than the stack", "<tool_call>" + "[" * 50_000, "malformed_tool_call"),
    ("cut code",
     '<tool_call>{"name": "PythonInterpreter", "arguments": {}}<code>\nprint(',
     "malformed_tool_call"),
    ("good call, then a bad one", f"{X}<tool_call>x</tool_call>", "malformed_tool_call"),
    ("bad call next to an answer", "<tool_call>x</tool_call><answer>42</answer>",
     "malformed_tool_call"),
    ("seventeen calls", X * 17, "malformed_tool_call"),
    ("unknown tool", block("google", {"query": ["x"]}), "unknown_tool"),
    ("name in another case", block("Search", {"query": ["x"]}), "unknown_tool"),
    ("name that contains another", block("pythoninterpreter", {"code": "1"}), "unknown_tool"),
    ("name with a space", block("search ", {"query": ["x"]}), "unknown_tool"),
    ("no arguments", '<tool_call>{"name": "search"}</tool_call>', "invalid_arguments"),
    ("empty list", block("search", {"query": []}), "invalid_arguments"),
    ("number for a text", block("search", {"query": [1]}), "invalid_arguments"),
    ("null", block("search", None), "invalid_arguments"),
    ("list for an object", block("search", ["x"]), "invalid_arguments"),
    ("goal missing", block("visit", {"url": ["doc://00000000/a"]}), "invalid_arguments"),
    ("arguments encoded twice", block("search", json.dumps(json.dumps({"query": ["x"]}))),
     "invalid_arguments"),
    ("arguments as prose", block("search", "x"), "invalid_arguments"),
    ("key twice in encoded arguments", block("search", '{"query": ["x"], "query": ["y"]}'),
     "invalid_arguments"),
    ("thousands of queries", block("search", {"query": ["x"] * 5_000}), "invalid_arguments"),
    ("no code", block("PythonInterpreter", {}), "invalid_arguments"),
    ("blank code", python("  \n"), "invalid_arguments"),
    ("code for another tool", block("search", {"query": ["x"]}, "print(1)"), "invalid_arguments"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "calls"), [row[1:] for row in CALLS], ids=[r[0] for r in CALLS])
def test_text_asks_for_calls(text: str, calls: list[ToolCall]) -> None:
    turn = parse_turn(text)
    assert (turn.kind, list(turn.calls), turn.answer, turn.error) == (
        "tool_calls", calls, None, None
    )  # fmt: skip
    assert not turn.repaired


@pytest.mark.parametrize(
    ("text", "calls"), [row[1:] for row in REPAIRED], ids=[row[0] for row in REPAIRED]
)
def test_lost_closing_tag_is_put_back_and_marked(text: str, calls: list[ToolCall]) -> None:
    turn = parse_turn(text)
    assert (turn.kind, list(turn.calls), turn.repaired) == ("tool_calls", calls, True)


@pytest.mark.parametrize(
    ("text", "answer"), [r[1:] for r in REPAIRED_ANSWERS], ids=[r[0] for r in REPAIRED_ANSWERS]
)
def test_answer_in_another_form_is_read_and_marked(text: str, answer: str) -> None:
    turn = parse_turn(text)
    assert (turn.kind, turn.answer, turn.repaired) == ("answer", answer, True)
    assert parse_turn(render_turn(turn)).repaired is False


@pytest.mark.parametrize(
    ("text", "answer"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
def test_text_answers(text: str, answer: str) -> None:
    turn = parse_turn(text)
    assert (turn.kind, turn.answer, turn.calls, turn.error) == ("answer", answer, (), None)
    assert not turn.repaired


@pytest.mark.parametrize(
    ("text", "error"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS]
)
def test_unusable_text_has_a_named_error(text: str, error: str) -> None:
    turn = parse_turn(text)
    assert (turn.kind, turn.error, turn.calls, turn.answer) == ("error", error, (), None)
    assert turn.detail


def test_thought_and_report_are_kept() -> None:
    turn = parse_turn(f"<think>\nwhy\n</think>\n<report>\nSeoul: 9.6 million [3].\n</report>\n{X}")
    assert (turn.think, turn.report) == ("why", "Seoul: 9.6 million [3].")
    assert parse_turn(f"why\n</think>{X}").think == "why"
    assert parse_turn(f"<think>why {X}").think == "why"
    assert parse_turn("<think>why</think> and?").think == "why"  # of errors too
    assert parse_turn(X).report is None


def test_only_the_given_tools_are_known() -> None:
    assert parse_turn(X, [SEARCH]).kind == "tool_calls"
    turn = parse_turn(python("print(1)"), [SEARCH])
    assert turn.error == "unknown_tool"
    assert "search" in turn.detail
    assert parse_turn(X, []).error == "unknown_tool"


def test_own_tool_is_checked_by_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"day": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"}},
        "required": ["day"],
        "additionalProperties": False,
    }
    tool = ToolSpec("calendar", "Events of a day.", schema)
    assert parse_turn(block("calendar", {"day": "2026-01-02"}), [tool]).kind == "tool_calls"
    turn = parse_turn(block("calendar", {"day": "tomorrow"}), [tool])
    assert turn.error == "invalid_arguments"
    assert "day" in turn.detail


_texts = st.text(max_size=30) | st.sampled_from(
    [
        "</tool_call>", "</code>", "<code>", "</think>", "<think>", "<answer>", "</answer>",
        "<tool_response>", "\\u003c/code>", "```", "\u200b", "서울의 <report>", '"}</tool_call>',
    ]
)  # fmt: skip
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_extra = st.dictionaries(_texts, _json, max_size=2)
_code = st.lists(_texts, max_size=4).map("\n".join).filter(str.strip)
_calls = st.one_of(
    st.builds(
        lambda extra, queries: ToolCall("search", {**extra, "query": queries}),
        _extra,
        st.lists(_texts, min_size=1, max_size=3),
    ),
    st.builds(
        lambda extra, urls, goal: ToolCall("visit", {**extra, "url": urls, "goal": goal}),
        _extra,
        st.lists(_texts, min_size=1, max_size=3),
        _texts,
    ),
    st.builds(
        lambda extra, code: ToolCall("PythonInterpreter", {**extra, "code": code}), _extra, _code
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_calls, min_size=1, max_size=4), _texts)
def test_rendered_calls_parse_back(calls: list[ToolCall], think: str) -> None:
    for call in calls:
        assert parse_turn(render_call(call)).calls == (call,)
    turn = parse_turn(render_turn(Turn("tool_calls", calls=tuple(calls), think=think)))
    assert (turn.kind, turn.calls, turn.repaired) == ("tool_calls", tuple(calls), False)


def test_rendered_form_is_the_official_one() -> None:
    turn = Turn("tool_calls", calls=tuple(codes("print(6 * 7)")), think="count")
    assert render_turn(turn) == (
        "<think>\ncount\n</think>\n<tool_call>\n"
        '{"name": "PythonInterpreter", "arguments": {}}\n'
        "<code>\nprint(6 * 7)\n</code>\n</tool_call>"
    )
    assert render_turn(Turn("answer", answer="서울 [1]", report="S")) == (
        "<report>\nS\n</report>\n<answer>서울 [1]</answer>"
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(_texts, max_size=4).map(" ".join).filter(str.strip))
def test_rendered_answer_stays_an_answer(answer: str) -> None:
    turn = parse_turn(render_turn(Turn("answer", answer=answer)))
    assert turn.kind == "answer"
    assert (turn.answer or "").replace("\u200b", "") == answer.strip().replace("\u200b", "")


_PIECES = [
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
    "<answer>", "</answer>", "<code>", "</code>", "<report>", "</report>", "```json", "```", "\n",
    JSON, '{"name": "PythonInterpreter", "arguments": {}}', '{"name": "search"', "{'a':", "[[[[",
    '"', "\\", "\\ud800", "\ud800", "{", "}", "]", ",", ":", "NaN", "1e999", "9" * 5_000, "null",
    "서울", "\u200b", "\x00", "\U0001f600", "\u2028", "<", ">", "</", "//", "/*", "print(1)", " ",
    X, "<answer>42</answer>", "<|im_end|>",
]  # fmt: skip
_KINDS = {
    "empty_output", "no_action", "malformed_tool_call", "unknown_tool", "invalid_arguments",
    "empty_answer", None,
}  # fmt: skip


def test_twenty_thousand_splices_never_raise() -> None:
    draw = random.Random(0)
    for _ in range(20_000):
        text = "".join(draw.choices(_PIECES, k=draw.randint(1, 12)))
        cut = draw.randint(0, len(text))
        turn = parse_turn(text[cut:] if draw.random() < 0.3 else text)
        assert turn.error in _KINDS
        assert (turn.kind == "error") == (turn.error is not None)
        assert (turn.kind == "tool_calls") == bool(turn.calls)
        assert (turn.kind == "answer") == (turn.answer is not None)
        # What the log will hold can be written.
        json.dumps([call.arguments for call in turn.calls], allow_nan=False).encode()
        f"{turn.think}{turn.report}{turn.answer}{turn.detail}".encode()


@pytest.mark.parametrize(
    "piece",
    ["<tool_call>", "<answer>", "</answer>", "<think>", "</think>", "<report>", "[", "{", "{'",
     " ", "<", "```", '<tool_call>{"', "<answer><tool_call>", '<answer><tool_call>{"a": "', "\\",
     "<code>", "</code>", "</code> ", X, "<tool_call>{'a':1}", "x </tool_call>", "'a',",
     "<think></think>", "<tool_call>```"],
)  # fmt: skip
@pytest.mark.parametrize(
    "before",
    ["", "<tool_call>", "<answer>", "<tool_call>{'name': [",
     '<tool_call>{"name": "PythonInterpreter", "arguments": {}}<code>'],
)  # fmt: skip
def test_a_megabyte_of_anything_ends(piece: str, before: str) -> None:
    """Any step that went over the text once for each tag would keep this from ending in hours."""
    for after in ("", "</answer>"):
        assert parse_turn(before + piece * (1_000_000 // len(piece)) + after).error in _KINDS


def test_default_tools_are_the_five() -> None:
    names = [tool.name for tool in DEFAULT_TOOLS]
    assert sorted(names) == [
        "PythonInterpreter", "google_scholar", "parse_file", "search", "visit"
    ]  # fmt: skip
