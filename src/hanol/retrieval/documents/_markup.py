"""Reads HTML and XML."""

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urldefrag

from hanol.errors import DocumentError, require
from hanol.retrieval.documents._boilerplate import boilerplate, has_sentence
from hanol.retrieval.documents._charset import clean, decode
from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents._reader import step
from hanol.retrieval.documents._remarks import remark
from hanol.retrieval.documents.tables._cells import Cell, Row
from hanol.retrieval.documents.tables._lines import table_text

# Options of lxml: nothing of other files, and no comments.
ONLY_THIS_FILE: dict[str, Any] = dict.fromkeys(
    ("no_network", "remove_comments", "remove_pis"), True
)
ONLY_THIS_FILE["resolve_entities"] = False
_ARTICLE_SHARE = 0.1  # of the page's text; if less is left, and no sentence, it was no boilerplate
_LINKS = 200  # of one page
_CELL_CHARS = 500  # of a cell that is written on one line
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w.:-]{2,40})""", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""<\?xml[^>]{0,200}encoding\s*=\s*["']([\w.:-]{2,40})""")
_PROLOG = re.compile(
    r"(?>\s+|<\?.*?\?>|<!--.*?-->)*+"
    r"(?><!DOCTYPE[^\[<>]*+(?:\[(?P<subset>.*?)\]\s*)?>)?", re.DOTALL
)  # fmt: skip
_ENTITY = re.compile(r"""<!ENTITY\s+([\w.:-]+)\s+(["'])(.*?)\2\s*>""", re.DOTALL)
_NESTED = re.compile(r"%|&(?!#|(?:amp|lt|gt|quot|apos);)")
_EXTERNAL = re.compile(r"<!ENTITY\s+([\w.:-]+)\s+(?:SYSTEM|PUBLIC)\b")
_XML_ENTITIES = ("amp", "lt", "gt", "quot", "apos")
_REPAIRED = re.compile(
    r"<!\[CDATA\[.*?\]\]>|<!--.*?-->"
    r"|&(?:(?P<name>#\d{1,7}|#x[0-9a-fA-F]{1,6}|[\w.:-]{1,80});)?(?P<unended>(?<=&)(?:amp|lt|gt)\b)?"
    r"|<(?![\w/!?:])", re.DOTALL
)  # fmt: skip
_NO_TEXT = frozenset({"script", "style", "noscript", "template", "svg", "head"})
_SPACES = re.compile(r"[ \t\n\f\r]+")
_TAG = re.compile(r"(<[^<>]*>)")
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption"}
    | {"figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li"}
    | {"main", "nav", "ol", "option", "p", "pre", "section", "table", "tr", "ul"}
)
# Inputs that hold no value of a reader's, or one that is not shown.
_NO_VALUE = frozenset(
    {"button", "color", "file", "hidden", "image", "password", "range", "reset", "search", "submit"}
)
_SEARCH = re.compile(r"(?<!re)search|query|keyword|\b[qs]\b", re.IGNORECASE)
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_OPENS = re.compile(r"location|submit|href", re.IGNORECASE)
_PICTURE = re.compile(r"\.(?:jpe?g|png|gif|svg|webp)$", re.IGNORECASE)
_POWER = re.compile(r"[+\-−–]?\d[\d.,/]*[+\-−–]?|[+\-−–]?\d*[b-df-np-z]([+\-−–]\d+)?")
_HEADINGS = {f"h{level}": f"{'#' * level} " for level in range(1, 7)}
# Elements that may begin or end inside of a word.
_PHRASES = frozenset(
    {"a", "abbr", "b", "bold", "code", "em", "emph", "emphasis", "font", "hi", "i", "italic", "rb"}
    | {"rt", "ruby", "small", "span", "strong", "sub", "subscript", "sup", "superscript", "tt", "u"}
)


