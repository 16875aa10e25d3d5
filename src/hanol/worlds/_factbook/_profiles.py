"""The bundled profiles: names, fields, and what a program has read from the fields.

Source: the files beside this module; SOURCE.md says what they are and how they are made.
"""

import json
import lzma
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

_DATA = files("hanol.worlds._factbook")
_SIZES = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
_NUMBER = re.compile(r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?:\s*([a-z]+))?")


@dataclass(frozen=True, eq=False)
class FieldRule:
    """One kind of fact, and how it is asked for.

    Args:
        name: A noun: "the capital of {x}".
        kind: Kind of its values.
        asks: Questions for it, with {x} for what it is asked of.
        label: The field of a profile that states it.
        phrase: What a value is called that has facts of its own; empty for others.
        start: What the only country with a value is called, with {v} for the value.
        measures: Superlatives among neighbours, and whether they mean the most.
        tolerance: Largest relative error of a number that is right.
    """

    name: str
    kind: Literal["country", "name", "code", "number", "date"]
    asks: Sequence[str]
    label: str = ""
    phrase: str = ""
    start: str = ""
    measures: Mapping[str, bool] = field(default_factory=dict)
    tolerance: float = 0.0


@dataclass(frozen=True)
class Profile:
    """A country or territory.

    Args:
        title: Its short name; the long one where it has no short one.
        names: All names of it.
        sections: The text of each field, by section. A part of a field has a name such as "Area,
            total".
        facts: What a rule could read without doubt, by its name: values, or one value and its other
            names. "neighbours" are there where the list is whole.
    """

    title: str
    names: Sequence[str]
    sections: Mapping[str, Mapping[str, str]]
    facts: Mapping[str, Sequence[str]]

    def line(self, label: str) -> str:
        """A field as its page has it, without links and full stop."""
        [text] = (texts[label] for texts in self.sections.values() if label in texts)
        return f"{label}: {text}"


@cache
def rules() -> Mapping[str, FieldRule]:
    """All kinds of facts, by name."""
    rows: list[dict[str, Any]] = json.loads(_DATA.joinpath("relations.json").read_text("utf-8"))
    return {row["name"]: FieldRule(**row) for row in rows}


@cache
def _data() -> Any:
    return json.loads(lzma.decompress(_DATA.joinpath("factbook.json.xz").read_bytes()))


@cache
def profiles() -> Mapping[str, Profile]:
    """All profiles, by title."""
    return {row["title"]: Profile(**row) for row in _data()["profiles"]}


def nationalities() -> Mapping[str, str]:
    """Countries by the adjectives that only one independent country has."""
    found: Mapping[str, str] = _data()["nationalities"]
    return found


def numbers(text: str) -> list[float]:
    """The numbers in a text: 1,250 and 1.25 thousand are the same."""
    found = _NUMBER.findall(text)
    return [float(digits.replace(",", "")) * _SIZES.get(word, 1.0) for digits, word in found]


def most(sizes: Mapping[str, float], *, largest: bool = True) -> str | None:
    """The name with the largest or smallest size, if only one has it."""
    extreme = (max if largest else min)(sizes.values(), default=0.0)
    names = [name for name, size in sizes.items() if size == extreme]
    return names[0] if len(names) == 1 else None
