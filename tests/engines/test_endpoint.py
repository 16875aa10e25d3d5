"""Endpoints as they are found: busy, strict, silent, and with thoughts in a field of their own."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from hanol.engines import (
    Completion,
    Constraint,
    Engine,
    ImagePart,
    Message,
    Piece,
    Request,
    Sampling,
    TextPart,
    ToolCall,
    Usage,
    open_engine,
)
from hanol.errors import CapabilityError, EngineError
from hanol.runs import gather
from hanol.tools import ToolSpec

KEY = "sk-very-secret-0123456789"
OF_REQUEST = {"prompt_ids", "prefill", "n", "tools", "constraint", "top_logprobs"}
Reply = tuple[int, Any]  # status, JSON or bytes


def said(text: str | None, **more: Any) -> Reply:
    """An ordinary answer."""
    message = {"role": "assistant", "content": text, **more.pop("message", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **more.pop("choice", {})}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    return 200, {**body, "usage": usage, **more}


def refused(status: int, message: str, **more: Any) -> Reply:
    return status, {"error": {"message": message, "type": "error", **more}}


@dataclass
class Server:
    """Answers what `reply` says, and keeps what it was asked."""

    reply: Callable[[dict[str, Any]], Reply]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    models: list[str] = field(default_factory=lambda: ["qwen3", "llama"])
    owner: str = "system"
    spec: str = ""
    busiest: int = 0
    _busy: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def handler(server: "Server") -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                models = [
                    {"id": m, "object": "model", "created": 0, "owned_by": server.owner}
                    for m in server.models
                ]
                self._send(200, {"object": "list", "data": models})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.bodies.append(body)
                    server.headers.append({k.lower(): v for k, v in self.headers.items()})
                    server._busy += 1
                    server.busiest = max(server.busiest, server._busy)
                try:
                    self._send(*server.reply(body))
                finally:
                    with server._lock:
                        server._busy -= 1

            def _send(self, status: int, body: Any) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                try:
                    self.send_response(status)
                    if 300 <= status < 400:
                        self.send_header("Location", body["to"])
                    is_json = not data or data.startswith(b"{")
                    form = "application/json" if is_json else "text/event-stream"
                    self.send_header("Content-Type", form)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client gave up waiting

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[ThreadingHTTPServer] = []

    def start(reply: Callable[[dict[str, Any]], Reply] | list[Reply]) -> Server:
        if isinstance(reply, list):
            rest = list(reply)
            made = Server(lambda body: rest.pop(0))
        else:
            made = Server(reply)
        http = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        running.append(http)
        made.spec = f"http://127.0.0.1:{http.server_address[1]}/v1#qwen3"
        return made

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and no waiting between tries."""
    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", lambda *_: 0.0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(text: str = "hi", **values: Any) -> Request:
    more = {key: values.pop(key) for key in OF_REQUEST & values.keys()}
    messages = (Message("system", "Be brief."), Message("user", text))
    return Request(messages, Sampling(**values), **more)


def run(engine: Engine, *requests: Request) -> list[Completion]:
    async def together() -> list[Completion]:
        try:
            return await gather(engine.complete, requests, concurrency=len(requests))
        finally:
            await engine.aclose()

    return asyncio.run(together())


