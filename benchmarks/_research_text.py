"""Synthetic documents whose word counts look like natural text, and queries for them."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

_TYPES = 30_000
_TOPIC = 40  # words that belong to a document
_TOPIC_SHARE = 0.15  # of a document's words
_SYLLABLES = [c + v + e for c in "bdfgklmnprstvz" for v in "aeiou" for e in ("", "", "n", "r")]


@cache
def vocabulary() -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct words, most frequent first and shorter when frequent, and their probabilities.

    Zipf-Mandelbrot: the r-th word has a probability that falls as 1 / (r + 2.7).
    """
    rng = np.random.default_rng(0)
    words: dict[str, None] = {}
    while len(words) < _TYPES:
        length = 1 + min(4, len(words) // 60 and 1 + int(np.log10(len(words) / 60)))
        words["".join(rng.choice(_SYLLABLES, length))] = None
    weights = 1 / (np.arange(1, _TYPES + 1) + 2.7)
    return tuple(words), weights / weights.sum()


def documents(number: int, words: int, seed: int = 0) -> Iterator[str]:
    """Texts of about `words` words, in paragraphs of sentences, with words of their own.

    Args:
        number: How many.
        words: Length of each, before punctuation.
        seed: Equal seeds give equal texts; a longer run begins with the shorter one.
    """
    names, probabilities = vocabulary()
    cumulative = probabilities.cumsum()
    rng = np.random.default_rng(seed)
    for _ in range(number):
        picked = np.minimum(np.searchsorted(cumulative, rng.random(words)), _TYPES - 1)
        own = rng.integers(1000, _TYPES, _TOPIC)
        topical = rng.random(words) < _TOPIC_SHARE
        picked[topical] = own[rng.integers(0, _TOPIC, int(topical.sum()))]
        yield _punctuate([names[i] for i in picked], rng)


def _punctuate(words: list[str], rng: np.random.Generator) -> str:
    paragraphs: list[str] = []
    sentences: list[str] = []
    start = 0
    while start < len(words):
        end = start + int(rng.integers(8, 25))
        sentence = " ".join(words[start:end])
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
        if len(sentences) == 5 or end >= len(words):
            paragraphs.append(" ".join(sentences))
            sentences = []
        start = end
    return "\n\n".join(paragraphs)


def write(folder: Path, number: int, words: int) -> None:
    """Text files in sub-folders of 500."""
    for i, text in enumerate(documents(number, words)):
        path = folder / f"{i // 500:03d}" / f"{i:06d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def queries(passages: list[str], number: int, seed: int = 1) -> list[str]:
    """Half of three to five less common words of one passage, half of a run of eight words."""
    common = set(vocabulary()[0][:300])
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        words = passages[rng.integers(len(passages))].lower().replace(".", "").split()
        if i % 2:
            start = int(rng.integers(max(1, len(words) - 8)))
            found.append(" ".join(words[start : start + 8]))
        else:
            rare = [word for word in words if word not in common] or words
            found.append(" ".join(rng.choice(rare, min(len(rare), int(rng.integers(3, 6))))))
    return found
