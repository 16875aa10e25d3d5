"""Suites: items that show phenomena, drawn by class from parallel text."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from hanol.errors import ConfigError, DataError
from hanol.evaluation.building._corpora import ParallelText, is_in
from hanol.evaluation.building._phenomena import (
    PHENOMENA,
    Phenomenon,
    PhenomenonFinder,
    PhenomenonSpan,
    mine_terms,
)

NAMES = {"en": "English", "ko": "Korean", "zh": "Chinese"}
_LENGTHS = (8, 600)  # characters of a source
_RATIO = 4.0  # between source and reference in bytes of UTF-8: a syllable or word sign has three


class SuiteItem(BaseModel):
    """A text to translate, with what is hard in it.

    Args:
        id: Unique in its suite.
        phenomenon: The class that it was drawn for.
        source: What is to be translated.
        reference: A right translation.
        context: The text before the source.
        spans: Places that show phenomena, of every class that was found.
        origin: Where the text comes from.
        quality: What is known of the reference, such as "machine"; empty for a person's.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    phenomenon: Phenomenon
    source: str
    reference: str
    context: str | None = None
    spans: tuple[PhenomenonSpan, ...] = ()
    origin: str = ""
    quality: str = ""


@dataclass(frozen=True)
class Suite:
    """Items of one direction, and the terms that they agree on.

    Args:
        source: Code of the source language.
        target: Code of the target language.
        items: In the order of the classes.
        terms: Terms with their translations: a glossary.
        found: How many texts show each class, before drawing.
        dropped: Why texts were left out, with how many.
    """

    source: str
    target: str
    items: tuple[SuiteItem, ...]
    terms: Mapping[str, Sequence[str]]
    found: Mapping[str, int]
    dropped: Mapping[str, int]

    @property
    def name(self) -> str:
        """Its direction, such as "zh-en"."""
        return f"{self.source}-{self.target}"

    def task_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the task to translate: for `hanol eval run FILE --scorer metric:chrf`."""
        for item in self.items:
            yield {
                "id": item.id,
                "question": self.instruction(item),
                "answer": item.reference,
                "source": item.source,
                "group": item.phenomenon,
            }

    def instruction(self, item: SuiteItem) -> str:
        """What a translator is asked."""
        languages = (NAMES.get(code, code) for code in (self.source, self.target))
        asked = "Translate this {} text into {}. Answer with the translation alone."
        return f"{asked.format(*languages)}\n\n{item.source}"

    def glossary_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the glossary that the metric terms:GLOSSARY reads."""
        for term, translations in self.terms.items():
            yield {"source": term, "preferred": list(translations)}


def build_suite(
    texts: Sequence[ParallelText],
    source: str,
    target: str,
    *,
    per_class: int = 50,
    classes: Iterable[Phenomenon] = PHENOMENA,
    words: str | Path | None = None,
    terms: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Suite:
    """Draw a suite from parallel text.

    Each text is drawn for one class at most; the rarest class draws first, so that none goes
    without because another one took its texts.

    Args:
        texts: The parallel text.
        source: Code of the source language.
        target: Code of the target language.
        per_class: Items of each class; fewer where there are no more.
        classes: Classes to draw.
        words: Word lists of the user's, beside those of the package; see `PhenomenonFinder`.
        terms: A glossary; None mines the terms of the text (`mine_terms`).
        seed: Seed of the draw.

    Raises:
        ConfigError: `per_class` is below 1, or source and target are one language.
        DataError: No text has both languages, or none shows a class.
    """
    if per_class < 1 or source == target:
        raise ConfigError(
            f"`per_class` is {per_class} and the direction {source}-{target}: it needs at least 1 "
            "item, and two languages."
        )
    dropped: dict[str, int] = {}
    pairs = list(_usable(texts, source, target, dropped))
    if not pairs:
        why = ", ".join(f"{count} {name}" for name, count in dropped.items()) or "there is none"
        raise DataError(f"No text can be used for {source}-{target}: {why}.")
    finder = PhenomenonFinder(source, target, words=words)
    if terms is None:
        mined = mine_terms([(one.texts[source], one.texts[target]) for one in pairs])
        terms = {name: found for name, found in mined.items() if not finder.is_common(name)}
    finder = PhenomenonFinder(source, target, words=words, terms=terms)
    spans = {one.id: finder.find(one.texts[source], one.texts[target]) for one in pairs}
    by_class = {
        name: [one for one in pairs if any(span.phenomenon == name for span in spans[one.id])]
        for name in dict.fromkeys(classes)
    }
    if not any(by_class.values()):
        raise DataError(
            f"None of {len(pairs)} texts shows a phenomenon by the word lists: add lists of your "
            "domain (--words) or a glossary (--glossary)."
        )
    rng, taken = Random(f"{seed} {source}-{target}"), set[str]()  # noqa: S311
    drawn: dict[str, list[ParallelText]] = {}
    for name in sorted(by_class, key=lambda name: len(by_class[name])):
        free = [one for one in by_class[name] if one.id not in taken]
        drawn[name] = rng.sample(free, min(per_class, len(free)))
        taken |= {one.id for one in drawn[name]}
    order = {one.id: place for place, one in enumerate(pairs)}
    items = tuple(
        SuiteItem(
            id=f"{source}-{target}-{one.id}",
            phenomenon=name,
            source=one.texts[source],
            reference=one.texts[target],
            context=one.context.get(source),
            spans=tuple(spans[one.id]),
            origin=one.origin,
            quality=one.quality.get(target, ""),
        )
        for name in by_class
        for one in sorted(drawn[name], key=lambda one: order[one.id])
    )
    found: dict[str, int] = {name: len(ones) for name, ones in by_class.items()}
    used = {name: terms[name] for name in terms if any(name in item.source for item in items)}
    return Suite(source, target, items, used, found, dropped)


def _usable(
    texts: Sequence[ParallelText], source: str, target: str, dropped: dict[str, int]
) -> Iterator[ParallelText]:
    seen: set[str] = set()
    for one in texts:
        first, second = one.texts.get(source), one.texts.get(target)
        why = ""
        if first is None or second is None:
            why = "without one of the languages"
        elif not is_in(first, source) or not is_in(second, target):
            why = "not translated"
        elif not _LENGTHS[0] <= len(first) <= _LENGTHS[1]:
            why = "too short or too long"
        elif not 1 / _RATIO <= len(first.encode()) / len(second.encode()) <= _RATIO:
            why = "with parts of very different length"
        elif first in seen:
            why = "with a source that another one has"
        if why:
            dropped[why] = dropped.get(why, 0) + 1
            continue
        seen.add(str(first))
        yield one


def suite_lines(suite: Suite) -> Iterator[str]:
    """What was drawn, as text."""
    yield f"{suite.name}: {len(suite.items)} items, {len(suite.terms)} terms"
    for name, number in suite.found.items():
        drawn = sum(item.phenomenon == name for item in suite.items)
        yield f"  {name:22}{drawn:6} of {number}"
    for why, number in suite.dropped.items():
        yield f"  {'left out':22}{number:6} {why}"


def evidence(item: SuiteItem) -> list[dict[str, Any]]:
    """The places of an item's own class, as JSON has them."""
    return [
        json.loads(span.model_dump_json())
        for span in item.spans
        if span.phenomenon == item.phenomenon
    ]
