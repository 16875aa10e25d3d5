"""Addresses of documents: "doc://<8 hex>/<relative path>#p<page>"."""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from hanol.errors import AddressError

_IN_TEXT = re.compile(r"(?:https?|doc)://[^\s<>\"')\]]+")
_ADDRESS = re.compile(r"doc://([0-9a-f]{8})/(.+?)(?:#p(\d+))?", re.DOTALL)


class Address(NamedTuple):
    """The parts of an address."""

    hash: str
    document: str
    page: int | None


def format_address(document: str, sha256: str, page: int | None) -> str:
    """The address of a document or one of its pages, with a percent-encoded path."""
    place = "" if page is None else f"#p{page}"
    return f"doc://{sha256[:8]}/{quote(document, safe='/')}{place}"


def find_addresses(text: str) -> list[str]:
    """The addresses of documents and web pages in a text."""
    return _IN_TEXT.findall(text)


def parse_address(address: str) -> Address:
    """Parse an address; its path need not be percent-encoded.

    Raises:
        AddressError: The text is not the address of a document.
    """
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise AddressError(
            f"{address!r} is not the address of a document. Addresses come from a search and look "
            'like "doc://0a1b2c3d/folder/report.pdf#p3".'
        )
    return Address(match[1], unquote(match[2]), int(match[3]) if match[3] else None)