def test_a_request_becomes_a_chat_completion(serve: Callable[..., Server]) -> None:
    server = serve([said("hello<stop>rest", usage={
        "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 16},
    })])  # fmt: skip
    engine = open_engine(server.spec)
    assert isinstance(engine, Engine)
    assert engine.name == server.spec
    [answer] = run(
        engine,
        ask(
            max_tokens=5,
            temperature=0.6,
            top_p=0.95,
            presence_penalty=1.1,
            stop=("<stop>",),
            seed=3,
        ),
    )
    assert answer == Completion.of("hello", usage=Usage(20, 7, 16))
    assert server.bodies == [
        {
            "model": "qwen3",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
            "max_tokens": 5,
            "temperature": 0.6,
            "top_p": 0.95,
            "presence_penalty": 1.1,
            "stop": ["<stop>"],
            "seed": 3,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_what_a_request_leaves_open_is_not_sent(serve: Callable[..., Server]) -> None:
    server = serve([said("hello")])
    run(open_engine(server.spec), ask())
    assert server.bodies[0].keys() == {"model", "messages"}


def test_the_key_comes_from_the_named_variable_or_not_at_all(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda body: said("hello"))
    monkeypatch.setenv("MY_KEY", "other")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-private")
    run(open_engine(server.spec, api_key_env="MY_KEY"), ask())
    run(open_engine(server.spec, api_key_env="NOT_SET"), ask())
    assert server.headers[0]["authorization"] == "Bearer other"
    assert "authorization" not in server.headers[1]
    assert not any("org-private" in str(headers) for headers in server.headers)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_a_busy_server_is_asked_again(serve: Callable[..., Server], status: int) -> None:
    server = serve([refused(status, "busy"), refused(status, "busy"), said(""), said("at last")])
    assert run(open_engine(server.spec), ask())[0].text == "at last"
    assert len(server.bodies) == 4


def test_all_tries_are_named_when_none_succeeds(serve: Callable[..., Server]) -> None:
    replies = iter([said("hello")])
    server = serve(lambda body: next(replies, refused(503, f"no\n\n room, {KEY}")))
    engine = open_engine(server.spec)
    assert run(engine, ask())[0].text == "hello"
    with pytest.raises(
        EngineError, match=r"no answer in 10 tries; at last, it answered 503: no room"
    ) as e:
        run(engine, ask())
    assert len(server.bodies) == 11
    assert KEY not in str(e.value)
    empty = serve(lambda body: said("  "))
    with pytest.raises(EngineError, match="4 tries; at last, it answered with an empty text"):
        run(open_engine(empty.spec, tries=4), ask())
    assert len(empty.bodies) == 4


def test_a_server_that_is_not_there_is_given_up_soon() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(EngineError, match=r"3 tries; at last, the connection failed .*running"):
        run(open_engine(f"http://127.0.0.1:{port}/v1#m"), ask())


def test_a_silent_server_is_asked_again_after_the_timeout(serve: Callable[..., Server]) -> None:
    slow = iter([1.5, 0.0])

    def reply(body: dict[str, Any]) -> Reply:
        time.sleep(next(slow))
        return said("there")

    server = serve(reply)
    assert run(open_engine(server.spec, timeout=0.5), ask())[0].text == "there"
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "The request itself was refused"),
        (401, "environment variable OPENAI_API_KEY holds a key that is refused"),
        (403, "environment variable OPENAI_API_KEY holds a key that is refused"),
        (404, "It has qwen3, llama: write one of them after the #"),
        (422, "The request itself was refused"),
    ],
)
def test_refusals_are_not_repeated_and_say_what_to_do(
    serve: Callable[..., Server], status: int, expected: str
) -> None:
    server = serve(lambda body: refused(status, f"the message: too long. Key {KEY}."))
    with pytest.raises(EngineError) as caught:
        run(open_engine(server.spec), ask())
    assert expected in str(caught.value)
    assert str(status) in str(caught.value)
    assert len(server.bodies) == 1


def test_secrets_are_in_no_message(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda body: refused(401, f"Incorrect API key provided: {KEY}."))
    engine = open_engine(server.spec)
    with pytest.raises(EngineError) as caught:
        run(engine, ask())
    assert "***" in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        if not chain.__suppress_context__ or chain is caught.value:
            assert KEY not in str(chain)
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    assert KEY not in repr(engine)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(EngineError, match="OPENAI_API_KEY is not set"):
        run(engine, ask())


def test_an_exhausted_account_is_not_asked_again(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: refused(429, "pay first", code="insufficient_quota"))
    with pytest.raises(EngineError, match="pay first"):
        run(open_engine(server.spec), ask())
    assert len(server.bodies) == 1


def test_redirects_are_not_followed(serve: Callable[..., Server]) -> None:
    other = serve(lambda body: said("stolen"))
    server = serve(lambda body: (307, {"to": other.spec.replace("#qwen3", "/chat/completions")}))
    with pytest.raises(EngineError, match="Redirects are not followed"):
        run(open_engine(server.spec), ask())
    assert other.headers == []


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_stands_before_the_answer(serve: Callable[..., Server], name: str) -> None:
    thought = {name: "Let me see.\n"}
    server = serve([said("\n\n<answer>4</answer>", message=thought), said(None, message=thought)])
    engine = open_engine(server.spec)
    assert run(engine, ask())[0].text == "<think>\nLet me see.\n</think>\n\n<answer>4</answer>"
    assert run(engine, ask())[0].text == "<think>\nLet me see.\n</think>\n\n"  # cut while thinking


def test_reasoning_that_is_in_the_text_too_is_not_doubled(serve: Callable[..., Server]) -> None:
    server = serve([said("<think>x</think>4", message={"reasoning_content": "x"})])
    assert run(open_engine(server.spec), ask())[0].text == "<think>x</think>4"


