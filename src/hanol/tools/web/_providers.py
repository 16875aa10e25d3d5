"""Web search, only through a provider that the user names, and what may be sent to it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from hanol.errors import AddressError, ToolError
from hanol.http import BoundedClient
from hanol.retrieval import SourceList

_QUERY_CHARACTERS = 256
_WORD_CHARACTERS = 48
_SPAN_WORDS, _SPAN_CHARACTERS = 8, 24
_HITS, _FIELD = 100, 4000  # characters; of what a provider answers
# Words; each Han or Kana character on its own, as no spaces part them.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True)
class WebResult:
    """One hit of a web search."""

    title: str
    url: str
    snippet: str
    date: str = ""
    source: str = ""


class SearchProvider(Protocol):
    """A service that searches the web."""

    async def search(self, query: str, *, scholar: bool = False) -> list[WebResult]:
        """Hits, best first; of scholarly publications where `scholar` is set.

        Raises:
            httpx.HTTPError: The service did not answer; worth another try.
            ToolError: The provider rejects all searches: the key is wrong.
        """
        ...


class Searxng:
    """A SearXNG instance with its JSON format enabled.

    Args:
        address: Address of the instance, such as "http://127.0.0.1:8888". The user names it, so it
            may be local.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    async def search(self, query: str, *, scholar: bool = False) -> list[WebResult]:
        """See `SearchProvider.search`."""
        params = {"q": query, "format": "json", "categories": "science" if scholar else "general"}
        found = await _json("GET", f"{self.address}/search", params=params)
        names = ("title", "url", "content", "publishedDate", "journal engine")
        return _results(found, "results", names)


class Serper:
    """The Serper service, whose results the released checkpoints were trained on.

    Args:
        key: API key of the account.
        address: Address of the service.
    """

    def __init__(self, key: str, address: str = "https://google.serper.dev") -> None:
        self._key = key
        self.address = address.rstrip("/")

    async def search(self, query: str, *, scholar: bool = False) -> list[WebResult]:
        """See `SearchProvider.search`."""
        address = f"{self.address}/{'scholar' if scholar else 'search'}"
        found = await _json("POST", address, json={"q": query}, headers={"X-API-KEY": self._key})
        names = ("title", "link", "snippet", "date year", "publicationInfo source")
        return _results(found, "organic", names)


def open_provider(spec: str) -> SearchProvider:
    """Make the search provider that a specification names.

    Args:
        spec: The address of a SearXNG instance, or "serper" with the key in SERPER_KEY_ID, the
            variable that the official code reads.

    Raises:
        ToolError: Neither of them, or no key.
    """
    if spec.startswith(("http://", "https://")):
        return Searxng(spec)
    if spec == "serper" and (key := os.environ.get("SERPER_KEY_ID")):
        return Serper(key)
    raise ToolError(
        f"The web cannot be searched by {spec!r}: give the address of a SearXNG instance "
        "(http://...), or `serper` with its key in the environment variable SERPER_KEY_ID."
    )


async def _json(method: str, url: str, **options: Any) -> Any:
    async with BoundedClient(trust_env=False, timeout=20.0) as client:
        response = await client.request(method, url, **options)
    if response.status_code in (401, 403):
        raise ToolError(
            f"{httpx.URL(url).host} refused the search with status {response.status_code}: check "
            "the key, or enable the JSON format of SearXNG (`search.formats` in its settings)."
        )
    response.raise_for_status()
    try:
        return response.json()
    except (ValueError, RecursionError) as err:
        raise ToolError(f"{httpx.URL(url).host} did not answer in JSON.") from err


def _results(found: Any, key: str, names: Sequence[str]) -> list[WebResult]:
    """The hits of an answer; each field has the first of its names that the hit has."""
    hits = found.get(key) if isinstance(found, dict) else None

    def text(hit: dict[str, Any], name: str) -> str:
        value = next(filter(None, map(hit.get, name.split())), "")
        shown = str(value)[:_FIELD] if isinstance(value, str | int | float) else ""
        return " ".join(shown.split())

    return [
        WebResult(*(text(hit, name) for name in names))
        for hit in (hits[:_HITS] if isinstance(hits, list) else ())
        if isinstance(hit, dict)
    ]


def check_query(query: str, source_list: SourceList) -> None:
    """Reject a web query that could carry private text away by copying, not by paraphrase."""
    if len(query) > _QUERY_CHARACTERS:
        raise AddressError(
            f"A web query may have {_QUERY_CHARACTERS} characters, not {len(query)}: shorten it."
        )
    if any(len(word) > _WORD_CHARACTERS for word in query.split()):
        raise AddressError(
            f"A web query may not contain words of over {_WORD_CHARACTERS} characters: use words."
        )
    words = _words(query)
    private = [
        f" {' '.join(_words(source.text))} "
        for source in source_list.values()
        if source.address.startswith("doc://")
    ]
    for start in range(len(words)):
        for end in range(start + _SPAN_WORDS, len(words) + 1):
            if sum(map(len, words[start:end])) >= _SPAN_CHARACTERS:
                span = f" {' '.join(words[start:end])} "
                if any(span in text for text in private):
                    raise AddressError(
                        "The query repeats a passage of the private documents word for word; ask "
                        "the web in your own, general words."
                    )
                break


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