def read_html(
    data: bytes, declared: str | None = None, *, links: bool = False, whole: bool = False
) -> tuple[str, str]:
    """Title and text of a web page, one line per block, or also of its menus and footers.

    Args:
        data: The page.
        declared: Encoding of the page, where something outside of it names one.
        links: Write links as in Markdown.
        whole: Keep what looks like boilerplate.
    """
    text, tree, parser = _parsed(data, declared)
    if tree is None:
        return "", ""
    title = " ".join((tree.findtext(".//title") or "").split())
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        return title, _without_tags(text)  # lxml drops all that comes after 256 nested elements
    _as_shown(tree)
    body = tree.find("body")
    dropped = set() if whole or body is None else boilerplate(body, _NO_TEXT)
    everything = _page_text(tree, set(), links)
    if _name_images(tree, everything):
        everything = _page_text(tree, set(), links)
    if whole or body is None:
        return title, everything
    article = _page_text(tree, dropped, links)
    enough = len(article) > _ARTICLE_SHARE * len(everything) or has_sentence(article)
    return title, article if enough else everything


def page_links(data: bytes, address: str) -> tuple[tuple[str, str], ...]:
    """Addresses that the web page at an address links, and the text of the first link to each."""
    _, tree, _ = _parsed(data, None)
    if tree is None:
        return ()
    tree.make_links_absolute(address, handle_failures="discard")
    found: dict[str, str] = {}
    for anchor in tree.iter("a"):
        to = urldefrag(anchor.get("href", "").strip()).url
        if to.startswith(("http://", "https://")) and len(found) < _LINKS:
            found.setdefault(to, " ".join(anchor.text_content().split())[:80])
    found.pop(urldefrag(address).url, None)
    return tuple(found.items())


def _parsed(data: bytes, declared: str | None) -> tuple[str, Any, Any]:
    """Text of a web page with its markup, its tree (None for a blank page), and the parser."""
    lxml = require("lxml.html", extra="documents", feature="Reading HTML")
    found = _CHARSET.search(data[:4096]) or _XML_ENCODING.match(data.lstrip())
    text = decode(data, declared or (found.group(1).decode() if found else None))
    # as UTF-8 again: lxml refuses text whose own declaration names an encoding
    encoded = clean(text).encode()
    parser = lxml.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    if not encoded.strip():
        return "", None, parser
    with step():  # a tag with many attributes takes quadratic time in libxml2
        return text, lxml.document_fromstring(encoded, parser=parser), parser


def _as_shown(tree: Any) -> None:
    """Empties what a browser hides, and writes formulas and the values of forms as text."""
    for element in list(tree.iter()):
        if _is_hidden(element):
            element.clear(keep_tail=True)
            element.tag = "template"
        elif element.tag == "math":
            text = _formula(element) or "".join(element.itertext())
            element.clear(keep_tail=True)
            element.text = text
        elif element.tag in ("input", "select", "textarea") and (value := _value(element)):
            element.clear(keep_tail=True)
            # An element for values: a form that has one is no part beside the text.
            element.tag, element.text = "span" if value in "☑☐" else "output", f" {value} "


def _is_hidden(element: Any) -> bool:
    hidden = element.get("hidden", "until-found") != "until-found"
    if not (hidden or _UNSEEN.search(element.get("style", ""))):
        return False
    # Scripts show tabs and whole pages; formulas are hidden where an image shows them.
    return element.get("role") != "tabpanel" and not any(
        inner.tag in ("body", "main", "article", "math") for inner in element.iter()
    )


def _value(control: Any) -> str:
    """What a part of a form says; nothing for buttons, searches and what was not filled in."""
    kind = (control.get("type") or "text").lower() if control.tag == "input" else ""
    if kind in ("checkbox", "radio"):
        labelled = (control.tail or "").strip() or next(
            control.iterancestors("form", "fieldset", "label", "td"), None
        ) is not None  # fmt: skip
        # Others are switches of menus and tabs.
        return "☑☐"["checked" not in control.attrib] if labelled else ""
    if kind in _NO_VALUE or "value" in control.get("onfocus", ""):  # a label that goes away
        return ""
    form = next(control.iterancestors("form"), control)
    keys = ("name", "id", "class", "role", "action")
    if any(_SEARCH.search(part.get(key, "")) for part in (control, form) for key in keys):
        return ""
    if control.tag == "select":
        if _OPENS.search(control.get("onchange", "")):
            return ""
        chosen = control.iterfind(".//option[@selected]")
        return ", ".join(" ".join("".join(option.itertext()).split()) for option in chosen)
    return (control.get("value", "") if kind else "".join(control.itertext())).strip()


