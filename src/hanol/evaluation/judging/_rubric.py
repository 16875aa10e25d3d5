"""Rubrics: criteria with the text of each level, gates between them, special cases; as data.

A rubric is a YAML file. Several tasks can share one: each words the same criteria anew. What a
rubric says decides its hash, and nothing else does: not its file, its layout or its comments.
"""

import hashlib
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hanol.errors import ConfigError, UnknownNameError
from hanol.evaluation.judging.replies._refusal import is_refusal
from hanol.files import read_text

_FOLDER = Path(__file__).parent / "rubrics"
_BAND = re.compile(r"(-?\d+)(?:\s*(?:-|–|\.\.)\s*(-?\d+))?")
_WHEN = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|<|>)\s*(-?\d+)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<=": operator.le,
    ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_MOST_LEVELS = 101  # 0 to 100


class _RubricPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(_RubricPart):
    """A judged candidate that a judge is shown."""

    candidate: str
    score: int
    source: str = ""
    reason: str = ""


class Criterion(_RubricPart):
    """One thing that is scored.

    Args:
        id: Its key in a reply.
        kind: Whether it is about the task at hand, or about any candidate.
        levels: What each score means; a key such as "4-6" describes several scores at once.
        examples: Judged candidates that judges are shown.
        weight: Its share in the total.
    """

    id: str = Field(pattern=r"^[A-Za-z]\w*$")
    kind: Literal["specific", "general"] = "general"
    name: str = ""
    levels: dict[int | str, str]
    examples: tuple[Example, ...] = ()
    weight: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        texts: dict[str, int | str] = {}
        seen: dict[int, int | str] = {}
        for level, text in self.levels.items():
            if not text.strip():
                raise ValueError(f"level {level} of criterion {self.id!r} has no text")
            if (other := texts.setdefault(text.strip(), level)) != level:
                raise ValueError(
                    f"levels {other} and {level} of criterion {self.id!r} overlap: they have the "
                    "same text"
                )
            for score in _scores(self.id, level):
                if (other := seen.setdefault(score, level)) != level:
                    raise ValueError(
                        f"levels {other} and {level} of criterion {self.id!r} overlap: both hold "
                        f"{score}"
                    )
        if len(seen) < 2:
            raise ValueError(f"criterion {self.id!r} has {len(seen)} levels, but needs 2 or more")
        for example in self.examples:
            if example.score not in seen:
                raise ValueError(f"an example of criterion {self.id!r} has the score "
                                 f"{example.score}, which is no level")  # fmt: skip
        return self

    @cached_property
    def scale(self) -> tuple[int, ...]:
        """The scores that there are, from the lowest."""
        return tuple(sorted(n for level in self.levels for n in _scores(self.id, level)))


class Gate(_RubricPart):
    """A rule between criteria: where `when` holds, scores are set, whatever the judge said."""

    when: str
    set: dict[str, int]

    def holds(self, scores: Mapping[str, float]) -> bool:
        """Whether the condition holds for these scores."""
        return all(_COMPARE[sign](scores[name], level) for name, sign, level in self.conditions)

    @cached_property
    def conditions(self) -> tuple[tuple[str, str, int], ...]:
        """The comparisons of `when`, all of which must hold."""
        found = [_WHEN.fullmatch(part) for part in self.when.split(" and ")]
        return tuple((one[1], one[2], int(one[3])) for one in found if one)

    @model_validator(mode="after")
    def _is_condition(self) -> Self:
        if len(self.conditions) != len(self.when.split(" and ")):
            raise ValueError(
                f"the gate's `when` is {self.when!r}, but must be like 'sp == 0', several joined "
                "by 'and'"
            )
        return self


class SpecialCase(_RubricPart):
    """A kind of candidate with rules of its own.

    Args:
        text: The rule, as judges read it.
        when: What hanol recognises by itself; None leaves it to the judges.
        uniform: Such a candidate gets one of these scores on every criterion: the last one where
            the judge gave it for the first criterion, otherwise the first.
    """

    text: str
    when: Literal["refusal"] | None = None
    uniform: tuple[int, ...] = ()


class RubricTask(_RubricPart):
    """One task of a rubric: its own words for the shared criteria."""

    about: str
    criteria: tuple[Criterion, ...]
    special_cases: tuple[SpecialCase, ...] = ()


