"""The tokenizer of the index: words for scripts with spaces, pairs of characters for the others.

Korean words carry particles ("서울특별시의"); Chinese, Japanese, Thai, Lao, Khmer and Burmese have
no spaces: pairs of characters, each with its marks, match where whole words miss. Such a run
becomes its overlapping pairs and its last character, so that a query of one character is a prefix.
All else is lower case without accents, vowel points and separators of thousands; the signs of
"C++", "C#" and ".NET" belong to the word.
"""

import re
import unicodedata
from collections.abc import Iterator

import regex  # unlike `re` it knows scripts and combining marks

from hanol.retrieval.documents._split import CJK

_SPACELESS = (
    rf"[{CJK}[\p{{L}}&&[\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}\p{{Tai_Le}}\p{{New_Tai_Lue}}"
    r"\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}]]]"
)
_LETTER = rf"[[\p{{L}}\p{{N}}]--{_SPACELESS}]"
# A consonant that is stacked under another one (Khmer, Burmese, Tai Tham) stays with it.
UNIT = rf"{_SPACELESS}(?:\p{{M}}|(?<=[\u17d2\u1039\u1a60])\p{{L}})*+"
RUN = f"(?:{UNIT})++"
# With what `_mark_signs` writes for signs; no normalised text has these characters otherwise.
WORD = rf"．?{_LETTER}(?:{_LETTER}|\p{{M}})*+[＋＃]*+"

_VERSION = r"[vV](?=\d+\.\d)"  # v1.2.3 is 1.2.3 too
_TOKEN = regex.compile(rf"({RUN})|{_VERSION}|{WORD}", regex.V1)
# The same, four times as fast, for texts without marks and without the scripts of South Asia.
_PLAIN_TOKEN = re.compile(rf"([{CJK}]+)|{_VERSION}|．?[^\W_{CJK}]+[＋＃]*")
_NOT_PLAIN = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u109f\u135d-\u135f\u1712-\u1cff\u1dc0-\u1dff\u20d0-\u20ff"
    "\u2cef-\u2cf1\u2d7f-\u2dff\u302a-\u302f\u3099\u309a\ua66f-\uabff\ufb1e\ufe00-\ufe2f"
    "\U000101fd-\U0001efff\U000e0000-\U000effff]"
)
_UNIT = regex.compile(UNIT, regex.V1)
_ASCII_WORD = re.compile("[a-z0-9]+")
_ASCII_VERSION = re.compile(r"v(?<!\wv)(?=\d+\.\d)")
# Words with signs between them: identifiers, versions, numbers, addresses, dates.
_JOINED = rf"{WORD}(?:[-_.,/:@&+#'~\\<=>*$|%\u0f0b\u066b\u05be\u05f3\u05f4]+{WORD})*+"
_PHRASE = regex.compile(rf"{_JOINED}|(?![{CJK}]){RUN}", regex.V1)
_PHRASES = 16  # of a query
_ONE_SYLLABLE = re.compile("(?<![가-힣])([가-힣])[은는이가을를에의와과도로만](?![가-힣])")
_INFLECTED = re.compile("([a-z]{3,}?)(?:ies|ied|ing|ed|es|[ey]|(?<!s)s)?")
_ENDINGS = ("", "s", "e", "es", "ed", "ing", "y", "ies", "ied")
# Accents, points of Hebrew and Arabic, tatweel, nukta; the marks of other scripts are vowels.
_ACCENTS = regex.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0711\u0730-\u074a\u08ca-\u08ff\u093c\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20f0]"
)
_SPELLINGS = str.maketrans("ıøłđىیکةٱ\u0901", "ioldييكها\u0902") | {230: "ae", 339: "oe"}
# Patterns that begin with a set of characters are fast; so what goes before is looked at behind it.
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_THOUSANDS_SPACE = re.compile(r"[\xa0\u2009\u202f](?<=\d.)(?=\d{3}(?!\d))")
_SIGN = re.compile(
    r"[+#♯.](?:(?<=[^\W\d_]\+)\+(?!\+)|(?<=(?<![A-Za-z0-9_])[A-Za-z][#♯])(?![A-Za-z])"
    r"|(?<=\.)(?<![^\s(\[\"'“‘,;/、。，「『（【]\.)(?=[^\W\d_]))"
)
_THOUSANDS = re.compile(
    r"\d(?<![\w.,].)\d{0,2}(?:[,'’٬_]\d{2,3})*[,'’٬_]\d{3}(?!\w|,\d)", re.DOTALL
)
_GERSHAYIM = re.compile('["\u05f4](?<=[\u05d0-\u05ea].)(?=[\u05d0-\u05ea])')  # of Hebrew acronyms
_MARKED = str.maketrans(
    "+#♯.,'’٬_\"\u05f4", "＋＃＃．" + 7 * "\u0640"
)  # `fold` removes the tatweel
# Most that a text grows by when its signs are written out: U+FDFA alone becomes 18 letters, and a
# text of nothing else would take a minute for each two million. A word or a query always may.
_GROWTH, _SHORT = 4, 100
# Characters that combine with the one before: marks, jamo of a decomposed syllable, voicing marks
# of half-width kana.
_COMBINING = regex.compile("[\\p{M}\\p{DI}\u1160-\u11ff\uff9e\uff9f]")


def normalize(text: str) -> str:
    """`compose`, with the signs of words marked; lengths may change."""
    return _mark_signs(text if text.isascii() else compose(_THOUSANDS_SPACE.sub(",", text)))


