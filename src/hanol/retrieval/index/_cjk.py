"""The tokenizer of the index: words for scripts with spaces, bigrams for Korean, Chinese, Japanese.

Korean words carry particles ("서울특별시의"), Chinese and Japanese have no spaces: pairs of
characters match where whole words miss. Such a run becomes its overlapping pairs and its last
character, so that a query of one character is a prefix; all else is lower case without accents.
"""

import re
import unicodedata
from collections.abc import Iterator

from hanol.retrieval.documents._split import CJK

_TOKEN = re.compile(rf"([{CJK}]+)|[^\W_{CJK}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
# Characters that combine with the one before: accents, jamo of a decomposed syllable, voicing marks
# of half-width kana.
_JOINED = re.compile("[\u0300-\u036f\u1160-\u11ff\u3099\u309a\uff9e\uff9f]")


def normalize(text: str) -> str:
    """NFKC: composed, with equal full-width and half-width forms; lengths may change."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def fold(word: str) -> str:
    """Lower case without accents."""
    word = word.lower()
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word)))


def token_spans(normal: str) -> Iterator[tuple[str, int, int]]:
    """The tokens of a normalised text and their spans in characters."""
    for match in _TOKEN.finditer(normal):
        start, end = match.span()
        if match[1] is None:
            yield fold(match[0]), start, end
            continue
        for i in range(start, end):
            yield normal[i : min(i + 2, end)], i, min(i + 2, end)


def index_text(text: str) -> str:
    """The tokens of a text joined by spaces, as the full-text index stores them."""
    normal = normalize(text)
    if normal.isascii():  # fast path for the common case
        return " ".join(_ASCII_WORD.findall(normal.lower()))
    return " ".join(token for token, _, _ in token_spans(normal))


def query_tokens(query: str) -> list[tuple[str, bool]]:
    """The distinct tokens of a query, in order, and whether each is a prefix."""
    # The last character of a longer run would match every word that starts with it.
    tokens: dict[tuple[str, bool], None] = {}
    for match in _TOKEN.finditer(normalize(query)):
        if match[1] is None:
            tokens[fold(match[0]), False] = None
        elif len(run := match[0]) == 1:
            tokens[run, True] = None
        else:
            tokens.update({(run[i : i + 2], False): None for i in range(len(run) - 1)})
    return list(tokens)


def highlight_spans(text: str, tokens: list[tuple[str, bool]]) -> tuple[tuple[int, int], ...]:
    """Spans of `text` in characters that match the query; adjacent ones are joined."""
    whole = {token for token, prefix in tokens if not prefix}
    prefixes = tuple(token for token, prefix in tokens if prefix)
    normal, places = _normalize_with_places(text)
    spans: list[tuple[int, int]] = []
    for token, start, end in token_spans(normal):
        if token not in whole:
            if not token.startswith(prefixes):
                continue
            end = start + 1
        begin, stop = places[start], places[end]
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((begin, stop))
    return tuple(spans)


def _normalize_with_places(text: str) -> tuple[str, "range | list[int]"]:
    """The normalised text, and the position in `text` of each of its characters."""
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return text, range(len(text) + 1)
    pieces: list[str] = []
    places: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _JOINED.match(text[end]):
            continue
        pieces.append(unicodedata.normalize("NFKC", text[start:end]))
        places += [start] * len(pieces[-1])
        start = end
    return "".join(pieces), [*places, len(text)]
