"""Candidates of known quality: references, damaged and swapped ones.

What is known by construction needs no people: a reference beats its damaged forms, and any
translation of the sentence beats that of another one. Judges and metrics are compared on it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from hanol.evaluation.building._build import Suite, SuiteItem, evidence

_CJK = re.compile(r"[一-鿿가-힣]")
_NUMBER = re.compile(r"\d+")
_Damage = Callable[[SuiteItem, Random, Sequence[SuiteItem]], str | None]


def _reference(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    return item.reference


def _copied(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    return item.source


def _swapped(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    """The translation of another sentence, of similar length where there is one."""
    known = [one.reference for one in others if one.source != item.source]
    near = sorted(known, key=lambda text: abs(len(text) - len(item.reference)))[:5]
    return rng.choice(near) if near else None


def _cut(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    """The first half."""
    pieces = _pieces(item.reference)
    return _joined(pieces[: len(pieces) // 2], item.reference) if len(pieces) >= 6 else None


def _shuffled(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    """All words, in another order: nothing is lost but the grammar."""
    pieces = _pieces(item.reference)
    if len(set(pieces)) < 5:
        return None
    mixed = list(pieces)
    while mixed == pieces:
        rng.shuffle(mixed)
    return _joined(mixed, item.reference)


def _mixed(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    """Some of the source left over in the middle."""
    pieces = _pieces(item.reference)
    if len(pieces) < 6 or len(item.source) < 6:
        return None
    begin, third = len(pieces) // 3, max(2, len(item.source) // 3)
    left = item.source[:third].strip()
    return _joined([*pieces[:begin], left, *pieces[2 * begin :]], item.reference)


def _miscounted(item: SuiteItem, rng: Random, others: Sequence[SuiteItem]) -> str | None:
    """Every number changed."""
    changed = _NUMBER.sub(lambda match: str(int(match[0][:15]) + rng.randint(2, 9)), item.reference)
    return changed if changed != item.reference else None


# Name, how it is made, and its level: sp, g_1, g_2 of DITING's scale as its rules give them (a
# wrong sentence is 0 on all; sp = 0 takes the others with it).
_DAMAGES: dict[str, tuple[_Damage, tuple[int, int, int]]] = {
    "reference": (_reference, (2, 2, 2)),
    "shuffled": (_shuffled, (1, 1, 0)),
    "miscounted": (_miscounted, (1, 1, 1)),
    "cut": (_cut, (1, 0, 1)),
    "mixed": (_mixed, (1, 0, 0)),
    "copied": (_copied, (0, 0, 0)),
    "swapped": (_swapped, (0, 0, 0)),
}
DAMAGES = tuple(_DAMAGES)


def candidate_rows(suite: Suite, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Candidates for every item, as items to judge with the level that they have by construction.

    Rows have the fields of `Item`; `meta.human` holds the levels, `system` how it was made. A
    damage that a text cannot have (no number to change) is left out; a reference that is known to
    be a machine's is called "machine" and has no level.
    """
    for item in suite.items:
        rng = Random(f"{seed} {item.id}")  # noqa: S311 - the same whatever the others are
        for name, (damage, levels) in _DAMAGES.items():
            if item.quality and name != "reference":
                continue
            candidate = damage(item, rng, suite.items)
            if candidate is None or (name != "reference" and candidate == item.reference):
                continue
            meta: dict[str, Any] = {"evidence": evidence(item), "origin": item.origin}
            if not item.quality:
                human = dict(zip(("sp", "g_1", "g_2"), levels, strict=True))
                meta["human"] = {**human, "total": sum(levels)}
            yield {
                "id": f"{item.id}/{name}",
                "suite": suite.name,
                "task": item.phenomenon,
                "source": item.source,
                "context": item.context,
                "candidate": candidate,
                "candidate_raw": candidate,
                "reference": item.reference,
                "system": item.quality or name,
                "meta": meta,
            }


def label_rows(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those rows as `hanol eval meta --human` reads them: levels in "human", groups by source."""
    for row in rows:
        if human := row["meta"].get("human"):
            levels = {name: level for name, level in human.items() if name != "total"}
            kept = {name: row[name] for name in ("id", "task", "source", "candidate", "reference",
                                                 "system")}  # fmt: skip
            yield {**kept, "group": row["source"], "human": levels}


def _pieces(text: str) -> list[str]:
    """Words, or characters where words have no spaces between."""
    words = text.split()
    return words if len(words) >= 4 or not _CJK.search(text) else list(text)


def _joined(pieces: Sequence[str], like: str) -> str:
    is_spaced = len(like.split()) >= 4 or not _CJK.search(like)
    return (" " if is_spaced else "").join(pieces)