def compose(text: str) -> str:
    """NFKC with ASCII digits and without invisible characters."""
    text = _INVISIBLE.sub("", text)
    normal = unicodedata.normalize("NFKC", text)
    if len(normal) > _GROWTH * len(text) > _GROWTH * _SHORT:
        normal = unicodedata.normalize("NFC", text)
    return _OTHER_DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), normal)


def _mark_signs(text: str) -> str:
    """Signs that belong to a word in full width, separators of thousands as tatweel."""
    for pattern in (_SIGN, _THOUSANDS, _GERSHAYIM):
        text = pattern.sub(lambda match: match[0].translate(_MARKED), text)
    return text


def fold(word: str) -> str:
    """Lower case without accents and variants of letters."""
    if word.isascii():
        return word.lower()
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", word.casefold()))
    return unicodedata.normalize("NFC", bare).translate(_SPELLINGS)


def is_run(token: str) -> bool:
    """Whether a token is of a script without spaces."""
    return _UNIT.match(token) is not None


def pairs(run: str) -> list[tuple[str, int, int]]:
    """The overlapping pairs of characters of a run, its last character, and their spans."""
    if not _NOT_PLAIN.search(run):
        return [(run[i : i + 2], i, min(i + 2, len(run))) for i in range(len(run))]
    spans = [match.span() for match in _UNIT.finditer(run)]
    ends = [end for _, end in spans[1:]] + [len(run)]
    return [(run[a:b], a, b) for (a, _), b in zip(spans, ends, strict=True)]


def token_spans(normal: str) -> Iterator[tuple[str, int, int]]:
    """The tokens of a normalised text and their spans in characters."""
    if normal.isascii() and not _ASCII_VERSION.search(lower := normal.lower()):  # four times faster
        yield from ((match[0], *match.span()) for match in _ASCII_WORD.finditer(lower))
        return
    for match in _matches(normal):
        yield from _tokens(match)


def _matches(normal: str) -> "Iterator[regex.Match[str] | re.Match[str]]":
    return (_TOKEN if _NOT_PLAIN.search(normal) else _PLAIN_TOKEN).finditer(normal)


def _tokens(match: "regex.Match[str] | re.Match[str]") -> Iterator[tuple[str, int, int]]:
    start, end = match.span()
    if match[1] is not None:
        yield from ((token, start + a, start + b) for token, a, b in pairs(match[1]))
    elif bare := (word := fold(match[0])).strip("．＋＃"):
        if word != bare:
            yield word, start, end
        if word == bare or len(bare) > 1 or word[0] == "．":  # C++ is no C
            yield bare, start, end


def index_text(text: str) -> str:
    """The tokens of a text joined by spaces, as the full-text index stores them."""
    normal = normalize(text).replace("\u0640", "")
    if normal.isascii():  # fast path for the common case
        return " ".join(_ASCII_WORD.findall(_ASCII_VERSION.sub("v ", normal.lower())))
    return " ".join(token for token, _, _ in token_spans(normal))


def query_tokens(query: str) -> list[tuple[str, bool]]:
    """The distinct tokens of a query, in order, and whether each is a prefix."""
    # The last character of a longer run would match every word that starts with it.
    tokens: dict[tuple[str, bool], None] = {}
    for match in _matches(normalize(query)):
        found = [token for token, _, _ in _tokens(match)]
        if match[1] is not None and len(found) > 1:
            found.pop()
        tokens.update({(token, match[1] == token): None for token in found})
    return list(tokens)


def inflections(word: str) -> list[str]:
    """What a word may be in the plural, the past and the like, in English and its relatives.

    Most of them are no words, and in no index.

    Example:
        >>> inflections("dogs")
        ['dog', 'doge', 'doges', 'doged', 'doging', 'dogy', 'dogies', 'dogied']
    """
    match = _INFLECTED.fullmatch(word)
    return [form for ending in _ENDINGS if (form := match[1] + ending) != word] if match else []


def one_syllable_stems(query: str) -> list[str]:
    """Korean nouns of one syllable that have a particle in a query.

    Example:
        >>> one_syllable_stems("책을 몇 권 빌릴 수 있습니까?")
        ['책']
    """
    return _ONE_SYLLABLE.findall(query)


def query_phrases(query: str) -> list[list[str]]:
    """Runs of tokens whose order counts: identifiers, numbers, words of scripts without spaces."""
    phrases = []
    for match in _PHRASE.finditer(normalize(query)):
        tokens = [token for token, _, _ in token_spans(match[0])]
        if tokens[0] == "v" and len(tokens) > 2:
            del tokens[0]  # v1.2.3 is 1.2.3 elsewhere
        if len(tokens) > 1:
            phrases.append(tokens[:-1] if is_run(tokens[-1]) else tokens)
    return phrases[:_PHRASES]


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
            end = start + max(len(prefix) for prefix in prefixes if token.startswith(prefix))
        begin, stop = places[start], places[end]
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((begin, stop))
    return tuple(spans)


def _normalize_with_places(text: str) -> tuple[str, "range | list[int]"]:
    """The normalised text, and the position in `text` of each of its characters."""
    text = _THOUSANDS_SPACE.sub(",", text)
    if text.isascii() or compose(text) == text:
        return _mark_signs(text), range(len(text) + 1)
    pieces: list[str] = []
    places: list[int] = []
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and _COMBINING.match(text[end]):
            continue
        pieces.append(compose(text[start:end]))
        places += [start] * len(pieces[-1])
        start = end
    return _mark_signs("".join(pieces)), [*places, len(text)]
