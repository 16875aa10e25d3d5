"""Splits text into passages: overlapping windows that end with a paragraph or sentence."""

import re

_SIZE = 200  # tokens per passage
_OVERLAP = 40  # tokens shared with the previous passage
_EARLIEST = 120  # fewest tokens of a passage that ends early at a better boundary
_LAST = 220  # a rest of up to this size is not split

# Hangul, kana and Han with their iteration marks, as they are after NFKC.
CJK = (
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_CJK = CJK + "\u3130-\u318f\uff66-\uff9f"  # also the forms that NFKC replaces
_TOKEN = re.compile(rf"[{_CJK}]{{1,2}}|[^\W{_CJK}]{{1,12}}|[^\w\s]{{1,4}}")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
# The last characters of a token: one gap is judged in constant time, without splitting the text.
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]」』》]*$")


def split_passages(text: str) -> list[tuple[int, int]]:
    """Split a text into passages of about 200 tokens that overlap by about 40.

    Tokens are counted without a model, close to the vocabularies of current multilingual models:
    one per started 12 characters of a word, two characters of Hangul, Han or Kana, or four other
    signs in a row.

    A passage ends at the last paragraph within its last 80 tokens, or else at the last sentence,
    line or word; text without any of these is cut at 200. The next passage starts 20 to 60 tokens
    before that end, chosen in the same way.

    Returns:
        Spans (start, end) in characters, in order: `text[start:end]` is a passage. Spans do not
        begin or end with a space, every other character is in one or two of them, and blank text
        has none. Time is linear in the length of the text.
    """
    tokens = [found.span() for found in _TOKEN.finditer(text)]

    def quality(cut: int) -> int:
        return _quality(text, tokens[cut - 1][1], tokens[cut][0])

    def best(low: int, high: int, wanted: int) -> int:
        """The best cut from `low` to `high`; among equals the one nearest to `wanted`."""
        return max(sorted(range(low, high + 1), key=lambda cut: abs(cut - wanted)), key=quality)

    spans = []
    first = 0
    while len(tokens) - first > _LAST:
        stop = best(first + _EARLIEST, first + _SIZE, first + _SIZE)
        spans.append((tokens[first][0], tokens[stop - 1][1]))
        first = best(stop - 3 * _OVERLAP // 2, stop - _OVERLAP // 2, stop - _OVERLAP)
    if tokens:
        spans.append((tokens[first][0], tokens[-1][1]))
    return spans


def _quality(text: str, end: int, start: int) -> int:
    """How good a gap is for a cut: 4 between paragraphs, 3 sentences, 2 lines, 1 words, 0 none."""
    gap = text[end:start]
    if "\n" in gap and _PARAGRAPH.search(gap):
        return 4
    tail = text[max(0, end - 3) : end]
    if (gap or tail[-1] in "。！？」』") and _SENTENCE.search(tail):
        return 3
    return (2 if "\n" in gap else 1) if gap else 0
