"""Answers of endpoints that are malformed, endless, packed, slow or broken off."""

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Any

from tests.faults import kills
from tests.faults.damage import ANSWER, BYTES, SEARCH, change
from tests.faults.lab import Lab, Outcome, completion, http, kind
from tests.retrieval.test_documents_fuzz import cut
from tests.training import chat_model as chat

GOOD = json.dumps(completion(ANSWER)).encode()
NOW = "import openai; openai.AsyncOpenAI._calculate_retry_timeout = lambda *_: 0.01\n"
TEXTS = [
    ANSWER,
    SEARCH,
    "",
    "\ud800 half",
    "\x00",
    "<answer>",
    "<think>" * 9000,
    "<tool_call>" * 9000,
    "a" * 300_000,
    "[[[[1](" * 9000,
    "<answer>" + "word [1]. " * 9000,
    "\x1b]0;owned\x07\x9b2J",
    "<answer>" + "> " * 50_000,
    "|" * 50_000,
    "</think>" * 5000 + ANSWER,
]


PARTS = [
    {"text": "a"}, [{"type": "text", "text": ANSWER}], [{"type": "thinking", "thinking": 5}],
]  # fmt: skip


def changed(rng: Random) -> bytes:
    """A completion with values replaced or missing."""
    content = completion(rng.choice(TEXTS))
    for _ in range(rng.choice([1, 1, 2, 4])):
        if content:
            change(content, rng, values=PARTS)
    return json.dumps(content).encode()


def reply(rng: Random) -> Iterator[bytes]:
    """One answer, as bytes on the wire."""
    match rng.choice(
        ["value"] * 8
        + ["bytes"] * 3
        + [
            "head",
            "head",
            "status",
            "status",
            "packed",
            "endless",
            "drip",
            "bomb",
            "deep",
            "other",
            "stream",
        ]
    ):
        case "value":
            yield http(changed(rng))
        case "bytes":
            yield http(rng.choice([cut, *BYTES])(GOOD, rng))
        case "head":
            size = rng.choice([b"-1", b"x", b"99999999999999999999", b"3", b"", b"1e3"])
            yield b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + GOOD
        case "status":
            status = rng.choice(
                [100, 204, 206, 301, 307, 400, 401, 402, 404, 413, 418, 429, 500, 503, 599]
            )
            extra = rng.choice(
                [
                    "Retry-After: 100000",
                    "Location: http://127.0.0.1:9/",
                    "X-A: b",
                    "Retry-After: -1",
                    "Set-Cookie: a=" + "b" * 5000,
                ]
            )
            body = rng.choice(
                [
                    b"",
                    b"{}",
                    b"<html>no</html>",
                    b'{"error": null}',
                    rng.randbytes(50),
                    b'{"error": {"message": ["a"]}}',
                    b'{"error": 5}',
                ]
            )
            yield http(body, f"{status} X", extra)
        case "packed":
            kind_ = rng.choice(["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"])
            data = rng.choice(
                [gzip.compress(GOOD), zlib.compress(GOOD), GOOD, gzip.compress(GOOD)[:20]]
            )
            yield http(data, "200 OK", f"Content-Encoding: {kind_}")
        case "endless":
            yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + GOOD[:10]
            for _ in range(400):  # 26 MB, more than is read of any answer
                yield b" " * 65536
        case "drip":
            yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
            # Longer than the budget of a run; `ask` and `generate` wait for it, several times.
            for _ in range(120):
                yield b" "
                time.sleep(0.1)
        case "bomb":
            packer = zlib.compressobj(9, zlib.DEFLATED, 31)
            data = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
            yield http(data, "200 OK", "Content-Encoding: gzip")
        case "deep":
            mark = rng.choice([b"[", b'{"a":'])
            yield http(mark * rng.choice([100, 5000, 200_000]))
        case "stream":
            yield http(
                b"data: " + GOOD + b"\n\ndata: [DONE]\n\n",
                "200 OK",
                "Content-Type: text/event-stream",
            )
        case _:
            yield rng.choice(
                [
                    b"",
                    rng.randbytes(4000),
                    b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 9000,
                    b"HTTP/9.9 abc\r\n\r\n",
                    b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
                ]
            )


@kind("malformed answer", short=4, long=500)
def malformed(lab: Lab, rng: Random) -> Outcome:
    first, seed = rng.randrange(3), rng.getrandbits(60)
    what = rng.choice(["research", "research", "ask", "generate", "batch"])

    def use(answer: Callable[[int], Iterable[bytes]]) -> Outcome:
        number = [0]

        def replied(body: dict[str, Any]) -> Iterable[bytes]:
            if "messages" in body:
                number[0] += 1
                if number[0] <= first:
                    return [http(json.dumps(completion(SEARCH)).encode())]
            return answer(number[0])

        folder, notes = lab.folder(), kills.notes(lab)
        questions = chat.write_rows(folder / "q.jsonl", [{"question": "What?"}])
        limits = ["--max-seconds", "5", "--max-calls", "4"]
        with lab.endpoint(replied) as model:
            command: list[object] = {
                "research": ["research", notes, "What?", "--output", folder / "run", *limits],
                "ask": ["ask", notes, "What is amber?"],
                "generate": ["generate", model.model, "-p", "hello"],
                "batch": ["research", "batch", notes, questions, "--output", folder / "b", *limits],
            }[what]
            if what != "generate":
                command += ["--model", model.model]
            outcome = lab.judged(lab.run(*command, prelude=NOW, seconds=60))
        if (problem := lab.problem(folder=folder)) is not None:
            return Outcome("lost", problem)
        return outcome._replace(detail=f"{what}: {outcome.detail}")

    lab.sound(f"{what} after {first}", lambda: use(lambda _: [http(GOOD)]))
    return use(lambda number: reply(Random(seed + number % 5)))
