"""Reads Word files."""

import re

from hanol.retrieval.documents.office._flow import Flow
from hanol.retrieval.documents.office._numbering import Numbering
from hanol.retrieval.documents.office._package import Package, attribute, is_on, value

_HEADING = re.compile(r"^heading ([1-6])$", re.IGNORECASE)
_SEPARATORS = ("separator", "continuationSeparator", "continuationNotice")


def read_docx(data: bytes) -> tuple[str, str]:
    """Title and text of a Word file: headers, body with headings as in Markdown, footers.

    Comments, footnotes and endnotes stand behind the paragraph or table that refers to them.
    """
    package = Package(data)
    styles = {
        attribute(style, "styleId"): style
        for part in package.related(package.main, "styles")
        for style in package.tree(part, bare=False).iterfind("{*}style")
    }
    headings = {
        key: int(found[1])
        for key, style in styles.items()
        if (found := _HEADING.match(value(style, "{*}name")))
    }
    unseen = {key for key, style in styles.items() if is_on(style, "{*}rPr/{*}vanish")}
    remarks = _remarks(package)
    flow = Flow(
        package,
        package.main,
        end="\n",
        headings=headings,
        remarks=remarks,
        unseen=unseen,
        numbered=Numbering(package, styles).of,
    )
    body = list(flow.blocks(package.tree(package.main)))
    edges: dict[str, list[str]] = {"header": [], "footer": []}
    for kind, lines in edges.items():
        for part in package.related(package.main, kind):
            lines += Flow(package, part, end="\n").blocks(package.tree(part))
    # Each section of the file repeats the same header.
    lines = [*dict.fromkeys(edges["header"]), *body, *remarks.values()]
    lines += dict.fromkeys(edges["footer"])
    first = next((line for line in body if line.startswith("# ")), "")
    return package.title or first.lstrip("# "), "\n\n".join(lines)


def _remarks(package: Package) -> dict[tuple[str, str], str]:
    """Text of each comment and note, by tag and id of what refers to it."""
    found = {}
    for kind, name in (("comment", "Comment"), ("footnote", "Footnote"), ("endnote", "Endnote")):
        for part in package.related(package.main, f"{kind}s"):
            flow = Flow(package, part)
            for element in package.tree(part):
                if attribute(element, "type") in _SEPARATORS:
                    continue
                if text := "\n".join(flow.blocks(element)):
                    author = attribute(element, "author")
                    key = (f"{kind}Reference", attribute(element, "id"))
                    found[key] = f"{name}{f' by {author}' if author else ''}: {text}"
    return found
