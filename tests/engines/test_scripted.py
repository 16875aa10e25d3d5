"""Scripts answer by what is asked, whatever the order in which requests come."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hanol import engines
from hanol.engines import (
    Completion,
    Constraint,
    Engine,
    Message,
    Reply,
    Request,
    Sampling,
    ScriptedEngine,
    Usage,
    open_engine,
)
from hanol.errors import ConfigError, EngineError
from hanol.runs import gather


def conversation(question: str, *answers: str) -> Request:
    """A conversation in which so many answers were given already."""
    messages = [Message("system", "Be brief."), Message("user", question)]
    for answer in answers:
        messages += [Message("assistant", answer), Message("user", f"{question} and then?")]
    return Request(tuple(messages))


def text(engine: Engine, request: Request) -> str:
    return asyncio.run(engine.complete(request)).text


def test_the_reply_follows_from_the_turn_of_the_conversation() -> None:
    engine = ScriptedEngine(["one", "two", "three"])
    assert text(engine, conversation("q", "x", "y")) == "three"
    assert text(engine, conversation("q")) == "one"
    assert text(engine, conversation("other", "x")) == "two"
    with pytest.raises(EngineError, match="no answer to turn 4: it has 3 replies"):
        text(engine, conversation("q", "x", "y", "z"))


def test_a_reply_that_matches_the_last_message_goes_first() -> None:
    engine = ScriptedEngine(["turn", Reply("Seoul", match="(?i)capital"), Reply("no", match=".")])
    assert text(engine, conversation("The CAPITAL of Korea?", "x")) == "Seoul"
    assert text(engine, conversation("Else?")) == "no"


def test_answers_are_the_same_whatever_the_order_and_the_latencies() -> None:
    async def ask() -> list[str]:
        slow = {f"q{i}": 0.02 * (5 - i) for i in range(5)}
        engine = ScriptedEngine(
            [Reply(f"answer to {q}", match=q, latency=s) for q, s in slow.items()]
        )
        together = await gather(engine.complete, [conversation(q) for q in slow], concurrency=64)
        return [completion.text for completion in together]

    assert asyncio.run(ask()) == [f"answer to q{i}" for i in range(5)]


def test_latencies_of_many_requests_pass_at_the_same_time() -> None:
    """The answers come in the order of their latencies, not of their requests."""
    done: list[str] = []
    replies = [Reply(f"a{i}", match=f"q{i}", latency=0.5 - 0.15 * i) for i in range(3)]
    engine = ScriptedEngine(replies)

    async def one(question: str) -> None:
        done.append((await engine.complete(conversation(question))).text)

    async def ask() -> None:
        await asyncio.gather(*(one(f"q{i}") for i in range(3)))

    asyncio.run(ask())
    assert done == ["a2", "a1", "a0"]


def test_stop_strings_limits_and_windows_act_as_in_a_model() -> None:
    engine = ScriptedEngine(["a<tool>b<end>", "0123456789"], context_window=60)
    request = conversation("q")
    cut = Request(request.messages, Sampling(stop=("<end>", "<tool>")))
    assert asyncio.run(engine.complete(cut)) == Completion.of("a", usage=Usage(12, 1))
    short = Request(conversation("q", "x").messages, Sampling(max_tokens=2))
    answer = asyncio.run(engine.complete(short))
    assert (answer.text, answer.finish_reason, answer.usage.generated_tokens) == (
        "01234567",
        "length",
        2,
    )
    with pytest.raises(EngineError, match="65 tokens, but the context window of 'scripted' is 60"):
        text(engine, Request((Message("user", "x" * 241),)))


def test_a_function_may_give_whole_completions() -> None:
    given = Completion.of("hi", usage=Usage(1, 1), tokens=("hi",), logprobs=(-0.5,), ids=(7,))
    assert asyncio.run(ScriptedEngine(lambda request: given).complete(conversation("q"))) == given


def test_tokens_are_counted_by_the_documented_rule() -> None:
    engine = ScriptedEngine([])
    assert engine.count_tokens([Message("user", "12345678")]) == 4 + 2
    assert engine.count_tokens([Message("user", "인구"), Message("assistant", "")]) == 4 + 2 + 4


def test_a_file_opens_by_its_specification(tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    lines = [{"text": "hello", "latency": 0.0}, {"text": "matched", "match": "^who"}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    engine = open_engine(f"scripted:{path}")
    assert isinstance(engine, Engine)
    assert engine.name == f"scripted:{path}"
    assert text(engine, conversation("any")) == "hello"
    assert text(engine, conversation("who")) == "matched"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not an object.*Invalid JSON"),
        ('["a"]', 'is not an object with a string "text"'),
        ('{"text": "a", "match": "("}', "is not a regular expression"),
        ('{"text": "a", "delay": 3}', "delay: Unexpected keyword argument"),
        ('{"text": "a", "latency": -1}', "latency: Input should be greater than or equal to 0"),
        ('{"text": "a", "latency": "long"}', "latency: Input should be a valid number"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(EngineError, match=said):
        open_engine(f"scripted:{path}")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "No model is named"),
        ("scripted:/does/not/exist", "cannot be read"),
        ("http://host:1/v1", "write http://host:port/v1#model"),
        ("http://me:secret@host:1/v1#m", "holds a user name or password"),
        ("ray:two:tiny", "is written ray:N:SPEC"),
        ("ray:0:tiny", "give at least 1"),
    ],
)
def test_specifications_that_name_nothing(spec: str, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        open_engine(spec)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("spec", ["scripted:a.jsonl", "http://127.0.0.1:1/v1#m", "tiny"])
def test_options_of_another_engine_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match=f"{spec!r} has no option wheels: it takes "):
        open_engine(spec, wheels=4)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("tiny", {"max_batch": 0}),
        ("tiny", {"device": "zzz"}),
        ("http://127.0.0.1:1/v1#m", {"max_concurrency": 0}),
    ],
)
def test_options_that_cannot_work_are_refused(spec: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_engine(spec, **options)


@pytest.mark.parametrize(
    "values",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": 0},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("inf")},
        {"seed": 2**70},
        {"seed": 1.5},
        {"stop": (1,)},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Sampling(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(()), "no messages"),
        (Request((Message("user", "q"),), prompt_ids=(1,)), "give one of them"),
        (Request((Message("user", "q"),), n=0), "`n` is 0"),
        (Request((Message("user", "q"),), top_logprobs=-1), "`top_logprobs` is -1"),
        (Request((Message("user", "q"),), top_logprobs=2), "cannot return log-probabilities"),
        (Request("hello"), "`messages` is 'hello'"),  # type: ignore[arg-type]
        (Request(({"role": "user"},)), "is not a `Message`"),  # type: ignore[arg-type]
        (Request((Message("robot", "q"),)), "'robot' is not a role"),  # type: ignore[arg-type]
        (Request((Message("user", None),)), "content of a message is None"),  # type: ignore[arg-type]
        (
            Request((Message("user", "q"),), constraint=Constraint("weird", "x")),  # type: ignore[arg-type]
            "'weird' is not a kind of constraint",
        ),
    ],
)
def test_requests_that_nobody_can_answer(request_: Request, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        text(ScriptedEngine(["a"]), request_)


def test_importing_the_room_loads_no_heavy_library() -> None:
    code = (
        "import sys, hanol.engines as e\n"
        "assert e.open_engine and e.ScriptedEngine\n"
        "assert not {'torch', 'transformers', 'openai', 'ray'} & sys.modules.keys()\n"
        "assert e.EndpointEngine.__name__ == 'EndpointEngine' and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert engines.CheckpointEngine.__name__ == "CheckpointEngine"
    assert engines.RayEngine.__name__ == "RayEngine"