def test_parameters_that_a_server_refuses_are_left_out_and_remembered(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        if "presence_penalty" in body:
            return refused(400, "Unsupported parameter", param="presence_penalty")
        if "stop" in body:
            return refused(422, "extra fields not permitted: stop")
        if "logprobs" in body:
            return refused(400, "'logprobs' is not supported by this model")
        if "max_tokens" in body:
            return refused(400, "Use 'max_completion_tokens' instead.", param="max_tokens")
        return said("fine<tool_response>no")

    server = serve(reply)
    engine = open_engine(server.spec)
    request = ask(
        presence_penalty=1.1, stop=("<tool_response>",), top_logprobs=0, max_tokens=9, top_p=0.9
    )
    assert run(engine, request)[0].text == "fine"  # stopped here instead
    assert len(server.bodies) == 5
    assert run(engine, request)[0].text == "fine"
    assert len(server.bodies) == 6
    assert server.bodies[-1].keys() == {"model", "messages", "top_p", "max_completion_tokens"}
    assert "does not take logprobs, max_tokens, presence_penalty, stop" in caplog.text


def test_a_refusal_that_leaving_out_does_not_cure_is_not_remembered(
    serve: Callable[..., Server],
) -> None:
    said_ = "The context is 4096 tokens, but stop and prompt have 5000."
    server = serve(lambda body: refused(400, said_) if len(body["messages"]) > 1 else said("ok"))
    engine = open_engine(server.spec)
    with pytest.raises(EngineError, match="4096 tokens"):
        run(engine, ask(stop=("x",)))
    short = Request((Message("user", "hi"),), Sampling(stop=("x",)))
    assert run(engine, short)[0].text == "ok"
    assert server.bodies[-1]["stop"] == ["x"]


def test_log_probabilities_of_the_kept_text(serve: Callable[..., Server]) -> None:
    content = [
        {"token": token, "logprob": -0.1 * i, "bytes": None, "top_logprobs": []}
        for i, token in enumerate(["he", "llo", "<st", "op>", "x"])
    ]
    choice = {"logprobs": {"content": content, "refusal": None}}
    server = serve([said("hello<stop>x", choice=choice)])
    [answer] = run(open_engine(server.spec), ask(top_logprobs=0, stop=("<stop>",)))
    assert answer.tokens == ("he", "llo")
    assert answer.logprobs == (0.0, -0.1)
    assert server.bodies[0]["logprobs"] is True


def test_a_length_limit_is_told(serve: Callable[..., Server]) -> None:
    server = serve([said("and so", choice={"finish_reason": "length"}), said("and so", usage=None)])
    engine = open_engine(server.spec)
    assert run(engine, ask(max_tokens=2))[0].finish_reason == "length"
    [answer] = run(engine, ask())
    assert answer.usage.prompt_tokens == engine.count_tokens(ask().messages)
    assert answer.usage.generated_tokens == 2


def test_something_that_is_no_completion(serve: Callable[..., Server]) -> None:
    server = serve([(200, {"hello": "I am a web site"})])
    with pytest.raises(EngineError, match="usually ends with /v1"):
        run(open_engine(server.spec), ask())


def choice(**values: Any) -> Reply:
    return said("", choices=[{"index": 0, "finish_reason": "stop", **values}])


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"{broken"),
        (200, {"choices": 5}),
        (200, {"choices": [None]}),
        (200, b'{"choices": ' + b"[" * 200_000),
        (200, b'{"choices": ' + b'[{"message": ' * 300 + b"1" + b"}]" * 300 + b"}"),
        choice(message={"content": 5}),
        choice(message={"content": "a"}, logprobs={"content": [{"token": "a"}]}),
    ],
)
def test_a_malformed_answer_names_the_server(serve: Callable[..., Server], reply: Reply) -> None:
    server = serve(lambda body: reply)
    with pytest.raises(EngineError, match=r"http://127.* sent a malformed answer \(\w+Error: "):
        run(open_engine(server.spec, tries=2), ask())


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_end_is_an_error(serve: Callable[..., Server], stream: bool) -> None:
    server = serve(lambda body: (200, b"{" + b" " * 10_000_000))
    engine = open_engine(server.spec, tries=2)
    with pytest.raises(EngineError, match=r"larger than 10,000,000 bytes") as err:
        streamed(engine, ask()) if stream else run(engine, ask())
    assert "\n" not in str(err.value)
    long = said("hello", padding=" " * 10_000_000)  # log-probabilities take room
    assert run(open_engine(serve([long]).spec), ask(top_logprobs=5))[0].text == "hello"


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_drip_is_given_up(kind: str) -> None:
    """A byte now and then keeps every limit of a single read away."""

    async def both() -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"
                for part in [head.encode(), *[b":\n\n" if "event" in kind else b" "] * 400]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.05)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        spec = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1#m"
        engine = open_engine(spec, tries=1, timeout=0.5)
        start = time.monotonic()
        try:
            if "json" in kind:
                with pytest.raises(EngineError, match=r"no answer within 0\.5 seconds"):
                    await engine.complete(ask())
            with pytest.raises(EngineError, match="broke off its answer"):
                async for _ in engine.stream(ask()):
                    pass
        finally:
            await engine.aclose()
            server.close()
        assert time.monotonic() - start < 10

    asyncio.run(both())


