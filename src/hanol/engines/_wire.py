"""Requests and answers as OpenAI-compatible endpoints write them."""

import base64
import functools
import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from hanol.engines._calls import described, tool_call
from hanol.engines._request import AudioPart, Choice, Constraint, ImagePart, Message, Request
from hanol.sampling import StopStrings

# Parameters that a request can do without, when a server refuses them.
_OPTIONAL = (
    "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "top_logprobs",
    "logprobs", "seed", "temperature", "top_p", "top_k", "stream_options",
)  # fmt: skip
_NOT_OPENAI = ("top_k", "repetition_penalty", "structured_outputs", "grammar",
               "continue_final_message", "add_generation_prompt")  # fmt: skip
_SAYING = ("message", "status_msg", "detail", "msg")  # where servers say what went wrong
_CODES = ("code", "status", "status_code")
_LENGTHS = ("length", "max_tokens", "model_length", "max_output_tokens")  # finish reasons
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_WORDS = re.compile(r"[A-Za-z]+|[^\x00-\x7f]+|\n+|[^A-Za-z\x80-\U0010ffff\s]")


def body_of(request: Request, model: str, refused: frozenset[str], server: str) -> dict[str, Any]:
    """The arguments of a chat completion, without parameters that the server refused before.

    `server` says who serves the model, such as "vllm", where that matters.
    """
    sampling = request.sampling
    messages = [_message(message) for message in request.messages]
    wanted, repetition = request.top_logprobs, sampling.repetition_penalty
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        "repetition_penalty": repetition if repetition != 1 else None,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "logprobs": None if wanted is None else True,
        "top_logprobs": wanted or None,
        "n": None if request.n == 1 else request.n,
        "tools": [described(tool) for tool in request.tools] or None,
        **_constrained(request.constraint, server),
    }
    if request.prefill:
        messages.append({"role": "assistant", "content": request.prefill})
        if server == "vllm":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    if "max_tokens" in refused:
        body["max_completion_tokens"] = body.pop("max_tokens")
    body = {k: v for k, v in body.items() if v is not None and k not in refused}
    extra = {name: body.pop(name) for name in _NOT_OPENAI if name in body}
    return body | ({"extra_body": extra} if extra else {})


def _constrained(constraint: Constraint | None, server: str) -> dict[str, Any]:
    if constraint is None:
        return {}
    if constraint.kind == "json_schema":
        schema = {"name": "answer", "schema": json.loads(constraint.text), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if server == "llamacpp":
        return {"grammar": constraint.gbnf}
    return {"structured_outputs": {constraint.kind: constraint.text}}  # vLLM's


def _message(message: Message) -> dict[str, Any]:
    made = message.to_dict()
    if not isinstance(message.content, str):
        made["content"] = [_part(part) for part in message.content]
    for call, written in zip(message.tool_calls, made.get("tool_calls", ()), strict=True):
        written["id"] = call.id
        written["function"]["arguments"] = call.malformed or json.dumps(call.arguments)
    return made


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, ImagePart | AudioPart):
        data = base64.b64encode(part.data).decode()
        if isinstance(part, ImagePart):
            url = f"data:{part.media_type};base64,{data}"
            return {"type": "image_url", "image_url": {"url": url}}
        form = part.media_type.rpartition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    return {"type": "text", "text": part.text}


