"""Web access of tools: search, a fetcher, and pages as passages. Off by default."""

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import urldefrag, urljoin

from hanol.errors import ToolError, require
from hanol.retrieval import Index, Passage, parse_document, split_passages
from hanol.tools.web._fetch import Fetched, Fetcher
from hanol.tools.web._providers import WebSearch

_LINKS = 200  # of one page
_URL = re.compile(r"https?://[^\s<>\"'()\[\]{}\\^`|]{1,500}")
_SUFFIXES = {
    "application/pdf": ".pdf",
    "application/json": ".json",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}


@dataclass(frozen=True)
class WebPolicy:
    """Whether the web may be used together with private documents.

    Args:
        consent: The user agrees that queries, which the model words after reading the documents,
            go to a search provider.
    """

    consent: bool = False

    def check(self, index: Index | None) -> None:
        """Check that private documents and the web are used together only with consent.

        Raises:
            ToolError: There are documents, and no consent.
        """
        if index is not None and not self.consent:
            raise ToolError(
                "With the web on, words of your documents may reach the search provider inside "
                "queries. Agree with `WebPolicy(consent=True)` (`--web-consent`), or leave the web "
                "off."
            )


@dataclass(frozen=True)
class Web:
    """The search and the fetcher that tools use."""

    search: WebSearch
    fetcher: Fetcher = field(default_factory=Fetcher)


@dataclass(frozen=True)
class WebPage:
    """A fetched page as passages, with the addresses that it links."""

    url: str
    title: str
    passages: list[Passage]
    links: dict[str, str]


def read_page(fetched: Fetched) -> WebPage:
    """The text of a fetched page; slow, for a thread.

    Raises:
        DocumentError: It holds no readable text.
    """
    suffix = _SUFFIXES.get(fetched.media_type, ".html")
    document = parse_document(f"page{suffix}", fetched.content)
    title = document.title if document.title != "page" else fetched.url
    passages = [
        Passage(
            id=0,
            address=fetched.url,
            document=fetched.url,
            page=page.number,
            title=title,
            text=page.text[start:end],
            start=start,
            end=end,
            sha256=hashlib.sha256(page.text.encode()).hexdigest(),
        )
        for page in document.pages
        for start, end in split_passages(page.text)
    ]
    links = _links(fetched) if suffix == ".html" else {}
    return WebPage(fetched.url, title, passages, links)


def addresses_in(text: str) -> tuple[str, ...]:
    """Web addresses that a text names: a user's question, a document."""
    return tuple(dict.fromkeys(found.rstrip(".,;:!?") for found in _URL.findall(text)))


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
    found: dict[str, str] = {}
    for anchor in tree.iter("a"):
        try:
            address = urldefrag(urljoin(fetched.url, anchor.get("href", "").strip())).url
        except ValueError:
            continue
        if address.startswith(("http://", "https://")) and len(found) < _LINKS:
            found.setdefault(address, " ".join(anchor.text_content().split())[:80])
    found.pop(urldefrag(fetched.url).url, None)
    return found