TEXT = {"type": "text", "text": "hello"}
THOUGHT = "<think>\nso\n</think>\n\nhello"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([TEXT], "hello"),
        ([{"type": "text", "text": "hel"}, {"type": "output_text", "text": "lo"}], "hello"),
        (["hel", "lo"], "hello"),
        ([{"type": "text", "text": {"value": "hello", "annotations": []}}], "hello"),
        (TEXT, "hello"),
        ([{"type": "thinking", "thinking": "so"}, TEXT], THOUGHT),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "so"}]}, TEXT], THOUGHT),
        ([{"type": "reasoning", "text": "so"}, TEXT], THOUGHT),
        ([{"type": "image_url", "image_url": {"url": "x"}}, TEXT], "hello"),
    ],
)
def test_a_content_in_parts(serve: Callable[..., Server], content: Any, expected: str) -> None:
    server = serve([said(content), pieces({"content": content})])
    engine = open_engine(server.spec)
    assert run(engine, ask())[0].text == expected
    assert streamed(engine, ask())[-1].completion == Completion.of(expected, usage=Usage(9, 4))


def test_an_answer_of_the_older_interface(serve: Callable[..., Server]) -> None:
    server = serve([said(None, choice={"message": None, "text": "hello"})])
    assert run(open_engine(server.spec), ask())[0].text == "hello"


def test_a_refusal_is_an_answer(serve: Callable[..., Server]) -> None:
    server = serve([said(None, message={"refusal": "I cannot."})])
    assert run(open_engine(server.spec), ask())[0].text == "I cannot."


@pytest.mark.parametrize("cut", [0, 1, 60, 150, 180])
def test_an_answer_that_a_proxy_cut_off_is_asked_for_again(
    serve: Callable[..., Server], cut: int
) -> None:
    whole = json.dumps(said("héllo")[1], ensure_ascii=False).encode()
    inside = whole.index("é".encode()) + 1
    server = serve([(200, whole[: inside if cut == 60 else cut]), said("hello")])
    assert run(open_engine(server.spec), ask())[0].text == "hello"
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": None, "completion_tokens": None}, (0, 0)),
        ({"prompt_tokens": None, "completion_tokens": 7}, (0, 7)),
        ({"prompt_tokens": 20}, (20, 0)),
        ({"prompt_tokens": 20.0, "completion_tokens": "7"}, (20, 7)),
        ({"prompt_tokens": -1, "completion_tokens": 0}, (0, 0)),
        ({"prompt_tokens": -(10**6), "completion_tokens": 10**30}, (0, 0)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, (0, 0)),
        ({"prompt_tokens": "many", "completion_tokens": []}, (0, 0)),
        ({"prompt_tokens": 20, "completion_tokens": 7, "prompt_tokens_details": None}, (20, 7)),
        ({}, (0, 0)),
        ([], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_what_a_server_does_not_count_is_estimated(
    serve: Callable[..., Server], usage: Any, expected: tuple[int, int]
) -> None:
    server = serve([said("hello", usage=usage)])
    engine = open_engine(server.spec)
    [answer] = run(engine, ask())
    estimated = engine.count_tokens(ask().messages), 2
    wanted = tuple(a or b for a, b in zip(expected, estimated, strict=True))
    assert (answer.usage.prompt_tokens, answer.usage.generated_tokens) == wanted


OVERLOADED = {"message": "no room", "code": 503}


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(attempt: int) -> None:
        pass

    monkeypatch.setattr("hanol.engines._endpoint._pause", nothing)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    "body",
    [
        {"error": OVERLOADED},
        {"error": OVERLOADED, "choices": None},
        {"error": "no room"},
        {"object": "error", "message": "no room", "code": 50001},
        {"code": 500, "msg": "no room", "success": False},
        {"detail": "no room"},
        {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "no room"}},
        said("", choice={"error": OVERLOADED, "finish_reason": "error"})[1],
    ],
)
def test_an_error_with_status_200(serve: Callable[..., Server], body: dict[str, Any]) -> None:
    server = serve([(200, body), said("hello")])
    assert run(open_engine(server.spec), ask())[0].text == "hello"
    server = serve(lambda _: (200, body))
    with pytest.raises(EngineError, match="in 2 tries; at last, it answered .*: no room"):
        run(open_engine(server.spec, tries=2), ask())
    with pytest.raises(EngineError, match="no room"):
        streamed(open_engine(server.spec), ask())


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": 400},
        {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"},
    ],
)
def test_a_refusal_with_status_200_is_not_repeated(
    serve: Callable[..., Server], error: dict[str, Any]
) -> None:
    server = serve(lambda _: (200, {"error": error}))
    with pytest.raises(EngineError, match=r"answered 400 .* too long\. The request itself was ref"):
        run(open_engine(server.spec), ask())
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (choice(), ""),
        (choice(message=None), ""),
        ((200, {"choices": []}), ""),
        (said(None, choice={"finish_reason": "content_filter"}), "finish_reason 'content_filter'"),
        (said("", choice={"finish_reason": "length"}), "finish_reason 'length': allow more tokens"),
        (said(None, choice={"finish_reason": "tool_calls"}), "start it without its parser"),
    ],
)
def test_an_empty_answer_says_why(serve: Callable[..., Server], reply: Reply, why: str) -> None:
    server = serve(lambda body: reply)
    with pytest.raises(EngineError, match=f"2 tries; at last, it answered with an empty .*{why}"):
        run(open_engine(server.spec, tries=2), ask())


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_limits_by_other_names(serve: Callable[..., Server], reason: str) -> None:
    server = serve([said("and so", choice={"finish_reason": reason})])
    assert run(open_engine(server.spec), ask())[0].finish_reason == "length"