class ReceivedAnswer:
    """One choice of a chat completion, whole or in pieces, cut where servers may not: at stops.

    Attributes:
        reason: Why the server says that it ended.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = StopStrings(stop)
        self._reasoning = self._content = ""
        self.reason: str | None = None
        self._entries: list[Any] = []
        self._calls: list[dict[str, str]] = []
        self._call_at: dict[int, dict[str, str]] = {}
        self._shown = 0

    def add(self, choice: Any) -> None:
        """Take a message, or what is new of it."""
        said = getattr(choice, "message", None) or getattr(choice, "delta", None)
        if not isinstance(said, dict):
            said = said.to_dict(warnings=False) if said is not None else {}
        thoughts, content = _thoughts_and_text(said.get("content"))
        aside = next(filter(None, map(said.get, _THOUGHTS)), None)
        self._reasoning += "".join(_thoughts_and_text(aside)) + thoughts
        self._content += content or said.get("refusal") or getattr(choice, "text", None) or ""
        self.reason = choice.finish_reason or self.reason
        self._entries += getattr(choice.logprobs, "content", None) or []
        calls = said.get("tool_calls") or []
        if legacy := said.get("function_call"):
            calls = [{"index": 0, "function": legacy}]
        for place, call in enumerate([calls] if isinstance(calls, dict) else calls):
            self._add_call(place, call)

    def _add_call(self, place: int, call: dict[str, Any]) -> None:
        function = call.get("function") or call.get("custom") or call
        written = next(filter(None, map(function.get, ("arguments", "parameters", "input"))), "")
        at, id, name = call.get("index"), str(call.get("id") or ""), function.get("name") or ""
        at = place if at is None else at
        entry = self._call_at.get(at)
        # Gemini gives every call the index 0; some servers repeat id and name in each piece.
        if entry is None or (name and id and entry["id"] not in ("", id)):
            entry = self._call_at[at] = {"id": id, "name": "", "arguments": ""}
            self._calls.append(entry)
        entry["id"] = id or entry["id"]
        entry["name"] += name if name != entry["name"] else ""
        entry["arguments"] += written if isinstance(written, str) else json.dumps(written)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return not (self._text()[0].strip() or self._calls)

    def new_text(self) -> str:
        """What is new of the text, and sure to stay."""
        text, was_cut = self._text()
        if not self._content:
            text = text.removesuffix("\n</think>\n\n")  # it may go on thinking
        sure = text if was_cut else text[: self._stop.sure(text)]
        new, self._shown = sure[self._shown :], max(self._shown, len(sure))
        return new

    def rest(self) -> str:
        """The end of the text that was held back."""
        return self._text()[0][self._shown :]

    def choice(self) -> Choice:
        """What came of it."""
        text, was_cut = self._text()
        content = self._stop.cut(self._content)[0]
        entries = _kept(self._entries, content if was_cut else None)
        tops = tuple(
            tuple(map(_likely, getattr(entry, "top_logprobs", None) or ())) for entry in entries
        )
        return Choice(
            text,
            "length" if str(self.reason).lower() in _LENGTHS and not was_cut else "stop",
            tokens=tuple(_likely(entry)[0] for entry in entries) or None,
            logprobs=tuple(_likely(entry)[1] for entry in entries) or None,
            top_logprobs=tops if any(tops) else None,
            tool_calls=tuple(tool_call(**call) for call in self._calls),
        )

    def _text(self) -> tuple[str, bool]:
        """Reasoning and answer as one text, cut at a stop string of the answer."""
        content, was_cut = self._stop.cut(self._content)
        if self._reasoning and "</think>" not in content:
            content = f"<think>\n{self._reasoning.strip()}\n</think>\n\n{content.lstrip()}"
        return content, was_cut


def _thoughts_and_text(content: Any) -> tuple[str, str]:
    """The reasoning and the text of a content: a text, or parts as some servers send them."""
    if content is None or isinstance(content, str):
        return "", content or ""
    if isinstance(content, list):
        found = [_thoughts_and_text(part) for part in content]
        return "".join(thought for thought, _ in found), "".join(text for _, text in found)
    kind = content.get("type") or "text"
    inner = next(filter(None, map(content.get, ("thinking", "text", "refusal", "value"))), None)
    thoughts, text = _thoughts_and_text(inner)
    return (thoughts + text, "") if kind in ("thinking", "reasoning") else (thoughts, text)


def _likely(entry: Any) -> tuple[str, float]:
    return str(entry.token), float(entry.logprob)


def _kept(entries: list[Any], kept: str | None) -> list[Any]:
    """Log-probabilities of the kept text, if it was cut here."""
    if kept is None or not "".join(str(entry.token) for entry in entries).startswith(kept):
        return entries
    length = count = 0
    while length < len(kept):
        length, count = length + len(str(entries[count].token)), count + 1
    return entries[:count]


def message(err: Any) -> str:
    """What a server says of a refused request."""
    body = err.body
    if isinstance(body, dict):
        return str(body.get("message") or body.get("detail") or body.get("error") or body)
    return str(body or err.message)


def reported_error(response: Any) -> SimpleNamespace | None:
    """What a server says went wrong in an answer of status 200, in the form of a status error."""
    choices = getattr(response, "choices", None) or []
    for one in [response, *choices]:
        place = getattr(one, "model_extra", None) or {}
        error = place.get("error") or (None if choices else place.get("base_resp"))
        if not (error or choices) and place.keys() & _SAYING:
            error = place
        if error:
            said = error if isinstance(error, dict) else {"message": error}
            text = next((said[name] for name in _SAYING if said.get(name)), said)
            codes = [str(it[name]) for it in (said, place) for name in _CODES if name in it]
            status = next((int(code) for code in codes if code.isdigit() and len(code) == 3), None)
            if status is None and "invalid" in str(said.get("type")):
                status = 400
            return SimpleNamespace(status_code=status, body=str(text), message=str(text))
    return None


def refused_parameter(err: Any, body: dict[str, Any]) -> str | None:
    """The parameter of a request that a server says it does not take."""
    if err.status_code not in (400, 422):
        return None
    said, sent = message(err), body | body.get("extra_body", {})
    if "max_tokens" in body and "max_completion_tokens" in said:
        return "max_tokens"
    for name in _OPTIONAL:
        if name in sent and (err.param == name or re.search(rf"\b{name}\b", said)):
            return name
    return None


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
