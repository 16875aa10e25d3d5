"""Sentences of a document and the other documents they name, by link or by title."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from hanol.retrieval import split_sentences

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\(([^()]*)\)")
_CODE = re.compile(r"`[^`\n]*`")
_WORD = re.compile(r"\w+")
_LONGEST = 60  # characters of a section's name


@dataclass(frozen=True)
class Place:
    """A mention of another document in a sentence, by link or by title."""

    start: int  # characters of the sentence
    end: int
    name: str  # of the document
    is_link: bool


@dataclass(frozen=True)
class LinkedSentence:
    """A sentence without Markdown marks, and the documents it names, in order."""

    text: str
    places: tuple[Place, ...]
    is_first: bool  # of a paragraph


class Titles:
    """Finds the titles of documents in texts; `names` are by the paths in the index."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self._by_name = {name.casefold(): name for name in names.values()}
        self._by_word: dict[str, list[list[str]]] = {}
        for name in names.values():
            if words := _WORD.findall(name):
                self._by_word.setdefault(words[0], []).append(words)
        self._spelled = {tuple(_WORD.findall(name)): name for name in names.values()}
        for candidates in self._by_word.values():
            candidates.sort(key=len, reverse=True)

    def linked(self, target: str, text: str, document: str) -> str | None:
        """The document that a link points to, by its path or else by its text."""
        try:
            parts = urlsplit(target.strip())
        except ValueError:
            return None
        if not parts.scheme and not parts.netloc and parts.path:
            path = posixpath.join(posixpath.dirname(document), unquote(parts.path))
            if (name := self.names.get(posixpath.normpath(path))) is not None:
                return name
        return self._by_name.get(" ".join(text.split()).casefold())

    def in_text(self, text: str) -> Iterator[Place]:
        """Titles in a text, the longest where several match."""
        # The words of a title may be ordinary words: it counts if it is capitalised within a
        # sentence, has two capitals at the beginning of one, or contains punctuation.
        words = list(_WORD.finditer(text))
        past = 0
        for number, word in enumerate(words):
            if number < past:
                continue
            for title in self._by_word.get(word[0], ()):
                here = words[number : number + len(title)]
                if [each[0] for each in here] != title or len(word[0]) < 3:
                    continue
                name = self._spelled[tuple(title)]
                capitals = sum(not each[0].islower() for each in title)
                is_name = capitals > (number == 0) and not title[0][0].islower()
                is_name |= not re.fullmatch(r"[\w\s]+", name)
                if is_name and text[word.start() : here[-1].end()] == name:
                    yield Place(word.start(), here[-1].end(), name, False)
                    past = number + len(title)
                    break

    def at_start(self, text: str) -> Place | None:
        """The title that a sentence begins with, perhaps after "The"."""
        begin = 4 if text.startswith("The ") else 0
        words = _WORD.findall(text[begin:])
        for title in self._by_word.get(words[0], ()) if words else ():
            name = self._spelled[tuple(title)]
            if words[: len(title)] == title and text[begin:].startswith(name):
                return Place(0, begin + len(name), name, False)
        return None


def headings(markdown: str) -> list[str]:
    """Names of the sections of a Markdown text; its first heading, the title, is left out."""
    text = _COMMENT.sub("", markdown)
    lines = [
        text[span.start : span.end] for span in split_sentences(text) if span.kind == "heading"
    ]
    found = [match[1] for line in lines if (match := _HEADING.match(line.strip()))]
    plain = [_LINK.sub(r"\1", text).replace("`", "").replace("*", "").strip() for text in found[1:]]
    return [text for text in plain if len(text) <= _LONGEST and re.search(r"[^\W\d]", text)]


def sentences(markdown: str, document: str, titles: Titles) -> Iterator[LinkedSentence]:
    """The sentences of a text and the cells of its tables; links are relative to `document`."""
    text = _COMMENT.sub("", markdown)
    for span in split_sentences(text):
        if span.kind in ("heading", "code"):
            continue
        plain = " ".join(text[span.start : span.end].split())
        if plain.startswith("|"):
            for cell in plain.strip("|").split("|"):
                yield _sentence(cell.strip(), document, titles, is_first=True)
        else:
            yield _sentence(plain, document, titles, is_first=span.starts_block)


def _sentence(text: str, document: str, titles: Titles, *, is_first: bool) -> LinkedSentence:
    parts: list[str] = []
    places: list[Place] = []
    length = end = 0
    for link in _LINK.finditer(text):
        before = _plain(text[end : link.start()])
        shown = _plain(link[1])
        parts += [before, shown]
        start = length + len(before)
        length = start + len(shown)
        end = link.end()
        name = titles.linked(link[2], link[1], document)
        if name is not None and name != titles.names[document]:
            places.append(Place(start, length, name, True))
    parts.append(_plain(text[end:]))
    plain = "".join(parts)
    # Code names something else.
    hidden = _CODE.sub(lambda match: "`" * len(match[0]), plain)
    taken = [(place.start, place.end) for place in places]
    for place in titles.in_text(hidden):
        if place.name != titles.names[document] and not any(
            place.start < last and first < place.end for first, last in taken
        ):
            places.append(place)
    return LinkedSentence(plain, tuple(sorted(places, key=lambda place: place.start)), is_first)


def _plain(text: str) -> str:
    return re.sub(r"\*\*|__|(?<!\w)[*_]|[*_](?!\w)", "", text)
