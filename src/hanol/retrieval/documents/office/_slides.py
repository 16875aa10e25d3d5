"""Reads PowerPoint files."""

from collections.abc import Iterator
from typing import Any

from hanol.retrieval.documents._remarks import PICTURES, each_page, remark
from hanol.retrieval.documents.office._flow import Flow
from hanol.retrieval.documents.office._package import Package, attribute, relation


def read_pptx(data: bytes) -> tuple[str, list[str]]:
    """Title and text of each slide: its shapes, tables, charts and diagrams, notes, comments."""
    package = Package(data)
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
        lines = list(Flow(package, part).blocks(tree))
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


def _notes(package: Package, part: str) -> Iterator[str]:
    flow = Flow(package, part)
    for shape in package.tree(part).iter("sp"):
        kind = shape.find("nvSpPr/nvPr/ph")
        if kind is None or attribute(kind, "type", "body") == "body":  # no date, no page number
            yield from flow.blocks(shape)


def _comments(package: Package, part: str, authors: dict[str, str]) -> Iterator[str]:
    """Comments of both forms: a `text` each, or paragraphs with replies."""
    flow = Flow(package, part)

    def words(element: Any) -> str:
        body = element.find("txBody")
        return element.findtext("text") or "" if body is None else " ".join(flow.blocks(body))

    for comment in package.tree(part).iter("cm", "reply"):
        if text := words(comment).strip():
            author = authors.get(attribute(comment, "authorId"), "")
            yield f"Comment{f' by {author}' if author else ''}: {text}"
