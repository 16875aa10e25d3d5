"""Items: what is judged, with all that a judge may read beside it."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hanol.errors import DataError, MissingSourceError
from hanol.rows import read_rows

_POINTER = re.compile(r"\s*(?:<[^<>\n]{1,80}>\s*){2,}")
_BRACKETS = {"[": "]", "【": "】", "［": "］"}

SourceResolver = Callable[["Item"], str | None]


class Item(BaseModel):
    """One candidate to judge.

    Args:
        id: Unique in its set.
        suite: The set that it belongs to.
        task: The task of the rubric that it is judged by, where the rubric has several.
        source: What the candidate was made from.
        source_ref: Where the source is, if it is not here: a pointer.
        context: Text around the source.
        candidate: What is judged, cleaned by `clean` where it comes without `candidate_raw`.
        candidate_raw: The same as it came.
        reference: A right answer. Judges see it only if the rubric says so.
        system: Who made the candidate. No judge sees it.
        meta: Anything else; `human` holds scores of people by criterion.

    Raises:
        DataError: A field is missing, unknown or of another type; the message names it and the id.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    id: str
    suite: str = ""
    task: str | None = None
    source: str | None = None
    source_ref: dict[str, Any] | str | None = None
    context: str | None = None
    candidate: str
    candidate_raw: str = ""
    reference: str | None = None
    system: str | None = None
    meta: dict[str, Any] = {}

    def __init__(self, **content: Any) -> None:
        try:
            super().__init__(**content)
        except ValidationError as err:
            one = err.errors()[0]
            field = ".".join(map(str, one["loc"]))
            raise DataError(
                f"Item {content.get('id', '?')!r}: `{field}`: {one['msg']}. An item has the fields "
                f"{', '.join(Item.model_fields)}."
            ) from err

    @model_validator(mode="before")
    @classmethod
    def _cleaned(cls, content: Any) -> Any:
        raw = content.get("candidate") if isinstance(content, dict) else None
        if isinstance(raw, str) and not content.get("candidate_raw"):  # else it was cleaned before
            return content | {"candidate": clean(raw), "candidate_raw": raw}
        return content

    @property
    def hash(self) -> str:
        """SHA-256 of everything that a judge may read, and of the id."""
        said = self.model_dump(
            include={"id", "task", "source", "source_ref", "context", "candidate", "reference"}
        )
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

    def with_source(self, resolver: SourceResolver | None = None) -> "Item":
        """The item with its source text, which the resolver may know.

        Raises:
            MissingSourceError: There is none, or only a pointer to it.
        """
        found = self.source
        if not found or _POINTER.fullmatch(found):
            found = resolver(self) if resolver is not None else None
        if not found or _POINTER.fullmatch(found):
            has = (
                f"only the pointer {self.source_ref or self.source!r} to it"
                if self.source_ref or self.source
                else "none"
            )
            raise MissingSourceError(
                f"Item {self.id!r} needs its `source` text, but has {has}. Give the text, or a "
                "`source_resolver` that finds it; a rubric whose `reads` has no source needs none."
            )
        return self if found == self.source else self.model_copy(update={"source": found})


def clean(text: str) -> str:
    """A candidate without one leading "Answer:" and one pair of brackets around the whole."""
    text = re.sub(r"^answer\s*[:：]\s*", "", text.strip(), flags=re.IGNORECASE)
    close = _BRACKETS.get(text[:1])
    inner = text[1:-1]
    if (
        close
        and len(text) > 1
        and text[-1] == close
        and close not in inner
        and text[0] not in inner
    ):
        text = inner.strip()
    return text


def read_items(path: str | Path) -> Iterator[Item]:
    """Items of a JSON lines, JSON, CSV or TSV file with the fields of `Item`, one a row.

    Where a row has no id, its number in the file is one.

    Raises:
        DataError: The file cannot be read, or a row is no item; the message names it.
    """
    for number, row in read_rows(path):
        try:
            yield Item(**{"id": str(number), **row})
        except DataError as err:
            raise DataError(f"{str(path)!r}, line {number}: {err}") from err


def check_items(items: Iterable[Item]) -> None:
    """Refuse a set in which two items have one id.

    Raises:
        DataError: Two have; the message names it.
    """
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise DataError(f"Two items have the `id` {item.id!r}; ids must be unique.")
        seen.add(item.id)
