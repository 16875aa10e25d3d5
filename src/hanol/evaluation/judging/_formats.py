"""Files of others: Label Studio exports, and the JSON of DITING's official code."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.evaluation.judging._item import Item, read_items
from hanol.evaluation.judging._record import Judgement, Scores, Utterance
from hanol.evaluation.judging._rubric import Rubric
from hanol.files import read_json, replace_json

_TASKS = ("idiom", "lexical", "terminology", "tense", "zero", "security")
_CLASSES = (
    ("成语", "idiom"), ("专有名词", "terminology"), ("主语缺省", "zero"), ("时态", "tense"),
    ("多义", "lexical"), ("歧义", "lexical"), ("安全", "security"), ("敏感", "security"),
)  # fmt: skip
# One template served all classes of DITING.
_CRITERIA = {"term_appropriateness": "sp", "localization_strategy": "g_1", "fluency": "g_2"}
_OFFICIAL = {"specific": "sp", "general_1": "g_1", "general_2": "g_2"}
_TEXT = re.compile(r"(?:文本|句子)\s*[:：]\s*")
_CONTEXT = re.compile(r"上下文\s*[:：]\s*(.+?)(?=\s*(?:文本|句子)\s*[:：]|$)", re.DOTALL)
_PARTS = re.compile(r"<([^<>\n]+)>\s*<([^<>\n]+)>\s*<([^<>\n]+)>")
_TERM = re.compile(r"其中[\"“]([^\"”]+)[\"”]是")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_CHOICE = re.compile(r"\s*(-?\d+)")


def read_label_studio(path: str | Path) -> list[Item]:
    """Items of a Label Studio export, with the scores of its annotators.

    Drafts, cancelled annotations, predictions and all fields about people are dropped; annotators
    become "A0", "A1" and so on, mail addresses in comments "[mail]".

    Returns:
        Items whose `meta` holds `annotations` (annotator, scores by criterion, comment) and `human`
        (the mean by criterion, `total` of those that are complete, `n_annotators`).

    Raises:
        DataError: The file cannot be read or is no such export; the message names the task.
    """
    tasks = _list(path)
    known = {_person(one) for task in tasks for one in _annotations(task)}
    people = {one: f"A{n}" for n, one in enumerate(sorted(known))}
    return [_labelled(path, number, task, people) for number, task in enumerate(tasks, start=1)]


def read_outputs(path: str | Path) -> list[Item]:
    """Items of a file of any kind that is known: own rows, Label Studio, the official code's.

    Raises:
        DataError: The file cannot be read, or is none of these.
    """
    path = Path(path)
    if path.suffix.casefold() == ".json":
        first = next(iter(_list(path)), {})
        if "data" in first and ("annotations" in first or "completions" in first):
            return read_label_studio(path)
        if "instruction" in first or "specific" in first:
            return [one.item if isinstance(one, Judgement) else one for one in read_official(path)]
    items = list(read_items(path))
    if not items:
        raise DataError(f"{str(path)!r} has no items.")
    return items


def read_official(path: str | Path) -> list[Item] | list[Judgement]:
    """Items of an input file of DITING's official code, or judgements of an output file.

    Raises:
        DataError: The file cannot be read, or is neither; the message names the record.
        UnknownNameError: A task is none of the six.
    """
    rows = _list(path)
    if rows and all("specific" in row for row in rows):
        rubric = Rubric.load("diting")
        return [_judged(path, number, row, rubric) for number, row in enumerate(rows, start=1)]
    items = []
    for number, row in enumerate(rows, start=1):
        where = f"{str(path)!r}, item {number}"
        for name in ("instruction", "model_output"):
            if not isinstance(row.get(name), str):
                raise DataError(f"{where}: `{name}` is missing. A record has model, instruction, "
                                "model_output, ground_truth and task.")  # fmt: skip
        task = row.get("task")
        if task is not None and task not in _TASKS:
            raise DataError(f"{where}: `task` is {task!r}, but must be one of {', '.join(_TASKS)}.")
        items.append(_item(str(row.get("id", number)), row, task))
    return items


def write_official(judgements: Iterable[Judgement], path: str | Path) -> None:
    """Write judgements as the official code does: one JSON list.

    Judgements without scores have null, which the official code does not know.

    Raises:
        DataError: A judgement is by another rubric than DITING's.
        WriteError: The file cannot be written.
    """
    rows = []
    for one in judgements:
        if one.scores is not None and set(one.scores) != set(_OFFICIAL.values()):
            raise DataError(f"Item {one.id!r} was judged by {', '.join(one.scores)}: the official "
                            "form has sp, g_1 and g_2 alone.")  # fmt: skip
        item = one.item
        scores = {key: None if one.scores is None else _whole(one.scores[name])
                  for key, name in _OFFICIAL.items()}  # fmt: skip
        rows.append({
            "task_type": item.task,
            "model": item.system,
            "task": item.meta.get("instruction", ""),
            "origin": item.source if item.source is not None else item.meta.get("origin", ""),
            "target": item.candidate_raw,
            **scores,
            "process": [{"role": said.role, "content": said.text} for said in one.transcript],
        })  # fmt: skip
    replace_json(path, rows)


def _whole(score: float) -> float:
    return int(score) if float(score).is_integer() else score


def _list(path: str | Path) -> list[dict[str, Any]]:
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as err:
        raise DataError(f"{str(path)!r} could not be read: {err}") from err
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise DataError(f"{str(path)!r} is no JSON list of objects.")
    return content


def _item(name: str, row: Mapping[str, Any], task: str | None, **meta: Any) -> Item:
    """The item of an instruction and an output, as all files of DITING have them."""
    instruction = str(row["instruction"])
    parts = _TEXT.split(instruction)
    source = parts[-1].strip() if len(parts) > 1 else None
    context = found[1].strip() if (found := _CONTEXT.search(instruction)) else None
    # In public files a pointer stands in the place of the text.
    pointer = _PARTS.search(source if source is not None else context or "")
    reference = None
    if pointer is not None:
        reference = dict(zip(("novel", "chapter", "sentence"), pointer.groups(), strict=True))
        meta["origin"] = source if source is not None else context
        source = None
        context = None
    if term := _TERM.search(instruction):
        meta["term"] = term[1]
    truth = row.get("ground_truth")
    return Item(
        id=name,
        suite="diting",
        task=task or next((key for word, key in _CLASSES if word in instruction), None),
        source=source or None,
        source_ref=reference,
        context=context,
        candidate=str(row["model_output"]),
        reference=None if truth is None else str(truth),
        system=None if row.get("model") is None else str(row["model"]),
        meta={"instruction": instruction, **meta},
    )


def _annotations(task: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    found = task.get("annotations") or task.get("completions") or []
    kept = [one for one in found if isinstance(one, dict) and not one.get("was_cancelled")]
    return [one for one in kept if one.get("result")]


def _person(annotation: Mapping[str, Any]) -> tuple[int, str]:
    """Who annotated; sorts by number, as the public file does."""
    by = annotation.get("completed_by")
    by = by.get("id", by.get("email")) if isinstance(by, dict) else by
    return (by, "") if isinstance(by, int) else (-1, str(by))


def _labelled(
    path: str | Path, number: int, task: Mapping[str, Any], people: Mapping[Any, str]
) -> Item:
    where = f"{str(path)!r}, task {task.get('id', number)}"
    data = task.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("instruction"), str):
        raise DataError(f"{where}: it has no `data` with an `instruction`: is it an export of "
                        "Label Studio in JSON?")  # fmt: skip
    if not isinstance(data.get("model_output"), str):
        raise DataError(f"{where}: `data.model_output` is missing.")
    annotations = []
    for one in _annotations(task):
        scores, comment = {}, None
        for part in one["result"]:
            value = part.get("value") or {}
            name = _CRITERIA.get(part.get("from_name"), part.get("from_name"))
            if choices := value.get("choices"):
                if not (found := _CHOICE.match(str(choices[0]))):
                    raise DataError(f"{where}: the choice {choices[0]!r} of {name!r} is no score.")
                scores[str(name)] = int(found[1])
            elif "rating" in value:
                scores[str(name)] = int(value["rating"])
            elif text := value.get("text"):
                comment = _MAIL.sub(
                    "[mail]", "\n".join(text) if isinstance(text, list) else str(text)
                )
        annotations.append(
            {"annotator": people[_person(one)], "scores": scores, "comment": comment}
        )
    name = data.get("item", task.get("id", number))  # Label Studio numbers tasks anew
    return _item(str(name), data, data.get("task"), annotations=annotations,
                 human=_mean(annotations))  # fmt: skip


def _mean(annotations: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means by criterion over the annotators that scored it, and their sum."""
    names = list(dict.fromkeys(name for one in annotations for name in one["scores"]))
    made: dict[str, float] = {}
    for name in names:
        found = [one["scores"][name] for one in annotations if name in one["scores"]]
        made[name] = sum(found) / len(found)
    if made:
        made["total"] = sum(made.values())
    return made | {"n_annotators": len(annotations)}


