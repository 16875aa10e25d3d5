"""The HTTP client of everything that asks a server: no answer goes on for ever.

httpx bounds the time of each read, so that a drip has no end, and unpacks whatever comes.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

__all__ = ["BoundedClient"]


class BoundedClient(httpx.AsyncClient):
    """A client whose answers are bounded: in bytes, and in time by the read timeout of a request.

    A body that is streamed is bounded in bytes alone: who reads it has to mind the time.

    Attributes:
        most_bytes: Bytes of a body after decompression, at most.

    Raises:
        httpx.RequestError: In place of an answer that is longer, takes longer, or is compressed in
            another way than by gzip or deflate.
    """

    most_bytes = 10_000_000

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Before other hooks, which may read the body.
        self.event_hooks = {"response": [self._bound, *self.event_hooks["response"]]}
        self.headers["Accept-Encoding"] = "gzip, deflate"

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request, as `httpx.AsyncClient.send` does."""
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx.ReadTimeout(f"it took over {seconds:g} s", request=request) from None

    async def _bound(self, response: httpx.Response) -> None:
        encoding = response.headers.pop("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise httpx.DecodingError(f"it is compressed by {encoding!r}, which was not asked for")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, encoding != "identity", self.most_bytes)


class _Body(httpx.AsyncByteStream):
    """A body, unpacked, and no more of it than is read."""

    def __init__(self, stream: httpx.AsyncByteStream, is_packed: bool, most: int) -> None:
        self._stream, self._is_packed, self._most = stream, is_packed, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        inflate = zlib.decompressobj(wbits=47) if self._is_packed else None  # gzip or zlib
        left, is_empty = self._most, True
        try:
            async for part in self._stream:
                is_empty = False
                # At most one byte too many, whatever the compressed size promises.
                data = inflate.decompress(part, left + 1) if inflate else part
                left -= len(data)
                if left < 0:
                    raise httpx.ReadError(f"it is larger than {self._most:,} bytes")
                yield data
        except zlib.error as err:
            raise httpx.DecodingError(f"it is badly compressed: {err}") from err
        if not (inflate is None or inflate.eof or is_empty):
            raise httpx.DecodingError("it ends in the middle of its compressed data")

    async def aclose(self) -> None:
        await self._stream.aclose()