def _formula(element: Any) -> str:
    """A formula of MathML on one line, as `a/b` and `a^b`."""
    if element.tag in ("annotation", "annotation-xml"):
        return ""
    found = (_formula(child) + (child.tail or "").strip() for child in element)
    parts = [part for part in found if part]
    sign = {"mfrac": "/", "msup": "^"}.get(element.tag)
    if sign and len(parts) == 2:
        return sign.join(part if re.fullmatch(r"[\w.,]+", part) else f"({part})" for part in parts)
    if element.tag == "msub" and len(parts) == 2 and parts[0][-1:].isdigit():
        return "_".join(parts)
    text = " ".join((element.text or "").split())
    return text + (" " if element.tag in ("mtable", "mtr") else "").join(parts)


def _name_images(tree: Any, text: str) -> bool:
    """Writes what images show, where their page says it and its text does not; is there any?"""
    known = {line.lstrip("# ") for line in text.split("\n")}
    before = len(known)
    for image in tree.iter("img"):
        alt = " ".join(image.get("alt", "").split())
        sides = (natural(image.get(side), 100) for side in ("width", "height"))
        decoration = image.get("role") in ("presentation", "none") or min(sides) < 33
        decoration |= "aria-hidden" in image.attrib or any(
            # links to other pages, and logos
            part.tag != "a" or not _PICTURE.search(part.get("href", ".png"))
            for part in image.iterancestors("a", "nav", "header", "footer", "button")
        )
        if " " in alt and alt not in known and not decoration:
            known.add(alt)
            image.text = f" {alt} "
    return len(known) > before


def read_xml(data: bytes) -> tuple[str, str]:
    """Text and attributes of an XML file, one line for each element; the title is empty.

    Elements inside of a sentence stay in it, and their attributes follow on a line of their own.
    Faults are repaired as web browsers do, with a remark.
    """
    etree = require("lxml.etree", extra="documents", feature="Reading XML")
    found = _XML_ENCODING.search(data[:4096])
    text = clean(decode(data, found.group(1).decode() if found else None))
    start = max(text.find("<"), 0)
    if text[:start].strip():
        remark("has text before its XML begins, which was left out", "remove that text")
    text = text[start:]
    prolog = _PROLOG.match(text)
    assert prolog is not None
    declared = _entities(prolog["subset"] or "")
    # It names an encoding that is no longer true, and entities, which would be expanded.
    body = text[prolog.end() :]
    try:
        with step():
            tree = etree.fromstring(body.encode(), etree.XMLParser(**ONLY_THIS_FILE))
    except etree.XMLSyntaxError as err:
        if "depth" in str(err):
            raise
        body = _repaired(body, declared, _EXTERNAL.findall(prolog["subset"] or ""))
        recovering = etree.XMLParser(**ONLY_THIS_FILE, recover=True, huge_tree=True)
        with step():
            tree = etree.fromstring(body.encode(), recovering)
        if not declared:
            fault = str(err).partition(" (<string>")[0][:100]
            remark("is not well-formed XML: what could be read was read", f"mend it ({fault})",
                   doubtful=True)  # fmt: skip
        lines = [] if tree is None else _xml_lines(tree, etree)
        plain = _without_tags(body)
        # Where a recovering parser gives up, it says nothing.
        if sum(map(len, lines)) < 0.98 * len(plain.replace("\n", "")):
            lines = [plain]
        return "", "\n".join(lines)
    return "", "\n".join(_xml_lines(tree, etree))


def _entities(subset: str) -> dict[str, str]:
    """Entities that a document type declares as plain text; others stand as they are."""
    declared = {name: value for name, _, value in _ENTITY.findall(subset)}
    if any(map(_NESTED.search, declared.values())):
        raise DocumentError(
            "declares XML entities that contain entities, which can make a small file endless: "
            "remove its <!DOCTYPE> part"
        )
    return declared


