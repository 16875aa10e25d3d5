"""Words that label fields of forms and columns of tables, in about twelve languages."""

import re
from functools import cache
from pathlib import Path

_PARENTHESES = re.compile(r"[(\[（【][^)\]）】]*[)\]）】]")
_SPLIT = re.compile(r"[\s_/.&,-]+")
_CJK_ENDING = re.compile(r"[가-힣\u3040-\u30ff\u4e00-\u9fff]$")
_LABEL_CHARS = 40


@cache
def _known() -> tuple[frozenset[str], tuple[str, ...]]:
    """The words of labels.txt, and the endings."""
    _, words, endings = re.split(
        r"^#.*$", Path(__file__).with_name("labels.txt").read_text("utf-8"), flags=re.MULTILINE
    )
    return frozenset(words.split()), tuple(endings.split())


def is_label(cell: str) -> bool:
    """Whether a cell is, by its last word, what labels of forms and names of columns are."""
    text = _PARENTHESES.sub("", cell).strip(" :：*#?.").casefold()
    if not text or len(text) > _LABEL_CHARS:
        return False
    known, endings = _known()
    if _CJK_ENDING.search(text):
        last = text.replace(" ", "")
        # One syllable says little at the end of a longer word: 서울 강남역 is a value.
        return any(last == end or (len(end) > 1 and last.endswith(end)) for end in endings)
    words = [word for word in _SPLIT.split(re.split(r" (?:of|de|du|der|des|di) ", text)[0]) if word]
    return bool(words) and (words[-1] in known or text in known)
