"""Reads PowerPoint files."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents._remarks import PICTURES, each_page, hidden, remark
from hanol.retrieval.documents.office._flow import Flow
from hanol.retrieval.documents.office._package import Package, attribute, is_on, local, relation

_FORMS = {"alphaL": "a", "alphaU": "A", "romanL": "i", "romanU": "I", "ea1": "一", "circle": "①"}
_TITLES = ("title", "ctrTitle")  # they may be drawn last
_SIGNS = {"Period": "{}.", "ParenR": "{})", "ParenBoth": "({})"}


def read_pptx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each slide: shapes, tables, charts, diagrams, master, notes, comments."""
    package = Package(data)

    @cache
    def behind(part: str) -> list[str]:
        """What a layout and its master show on each slide: all but the places for text."""
        tree = package.tree(part, bare=False)
        for place in tree.findall(".//{*}nvPr/{*}ph"):
            shape = place.getparent().getparent().getparent()
            shape.getparent().remove(shape)
        flow = Flow(package, part)
        lines = [t for e in tree.iter("{*}spTree") for t in flow.blocks(local(e))]
        masters = package.related(part, "slideMaster") if is_on(tree, "@showMasterSp", "1") else ()
        return lines + [text for master in masters for text in behind(master)]

    parts = package.related(package.main)
    show = package.tree(package.main)
    authors = {
        attribute(author, "id"): attribute(author, "name")
        for kind in ("commentAuthors", "authors")
        for part in package.related(package.main, kind)
        for author in package.tree(part)
    }
    pages = []
    for slide in each_page(show.iterfind("sldIdLst/sldId")):
        part = parts.get(relation(slide), "")
        tree = package.tree(part)
        if not is_on(tree, "@show", "1"):
            hidden("is a hidden slide")
        shapes = sorted(tree.iterfind("cSld/spTree/*"), key=lambda e: _place(e) not in _TITLES)
        lines = list(Flow(package, part, numbered=_numbers()).blocks(shapes))
        for old in package.related(part, "vmlDrawing"):  # pictures, perhaps a second time
            lines += set(Flow(package, old).blocks(package.tree(old))).difference(lines)
        is_open = is_on(tree, "@showMasterSp", "1")
        for layout in package.related(part, "slideLayout") if is_open else ():
            lines += behind(layout)
        if not any(map(str.strip, lines)) and tree.find(".//pic") is not None:
            remark("has no text, only pictures, which are not read", PICTURES)
        for notes in package.related(part, "notesSlide"):
            if text := "\n".join(_notes(package, notes)):
                lines += ["", f"Notes: {text}"]
        for comments in package.related(part, "comments"):
            lines += _comments(package, comments, authors)
        pages.append("\n".join(lines))
    first = next((line for page in pages for line in page.splitlines() if line.strip()), "")
    return package.title or first, pages


def _numbers() -> Callable[[Any], str]:
    """Gives what stands before each paragraph of a slide, asked for in order, or ""."""
    counts: dict[int, tuple[Any, str, int]] = {}  # text, form and number by level

    def number(paragraph: Any) -> str:
        style = paragraph.find("pPr")
        if style is None or not any(text.text for text in paragraph.iter("t")):
            return ""
        level, mark = int(attribute(style, "lvl", "0")), style.find("buAutoNum")
        for deeper in [key for key in counts if key > level or (key == level and mark is None)]:
            del counts[deeper]
        if mark is None:
            return ""
        whose, form = paragraph.getparent(), attribute(mark, "type")
        *last, count = counts.get(level, (None, "", 0))
        count = count + 1 if last == [whose, form] else int(attribute(mark, "startAt", "1"))
        counts[level] = whose, form, count
        kind = next((_FORMS[start] for start in _FORMS if form.startswith(start)), "1")
        sign = next((_SIGNS[end] for end in _SIGNS if form.endswith(end)), "{}")
        return sign.format(spelled(count, kind))

    return number


def _place(shape: Any) -> str:
    """Kind of the place that a shape fills, or ""."""
    found = shape.find("nvSpPr/nvPr/ph")
    return "" if found is None else attribute(found, "type", "body")


def _notes(package: Package, part: str) -> Iterator[str]:
    flow = Flow(package, part)
    for shape in package.tree(part).iter("sp"):
        if _place(shape) in ("", "body"):  # no date, no page number
            yield from flow.blocks(shape)


def _comments(package: Package, part: str, authors: dict[str, str]) -> Iterator[str]:
    """Comments of both forms: a `text` each, or paragraphs with replies."""
    flow = Flow(package, part)
    for comment in package.tree(part).iter("cm", "reply"):
        body = comment.find("txBody")
        text = comment.findtext("text") or "" if body is None else " ".join(flow.blocks(body))
        if text := text.strip():
            author = authors.get(attribute(comment, "authorId"), "")
            yield f"Comment{f' by {author}' if author else ''}: {text}"