def _repaired(text: str, declared: dict[str, str], other: list[str]) -> str:
    """Markup with known entities replaced, and other ampersands and less-than signs escaped."""
    room = len(text) + 1_000_000  # of all replacements: a long one can be named often

    def repair(found: re.Match[str]) -> str:
        nonlocal room
        whole, name = found.group(), found["name"]
        if found["unended"]:
            return f"{whole};"
        if whole.startswith("<!") or name in _XML_ENTITIES or (name or "").startswith("#"):
            return whole
        if name in declared:
            room -= len(declared[name])
            if room < 0:
                raise DocumentError("expands without end by its XML entities: remove them")
            return html.escape(html.unescape(declared[name]), quote=True)
        if name and (known := html.unescape(whole)) != whole:
            return html.escape(known)
        if name in other:
            remark("refers to another file, which is not read", "index that file too", part=whole)
            return ""
        return html.escape(whole[0]) + whole[1:]

    return _REPAIRED.sub(repair, text)


def _xml_lines(tree: Any, etree: Any) -> list[str]:
    lines: list[str] = []
    line: list[str] = []  # of pieces
    later: list[str] = []  # attributes of elements inside of a sentence
    sentences: list[bool] = [False]  # for each open element: is text mixed with its children?

    def end_line() -> None:
        for parts in (line, *([part] for part in later)):
            if text := " ".join("".join(parts).split()):
                lines.append(text)
        line.clear()
        later.clear()

    for event, element in etree.iterwalk(tree, events=("start", "end")):
        name = element.tag.rpartition("}")[2].lower()
        inline = (sentences if event == "start" else sentences[:-1])[-1] and name not in _BLOCKS
        if not inline:
            end_line()
        elif name not in _PHRASES:
            before = next(filter(None, reversed(line)), "")[-1:]
            after = ((element.text if event == "start" else element.tail) or "")[:1]
            # What stands together is one word in scripts without spaces, and particles of Korean.
            if before in ".!?" or (before.isalnum() and after.isalnum() and after < "\u1100"):
                line.append(" ")
        if event == "end":
            sentences.pop()
            line.append(element.tail or "")
            continue
        attributes = " ".join(f"{k.rpartition('}')[2]}: {v}" for k, v in element.attrib.items())
        if inline:
            later.append(attributes)
        else:
            line.append(f"{attributes} ")
        line.append(element.text or "")
        text = (element.text or "").strip()
        tails = (child.tail for child in element if (child.tail or "").strip())
        sentences.append(bool(text) or any(not tail[0].isalnum() for tail in tails))
    end_line()
    return lines


def _page_text(tree: Any, dropped: set[Any], links: bool) -> str:
    """Visible text of a page without some elements, one line per block or row of a table."""
    etree = require("lxml.etree", extra="documents", feature="Reading HTML")
    walk = etree.iterwalk(tree, events=("start", "end"))
    parts: list[str] = []
    counts: dict[Any, int] = {}  # of the items of lists with numbers
    cell = pre = None  # the cell on one line, or the preformatted text, that the walk is in

    def written(text: str | None) -> str:
        # outside of preformatted text a line break is a space
        return (text or "").replace(" ", "\0") if pre is not None else _SPACES.sub(" ", text or "")

    for event, element in walk:
        edge = "\n" if element.tag in _BLOCKS and cell is None else " " * (element.tag in _BLOCKS)
        href = element.get("href") if links and element.tag == "a" else None
        if event == "end":
            bar = " | " if element is cell else "\n"
            if element is cell:
                cell = None
            if element is pre:
                pre = None
            if element in dropped or element.tag in _NO_TEXT:
                edge = ""
            elif href:
                parts.append(f"]({href})")
            if element is not tree:  # a cell, which has no bar behind it
                edge = edge or (bar if element.tag in ("td", "th") else "")
                parts += [edge, written(element.tail)]
        elif element in dropped or element.tag in _NO_TEXT:
            walk.skip_subtree()
        elif element.tag == "table" and cell is None and _is_data(element):
            walk.skip_subtree()
            caption = element.find("caption")
            above = "" if caption is None else _page_text(caption, dropped, links)
            parts += ["\n", above, "\n", _table(element, dropped, links).replace(" ", "\0")]
        else:
            if element.tag in ("td", "th") and cell is None and _is_short(element):
                cell = element
            if element.tag == "pre" and pre is None and cell is None:
                pre = element
            # As in Markdown: what reads sentences must not join a heading with the text below it.
            mark = _HEADINGS.get(element.tag, "") if cell is None else ""
            if element.tag == "li":
                mark = _item(element, counts)
            if element.tag in ("sup", "sub"):
                mark = _raised(element, parts)
            parts += [edge, mark, "[" if href else "", written(element.text)]
    lines = (" ".join(line.split()).removesuffix(" |") for line in "".join(parts).split("\n"))
    return "\n".join(line.replace("\0", " ").rstrip() for line in lines if line.strip("\0#"))