FUNCTION = {"name": "search", "arguments": '{"query": ["a"]}'}


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "c", "type": "function", "function": FUNCTION}]},
        {"tool_calls": [{"id": "c", "function": FUNCTION}]},
        {"tool_calls": [{"id": "c", "type": None, "function": FUNCTION}]},
        {"tool_calls": [{"id": "c", **FUNCTION}]},
        {"tool_calls": {"id": "c", "type": "function", "function": FUNCTION}},
        {"tool_calls": [
            {"id": "c", "function": {"name": "search", "arguments": {"query": ["a"]}}}]},
        {"tool_calls": [
            {"id": "c", "function": {"name": "search", "parameters": {"query": ["a"]}}}]},
        {"tool_calls": [{"id": "c", "type": "function", "function": {
            "name": "search", "arguments": json.dumps(FUNCTION["arguments"])}}]},
        {"tool_calls": [{"id": "c", "type": "custom", "custom": {
            "name": "search", "input": FUNCTION["arguments"]}}]},
    ],
)  # fmt: skip
def test_native_calls_as_servers_write_them(
    serve: Callable[..., Server], message: dict[str, Any]
) -> None:
    calls = (ToolCall("search", {"query": ["a"]}, "c"),)
    server = serve([said(None, message=message, choice={"finish_reason": "tool_calls"})])
    assert run(open_engine(server.spec), ask())[0].tool_calls == calls
    server = serve([pieces(message, finish_reason="tool_calls")])
    completion = streamed(open_engine(server.spec), ask())[-1].completion
    assert completion is not None
    assert completion.tool_calls == calls


@pytest.mark.parametrize("arguments", [None, "", " ", "null", {}])
def test_a_call_without_arguments(serve: Callable[..., Server], arguments: Any) -> None:
    calls = [{"id": 7, "type": "function", "function": {"name": "now", "arguments": arguments}}]
    server = serve([said("", message={"tool_calls": calls})])
    assert run(open_engine(server.spec), ask())[0].tool_calls == (ToolCall("now", {}, "7"),)


def test_a_call_of_the_older_interface(serve: Callable[..., Server]) -> None:
    server = serve(
        [
            said(None, message={"function_call": FUNCTION}),
            pieces(
                {"function_call": {"name": "search", "arguments": '{"que'}},
                {"function_call": {"arguments": 'ry": ["a"]}'}},
            ),
        ]
    )
    engine = open_engine(server.spec)
    calls = (ToolCall("search", {"query": ["a"]}),)
    assert run(engine, ask())[0].tool_calls == calls
    completion = streamed(engine, ask())[-1].completion
    assert completion is not None
    assert completion.tool_calls == calls


