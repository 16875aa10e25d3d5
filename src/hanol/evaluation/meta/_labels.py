"""Outputs with what people gave them, and scores of judges and metrics for the same outputs."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hanol.errors import DataError, UnknownNameError
from hanol.evaluation.judging._formats import read_label_studio
from hanol.rows import read_rows

TOTAL = "total"
_NAMES = {  # in our files, in those of MetricAlign and AgentEval, and in others
    "candidate": ("candidate", "hypothesis", "model_output", "output", "response"),
    "candidate_raw": ("candidate_raw", "hypothesis_raw"),
    "reference": ("reference", "ground_truth"),
    "source": ("source", "source_text"),
    "context": ("context",),
    "system": ("system", "model"),
    "task": ("task", "dimension"),
}
_GROUPS = ("group", "source_id", "source_ref", "source", "reference", "ground_truth")
_JUDGED = {"specific": "sp", "general_1": "g_1", "general_2": "g_2"}  # in rubrics of DITING
_RATER = ("annotator", "rater", "completed_by")


class LabelledItem(BaseModel):
    """An output, and what people gave it."""

    model_config = ConfigDict(frozen=True)

    id: str
    candidate: str = ""
    reference: str | None = None
    source: str | None = None
    context: str | None = None
    system: str | None = Field(None, description="Who made it.")
    task: str | None = None
    group: str = Field(description="What it is an output of; outputs of one group are compared.")
    ratings: dict[str, dict[str, float]] = Field(
        description="By rater, then by criterion; one rater without a name where only means are "
        "known."
    )

    def given(self, criterion: str = TOTAL) -> list[float | None]:
        """What each rater gave, in their order; "total" is the sum unless one gave a total."""
        return [
            _total(one) if criterion == TOTAL else one.get(criterion)
            for one in self.ratings.values()
        ]

    def human(self, criterion: str = TOTAL) -> float | None:
        """Mean over raters; None where nobody rated the criterion."""
        known = [value for value in self.given(criterion) if value is not None]
        return mean(known) if known else None


def criteria(items: Sequence[LabelledItem]) -> list[str]:
    """The criteria that people scored, "total" last."""
    found = dict.fromkeys(name for item in items for one in item.ratings.values() for name in one)
    return [*(name for name in found if name != TOTAL), TOTAL]


def read_labels(path: str | Path) -> list[LabelledItem]:
    """Read outputs that people scored.

    Args:
        path: JSONL, JSON, CSV or TSV with an "id", and either "human" (a number, or a number per
            criterion) or "annotations" (a list with the rater as "annotator" and a number per
            criterion). Texts are "candidate", "reference" and "source"; "system" says who wrote
            it, "group" what it is an output of. Or an export of Label Studio (.json).

    Raises:
        DataError: The file cannot be read, an id occurs twice, or no row has a score of a person;
            the message names file, line and item.
    """
    items: list[LabelledItem] = []
    lines: dict[str, int] = {}
    for number, row in _rows(Path(path)):
        where = f"{str(path)!r}, line {number}"
        item = _read(row, where)
        if item.id in lines:
            raise DataError(f"{where}: the id {item.id!r} is that of line {lines[item.id]}, too.")
        lines[item.id] = number
        items.append(item)
    if not any(item.ratings for item in items):
        raise DataError(
            f"{str(path)!r} has no scores of people: each row needs `human` or `annotations`."
        )
    return items


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a file; of an export of Label Studio its items."""
    for number, row in read_rows(path):
        if number == 1 and path.suffix.casefold() == ".json" and isinstance(row.get("data"), dict):
            for place, item in enumerate(read_label_studio(path), start=1):
                yield place, item.model_dump() | item.meta
            return
        yield number, row


def _read(row: Mapping[str, Any], where: str) -> LabelledItem:
    if (name := row.get("id")) is None:
        raise DataError(f"{where}: the row has no `id`.")
    where += f", item {name!r}"
    texts = {
        field: next((str(row[key]) for key in keys if row.get(key) is not None), None)
        for field, keys in _NAMES.items()
    }
    raw = texts.pop("candidate_raw")
    group = next((row[key] for key in _GROUPS if row.get(key)), name)
    return LabelledItem(
        id=str(name),
        candidate=texts.pop("candidate") or raw or "",
        group=group if isinstance(group, str) else json.dumps(group, ensure_ascii=False),
        ratings=_ratings(row, where),
        **texts,
    )


