"""Terms of a glossary: were they translated as agreed?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from hanol.errors import DataError
from hanol.evaluation.meta._metrics import EvidenceSpan, MetricItem, TextMetric
from hanol.rows import read_rows

_EASTERN = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]")
_LEVELS = {"preferred": 2, "allowed": 1, "forbidden": 0}


@dataclass(frozen=True)
class Term:
    """An entry of a glossary.

    Args:
        source: The term in the source language.
        preferred: Translations that are right.
        allowed: Translations that are acceptable.
        forbidden: Translations that are wrong, such as a bare transliteration.
    """

    source: str
    preferred: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


def read_glossary(path: str | Path) -> list[Term]:
    """Read a glossary.

    Args:
        path: JSONL, JSON, CSV or TSV with "source" and "preferred", and "allowed" and "forbidden"
            if wanted: lists, or texts with "|" between them.

    Raises:
        DataError: It cannot be read, is empty, or an entry lacks the source or a translation.
    """
    terms = []
    for number, row in read_rows(path):
        given = {name: _texts(row.get(name)) for name in _LEVELS}
        source = str(row.get("source") or "").strip()
        if not source or not given["preferred"]:
            lacking = "preferred" if source else "source"
            raise DataError(f"{str(path)!r}, line {number}: the term has no `{lacking}`.")
        terms.append(Term(source, **given))
    if not terms:
        raise DataError(f"{str(path)!r} holds no terms.")
    return terms


def terms_metric(path: str | Path) -> TextMetric:
    """Mean level (2, 1, 0) of the glossary's terms that occur in the source of an item.

    A term is at the level of the best translation that is found; at 0 when none is, and when the
    source term stands in the candidate as it is. Letter case and plurals make no difference.
    An item without any of the terms is not scored.

    Raises:
        DataError: The glossary cannot be read.
    """
    terms = read_glossary(path)

    def of(item: MetricItem) -> list[tuple[int, list[EvidenceSpan]]]:
        source = item.source or ""
        return [_level(term, item.candidate) for term in terms if _spans(term.source, source)]

    def value(item: MetricItem) -> float:
        levels = [level for level, _ in of(item)]
        return sum(levels) / len(levels) if levels else math.nan

    return TextMetric(
        f"terms:{path}",
        value,
        needs=("source",),
        signature=f"mean level of {len(terms)} terms",
        find=lambda item: sorted(one for _, found in of(item) for one in found),
    )


def _level(term: Term, text: str) -> tuple[int, list[EvidenceSpan]]:
    if left := _spans(term.source, text):
        return 0, [EvidenceSpan(*span, f"{term.source!r} is not translated") for span in left]
    for name, level in _LEVELS.items():
        found = [span for form in getattr(term, name) for span in _spans(form, text)]
        if found:
            return level, [EvidenceSpan(*span, f"{name} for {term.source!r}") for span in found]
    return 0, []


def _spans(term: str, text: str) -> list[tuple[int, int]]:
    """Where a term occurs: as a whole word, or its plural, where words have spaces between."""
    pattern = regex.escape(term.strip())
    if not _EASTERN.search(term):
        pattern = regex.sub(r"(?<=\pL)y$", "(?:y|ies)", pattern)
        pattern = rf"\b{pattern}(?:'s|e?s)?\b"
    return [found.span() for found in regex.finditer(pattern, text, regex.IGNORECASE)]


def _texts(value: Any) -> tuple[str, ...]:
    parts: Sequence[Any] = value.split("|") if isinstance(value, str) else value or ()
    return tuple(text for part in parts if (text := str(part).strip()))