def test_pieces_of_calls_that_share_an_index_or_repeat_their_names(
    serve: Callable[..., Server],
) -> None:
    def piece(id: str | None, name: str | None, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"tool_calls": [{"id": id, "type": "function", "function": function, **more}]}

    server = serve(
        [
            pieces(
                piece("a", "add", '{"x": 1}', index=0), piece("b", "add", '{"x": 2}', index=0)
            ),
            pieces(
                piece("a", "add", '{"x"', index=0), piece("a", "add", ": 1}", index=0),
                piece("b", "add", '{"x": 2', index=1), piece(None, None, "}", index=1),
            ),
        ]
    )  # fmt: skip
    for _ in range(2):
        completion = streamed(open_engine(server.spec), ask())[-1].completion
        assert completion is not None
        assert completion.tool_calls == (
            ToolCall("add", {"x": 1}, "a"), ToolCall("add", {"x": 2}, "b"),
        )  # fmt: skip


@pytest.mark.parametrize(
    "spec", ["http://[::1/v1#m", "http://127.0.0.1:x/v1#m", "http:///v1#m", "http://127.0.0.1/v1"]
)
def test_an_address_without_a_model(spec: str) -> None:
    with pytest.raises(EngineError, match="does not name a model at an endpoint"):
        open_engine(spec)


def test_at_most_so_many_requests_at_once(serve: Callable[..., Server]) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return said(body["messages"][-1]["content"])

    server = serve(reply)
    requests = [ask(f"q{i}") for i in range(20)]
    answers = run(open_engine(server.spec, max_concurrency=3), *requests)
    assert [answer.text for answer in answers] == [f"q{i}" for i in range(20)]
    assert 1 < server.busiest <= 3


def test_proxies_of_the_environment_do_not_see_loopback(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(lambda body: said("from the proxy"))
    monkeypatch.setenv("HTTP_PROXY", proxy.spec.partition("/v1")[0])
    monkeypatch.setenv("NO_PROXY", "")
    server = serve([said("direct")])
    assert run(open_engine(server.spec), ask())[0].text == "direct"


def test_the_estimate_of_tokens_is_rather_high() -> None:
    engine = open_engine("http://127.0.0.1:1/v1#m")

    def count(text: str) -> int:
        return engine.count_tokens([Message("user", text)]) - 8

    assert count("") == 0
    assert count("the sea") == 2
    assert count("1234567") == 7  # many tokenizers take digits one by one
    assert count("서울특별시") == 8
    assert count('{"a": [1]}') >= 8
    assert engine.context_window is None
    assert open_engine("http://127.0.0.1:1/v1#m", context_window=99).context_window == 99


def test_tokens_are_counted_exactly_with_a_tokenizer() -> None:
    messages = [Message("system", "Answer in words."), Message("user", "서울의 인구 1234567?")]
    exact = open_engine("http://127.0.0.1:1/v1#m", tokenizer="tiny-researcher")
    assert exact.count_tokens(messages) == open_engine("tiny-researcher").count_tokens(messages)
    without = open_engine("http://127.0.0.1:1/v1#m", tokenizer="tiny")
    with pytest.raises(EngineError, match="no chat template"):
        without.count_tokens(messages)


def pieces(*deltas: dict[str, Any], **last: Any) -> Reply:
    """An answer that comes as server-sent events."""
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    choices: list[dict[str, Any]] = [
        {"index": delta.pop("index", 0), "finish_reason": None, "delta": delta} for delta in deltas
    ]
    choices[-1]["finish_reason"] = last.pop("finish_reason", "stop")
    events = [{**chunk, "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    events.append({**chunk, "choices": [], "usage": usage})
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return 200, "".join([*lines, "data: [DONE]\n\n"]).encode()


def streamed(engine: Engine, request: Request) -> list[Piece]:
    async def read() -> list[Piece]:
        found = [piece async for piece in engine.stream(request)]
        await engine.aclose()
        return found

    return asyncio.run(read())


def test_an_answer_comes_in_pieces(serve: Callable[..., Server]) -> None:
    server = serve([pieces({"content": "he"}, {"content": "llo <s"}, {"content": "top> no"})])
    found = streamed(open_engine(server.spec), ask(stop=("<stop>",)))
    assert [piece.text for piece in found] == ["he", "llo ", ""]
    assert found[-1].completion == Completion.of("hello ", usage=Usage(9, 4))
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


def test_what_looked_like_a_stop_string_comes_later(serve: Callable[..., Server]) -> None:
    server = serve([pieces({"content": "a <s"}, {"content": "ea> b"}, {"content": "<st"})])
    found = streamed(open_engine(server.spec), ask(stop=("<stop>",)))
    assert [piece.text for piece in found] == ["a ", "<sea> b", "<st", ""]


def test_thoughts_calls_and_several_answers_in_pieces(serve: Callable[..., Server]) -> None:
    def call(**function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}

    server = serve(
        [
            pieces(
                {"reasoning": "Let "}, {"reasoning": "me see.\n"}, {"content": "\n4"},
                {"index": 1, **call(name="add", arguments='{"a":')},
                {"index": 1, **call(arguments=" 1}")},
            )
        ]
    )  # fmt: skip
    found = streamed(open_engine(server.spec), Request(ask().messages, n=2))
    completion = found[-1].completion
    assert completion is not None
    assert completion.text == "<think>\nLet me see.\n</think>\n\n4"
    assert "".join(piece.text for piece in found if piece.choice == 0) == completion.text
    assert completion.choices[1].tool_calls == (ToolCall("add", {"a": 1}, "c1"),)


def test_a_broken_stream_is_an_error(serve: Callable[..., Server]) -> None:
    server = serve([(200, b'data: {"error": {"message": "out of memory"}}\n\n')])
    with pytest.raises(EngineError, match="broke off its answer: out of memory"):
        streamed(open_engine(server.spec), ask())


def test_a_stream_that_ends_without_a_reason_is_an_error(serve: Callable[..., Server]) -> None:
    chunk = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    server = serve([(200, b"data: " + json.dumps(chunk).encode() + b"\n\n")])
    with pytest.raises(EngineError, match="broke off its answer: the stream ended"):
        streamed(open_engine(server.spec), ask())


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"data: {broken\n\n"),
        pieces({"content": "a", "index": 5}),
        pieces({"content": "a", "index": -1}),
    ],
)
def test_a_malformed_stream_names_the_server(serve: Callable[..., Server], reply: Reply) -> None:
    server = serve([reply])
    with pytest.raises(EngineError, match=r"http://127.* sent a malformed answer \(\w+Error: "):
        streamed(open_engine(server.spec), ask())


