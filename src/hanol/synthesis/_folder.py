"""A knowledge graph from a user's own documents: links, titles, sections, plain statements.

A relation is the text between a sentence's subject and what it names, if that is a few plain words;
anything else is "links to" or "mentions": guessed relations make questions nobody can answer.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from hanol.errors import DataError, DocumentError
from hanol.retrieval import DocumentInfo, Index, join_pages, read_document
from hanol.synthesis._sentences import LinkedSentence, Titles, headings, sentences
from hanol.worlds import LINKS, MENTIONS, SECTION, SLOT, Edge, KnowledgeGraph, span_of

_PHRASE_WORDS, _REST_WORDS = 6, 4
# A phrase begins with a verb. After a name of one word, which may be any word, only these count.
_VERBS = frozenset(
    (
        *("is", "are", "was", "were", "has", "have", "had", "can", "did", "does", "lies", "stands"),
        *("began", "became", "bought", "built", "came", "drew", "fell", "found", "gave", "grew"),
        *("held", "left", "led", "lost", "made", "met", "opened", "paid", "ran", "rose", "saw"),
        *("sent", "sold", "spent", "sang", "taught", "took", "went", "won", "wrote", "ends"),
        *("belongs", "borders", "flows", "first", "also", "born", "works", "wrote", "studied"),
    )
)
_PRONOUN = re.compile(r"(?:It|He|She|They)\b")
_LISTED = re.compile(r"\s*(?:,|and|, and|or)\s*")
_VALUE = re.compile(
    r"[A-Z][a-z]+ \d{1,2}, \d{4}|\d{1,2} [A-Z][a-z]+ \d{4}|\d{4}-\d\d-\d\d"
    r"|\d{1,3}(?:,\d{3})+(?![\d.,]*\d)|(?<![\w.,-])\d+(?![\w.,%-]*[\w%])"
)
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def folder_graph(index: Index) -> KnowledgeGraph:
    """The knowledge graph of indexed documents, built without a model.

    Raises:
        DataError: Nothing links to or mentions anything.
    """
    documents = index.documents()
    names = document_names(documents)
    titles = Titles(names)
    pages = {names[info.document]: info.address for info in documents}
    edges = [edge for info in documents for edge in _document_edges(index, info, titles)]
    if not any(edge.tail in pages for edge in edges):
        raise DataError(
            f"The {len(documents)} documents of {str(index.folder)!r} neither link to each other "
            "nor name each other's titles, so no question can be built. Extract facts with a "
            "model: `--model SPEC`."
        )
    linked = {(edge.head, edge.tail) for edge in edges if edge.relation == LINKS}
    edges = [
        replace(edge, is_implied=True)
        if edge.relation == MENTIONS and (edge.head, edge.tail) in linked
        else edge
        for edge in edges
    ]
    return KnowledgeGraph(with_spans(edges), pages, is_worded=True)


def document_names(documents: list[DocumentInfo]) -> dict[str, str]:
    """Names of documents in questions, by path: titles, or paths where titles are equal."""
    # A bar separates alternatives in a formalisation; in web pages' titles the site follows it.
    titles = {
        info.document: " ".join(re.sub("[`*|]", " ", info.title.split(" | ")[0]).split())
        for info in documents
    }
    number = Counter(title.casefold() for title in titles.values())
    return {
        path: title if title and number[title.casefold()] == 1 else path.replace("|", " ")
        for path, title in titles.items()
    }


def with_spans(edges: list[Edge]) -> list[Edge]:
    """The facts, and the span of each number and date."""
    spans = [
        Edge(edge.head, edge.relation, span, edge.address, edge.snippet, is_span=True)
        for edge in edges
        if (span := span_of(edge.tail)) is not None
    ]
    return [*edges, *spans]


def document_text(index: Index, info: DocumentInfo) -> str:
    """A document as Markdown; of web pages the article with its links."""
    if info.kind == "html":
        with suppress(DocumentError):  # gone since it was indexed: the index has its text
            return read_document(index.folder / info.document, links=True).pages[0].text
    return "\n\n".join(page.text for page in join_pages(index.read(info.address)))


def _document_edges(index: Index, info: DocumentInfo, titles: Titles) -> Iterator[Edge]:
    name = titles.names[info.document]
    text = document_text(index, info)
    for heading in headings(text) if info.kind in ("md", "html") else ():
        heading = heading.replace("|", "/")
        yield Edge(name, SECTION, heading, info.address, f"## {heading}")
    before: str | None = None
    for sentence in sentences(text, info.document, titles):
        subject, end = _subject(sentence, titles, None if sentence.is_first else before)
        before = subject
        yield from _named(sentence, name, subject, end, info.address)
        if subject is not None:
            yield from _valued(sentence, subject, end, info.address)


def _subject(
    sentence: LinkedSentence, titles: Titles, before: str | None
) -> tuple[str | None, int]:
    """The subject of a sentence and where its name ends; a pronoun means the subject before."""
    for place in (titles.at_start(sentence.text), *sentence.places[:1]):
        if place is not None and sentence.text[: place.start] in ("", "The "):
            return place.name, place.end
    pronoun = _PRONOUN.match(sentence.text)
    return (before, pronoun.end()) if pronoun and before else (None, 0)


def _named(
    sentence: LinkedSentence, name: str, subject: str | None, end: int, address: str
) -> Iterator[Edge]:
    """Facts that link the subject to the documents a sentence names."""
    relation: str | None = None
    last = end
    for place in sentence.places:
        weak = LINKS if place.is_link else MENTIONS
        if place.start < end:  # the subject itself
            yield Edge(name, weak, place.name, address, sentence.text)
            continue
        between = sentence.text[last : place.start].strip()
        if relation is None or not _LISTED.fullmatch(between):
            relation = between if subject and _is_phrase(between, subject) else None
        last = place.end
        is_stated = False
        if relation is not None and subject is not None and subject != place.name:
            is_stated = True
            yield Edge(subject, relation, place.name, address, sentence.text)
        is_implied = is_stated and subject == name
        yield Edge(name, weak, place.name, address, sentence.text, is_implied=is_implied)


def _valued(sentence: LinkedSentence, subject: str, end: int, address: str) -> Iterator[Edge]:
    """The first number or date that a sentence states about its subject."""
    value = _VALUE.search(sentence.text, end)
    first = min((place.start for place in sentence.places if place.start >= end), default=None)
    if value is None or (first is not None and first < value.start()):
        return
    phrase = sentence.text[end : value.start()].strip()
    rest = sentence.text[value.end() :].strip().rstrip(".!").strip()
    words = rest.split()
    is_short = len(words) <= _REST_WORDS and all(_WORD.fullmatch(word) for word in words)
    if _is_phrase(phrase, subject) and is_short:
        relation = f"{phrase} {SLOT} {rest}" if rest else phrase
        yield Edge(subject, relation, value[0], address, sentence.text)


def _is_phrase(text: str, subject: str) -> bool:
    """Whether a text can be a relation between two names, like "was born in"."""
    words = text.split()
    if not 0 < len(words) <= _PHRASE_WORDS or not all(map(_WORD.fullmatch, words)):
        return False
    may_be_verb = " " in subject and words[0].islower() and words[0].endswith(("s", "ed"))
    return may_be_verb or words[0] in _VERBS
