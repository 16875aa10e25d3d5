"""Finds what is not the text of a web page: menus, banners, footers, lists of other articles.

Own code, because extractors look for one article and leave out what stands beside it: leads,
abstracts, boxes, warnings, small tables (`dev/LOG.md` has the figures).
"""

import re
from typing import Any, NamedTuple

_ROLES = frozenset(
    {"navigation", "banner", "contentinfo", "search", "menu", "menubar", "toolbar", "dialog"}
    | {"alertdialog", "tablist"}
)
# Words of class names and ids. The first are never text; the others are where most of it is links,
# or where they stand beside the main part without a sentence in them.
_NEVER = re.compile(
    r"\w*nav|nav(?:i|igation|bar|header|footer|list|links|panel|table)|[gls]nb|breadcrumbs?|crumbs?"
    r"|cookies?|consent|gdpr|shar(?:e|ing)|sns|social|pagination|pager|skip|newsletter|subscribe"
    r"|signup|login|advert\w*|ads?|adsbygoogle|sponsored|masthead|sphinxsidebar|toplang|bottomlang"
    r"|searchbox|nosearch|noprint|popup|modal|copyright|headerlink"
)
_BESIDE = re.compile(
    r"\w*menu|menus|sidebar\w*|aside|side|\w*header|hd|ft|\w*footer|foot|bottom|topbar|related\w*"
    r"|recommend\w*|popular|best|most|more|widgets?|banners?|promo|toc|tocframe|location|path|up"
    r"|tags?|toolbar|languages?|lang|links|comments?|search\w*"
)
_FOOTER = re.compile(r"\w*footer|foot|ft")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_MAIN_SHARE = 0.6  # of the page's text without links, which its main part has at least
_LINKED = 0.5  # share of text in links from which a block is a list of links
_SENTENCE = re.compile(
    r"\w[\w ,]{24}.*[.!?:;。…]|(?:\w[\w ,]{8}.*)(?:다\.|요\.|[。！？])", re.DOTALL
)
_ENDS = (".", "。", "!", "?", "다", "요")
_RIGHTS = re.compile(r"©|copyright|all rights reserved|무단 ?전재|版权所有", re.IGNORECASE)


class _Size(NamedTuple):
    """Characters of an element's text, those of them in links, and the headings in it."""

    text: int
    linked: int
    titles: int


def boilerplate(body: Any, skipped: frozenset[str]) -> set[Any]:
    """Elements that are not text of the page; those whose tags are in `skipped` count as empty."""
    dropped: set[Any] = set()
    sizes = _sizes(body, skipped, dropped)
    if body not in sizes:
        return dropped
    for element, size in sizes.items():
        # A page of few words may consist mostly of such parts, but for its heading.
        is_part = size.text * 2 < sizes[body].text or size.titles < sizes[body].titles
        if element is not body and is_part and (_never(element, size) or _is_foot(element, size)):
            dropped.add(element)
    sizes = _sizes(body, skipped, dropped)
    main = _main(body, sizes)
    holders = {main, *main.iterancestors()}
    for holder in holders - {main}:
        below = False
        for element in holder:
            below = below or element in holders
            is_apart = element in sizes and element not in holders
            if is_apart and _beside(element, sizes[element], below):
                dropped.add(element)
    is_above = next(main.iter("h1"), None) is not None  # links over the heading are a menu
    for element in main.iterdescendants():
        is_above = is_above and element.tag != "h1"
        if element not in sizes or sizes[element].linked < _LINKED * sizes[element].text:
            continue
        size = sizes[element]
        is_small = not size.titles and size.text * 2 < sizes[main].text
        is_menu = is_above and is_small and len(element.findall(".//a")) > 2
        named = element.tag != "table" and _named(element, _BESIDE)
        if is_menu or (named and not _is_entry(element)):
            dropped.add(element)
    return dropped