def test_streams_as_servers_send_them(serve: Callable[..., Server]) -> None:
    def event(**values: Any) -> str:
        return f"data: {json.dumps({'object': 'chat.completion.chunk', **values})}\n\n"

    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    stop = {"index": 0, "delta": None, "finish_reason": "stop"}
    hello = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": "hello"}}])
    hello_without_index = event(choices=[{"delta": {"content": "hello"}}])
    message = event(choices=[{"index": 0, "message": {"content": "hello"}}])
    counted = event(choices=[], usage=usage)
    ended = event(choices=[stop])
    done = "data: [DONE]\n\n"
    for text in (
        ": keep-alive\n\n" + hello + ":\n\n: PROCESSING\n\n" + ended + counted + done,
        event(choices=[]) + hello + event(choices=None) + ended + counted + done,
        event(choices=[], prompt_filter_results=[]) + hello + ended + counted,
        "event: ping\n" + event(type="ping") + hello + ended + counted + done,
        "retry: 3000\n\nid: 7\n\n" + hello + "data: \n\ndata:\n\n" + ended + counted + done,
        hello + "event: ping\n\n" + ended + counted + done,
        (hello + ended + counted + done).replace("\n", "\r\n"),
        hello + event(choices=None, usage=usage) + done,  # never says why it ended
        hello_without_index + event(choices=[stop], usage=usage) + done,
        message + ended + counted + done,
    ):
        server = serve([(200, text.encode())])
        found = streamed(open_engine(server.spec), ask())
        assert found[-1].completion == Completion.of("hello", usage=Usage(9, 4)), text
    server = serve([(200, (hello + ended + done).encode())])
    completion = streamed(open_engine(server.spec), ask())[-1].completion
    assert completion is not None
    assert completion.usage.generated_tokens == 2


def test_a_server_that_does_not_stream(serve: Callable[..., Server]) -> None:
    server = serve([said("hello", message={"reasoning": "so"})])
    found = streamed(open_engine(server.spec), ask())
    assert "".join(piece.text for piece in found) == "<think>\nso\n</think>\n\nhello"
    assert found[-1].completion is not None
    assert found[-1].completion.usage == Usage(9, 4)


def test_an_empty_stream_is_asked_again(serve: Callable[..., Server]) -> None:
    server = serve([pieces({"content": " "}), pieces({"content": "hi"})])
    assert [piece.text for piece in streamed(open_engine(server.spec), ask())] == ["hi", ""]
    server = serve([pieces({"content": ""})] * 2)
    with pytest.raises(EngineError, match="2 tries; at last, it answered with an empty text"):
        streamed(open_engine(server.spec, tries=2), ask())


