"""Web access of tools: search, a fetcher, and pages as passages. Off by default."""

import asyncio
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urldefrag

from hanol.errors import AddressError, require
from hanol.retrieval import Passage, document_passages, find_addresses, parse_document
from hanol.tools.web._fetch import SUFFIXES, Fetched, Fetcher
from hanol.tools.web._providers import WebSearch

_LINKS = 200  # of one page


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


@dataclass(frozen=True)
class Web:
    """The search and the fetcher that tools use."""

    search: WebSearch
    fetcher: Fetcher = field(default_factory=Fetcher)

    async def open(self, url: str, addresses: Collection[str]) -> Opened:
        """Fetch and read a page, if its address is one of those that the run knows.

        Raises:
            AddressError: It stands in none of the places that addresses may come from, or cannot
                be fetched.
            DocumentError: It holds no readable text.
        """
        if _plain(url) not in map(_plain, addresses):
            raise AddressError(
                "it was neither named by the user, nor returned by a search, nor linked from a "
                "visited page. Search for the page instead."
            )
        return await asyncio.to_thread(read_page, await self.fetcher.fetch(url))


def _plain(url: str) -> str:
    return urldefrag(url).url.rstrip("/")


def read_page(fetched: Fetched) -> Opened:
    """The text of a fetched page and its links; slow, for a thread."""
    suffix = SUFFIXES[fetched.media_type]
    document = parse_document(f"page{suffix}", fetched.content)
    if document.title == "page":
        document = replace(document, title=fetched.url)
    sha256 = hashlib.sha256(fetched.content).hexdigest()
    passages = document_passages(document, fetched.url, sha256, fetched.url)
    links = _links(fetched) if suffix == ".html" else {}
    return Opened(fetched.url, document.title, passages, links)


def addresses_in(text: str) -> tuple[str, ...]:
    """Web addresses that a text names: a user's question, a document."""
    found = (address.rstrip(".,;:!?") for address in find_addresses(text))
    return tuple(dict.fromkeys(address for address in found if address.startswith("http")))


def _links(fetched: Fetched) -> dict[str, str]:
    """Addresses that a page links, each with the text of its first link."""
    html = require("lxml.html", extra="documents", feature="Reading web pages")
    etree = require("lxml.etree", extra="documents", feature="Reading web pages")
    try:
        tree = html.document_fromstring(
            fetched.content, parser=html.HTMLParser(encoding=fetched.charset)
        )
    except (etree.LxmlError, ValueError, LookupError):
        return {}
    tree.make_links_absolute(fetched.url, handle_failures="discard")
    found: dict[str, str] = {}
    for anchor in tree.iter("a"):
        address = urldefrag(anchor.get("href", "").strip()).url
        if address.startswith(("http://", "https://")) and len(found) < _LINKS:
            found.setdefault(address, " ".join(anchor.text_content().split())[:80])
    found.pop(urldefrag(fetched.url).url, None)
    return found
