"""Scorers by name: equality of answers, verifiers, metrics of texts, a model as judge."""

import re
from collections.abc import Callable
from functools import cache

from hanol.engines import open_engine
from hanol.errors import ConfigError, DataError
from hanol.evaluation._judge import Judge
from hanol.evaluation.meta._metrics import open_metric
from hanol.evaluation.tasks._solvers import imported
from hanol.evaluation.tasks._task import TaskItem, TaskScorer, Value, said
from hanol.scoring import (
    Verifier,
    exact_match,
    numeric_match,
    parse_verifier,
    set_match,
    stated_answer,
)

# Behind the last of these a text states its answer; values alone are found by `stated_answer`.
_STATES = re.compile(
    r"(?:\banswer\s*(?:is|was|[:：])|정답(?:은|[:：])|(?<!\w)답(?:은|[:：])|答案(?:是|为|[:：]))"
    r"\s*[:：]?[ \t]*",
    re.IGNORECASE,
)
_ENDING = re.compile(r"(?:입니다|이다|예요|이에요)?[.。]?\s*$")
_LIST = re.compile(r"[,;]")
_OPTION = re.compile(r"\(?([A-Za-z])\)?[.:)]?(?:\s.*)?", re.DOTALL)


def open_scorer(spec: str) -> TaskScorer:
    """A scorer by name.

    Args:
        spec: "exact", "set" and "numeric" compare what the text states as its answer ("The answer
            is ...", a box), else all of it, with the references; "gaia" does so by the kind of
            the reference: number, list or text; "choice" compares the letter of an option.
            "contains" looks for a reference in the text. "row" takes what each item is for:
            "verify" where it has a verifier, "choice" where it has options, else "exact". "verify"
            takes each item's own verifier, "verify:SPEC" one for all (see
            `hanol.scoring.parse_verifier`). "judge:MODEL" asks a model. "metric:NAME" is the figure
            of a metric of texts, such as metric:chrf. "module:function" is a function of a
            `TaskItem` and a text.

    Raises:
        ConfigError: There is no such scorer, or a function cannot be imported.
    """
    kind, _, rest = spec.partition(":")
    if spec in _EQUALITIES:
        return TaskScorer(spec, _compared(_EQUALITIES[spec]))
    if spec == "row":
        return TaskScorer(spec, _of_row())
    if kind == "verify":
        return TaskScorer(spec, _verified(rest))
    if kind == "judge" and rest:
        return _judged(spec, Judge(open_engine(rest)))
    if kind == "metric" and rest:
        return _measured(spec, rest)
    if rest:
        return TaskScorer(spec, imported(spec, "scorer"))
    raise ConfigError(
        f"No scorer is named {spec!r}. Give {', '.join(_EQUALITIES)}, row, verify, verify:SPEC, "
        "judge:MODEL, metric:NAME or module:function."
    )


def judge_scorer(judge: Judge) -> TaskScorer:
    """A scorer that asks a judge of the caller's whether answers are right."""
    return _judged(f"judge:{judge.name}", judge)


def _judged(spec: str, judge: Judge) -> TaskScorer:
    async def score(item: TaskItem, text: str) -> Value:
        verdict = await judge.judge(item.question, said(text), _references(item))
        return None if verdict.status == "error" else verdict.status == "correct"

    name = f"{spec} {judge.prompt_sha256[:12]}"
    return TaskScorer(name, score, is_costly=True, aclose=judge.engine.aclose)


def _compared(equal: Callable[[str, tuple[str, ...]], bool]) -> Callable[[TaskItem, str], bool]:
    def score(item: TaskItem, text: str) -> bool:
        return any(equal(one, _references(item)) for one in stated(text))

    return score


def stated(text: str) -> list[str]:
    r"""What may be the answer in a text: what it states as such, in words or as a value, and all.

    Example:
        >>> stated("Seoul is large.\nThe answer is Seoul.")
        ['Seoul', 'Seoul is large.\nThe answer is Seoul.']
    """
    text = said(text)
    in_words = None
    for match in _STATES.finditer(text):
        rest = text[match.end() :].partition("\n")[0]
        in_words = _ENDING.sub("", rest.strip(' *"')).strip(' *"')
    found = [in_words, stated_answer(text), text]
    return list(dict.fromkeys(one for one in found if one))


def _references(item: TaskItem) -> tuple[str, ...]:
    if not item.answers:
        raise DataError(f"{item.where}: it has no reference answer to compare with.")
    return item.answers


def _gaia(text: str, references: tuple[str, ...]) -> bool:
    """Equality by the kind of the reference: a number, an ordered list, or text."""
    return any(_gaia_one(text, reference) for reference in references)


def _gaia_one(text: str, reference: str) -> bool:
    if (bare := _number(reference)) is not None:
        return _number(text) == bare
    wanted = [part.strip() for part in _LIST.split(reference)]
    if len(wanted) == 1:
        return _without_spaces(text) == _without_spaces(reference) != ""
    found = [part.strip() for part in _LIST.split(text)]
    return len(found) == len(wanted) and all(map(_gaia_one, found, wanted))


def _number(text: str) -> float | None:
    """The number that a text is, without currency, % and commas."""
    try:
        return float(re.sub(r"[$%,€£₩\s]", "", text.rstrip(".")))
    except ValueError:
        return None


def _without_spaces(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _choice(text: str, references: tuple[str, ...]) -> bool:
    found = _OPTION.fullmatch(text.strip().strip("*"))
    return found is not None and found[1].upper() in {
        one.strip("() ").upper() for one in references
    }


def _contains(text: str, references: tuple[str, ...]) -> bool:
    words = f" {_spaced(text)} "
    return any(f" {_spaced(one)} " in words for one in references if _spaced(one))


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


_EQUALITIES: dict[str, Callable[[str, tuple[str, ...]], bool]] = {
    "exact": exact_match,
    "set": set_match,
    "numeric": numeric_match,
    "gaia": _gaia,
    "choice": _choice,
    "contains": _contains,
}


def _verified(spec: str) -> Callable[[TaskItem, str], bool]:
    opened: Callable[[str], Verifier] = cache(parse_verifier)
    if spec:
        opened(spec)  # so that a wrong one is told before anything is asked

    def score(item: TaskItem, text: str) -> bool:
        name = spec or item.verifier
        if not name:
            raise DataError(
                f"{item.where}: it has no `verifier`. Name one for all: --scorer verify:SPEC."
            )
        return opened(name)(item.question, said(text), item)

    return score


def _of_row() -> Callable[[TaskItem, str], bool]:
    verified, choice, exact = _verified(""), _compared(_choice), _compared(exact_match)

    def score(item: TaskItem, text: str) -> bool:
        if item.verifier:
            return verified(item, text)
        return (choice if "choices" in item.extra else exact)(item, text)

    return score


class _ScoredAnswer:
    """An answer as metrics of texts read it."""

    def __init__(self, item: TaskItem, text: str) -> None:
        self.id, self.candidate, self.source = item.id, text, item.source
        self.reference = item.answer


def _measured(spec: str, name: str) -> TaskScorer:
    metric = open_metric(name)

    def score(item: TaskItem, text: str) -> float | None:
        figure = float(metric(_ScoredAnswer(item, said(text))))
        return figure if figure == figure else None

    return TaskScorer(f"{spec} {metric.signature}".strip(), score)
