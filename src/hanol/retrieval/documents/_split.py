"""Text to passages: overlapping windows that end where a paragraph or a sentence does."""

import re

_SIZE = 200  # tokens of a passage
_OVERLAP = 40  # tokens it shares with the one before
_EARLIEST = 120  # tokens a passage has at least when it ends early at a better boundary
_LAST = 220  # a rest up to this size is not split again

_CJK = (
    "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003fffd"
)
_TOKEN = re.compile(rf"[{_CJK}]{{1,2}}|[^\W{_CJK}]{{1,12}}|[^\w\s]{{1,4}}")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]」』》]*$")


def split_passages(text: str) -> list[tuple[int, int]]:
    """Cut a text into passages of about 200 tokens, neighbours sharing about 40.

    Tokens are counted without any model, close to what the vocabularies of current multilingual
    models give: a word is one, longer words one for each 12 characters begun; Hangul, Han and
    Kana one for each two characters begun; other signs one for each four begun in a row.

    A passage ends at the last paragraph within its last 80 tokens; without one at the last
    sentence, then line, then word; text without any of these is cut at 200. The next passage
    begins by the same order 20 to 60 tokens before that end.

    Returns:
        Spans (start, end) in characters, in order: `text[start:end]` is a passage. Each begins
        and ends with a character that is no space, every such character is in one or two spans,
        and there is none for blank text. Time is linear in the length of the text.
    """
    cuts = _Cuts(text)
    spans = []
    first, count = 0, len(cuts.starts)
    while count - first > _LAST:
        stop = cuts.best(first + _EARLIEST, first + _SIZE, first + _SIZE)
        spans.append((cuts.starts[first], cuts.ends[stop - 1]))
        first = cuts.best(stop - 3 * _OVERLAP // 2, stop - _OVERLAP // 2, stop - _OVERLAP)
    if count:
        spans.append((cuts.starts[first], cuts.ends[-1]))
    return spans


class _Cuts:
    """The tokens of a text, and how good a place each gap between two is to cut.

    Cut k is before token k.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        spans = [found.span() for found in _TOKEN.finditer(text)]
        self.starts = [start for start, _ in spans]
        self.ends = [end for _, end in spans]

    def best(self, low: int, high: int, wanted: int) -> int:
        """The best cut from `low` to `high`; among equals the one nearest to `wanted`."""
        near = sorted(range(low, high + 1), key=lambda cut: abs(cut - wanted))
        best, quality = wanted, -1
        for cut in near:
            if (found := self._quality(cut)) > quality:
                best, quality = cut, found
                if quality == 4:
                    break
        return best

    def _quality(self, cut: int) -> int:
        """4 between paragraphs, 3 sentences, 2 lines, 1 words, 0 inside a word."""
        end, start = self.ends[cut - 1], self.starts[cut]
        gap = self._text[end:start]
        if "\n" in gap and _PARAGRAPH.search(gap):
            return 4
        tail = self._text[max(0, end - 3) : end]
        if (gap or tail[-1] in "。！？」』") and _SENTENCE.search(tail):
            return 3
        return (2 if "\n" in gap else 1) if gap else 0