def _ratings(row: Mapping[str, Any], where: str) -> dict[str, dict[str, float]]:
    row = {**_object(row.get("meta")), **row}
    annotations = row.get("annotations") or []
    if not isinstance(annotations, list):
        raise DataError(f"{where}: `annotations` is no list.")
    found: dict[str, dict[str, float]] = {}
    for number, one in enumerate(annotations, start=1):
        if not isinstance(one, dict):
            raise DataError(f"{where}: annotation {number} is no object.")
        rater = next((str(one[key]) for key in _RATER if one.get(key) is not None), f"#{number}")
        if rater in found:
            raise DataError(f"{where}: the rater {rater!r} scored it twice.")
        given = one.get("scores", one)
        if scores := {
            name: float(x) for name, x in given.items() if name not in _RATER and _is_score(x)
        }:
            found[rater] = scores
    if found:
        return found
    human = row.get("human")
    if human is None or human == "":
        return {}
    if isinstance(human, dict):
        return {"": {name: float(x) for name, x in human.items() if name[:2] != "n_"
                     and _is_score(x)}}  # fmt: skip
    return {"": {TOTAL: _number(human, f"{where}: `human`")}}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _total(scores: Mapping[str, float]) -> float:
    return scores[TOTAL] if TOTAL in scores else sum(scores.values())


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)  # of a CSV file
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or number != number:
        raise DataError(f"{where} is {value!r:.40}, which is no score.")
    return number


# -- scores of judges and metrics


class ScoreTable(BaseModel):
    """What one judge or metric gave the outputs, by id: one value per run."""

    name: str
    values: dict[str, list[float]] = Field(description="One per repetition.")
    systems: dict[str, str] = Field(
        default={}, description="Who made each output, by id, as far as the rows say."
    )
    unscored: int = Field(0, description="Outputs that it was asked about, and gave no score.")
    mode: str | None = Field(None, description="How a score was made: single, sampled-mean, ...")
    rubric: str | None = Field(None, description="Hash of the rubric.")
    prompt: str | None = Field(None, description="Hash of the prompts.")
    signature: str = Field("", description="Settings of a metric.")

    @property
    def means(self) -> dict[str, float]:
        """Mean over repetitions, by id."""
        return {name: mean(values) for name, values in self.values.items()}

    @property
    def num_repeats(self) -> int:
        """The largest number of scores that an output has."""
        return max(map(len, self.values.values()), default=0)


def read_scores(paths: Iterable[str | Path], criterion: str = TOTAL) -> list[ScoreTable]:
    """Read scores of judges and metrics.

    Args:
        paths: JSONL, JSON, CSV or TSV files, or folders of runs. A row is a judgement, or has
            "id", "metric" and "score" (COMET, MetricX and others). Rows of one judge for the same
            id are repetitions.
        criterion: The criterion that is taken of judgements.

    Raises:
        DataError: A file cannot be read, a row is neither, or judgements of one judge differ in
            their rubric or in how a score was made.
        UnknownNameError: Judgements have no such criterion.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    about: dict[str, dict[str, str | None]] = {}
    unscored: dict[str, int] = defaultdict(int)
    systems: dict[str, str] = {}
    for path in map(Path, paths):
        file = path / "judgements.jsonl" if path.is_dir() else path
        for number, row in read_rows(file):
            where = f"{str(file)!r}, line {number}"
            name, score, hashes = _score_of(row, criterion, where)
            if row.get("id") is None:
                raise DataError(f"{where}: the row has no `id`.")
            about_item = _object(row.get("item")) | row
            if (system := about_item.get("system") or about_item.get("model")) is not None:
                systems[str(row["id"])] = str(system)
            known = about.setdefault(name, hashes)
            for key, value in hashes.items():
                if known[key] != value:
                    raise DataError(
                        f"{where}: {name!r} has scores with {key} {known[key]!r} and {value!r}, "
                        "which do not compare. Judge all of them alike, or name one file."
                    )
            if score is None:
                unscored[name] += 1
            else:
                values[name][str(row["id"])].append(score)
    return [
        ScoreTable(
            name=name,
            values=dict(values[name]),
            systems={key: systems[key] for key in values[name] if key in systems},
            unscored=unscored[name],
            **hashes,
        )
        for name, hashes in about.items()
    ]


def _score_of(
    row: Mapping[str, Any], criterion: str, where: str
) -> tuple[str, float | None, dict[str, str | None]]:
    """Judge or metric of a row, its score, and what scores that compare have in common."""
    hashes: dict[str, str | None] = {"mode": None, "rubric": None, "prompt": None}
    if "metric" in row or "score" in row:
        name = str(row.get("metric") or row.get("judge") or "score")
        score = row.get("score")
        return name, None if score is None else _number(score, f"{where}: `score`"), hashes
    scores = row.get("scores")
    if "protocol_hash" not in row or not (scores is None or isinstance(scores, dict)):
        raise DataError(f"{where}: a row has `score`, or is a judgement of `hanol eval judge`.")
    hashes = {
        "mode": row.get("score_mode"),
        "rubric": row.get("rubric_hash"),
        "prompt": row.get("prompt_hash"),
    }
    judges = dict.fromkeys(map(str, _object(row.get("judges")).values()))
    name = f"{row.get('protocol')}:{'+'.join(judges)}"
    if scores is None:
        return name, None, hashes
    gated = _object(scores.get("gated"))
    if criterion == TOTAL:
        return name, _number(row.get("total"), f"{where}: `total`"), hashes
    key = criterion if criterion in gated else _JUDGED.get(criterion, criterion)
    if key not in gated:
        raise UnknownNameError("criterion of the judgements", criterion, [*gated, TOTAL])
    return name, float(gated[key]), hashes
