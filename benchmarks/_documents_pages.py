"""Web pages whose text is known, because their generators name what stands beside it."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from _documents_files import BESIDE, UNCLEAR, files, spread, unpacked

# Packages that were not looked at when the reader's rules were written, one or two a generator.
PACKAGES = (
    "debian-policy", "bind9-doc", "gnucash-docs", "docbook-xsl-doc-html", "python-tornado-doc",
    "mailutils-doc", "fp-docs-3.2.2", "libeigen3-doc", "groovy-doc", "maxima-doc", "apt-doc",
    "libsdl2-doc", "python-markdown-doc", "debmake-doc", "zsh-doc",
)  # fmt: skip
EACH = 4  # pages of a package
FEWEST = 3  # sentences of a page
BLOCKS = frozenset(
    {"p", "li", "dt", "dd", "td", "th", "h1", "h2", "h3", "h4", "h5", "h6", "caption", "pre"}
    | {"figcaption", "blockquote", "div", "section", "article", "table", "ul", "ol", "dl", "tr"}
    | {"tbody", "thead", "body", "aside", "main", "br"}
)
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])")
LEAST = 12  # characters; shorter ones stand in most pages by chance


@dataclass(frozen=True)
class Labelled:
    """A page as it is and without names of classes, its sentences and what stands beside them."""

    package: str
    paths: dict[str, Path]
    sentences: list[str]
    beside: list[str]


def labelled_pages(folder: Path) -> Iterator[Labelled]:
    """Four pages of each package that is to be had, from all places of its list."""
    for package in PACKAGES:
        if (tree := unpacked(package, folder)) is None:
            continue
        found = [p for p in files(tree, "*.html *.html.gz") if 3000 < p.stat().st_size < 200_000]
        labelled = (label(package, path, folder / "pages") for path in spread(found, 5 * EACH))
        pages = [page for page in labelled if len(page.sentences) >= FEWEST]
        yield from (pages[i * len(pages) // EACH] for i in range(min(EACH, len(pages))))


def label(package: str, path: Path, folder: Path) -> Labelled:
    """The sentences of a page and what stands beside them; writes the page in both forms."""
    from lxml import html

    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    page, bare = html.document_fromstring(data), html.document_fromstring(data)
    apart = [e for e in page.xpath(BESIDE) if e.tag not in ("body", "html")]
    outer = [e for e in apart if not any(a in apart for a in e.iterancestors())]
    beside = [s for element in outer for s in sentences(element)]
    for element in apart:
        if element.getparent() is not None:
            element.drop_tree()
    known = letters("".join(page.itertext()))
    for element in page.xpath(UNCLEAR):
        if element.getparent() is not None:
            element.drop_tree()
    for element in bare.iter():
        for name in ("class", "id", "role"):
            element.attrib.pop(name, None)
    folder.mkdir(exist_ok=True)
    name = f"{package}-{path.stem}-{sha256(data).hexdigest()[:6]}"
    paths = {"as it is": folder / f"{name}.html", "without names": folder / f"{name}-bare.html"}
    paths["as it is"].write_bytes(data)
    paths["without names"].write_bytes(html.tostring(bare, encoding="utf-8"))
    beside = [s for s in beside if letters(s) not in known]
    return Labelled(package, paths, sentences(page.find("body")), beside)


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def sentences(element: Any) -> list[str]:
    """Sentences of the blocks of text in an element, which hold no other block."""
    blocks: list[str] = []
    line: list[str] = []

    def end() -> None:
        blocks.append(" ".join("".join(line).split()))
        line.clear()

    def visit(e: Any) -> None:
        if not isinstance(e.tag, str) or e.tag in ("script", "style"):
            return
        if e.tag in BLOCKS:
            end()
        line.append(e.text or "")
        for child in e:
            visit(child)
            line.append(child.tail or "")
        if e.tag in BLOCKS:
            end()

    visit(element)
    end()
    return [
        s for block in blocks for s in SENTENCE.split(block) if sum(map(str.isalnum, s)) >= LEAST
    ]