class Rubric(_RubricPart):
    """What candidates are judged by.

    Args:
        id: Its name.
        about: What the candidates are and what the judge is to look at.
        reads: What a judge is shown beside the candidate. "source" makes it required; a reference
            is shown only where it is named here.
        criteria: What is scored; the first specific one decides in special cases.
        tasks: Tasks that share the criteria, each with its own words; an item names its task.
        notes: Rules for every judge.
        task: The task that this rubric was narrowed to.

    Raises:
        ConfigError: Something is missing, unknown or contradicts itself.
    """

    id: str
    version: str = "1"
    language: str = "en"
    title: str = ""
    about: str = ""
    reads: tuple[Literal["source", "context", "reference"], ...] = ()
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    tasks: dict[str, RubricTask] = {}
    gates: tuple[Gate, ...] = ()
    special_cases: tuple[SpecialCase, ...] = ()
    notes: tuple[str, ...] = ()
    task: str | None = None

    def __init__(self, **content: Any) -> None:
        try:
            super().__init__(**content)
        except ValidationError as err:
            wrong = "; ".join(_told(one) for one in err.errors())
            raise ConfigError(f"The rubric {content.get('id', '')!r} is wrong: {wrong}.") from err

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        ids = [one.id for one in self.criteria]
        if twice := [name for name in ids if ids.count(name) > 1]:
            raise ValueError(f"two criteria have the id {twice[0]!r}")
        scales = {one.id: one.scale for one in self.criteria}
        for name, task in self.tasks.items():
            if [one.id for one in task.criteria] != ids:
                raise ValueError(f"task {name!r} has other criteria than {', '.join(ids)}")
            for one in task.criteria:
                if one.scale != scales[one.id]:
                    raise ValueError(
                        f"scale mismatch: criterion {one.id!r} has the scores {one.scale} in task "
                        f"{name!r}, but {scales[one.id]} in the rubric"
                    )
        for gate in self.gates:
            named = [(name, level) for name, _, level in gate.conditions] + list(gate.set.items())
            for name, level in named:
                if name not in scales:
                    raise ValueError(f"the gate {gate.when!r} names an unknown criterion {name!r}")
                if level not in scales[name]:
                    raise ValueError(
                        f"scale mismatch: the gate {gate.when!r} has {level} for {name!r}, whose "
                        f"scores are {scales[name]}"
                    )
        cases = [
            *self.special_cases,
            *(c for task in self.tasks.values() for c in task.special_cases),
        ]
        for level in {level for case in cases for level in case.uniform}:
            if wrong := [name for name in ids if level not in scales[name]]:
                raise ValueError(f"scale mismatch: a special case has {level} for {wrong[0]!r}")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """Read a rubric: a bundled one, one task of it ("idiom", "diting:idiom"), or a YAML file.

        Raises:
            ConfigError: The file cannot be read, or is no rubric; the message names the field.
            UnknownNameError: There is no such rubric.
        """
        name = str(name_or_path)
        bundled = bundled_rubrics()
        if name not in bundled and (Path(name).is_file() or Path(name).suffix in (".yaml", ".yml")):
            return cls(**_read(Path(name)))
        rubric, _, task = name.replace("/", ":").partition(":")
        if not task and rubric not in bundled:
            homes = {
                one: home
                for home in bundled
                for one in _read(_FOLDER / f"{home}.yaml").get("tasks", {})
            }
            rubric, task = homes.get(rubric, ""), rubric
        if rubric not in bundled:
            raise UnknownNameError("rubric", name, bundled)
        whole = cls(**_read(_FOLDER / f"{rubric}.yaml"))
        return whole.for_task(task) if task else whole

    def for_task(self, task: str | None, item: str = "") -> Self:
        """The rubric for one of its tasks; itself where it has none.

        Args:
            item: Id of the item that names the task, for the message.

        Raises:
            UnknownNameError: It has tasks, but not this one.
        """
        if not self.tasks:
            return self
        if task is None or task not in self.tasks:
            of = (
                f"`task` (item {item!r}) of the rubric {self.id!r}"
                if item
                else f"task of {self.id!r}"
            )
            raise UnknownNameError(of, task or "", self.tasks)
        own = self.tasks[task]
        content = self.model_dump(exclude={"tasks", "criteria", "special_cases"})
        return type(self)(**content | {
            "task": task,
            "about": f"{self.about}\n\n{own.about}".strip(),
            "criteria": own.criteria,
            "special_cases": (*self.special_cases, *own.special_cases),
        })  # fmt: skip

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the criteria."""
        return tuple(one.id for one in self.criteria)

    @property
    def most(self) -> float:
        """The highest total."""
        return sum(one.weight * one.scale[-1] for one in self.criteria)

    def gated(self, scores: Mapping[str, float], candidate: str = "") -> dict[str, float]:
        """Scores after the gates and the special cases."""
        made = dict(scores)
        for gate in self.gates:
            if gate.holds(made):
                made |= gate.set
        for case in self.special_cases:
            if case.when == "refusal" and case.uniform and is_refusal(candidate):
                first = next((c.id for c in self.criteria if c.kind == "specific"), self.ids[0])
                high, low = max(case.uniform), min(case.uniform)
                made = dict.fromkeys(made, high if scores[first] == high else low)
        return made

    def total(self, scores: Mapping[str, float]) -> float:
        """The weighted sum of scores."""
        return sum(one.weight * scores[one.id] for one in self.criteria)


def bundled_rubrics() -> list[str]:
    """Names of the rubrics that come with hanol."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def _scores(criterion: str, level: int | str) -> Iterator[int]:
    """The scores that a key of `levels` stands for."""
    found = _BAND.fullmatch(str(level).strip())
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
    if not 0 <= high - low < _MOST_LEVELS:
        raise ValueError(f"criterion {criterion!r} has the level {level!r}, but a level is a whole "
                         "number, or two like '4-6'")  # fmt: skip
    yield from range(low, high + 1)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path)
        _refuse_twice(yaml.compose(text, Loader=yaml.SafeLoader), path)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as err:
        raise ConfigError(f"The rubric {str(path)!r} cannot be read: {err}.") from err
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"The rubric {str(path)!r} is no mapping of names such as `criteria`.")
    return {"id": path.stem, **content}


def _refuse_twice(node: Any, path: Path) -> None:
    """YAML takes the last of two equal keys in silence: of two levels, one would be lost."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue  # an anchor that is used again
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                line = node.start_mark.line + 1
                raise ConfigError(f"The rubric {str(path)!r} has {twice!r} twice in the mapping of "
                                  f"line {line}: levels must not overlap.")  # fmt: skip
            waiting += [value for _, value in node.value]


def _told(error: Mapping[str, Any]) -> str:
    place = ".".join(map(str, error["loc"]))
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"`{place}`: {text}" if place else text
