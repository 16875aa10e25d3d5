"""The turn protocol: parsing a model's text into thought, calls and answer, and rendering it.

The tags and the call format are those of Tongyi DeepResearch (arXiv 2510.24701). One parser serves
the agent, training data and exports. Its rules:

1. Everything up to the last `</think>` before the first action outside it is thought; the opening
   tag may be missing, because chat templates write it for the model.
2. The rest is cut at the first `<tool_response>`: results are never the model's to write.
3. All `<tool_call>` blocks count, left to right. A block with code ends at the `</tool_call>` after
   the last `</code>`.
4. A block is JSON, else JSON5, perhaps in a Markdown fence; no key twice; arguments that are a
   string are decoded once; a bare string becomes a list where the tool wants one.
5. Arguments must fit the tool's schema. 6. The tool's name must match exactly.
7. The answer is the outermost last pair of `<answer>` tags; next to a call it is ignored.
8. A lost closing tag is put back only behind complete JSON; a list around one call is taken off.
9. Where there is neither call nor answer, an `<answer>` that nothing closes goes to the end of the
   turn, or else a Markdown fence that ends the turn, the only one, is read as the block it stands
   for: a call in JSON, or an answer where its language is `answer`.
10. `Turn.repaired` says that 8 or 9 was needed.
11. Whatever cannot be used is a result of a named kind; nothing raises, and time is linear.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hanol.engines import ToolCall, ToolSchema
from hanol.tools._call import (
    CLOSE,
    CODE,
    END_CODE,
    OPEN,
    CallError,
    CallReader,
    ErrorKind,
    read_code,
)
from hanol.tools._escape import escape_observation
from hanol.tools._tool import DEFAULT_TOOLS, PYTHON_INTERPRETER

TurnKind = Literal["tool_calls", "answer", "error"]

_CALLS = 16  # in one turn; more is a model that repeats itself
_RESPONSE = "<tool_response>"
_TOKEN = re.compile(r"</?(?:think|report|answer)>|<tool_call>|<tool_response>")
_TAG = re.compile(r"</?(?:think|report|answer|tool_call|tool_response|code|tools)>")


@dataclass(frozen=True)
class Turn:
    """One parsed turn of the model.

    Args:
        kind: "tool_calls", "answer" or "error".
        calls: Calls to run, in order; empty unless the kind is "tool_calls".
        answer: The final answer; None unless the kind is "answer".
        error: Why the turn cannot be used; None unless the kind is "error".
        think: The thought, without its tags.
        report: Text of the `<report>` block that Markov mode asks for.
        repaired: The turn was read leniently: see rules 8 and 9.
        detail: For the model, what is wrong with its turn; empty unless the kind is "error".
    """

    kind: TurnKind
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    error: ErrorKind | None = None
    think: str = ""
    report: str | None = None
    repaired: bool = False
    detail: str = ""


def parse_turn(text: str, tools: Iterable[ToolSchema] = DEFAULT_TOOLS) -> Turn:
    """Parse one text of the model by the rules above. Never raises.

    Args:
        text: What the model wrote.
        tools: The tools it may call.
    """
    text = text.encode("utf-8", "replace").decode()  # lone surrogates fit no log
    if not text.strip():
        return Turn("error", error="empty_output", detail="The turn is empty.")
    known = {tool.name: tool for tool in tools}
    start = _thought_end(text, known)
    think = re.sub(r"</?think>", "", text[:start]).strip()
    cut = text.find(_RESPONSE, start)
    body = text[start:] if cut == -1 else text[start:cut]
    return _Scan(body, think, CallReader(known)).turn()


def _thought_end(text: str, tools: Mapping[str, ToolSchema]) -> int:
    """End of the thought (rule 1); 0 without one."""
    tokens = [(found.start(), found[0]) for found in _TOKEN.finditer(text)]
    first, tag = next((token for token in tokens if token[1].endswith("think>")), (0, ""))
    unopened = tag == "</think>" and not _leading_call(text, first, tools)
    end = first + len(tag) if unopened else 0
    for place, tag in tokens:
        if place >= end and tag in (OPEN, "<answer>", _RESPONSE):
            break
        if place >= end and tag.endswith("think>"):
            if (close := text.find("</think>", place)) == -1:
                break
            end = close + len("</think>")
    return end


def _leading_call(text: str, close: int, tools: Mapping[str, ToolSchema]) -> bool:
    """Whether the `</think>` at `close`, which nothing opens, follows a call, not a thought."""
    response = text.find(_RESPONSE, 0, close)
    if response != -1 and OPEN in text[:response]:
        return True
    start = len(text) - len(text.lstrip())
    if not text.startswith(OPEN, start):
        return False
    try:
        return CallReader(tools, json5=0).read(text, start)[1] > close
    except CallError:
        return False


@dataclass
class _Scan:
    """One pass over what follows the thought, collecting actions."""

    body: str
    think: str
    reader: CallReader
    calls: list[ToolCall] = field(default_factory=list)
    answers: list[tuple[int, int]] = field(default_factory=list)
    open_answers: list[int] = field(default_factory=list)
    report: str | None = None
    repaired: bool = False
    unclosed_thought: int | None = None
    quotes: int = 0

    def turn(self) -> Turn:
        try:
            self._read()
            if self.calls:
                return self._made("tool_calls", calls=tuple(self.calls))
            if not self.answers and (turn := self._lenient()):
                return turn
            if not self.answers:
                raise CallError("no_action", "The turn holds neither a tool call nor an answer.")
            start, end = self.answers[-1]
            if not (answer := self.body[start:end].strip()):
                raise CallError("empty_answer", "The answer is empty.")
            return self._made("answer", answer=answer)
        except CallError as err:
            return self._made("error", error=err.kind, detail=err.detail)

    def _made(self, kind: TurnKind, **found: Any) -> Turn:
        repaired = self.repaired and kind != "error"
        return Turn(kind, think=self.think, report=self.report, repaired=repaired, **found)

    def _lenient(self) -> Turn | None:
        """What a turn without a whole call or answer most likely means (rule 9)."""
        self.repaired = True
        if self.open_answers:
            if not (answer := self.body[self.open_answers[-1] :].strip()):
                raise CallError("empty_answer", "The answer is empty.")
            return self._made("answer", answer=answer)
        text = self.body.rstrip()
        if text.count("```") != 2 or not text.endswith("```"):
            return None
        language, _, inside = text[text.index("```") + 3 : -3].partition("\n")
        if language.strip() == "answer" and inside.strip():
            return self._made("answer", answer=inside.strip())
        call = self.reader.bare(inside)
        return None if call is None else self._made("tool_calls", calls=(call,))

    def _read(self) -> None:
        tokens = [(found.start(), found[0]) for found in _TOKEN.finditer(self.body)]
        last = {tag: place for place, tag in tokens}
        past = 0
        for place, tag in tokens:
            if place < past:
                continue
            if tag == OPEN:
                past = self._call(place, last.get("</answer>", -1))
            elif tag in ("<think>", "<report>") and not self.open_answers:
                past = self._aside(place, tag, last)
            elif tag == "<answer>":
                self._first_action(place)
                self.open_answers.append(place + len(tag))
            elif tag == "</answer>" and self.open_answers:
                self._close_answer(place)

    def _call(self, place: int, last_answer: int) -> int:
        """Read the block at `place`; inside an answer, what is no call is only text."""
        quoted = bool(self.open_answers) and last_answer > place
        if quoted and self.quotes == _CALLS:
            return place + len(OPEN)
        self.quotes += quoted
        try:
            call, end, repaired = self.reader.read(self.body, place)
        except CallError:
            if quoted:
                return place + len(OPEN)
            raise
        if len(self.calls) == _CALLS:
            raise CallError("malformed_tool_call", f"The turn holds more than {_CALLS} calls.")
        self._first_action(place)
        self.calls.append(call)
        self.repaired |= repaired
        return end

    def _aside(self, place: int, tag: str, last: dict[str, int]) -> int:
        """Step over a later thought, or take a report; neither is searched for actions."""
        start = place + len(tag)
        closing = f"</{tag[1:]}"
        if last.get(closing, -1) < place:
            if tag == "<think>" and self.unclosed_thought is None:
                self.unclosed_thought = start
            return start
        end = self.body.index(closing, start)
        if tag == "<report>":
            self.report = self.body[start:end].strip()
        return end + len(closing)

    def _first_action(self, place: int) -> None:
        """A thought that nothing closed ends where the first action starts."""
        if self.unclosed_thought is not None and not self.calls and not self.answers:
            thought = self.body[self.unclosed_thought : place].strip()
            self.think = f"{self.think}\n{thought}".strip()
            self.repaired = True
            self.unclosed_thought = None

    def _close_answer(self, place: int) -> None:
        start = self.open_answers.pop()
        while self.answers and self.answers[-1][0] > start:
            self.answers.pop()  # lies inside this pair
        self.answers.append((start, place))


def render_call(call: ToolCall) -> str:
    """The block of one call, as the released checkpoints write it; `parse_turn` reads it back.

    Code that speaks of the protocol's tags, or would not survive between them, goes into the JSON.
    """
    arguments = dict(call.arguments)
    code = arguments.get("code") if call.name == PYTHON_INTERPRETER.name else None
    tail = ""
    if isinstance(code, str) and not _TAG.search(code) and read_code(f"\n{code}\n") == code:
        del arguments["code"]
        tail = f"{CODE}\n{code}\n{END_CODE}\n"
    text = json.dumps({"name": call.name, "arguments": arguments}, ensure_ascii=False)
    if _TAG.search(text):
        text = text.replace("<", "\\u003c")  # "<" occurs in strings only
    return f"{OPEN}\n{text}\n{tail}{CLOSE}"


def render_turn(turn: Turn) -> str:
    """The official text of a turn: thought, report, then calls or the answer.

    Tags inside a thought, a report or an answer are escaped. An error renders as its thought alone.
    """
    parts = [f"<think>\n{_plain(turn.think)}\n</think>"] if turn.think else []
    if turn.report is not None:
        parts.append(f"<report>\n{_plain(turn.report)}\n</report>")
    parts += [render_call(call) for call in turn.calls]
    if turn.answer is not None:
        parts.append(f"<answer>{_plain(turn.answer)}</answer>")
    return "\n".join(parts)


def _plain(text: str) -> str:
    return escape_observation(text) if _TAG.search(text) else text