def _raised(element: Any, parts: list[str]) -> str:
    """What keeps a number above or below the line apart from what stands before it.

    Marks of notes are links or stand in brackets; ordinals (1st) are letters.
    """
    text = "".join(element.itertext()).strip()
    if not _POWER.fullmatch(text) or element.find(".//a") is not None:
        return ""
    if next(element.iterancestors("a"), None) is not None:
        return ""
    before = next(filter(None, reversed(parts)), "")[-1:]
    if element.tag == "sub":
        return "_" * (before.isdigit() and text[0].isdigit())
    return "^" * (before == ")" or (before.isalnum() and before < "\u1100"))


def _item(item: Any, counts: dict[Any, int]) -> str:
    """The number that a browser shows before an item of a list, if it does."""
    owner = item.getparent()
    if owner.tag != "ol" or "reversed" in owner.attrib or "none" in owner.get("style", ""):
        return ""
    first = natural(owner.get("start"), 1)
    counts[owner] = natural(item.get("value"), counts.get(owner, first - 1) + 1)
    return f"{spelled(counts[owner], owner.get('type') or '1')}. "


def natural(value: str | None, default: int = 0) -> int:
    """A number of at most nine digits; the default where there is none."""
    return int(value) if value and value.isdecimal() and len(value) < 10 else default


def _is_data(table: Any) -> bool:
    """Whether a table shows values; others lay out a page."""
    if not all(map(_is_short, table.iter("td", "th"))):
        return False
    return any(len(row.findall("td")) + len(row.findall("th")) > 1 for row in table.iter("tr"))


def _table(table: Any, dropped: set[Any], links: bool) -> str:
    heads = 0
    for line in table.iter("tr"):
        if line.getparent().tag != "thead" and (line.find("td") is not None or not len(line)):
            break
        heads += 1
    return table_text(_rows(table, dropped, links), heads=heads)


def _rows(table: Any, dropped: set[Any], links: bool) -> Iterator[Row]:
    below: dict[int, tuple[int, int, str]] = {}  # by column: rows that a cell still reaches down
    for line in table.iter("tr"):
        row: list[str | None] = []
        for cell in [*line.iterchildren("td", "th"), None]:
            while (left := below.pop(len(row), None)) is not None:
                height, width, text = left
                if height > 1:
                    below[len(row)] = (height - 1, width, text)
                row += [Cell(text, below=True), *[None] * (width - 1)]
            if cell is None:
                break
            text = " ".join(_page_text(cell, dropped, links).split())
            height, width = (_span(cell, side) for side in ("rowspan", "colspan"))
            width = min(width, 1 if len(row) > 1000 else 100)  # it may be any number
            if height > 1:
                below[len(row)] = (height - 1, width, text)
            row += [Cell(text, strong=cell.tag == "th"), *[None] * (width - 1)]
        yield row


def _span(cell: Any, side: str) -> int:
    value = (cell.get(side) or "1").strip()
    if value == "0" and side == "rowspan":
        return 9999  # down to the end of the table
    return max(1, int(value[:4])) if value.isdecimal() else 1


def _is_short(cell: Any) -> bool:
    """Whether a cell of a table fits on a line; others are parts of a layout."""
    parts = any(element.tag in ("table", *_HEADINGS) for element in cell.iter())
    return not parts and sum(map(len, cell.itertext())) < _CELL_CHARS


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
