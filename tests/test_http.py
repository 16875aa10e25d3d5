"""Answers without end: of bytes, of compressed bytes, of time."""

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from hanol.http import BoundedClient

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
Serve = Callable[[asyncio.StreamWriter], object]


@asynccontextmanager
async def serving(answer: bytes, endless: bytes = b"", pause: float = 0.0) -> AsyncIterator[str]:
    """A server that sends something, and then something else for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
                await asyncio.sleep(pause)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def get(
    answer: bytes,
    endless: bytes = b"",
    pause: float = 0.0,
    most: int = 10_000_000,
    **options: float,
) -> bytes:
    async def ask() -> bytes:
        async with (
            serving(answer, endless, pause) as address,
            BoundedClient(trust_env=False, **options) as client,
        ):
            client.most_bytes = most
            return (await client.get(address)).content

    return asyncio.run(ask())


def packed(body: bytes, encoding: str = "gzip") -> bytes:
    data = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    return HEAD + f"Content-Encoding: {encoding}\r\n\r\n".encode() + data


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_is_unpacked_up_to_its_limit(encoding: str) -> None:
    assert get(packed(b"ab" * 500, encoding), most=1000) == b"ab" * 500
    with pytest.raises(httpx.ReadError, match="larger than 999 bytes"):
        get(packed(b"ab" * 500, encoding), most=999)
    assert get(HEAD + b"\r\nplain") == b"plain"
    assert get(HEAD + f"Content-Encoding: {encoding}\r\n\r\n".encode()) == b""


@pytest.mark.parametrize(
    ("answer", "endless", "why"),
    [
        (HEAD + b"\r\n", b"x" * 65536, "larger than 10,000,000 bytes"),
        (packed(b"\0" * 100_000_000), b"", "larger than 10,000,000 bytes"),
        (HEAD + b"Content-Encoding: br\r\n\r\nabc", b"", "compressed by 'br'"),
        (HEAD + b"Content-Encoding: gzip, gzip\r\n\r\nabc", b"", "compressed by"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\nabc", b"", "badly compressed"),
        (packed(b"abc" * 99)[:-9], b"", "in the middle of its compressed data"),
    ],
    ids=["endless", "bomb", "brotli", "twice", "no gzip", "cut"],
)
def test_other_bodies_are_errors(answer: bytes, endless: bytes, why: str) -> None:
    with pytest.raises(httpx.RequestError, match=why):
        get(answer, endless)


@pytest.mark.parametrize("answer", [HEAD + b"\r\n", HEAD[:-2]], ids=["body", "head"])
def test_a_drip_ends_with_the_time_of_a_whole_answer(answer: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(httpx.ReadTimeout, match=r"took over 0\.5 s"):
        get(answer, b" ", 0.05, timeout=0.5)
    assert time.monotonic() - start < 5