def test_tools_and_their_results_are_sent_as_the_interface_has_them(
    serve: Callable[..., Server],
) -> None:
    function = {"name": "add", "arguments": '{"a": 2}'}
    calls = [{"id": "c2", "type": "function", "function": function}]
    choice = {"finish_reason": "tool_calls"}
    server = serve([said(None, message={"tool_calls": calls}, choice=choice)])
    request = Request(
        (
            Message("user", (TextPart("what is this?"), ImagePart(b"png"))),
            Message("assistant", "", (ToolCall("add", {"a": 1}, "c1"),)),
            Message("tool", "1", tool_call_id="c1"),
        ),
        tools=(ToolSpec("add", "Adds.", {"type": "object"}),),
    )
    [answer] = run(open_engine(server.spec), request)
    assert answer.tool_calls == (ToolCall("add", {"a": 2}, "c2"),)
    [body] = server.bodies
    assert body["tools"][0]["function"] == {
        "name": "add", "description": "Adds.", "parameters": {"type": "object"},
    }  # fmt: skip
    [seen, asked, told] = body["messages"]
    assert seen["content"][1]["image_url"]["url"] == "data:image/png;base64,cG5n"
    assert asked["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert told == {"role": "tool", "content": "1", "tool_call_id": "c1"}


def test_arguments_that_are_no_json_are_kept_as_they_are(serve: Callable[..., Server]) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "add", "arguments": "{a"}}]
    server = serve([said("", message={"tool_calls": calls})])
    [answer] = run(open_engine(server.spec), ask())
    assert answer.tool_calls == (ToolCall("add", {}, "c", "{a"),)


def test_constraints_go_to_servers_that_have_them(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: said("{}"))
    schema = ask(constraint=Constraint.json_schema({"type": "object"}))
    run(open_engine(server.spec), schema)
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    regex = ask(constraint=Constraint.regex("a+"))
    with pytest.raises(
        EngineError, match=r"cannot constrain an answer to a regular .* a checkpoint in"
    ):
        run(open_engine(server.spec), regex)
    server.owner = "vllm"
    run(open_engine(server.spec), regex)
    assert server.bodies[-1]["structured_outputs"] == {"regex": "a+"}


def test_a_grammar_goes_to_llama_cpp_in_its_own_spelling(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: said("yes"))
    server.models, server.owner = ["gguf-of-another-name"], "llamacpp"
    both = ask(constraint=Constraint.grammar('start: "yes"', 'root ::= "yes"'))
    run(open_engine(server.spec), both)
    assert server.bodies[-1]["grammar"] == 'root ::= "yes"'
    assert "structured_outputs" not in server.bodies[-1]
    with pytest.raises(CapabilityError, match="to a grammar"):
        run(open_engine(server.spec), ask(constraint=Constraint.grammar('start: "yes"')))
    server.owner = "vllm"
    run(open_engine(server.spec), both)
    assert server.bodies[-1]["structured_outputs"] == {"grammar": 'start: "yes"'}


def test_a_refused_constraint_is_told_from_a_refused_request(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: refused(400, "failed to parse grammar"))
    server.owner = "vllm"
    with pytest.raises(CapabilityError, match="failed to parse grammar"):
        run(open_engine(server.spec), ask(constraint=Constraint.grammar('start: "yes"')))
    with pytest.raises(EngineError) as other:
        run(open_engine(server.spec), ask())
    assert not isinstance(other.value, CapabilityError)


def test_a_prefill_goes_to_servers_that_go_on_from_it(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: said("on"))
    with pytest.raises(EngineError, match="cannot continue a `prefill`"):
        run(open_engine(server.spec), ask(prefill="so "))
    server.owner = "vllm"
    assert run(open_engine(server.spec), ask(prefill="so "))[0].text == "on"
    assert server.bodies[-1]["messages"][-1] == {"role": "assistant", "content": "so "}
    assert server.bodies[-1]["continue_final_message"] is True


def test_several_answers_from_servers_that_give_one_at_a_time(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda body: said(f"seed {body['seed']}"))
    [answer] = run(open_engine(server.spec), ask(n=3, seed=5))
    assert [choice.text for choice in answer.choices] == ["seed 5", "seed 6", "seed 7"]
    assert answer.usage == Usage(9, 12)
    assert [body.get("n") for body in server.bodies] == [3, 2, None]


def test_what_no_endpoint_does_is_refused() -> None:
    engine = open_engine("http://127.0.0.1:1/v1#m")
    with pytest.raises(EngineError, match="cannot score continuations; a checkpoint in this"):
        asyncio.run(engine.score(ask(), ["a"]))
    with pytest.raises(EngineError, match="cannot take a prompt as token ids"):
        run(engine, Request(prompt_ids=(1, 2)))