def _sizes(body: Any, skipped: frozenset[str], dropped: set[Any]) -> dict[Any, _Size]:
    """Sizes of the elements that have any text, in the order of the page."""
    found: dict[Any, _Size] = {}

    def visit(element: Any, in_link: bool) -> tuple[int, int, int]:
        text = len((element.text or "").strip())
        if element.tag == "a":  # addresses of people are no ways to other pages
            in_link = in_link or not element.get("href", "mailto:").startswith("mailto:")
        linked, titles = text * in_link, int(element.tag in ("h1", "h2"))
        found[element] = _Size(0, 0, 0)  # keeps the order
        for child in element:
            if child not in dropped and child.tag not in skipped:
                size = visit(child, in_link)
                text, linked, titles = text + size[0], linked + size[1], titles + size[2]
            tail = len((child.tail or "").strip())
            text, linked = text + tail, linked + tail * in_link
        if text:
            found[element] = _Size(text, linked, titles)
        else:
            del found[element]
        return text, linked, titles

    visit(body, False)
    return found


def _named(element: Any, words: re.Pattern[str]) -> bool:
    """Whether the class or id says so; an id that repeats a heading names a section."""
    names = element.get("class") or ""
    if (own := element.get("id")) and element.tag not in _HEADINGS:
        heading = next(element.iter(*_HEADINGS), None)
        title = "".join(heading.itertext()).lower() if heading is not None else ""
        if not all(word.lower() in title for word in _WORD.findall(own)):
            names += f" {own}"
    return any(words.fullmatch(word.lower()) for word in _WORD.findall(names))


def _never(element: Any, size: _Size) -> bool:
    if element.tag == "button" and (
        element.getparent().tag in _HEADINGS
        # What opens an answer is a question, what opens a menu one or two words.
        or (element.get("aria-expanded") and "".join(element.itertext()).count(" ") > 1)
    ):
        return False
    if element.tag in ("nav", "button", "select", "dialog") or element.get("role") in _ROLES:
        return True
    if element.tag in (*_HEADINGS, "main", "article") or not _named(element, _NEVER):
        return False
    return size.linked >= _LINKED * size.text or size.text < 300


def _is_foot(element: Any, size: _Size) -> bool:
    """Whether it says at the end whose the page is, and perhaps what made it."""
    if size.titles or size.text > 2000 or element.tag not in ("footer", "div", "section", "table"):
        return False
    if element.tag == "footer":
        return True
    text = " ".join("".join(element.itertext()).split())
    last = "boolean(following::h1 | following::h2 | following::h3)"
    return _RIGHTS.match(text) is not None and not element.xpath(last)


def _is_entry(element: Any) -> bool:
    """Whether it is one of several of its kind: an entry of a reference, not a part beside."""
    name, parent = element.get("class"), element.getparent()
    return name is not None and sum(other.get("class") == name for other in parent) > 2


def _main(body: Any, sizes: dict[Any, _Size]) -> Any:
    """The smallest element with most of the text that is not in links."""

    def prose(element: Any) -> int:
        size = sizes.get(element)
        return size.text - size.linked if size else 0

    least = _MAIN_SHARE * prose(body)
    mains = [e for e in body.iter() if e.tag == "main" or e.get("role") == "main"]
    main = max(mains, key=prose, default=body)
    if prose(main) < least / 2:
        main = body
    while main not in mains:
        inner = next((e for e in main if prose(e) > least), None)
        if inner is None or inner.tag in ("p", "pre"):
            break
        main = inner
    return main


def _beside(element: Any, size: _Size, below: bool) -> bool:
    """Whether something beside the main part, or below it, is no text of the page, either."""
    if element.tag in _HEADINGS or (size.titles and element.tag != "footer"):
        return False
    if next(element.iter("pre"), None) is not None:
        return False
    text = " ".join("".join(element.itertext()).split())[:2000]
    is_line = element.tag == "p" and size.text - size.linked > 8 and text.endswith(_ENDS)
    if size.linked >= _LINKED * size.text and not is_line:  # one may say where to read more
        return True
    has_rights = below and size.text < 300 and _RIGHTS.search(text)
    if has_rights or element.tag == "footer" or _named(element, _FOOTER):
        return True
    if element.tag == "form" and next(element.iter("output"), None) is not None:
        return False  # it was filled in
    named = element.tag in ("header", "form") or _named(element, _BESIDE)
    return named and not has_sentence(text)


def has_sentence(text: str) -> bool:
    """Whether there is more in it than names of things."""
    return _SENTENCE.search(text) is not None
