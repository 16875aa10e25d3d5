"""Reads HTML and XML."""

import html
import re
from contextlib import suppress
from functools import partial
from typing import Any

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._charset import clean, decode
from hanol.retrieval.documents._deadline import TooLateError, within

_ARTICLE_BYTES = 1_000_000  # larger pages are read whole, without looking for the article
_ARTICLE_SECONDS = 10.0  # an ordinary page takes 0.02; lists nested in lists take minutes
_ARTICLE_SHARE = 0.1  # of the page's text; if the article is shorter, the page is read whole
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w.:-]{2,40})""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}encoding\s*=\s*["']([\w.:-]{2,40})""")
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]{0,500}>")
_NO_TEXT = ("script", "style", "noscript", "template", "svg", "head")
_TAG = re.compile(r"(<[^<>]*>)")
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption"}
    | {"figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li"}
    | {"main", "nav", "ol", "option", "p", "pre", "section", "table", "tr", "ul"}
)


def read_html(data: bytes, declared: str | None = None, *, links: bool = False) -> tuple[str, str]:
    """Title and text of a web page: its article, with links as Markdown, or else all of it."""
    lxml = require("lxml.html", extra="documents", feature="Reading HTML")
    found = _CHARSET.search(data[:4096]) or _XML_ENCODING.match(data)
    text = decode(data, declared or (found.group(1).decode() if found else None))
    # as UTF-8 again: lxml refuses text whose own declaration names an encoding
    encoded = clean(text).encode()
    if not encoded.strip():
        return "", ""
    parser = lxml.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    tree = lxml.document_fromstring(encoded, parser=parser)
    title = " ".join((tree.findtext(".//title") or "").split())
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        return title, _without_tags(text)  # lxml drops all that comes after 256 nested elements
    whole, article = _all_text(tree), ""
    if len(encoded) <= _ARTICLE_BYTES:
        trafilatura = require("trafilatura", extra="documents", feature="Reading HTML")
        form = {"output_format": "markdown", "include_links": True} if links else {}
        find = partial(trafilatura.extract, tree, favor_recall=True, **form)
        with suppress(TooLateError):
            article = within(_ARTICLE_SECONDS, find) or ""
    return title, article if len(article) > _ARTICLE_SHARE * len(whole) else whole


def read_xml(data: bytes) -> tuple[str, str]:
    """Attributes and text of an XML file's elements, one line each; the title is empty."""
    etree = require("lxml.etree", extra="documents", feature="Reading XML")
    found = _XML_ENCODING.match(data)
    text = clean(decode(data, found.group(1).decode() if found else None))
    if "<!ENTITY" in text:
        raise DocumentError(
            "declares XML entities, which can make a small file endless: remove its <!DOCTYPE> part"
        )
    text = _XML_DECLARATION.sub("", text)  # it names an encoding that is no longer true
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True
    )
    tree = etree.fromstring(text.encode(), parser)
    lines = []
    for _, element in etree.iterwalk(tree, events=("start",)):
        names = ((name.rpartition("}")[2], value) for name, value in element.attrib.items())
        parts = [*(f"{name}: {value}" for name, value in names), element.text or ""]
        lines.append(" ".join(" ".join(parts).split()))
        lines.append(" ".join((element.tail or "").split()))
    return "", "\n".join(line for line in lines if line)


def _all_text(tree: Any) -> str:
    """All visible text of a page, one line per block."""
    etree = require("lxml.etree", extra="documents", feature="Reading HTML")
    walk = etree.iterwalk(tree, events=("start", "end"))
    parts = []
    for event, element in walk:
        edge = "\n" if element.tag in _BLOCKS else ""
        if event == "end":
            parts += [edge or (" | " if element.tag in ("td", "th") else ""), element.tail or ""]
        elif element.tag in _NO_TEXT:
            walk.skip_subtree()
        else:
            parts += [edge, element.text or ""]
    lines = (" ".join(line.split()) for line in "".join(parts).splitlines())
    return "\n".join(line for line in lines if line)


def _without_tags(text: str) -> str:
    """The text between tags, one line each, for pages nested too deeply for a tree."""
    lines, hidden = [], False
    for piece in _TAG.split(text):
        if piece.startswith("<"):
            name = piece[1:20].lower()
            hidden = name.startswith(("script", "style")) or (hidden and not name.startswith("/"))
        elif not hidden and (line := " ".join(html.unescape(piece).split())):
            lines.append(line)
    return "\n".join(lines)
