"""Metrics of texts by name: n-grams of libraries, rules of our own, similarity of embeddings.

Every metric is a function of one item, and higher is better: edit rates and counts of defects are
negated (`ter` is printed as "-ter"). None is a judge: print its correlation with people first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Protocol

import regex

from hanol.errors import DataError, UnknownNameError, require

_HAN = regex.compile(r"\p{Han}")
_SYLLABLES = regex.compile(r"[\p{Hangul}\p{Hiragana}\p{Katakana}]")


class MetricItem(Protocol):
    """What a metric reads: an `Item`, or anything with these attributes."""

    @property
    def id(self) -> str:
        """Unique in its set."""
        ...

    @property
    def candidate(self) -> str:
        """The text to be scored."""
        ...

    @property
    def reference(self) -> str | None:
        """A good text to compare with."""
        ...

    @property
    def source(self) -> str | None:
        """What was translated or summarised."""
        ...


class EvidenceSpan(NamedTuple):
    """A part of a candidate that a rule objects to, or finds.

    Args:
        begin: First character.
        end: Character behind the last one.
        why: The rule, in words.
    """

    begin: int
    end: int
    why: str


@dataclass(frozen=True)
class TextMetric:
    """A score of a text without a model that judges; higher is better.

    Args:
        name: As given to `open_metric`.
        value: Computes the figure as its library prints it; NaN where it does not apply.
        needs: Attributes of the item that must hold text.
        lower_is_better: Whether `value` falls with quality.
        signature: Settings and version of the library.
        find: What in the candidate the figure counts, for rules.
        prepare: Called with all items before they are scored, to compute in batches.
    """

    name: str
    value: Callable[[MetricItem], float]
    needs: tuple[str, ...] = ("reference",)
    lower_is_better: bool = False
    signature: str = ""
    find: Callable[[MetricItem], list[EvidenceSpan]] = field(default=lambda item: [], repr=False)
    prepare: Callable[[Sequence[MetricItem]], None] = field(default=lambda items: None, repr=False)

    @property
    def label(self) -> str:
        """Its name in tables: with a minus where its figure is negated."""
        return f"-{self.name}" if self.lower_is_better else self.name

    def __call__(self, item: MetricItem) -> float:
        """The score of one item, higher for better; NaN where the metric does not apply.

        Raises:
            DataError: The item lacks a text that the metric needs.
        """
        for need in self.needs:
            if not getattr(item, need, None):
                raise DataError(
                    f"Item {item.id!r} has no `{need}`, which the metric {self.name!r} compares "
                    "with: add it, or leave the metric out."
                )
        value = float(self.value(item))
        return -value if self.lower_is_better else value


def metric_scores(metric: TextMetric, items: Sequence[MetricItem]) -> dict[str, float]:
    """The scores of many items, by id; without those that the metric does not apply to.

    Raises:
        DataError: An item lacks a text that the metric needs.
    """
    metric.prepare(items)
    scores = {item.id: metric(item) for item in items}
    return {name: score for name, score in scores.items() if score == score}


def open_metric(spec: str) -> TextMetric:
    """A metric by name.

    Args:
        spec: "bleu", "chrf", "chrf++", "ter" (sacrebleu), "rouge1", "rouge2", "rougeL"
            (rouge_score), "residue" (left-over source language), "length" (against the
            reference), "defects" (refusals, notes, echoes), "wrong-sentence", "tense" and
            "pronouns" (English, advisory), "terms:GLOSSARY" (a JSONL, CSV or TSV file),
            "similarity:MODEL" (to the reference) or "cross-similarity:MODEL" (to the source), the
            model being a text encoder such as e5-small.

    Raises:
        UnknownNameError: There is no such metric.
        DataError: A metric that needs a file or model has none, or it cannot be read.
        MissingExtraError: Its library is not installed.
    """
    from hanol.evaluation.meta import _grammar, _rules, _similarity, _terms

    name, colon, rest = spec.partition(":")
    makers: dict[str, Callable[[], TextMetric]] = {
        **dict.fromkeys(("bleu", "chrf", "chrf++", "ter"), lambda: _of_sacrebleu(name)),
        **dict.fromkeys(("rouge1", "rouge2", "rougeL"), lambda: _of_rouge(name)),
        "residue": _rules.residue_metric,
        "length": _rules.length_metric,
        "defects": _rules.defects_metric,
        "wrong-sentence": _rules.wrong_sentence_metric,
        "tense": _grammar.tense_metric,
        "pronouns": _grammar.pronouns_metric,
    }
    of_files: dict[str, Callable[[], TextMetric]] = {
        "terms": lambda: _terms.terms_metric(rest),
        "similarity": lambda: _similarity.similarity_metric(rest, to="reference"),
        "cross-similarity": lambda: _similarity.similarity_metric(rest, to="source"),
    }
    if name in makers and not colon:
        return makers[name]()
    if name in of_files:
        if not rest:
            what = "a glossary" if name == "terms" else "a text encoder, such as e5-small"
            raise DataError(f"The metric {name!r} needs {what}: write {name}:NAME.")
        return of_files[name]()
    raise UnknownNameError("metric", spec, [*makers, *(f"{one}:NAME" for one in of_files)])


def _of_sacrebleu(name: str) -> TextMetric:
    library = require("sacrebleu", extra="judging", feature=f"The metric {name!r}")

    @cache
    def made(tokenize: str) -> Any:
        match name:
            case "bleu":
                return library.BLEU(effective_order=True, tokenize=tokenize)
            case "ter":
                is_eastern = tokenize != "13a"
                return library.TER(normalized=is_eastern, asian_support=is_eastern)
            case _:
                return library.CHRF(word_order=2 if name == "chrf++" else 0)

    def value(item: MetricItem) -> float:
        scorer = made(_tokenizer(item.reference or ""))
        return float(scorer.sentence_score(item.candidate, [item.reference]).score)

    made("13a").sentence_score("a", ["a"])  # it knows its signature only after a score
    return TextMetric(
        name, value, lower_is_better=name == "ter", signature=str(made("13a").get_signature())
    )


def _tokenizer(reference: str) -> str:
    """The tokenizer of BLEU for the language of a reference."""
    if _SYLLABLES.search(reference):
        return "char"
    return "zh" if _HAN.search(reference) else "13a"


class _CharacterTokenizer:
    """Tokens of ROUGE for Chinese, Japanese and Korean: its own would drop all of their letters."""

    _token = regex.compile(r"[\p{Han}\p{Hangul}\p{Hiragana}\p{Katakana}]|[\p{L}\p{N}]+")

    def tokenize(self, text: str) -> list[str]:
        return [found.casefold() for found in self._token.findall(text)]


def _of_rouge(name: str) -> TextMetric:
    library = require("rouge_score.rouge_scorer", extra="judging", feature=f"The metric {name!r}")
    stemmed = library.RougeScorer([name], use_stemmer=True)
    characters = library.RougeScorer([name], tokenizer=_CharacterTokenizer())

    def value(item: MetricItem) -> float:
        reference = item.reference or ""
        scorer = stemmed if _tokenizer(reference) == "13a" else characters
        return 100 * float(scorer.score(reference, item.candidate)[name].fmeasure)

    return TextMetric(name, value, signature="rouge_score F1, stemmed; CJK by characters")
