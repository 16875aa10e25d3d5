"""Which strategy for which difficulty and budget: a table that is fitted and then taken along.

Each bin of difficulty is split in two folds; a strategy that is chosen on one is judged on the
other, so that no figure is that of questions which it was chosen on.
Source: arXiv 2408.03314, section 3.2.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hanol.engines import Engine
from hanol.errors import ConfigError, DataError
from hanol.files import read_json, replace_json
from hanol.scoring import bootstrap
from hanol.test_time._difficulty import difficulty_bins
from hanol.test_time._prompts import ThinkSettings

_FORMAT = 1


@dataclass(frozen=True)
class PolicyRecord:
    """How one strategy did on one question.

    Args:
        question: Name of the question, the same for every strategy and budget.
        difficulty: pass@1, mean score, or agreement of first answers: more is easier.
        budget: Complete answers that were paid for.
        strategy: Name of the strategy.
        right: 1 or True for a right answer; shares of several runs count, too.
        options: Further arguments of the strategy.
    """

    question: str
    difficulty: float
    budget: int
    strategy: str
    right: float
    options: Mapping[str, Any] | None = None

    @property
    def spec(self) -> str:
        """Strategy and options as one text, by which they are told apart."""
        return json.dumps([self.strategy, dict(self.options or {})], sort_keys=True)


@dataclass(frozen=True)
class PolicyEntry:
    """What is best for one bin and budget.

    Attributes:
        strategy: Name of the strategy that is best on all questions of the bin.
        options: Its further arguments.
        accuracy: Share of right answers of the strategies that were chosen on the other fold.
        low: Lower end of its 95 % interval, over questions.
        high: Upper end.
        questions: Questions of the bin.
    """

    strategy: str
    options: Mapping[str, Any]
    accuracy: float
    low: float
    high: float
    questions: int


class PolicyTable:
    """The best strategy for each difficulty and budget, for one model, task and template.

    Args:
        entries: By budget, then by bin from 1, the easiest.
        edges: Difficulty from which on a question is in the bin before, for each pair of bins.
        key: What it was fitted for: model, template and task, as `policy_key` gives them. Empty
            for one that is checked against nothing.
        questions: Hashes of the questions that it was fitted on (`question_hash`).
    """

    def __init__(
        self,
        entries: Mapping[int, Mapping[int, PolicyEntry]],
        edges: Sequence[float],
        key: Mapping[str, str] | None = None,
        questions: Iterable[str] = (),
    ) -> None:
        self.entries = {b: dict(bins) for b, bins in sorted(entries.items())}
        self.edges, self.key = list(edges), dict(key or {})
        self.questions = frozenset(questions)

    @property
    def budgets(self) -> list[int]:
        """Budgets that it has entries for."""
        return list(self.entries)

    def bin_of(self, difficulty: float) -> int:
        """The bin of a question, from 1 (easiest)."""
        return len(self.edges) + 1 - sum(difficulty >= edge for edge in self.edges)

    def choose(self, difficulty: float, budget: int) -> dict[str, Any]:
        """The best strategy for a question.

        Args:
            difficulty: As in the records that the table was fitted on: more is easier.
            budget: Complete answers that may be paid for; the largest fitted budget up to it
                counts.

        Returns:
            `strategy`, its `options`, and the `budget` to give it.

        Raises:
            ConfigError: The budget is below every fitted one.
            DataError: The difficulty is not a number.
        """
        if difficulty != difficulty:
            raise DataError("`difficulty` is not a number.")
        fitted = [one for one in self.entries if one <= budget]
        if not fitted:
            known = ", ".join(map(str, self.entries))
            raise ConfigError(
                f"`budget` is {budget}, but the policy was fitted for {known}: give at least the "
                "first of these."
            )
        wanted, bins = self.bin_of(difficulty), self.entries[max(fitted)]
        # A bin without questions takes the answer of the nearest one that has some.
        found = bins[min(bins, key=lambda one: (abs(one - wanted), one))]
        return {
            "strategy": found.strategy,
            "options": dict(found.options),
            "budget": max(fitted),
        }

    def check(self, engine: Engine, settings: ThinkSettings, *, task: str | None = None) -> None:
        """Refuse to be used for another model, template or task than it was fitted for.

        Raises:
            ConfigError: It was; the message names what differs.
        """
        now = policy_key(engine, settings, task or self.key.get("task", ""))
        for name, value in self.key.items():
            if now[name] != value:
                raise ConfigError(
                    f"This policy was fitted for another {name} ({value}, not {now[name]}): fit "
                    "one for this with hanol think fit."
                )

    def check_questions(self, questions: Iterable[str]) -> None:
        """Refuse to be judged on questions that it was fitted on.

        Raises:
            DataError: Some are; the message gives their number.
        """
        asked = list(questions)
        known = [one for one in asked if question_hash(one) in self.questions]
        if known:
            raise DataError(
                f"{len(known)} of {len(asked)} questions were used to fit the policy, such as "
                f"{known[0]!r:.80}: judge it on others."
            )

    def save(self, path: str | Path) -> None:
        """Write it to a file of JSON.

        Raises:
            WriteError: It cannot be written.
        """
        replace_json(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        entries = {
            str(budget): {str(number): asdict(entry) for number, entry in bins.items()}
            for budget, bins in self.entries.items()
        }
        return {"format": _FORMAT, "key": self.key, "edges": self.edges, "entries": entries,
                "questions": sorted(self.questions)}  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> "PolicyTable":
        """Read what `save` wrote.

        Raises:
            DataError: The file cannot be read, or is no policy.
        """
        try:
            plain = read_json(path)
            if plain["format"] != _FORMAT:
                raise DataError(f"{str(path)!r} has format {plain['format']!r}, not {_FORMAT}.")
            entries = {
                int(budget): {int(n): PolicyEntry(**entry) for n, entry in bins.items()}
                for budget, bins in plain["entries"].items()
            }
            return cls(entries, plain["edges"], plain["key"], plain["questions"])
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise DataError(f"{str(path)!r} is no policy that can be read: {err!r}.") from err


def fit_policy(
    records: Iterable[PolicyRecord | Mapping[str, Any]],
    *,
    bins: int = 5,
    key: Mapping[str, str] | None = None,
    seed: int = 0,
) -> PolicyTable:
    """The best strategy for each bin of difficulty and each budget.

    Of equally good strategies the one that came first in the records is taken.

    Args:
        records: How each strategy did on each question at each budget; mappings with the names of
            `PolicyRecord` do, too.
        bins: Bins of difficulty.
        key: See `PolicyTable`.
        seed: Of the split into folds.

    Raises:
        DataError: There are no records, a strategy lacks questions that others have, or a question
            has two difficulties.
    """
    rows = [one if isinstance(one, PolicyRecord) else PolicyRecord(**one) for one in records]
    if not rows:
        raise DataError("There are no records to fit a policy on.")
    difficulty: dict[str, float] = {}
    right: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if difficulty.setdefault(row.question, row.difficulty) != row.difficulty:
            raise DataError(f"The question {row.question!r:.80} has two difficulties.")
        right[row.budget, row.spec][row.question].append(float(row.right))
    for (budget, spec), found in right.items():
        if found.keys() != difficulty.keys():
            raise DataError(
                f"{json.loads(spec)[0]!r} at budget {budget} has {len(found)} of "
                f"{len(difficulty)} questions: every strategy needs all of them."
            )
    names = list(difficulty)
    number_of = dict(zip(names, difficulty_bins([*difficulty.values()], bins), strict=True))
    entries: dict[int, dict[int, PolicyEntry]] = {}
    for budget in sorted({row.budget for row in rows}):
        specs = {spec: found for (b, spec), found in right.items() if b == budget}
        entries[budget] = {
            number: _entry(specs, [name for name in names if number_of[name] == number], seed)
            for number in sorted(set(number_of.values()))
        }
    values = [*difficulty.values()]
    edges = np.quantile(values, np.arange(1, bins) / bins).tolist()
    return PolicyTable(entries, edges, key, map(question_hash, names))


def _entry(
    specs: Mapping[str, Mapping[str, Sequence[float]]], questions: Sequence[str], seed: int
) -> PolicyEntry:
    """The best strategy of a bin, and what strategies that are chosen so are worth."""

    def best(of: Sequence[str]) -> str:
        return max(specs, key=lambda spec: float(np.mean([np.mean(specs[spec][q]) for q in of])))

    order = np.random.default_rng(seed).permutation(len(questions))
    folds = [[questions[i] for i in order[half::2]] for half in (0, 1)]
    held_out = [
        float(np.mean(specs[best(other)][question]))
        for fold, other in (folds, folds[::-1])
        if other
        for question in fold
    ]
    strategy, options = json.loads(best(questions))
    # Of a single question there is no other fold: nothing is known.
    if not held_out:
        return PolicyEntry(strategy, options, 0.0, 0.0, 1.0, len(questions))
    [found] = bootstrap([[right] for right in held_out], seed=seed)
    return PolicyEntry(strategy, options, found.value, found.low, found.high, len(questions))


def policy_key(engine: Engine, settings: ThinkSettings, task: str) -> dict[str, str]:
    """What a policy is fitted for, as hashes: a model, a template with its sampling, a task."""
    drawn = asdict(settings)
    for name in ("concurrency", "sampling"):
        del drawn[name]
    sampling = asdict(settings.sampling)
    del sampling["seed"]
    return {
        "model": _hash([engine.name, engine.parameters]),
        "template": _hash([drawn, sampling]),
        "task": task,
    }


def question_hash(question: str) -> str:
    """What a policy keeps of a question that it was fitted on."""
    return _hash(" ".join(question.split()))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
