"""Tells whether the characters of a page can be a text at all.

Fonts with a wrong table of letters, or none, draw a page that people can read and whose characters
are those of other scripts, of no script, or of private use.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_MOST_WRONG = 0.2  # of a page's characters: some pages have bullets and symbols of private use
_MOST_SOUND = 0.6  # of a page's characters, where the others stand apart from its words
_WORD = re.compile(r"[^\W\d_]{2,}")
# Scripts whose letters stand inside words of others: units, products, formulas.
_EVERYWHERE = frozenset({"LATIN", "GREEK", "MODIFIER", "FEMININE", "MASCULINE", "ARABIC TATWEEL"})
_EAST_ASIAN = frozenset({"CJK", "HANGUL", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "BOPOMOFO"})
_VOWELS = frozenset("aeiouyAEIOUY")


def is_legible(text: str, unknown: int = 0) -> bool:
    """False if a fifth of the characters can be no text, or belongs to words that can be none.

    Args:
        text: Text of a page; an empty one is legible.
        unknown: Number of further characters that the page shows and that are not in `text`.
    """
    if text.isascii() and not unknown:
        return True
    counts = Counter("".join(text.split()))
    wrong = unknown + sum(n for char, n in counts.items() if _script(char) is None)
    words = (word for word in _WORD.findall(text) if not word.isascii())
    wrong += sum(len(word) for word in words if len(set(map(_script, word)) - {"", None}) > 1)
    return wrong <= _MOST_WRONG * (counts.total() + unknown)


def legible_part(text: str, unknown: int = 0) -> str:
    """The text without the words that have a character of no text, if that is most of the page.

    Lines of drawings and symbols of some fonts come as such characters beside a sound text.
    """
    part = re.sub(r"\S+", lambda word: "" if None in map(_script, word[0]) else word[0], text)
    before, left = (len("".join(each.split())) for each in (text, part))
    part = re.sub(r"\n\s+", "\n", part)
    return part if left > _MOST_SOUND * (before + unknown) and is_legible(part) else ""


def reads_like_words(text: str) -> bool:
    """Whether ASCII characters are Latin words, going by the share of their vowels."""
    letters = [char for char in text if char.isalpha()]
    if not text.isascii() or not text.isprintable() or len(letters) < max(20, 0.6 * len(text)):
        return False
    return 0.28 < sum(char in _VOWELS for char in letters) / len(letters) < 0.55


@lru_cache(maxsize=65_536)
def _script(char: str) -> str | None:
    """Script of a letter; "" if it stands with any, None if the character is in no text."""
    category = unicodedata.category(char)
    # Glyphs that are named a1, a2 ... in any font come as those of Zapf Dingbats.
    if category in ("Cn", "Co", "Cs", "Cc") or char == "\ufffd" or "\u2701" <= char <= "\u27be":
        return None
    if not category.startswith("L"):
        return ""
    # Parts of Han that hardly any text uses, and that letters read in pairs of bytes end up in.
    if "\u3400" <= char <= "\u4dbf" or char >= "\U00020000":
        return None
    # as compatible letters: mathematical alphabets, half and full width, ligatures
    script = unicodedata.name(unicodedata.normalize("NFKC", char)[0], "").split(" ")[0]
    return "" if script in _EVERYWHERE else "EAST ASIAN" if script in _EAST_ASIAN else script