def _judged(path: str | Path, number: int, row: Mapping[str, Any], rubric: Rubric) -> Judgement:
    where = f"{str(path)!r}, record {number}"
    for name in ("task", "target", "task_type"):
        if not isinstance(row.get(name), str):
            raise DataError(f"{where}: `{name}` is missing.")
    rubric.for_task(row["task_type"], str(number))
    data = {"instruction": row["task"], "model_output": row["target"], "model": row.get("model")}
    item = _item(str(row.get("line", number)), data, row["task_type"])
    scores: dict[str, float] = {}
    for key, name in _OFFICIAL.items():
        if row.get(key) is None:
            break
        if row[key] not in (0, 1, 2) or isinstance(row[key], bool):
            raise DataError(f"{where}: `{key}` is {row[key]!r}, but must be 0, 1 or 2.")
        scores[name] = row[key]
    is_scored = len(scores) == len(_OFFICIAL)
    said = [one for one in row.get("process") or [] if isinstance(one, dict)]
    return Judgement(
        key="", item=item, status="ok" if is_scored else "unscored",
        # The official code has no gates: what it wrote is what it means.
        scores=Scores(scores, scores) if is_scored else None,
        total=rubric.total(scores) if is_scored else None,
        problem=None if is_scored else "the file has no scores",
        rubric="diting", rubric_hash="official", protocol="official", protocol_hash="official",
        prompt_hash="official", judges={"judge": str(row.get("judge-model", "unknown"))},
        calls=len(said),
        transcript=tuple(Utterance(str(one.get("role", "")), 0, 1, str(one.get("content", "")))
                         for one in said),
    )  # fmt: skip
