"""Web access of tools: search, a fetcher, and pages as passages. Off by default."""

import asyncio
import hashlib
import ipaddress
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urldefrag

import httpx

from hanol.errors import AddressError, ToolError
from hanol.retrieval import Passage, document_passages, parse_document
from hanol.runs import in_thread
from hanol.tools._tool import ToolContext
from hanol.tools.web._fetch import SUFFIXES, Fetched, Fetcher, check_url, is_public
from hanol.tools.web._providers import SearchProvider, WebResult

RATE = 2.0  # searches per second
_TRIES = 3


@dataclass
class Opened:
    """A document or web page that was opened; its passages are not yet numbered."""

    address: str
    title: str
    passages: list[Passage]
    links: Mapping[str, str] = field(default_factory=dict)  # addresses with their texts
    notes: list[str] = field(default_factory=list)  # on what could not be read
    order: list[int] = field(default_factory=list)  # passages that bear on a goal, best first
    extract: tuple[list[Passage], str] | None = None  # a model's evidence and summary for a goal


class Web:
    """Search providers in the order they are tried, at most `rate` a second; a fetcher of pages."""

    def __init__(
        self,
        providers: Sequence[SearchProvider],
        fetcher: Fetcher | None = None,
        *,
        rate: float = RATE,
    ) -> None:
        if not providers:
            raise ToolError("Web search needs a provider.")
        if not 0 < rate < math.inf:
            raise ToolError(f"The search rate is {rate}, but must be above 0 (per second).")
        self._providers, self._rate = tuple(providers), rate
        self._fetcher = fetcher or Fetcher()
        self._next = 0.0
        self._cache: dict[tuple[str, bool], list[WebResult]] = {}

    async def search(self, query: str, *, scholar: bool = False) -> list[WebResult]:
        """Hits of the first provider that answers; private and malformed addresses are dropped."""
        key = (query, scholar)
        if key not in self._cache:
            hits = await self._ask(query, scholar)
            self._cache[key] = [hit for hit in hits if _fetchable(hit.url)]
        return self._cache[key]

    async def _ask(self, query: str, scholar: bool) -> list[WebResult]:
        reasons: list[str] = []
        for provider in self._providers:
            reason = ""
            for attempt in range(_TRIES):
                await self._wait()
                try:
                    return await provider.search(query, scholar=scholar)
                except ToolError as err:  # it would refuse again
                    reason = str(err)
                    break
                except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as err:
                    told = str(err) or type(err).__name__
                    reason = f"{type(provider).__name__} did not answer: {told}."
                    await asyncio.sleep(0.2 * 2**attempt)
            reasons.append(reason)
        raise ToolError(" ".join(reasons))

    async def _wait(self) -> None:
        """Let `rate` callers pass per second, in order, with bursts of one second's worth."""
        now = time.monotonic()
        self._next = max(self._next, now - max(0.0, self._rate - 1) / self._rate)
        wait = self._next - now
        self._next += 1 / self._rate
        if wait > 0:
            await asyncio.sleep(wait)

    async def open(self, url: str, context: ToolContext) -> Opened:
        """Fetch and read a page, if its address is one of those that the run knows."""
        if _plain(url) not in map(_plain, context.addresses):
            raise AddressError(
                "it was neither named by the user, nor returned by a search, nor linked from a "
                "visited page. Search for the page instead."
            )
        fetched = await self._fetcher.fetch(url)
        return await in_thread(read_page, fetched, context.seconds_left())


def _fetchable(url: str) -> bool:
    try:
        host = check_url(url).raw_host.decode("ascii").strip("[].").lower()
        return is_public(ipaddress.ip_address(host))
    except AddressError:
        return False
    except ValueError:  # a name, which is resolved when it is fetched
        return host != "localhost" and not host.endswith(".localhost")


def _plain(url: str) -> str:
    return urldefrag(url).url.rstrip("/")


def read_page(fetched: Fetched, seconds: float) -> Opened:
    """The text of a fetched page and its links; slow, for a thread."""
    document = parse_document(
        f"page{SUFFIXES[fetched.media_type]}",
        fetched.content,
        passages=True,
        address=fetched.url,
        seconds=seconds,
    )
    if document.title == "page":
        document = replace(document, title=fetched.url)
    sha256 = hashlib.sha256(fetched.content).hexdigest()
    passages = document_passages(document, fetched.url, sha256, fetched.url)
    return Opened(fetched.url, document.title, passages, dict(document.links))
