"""Finds the tables inside of a table, the names of their columns, forms, and headings of groups.

Marks of the file decide, then kinds of cells, and words that are often labels.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice, pairwise, tee, zip_longest
from typing import Literal, NamedTuple

from hanol.retrieval.documents.tables._cells import (
    LABEL_CHARS,
    MEASURED,
    Row,
    filled_columns,
    is_below,
    is_label,
    is_note,
    is_titled,
    kind_of,
    num_filled,
    only,
    own_cells,
    strong,
    tidied,
)

_SAMPLE_ROWS = 200  # rows that decide on the names of the columns
_MISSING = re.compile(r"[\W_]*|n/?a|none|tbd|unknown|없음|미정|미상", re.IGNORECASE)  # no value
_DIGITS = re.compile(r"[\d\s.,'()+−–-]+")


# Which rows head a group: those over all columns, and of others with one cell none, some or all.
Headings = Literal["none", "whole", "bold", "bare", "all"]  # bare ones may be of no group


@dataclass(frozen=True)
class Plan:
    """How the rows of a table are written: its first ones, names of its columns, or a form.

    The first column of a form may hold groups of its fields; `group` stands above all rows.
    """

    titles: int = 0
    heads: int = 0
    names: tuple[str, ...] = ()
    form: bool = False
    groups: bool = False
    headings: Headings = "none"
    group: str = ""


class _Known(NamedTuple):
    """Names of columns above, the places of these, and what each holds; None if it is not known."""

    places: list[int]
    names: tuple[str, ...]
    holds: dict[int, set[str]] | None = None


def column_names(rows: Iterable[Row], before: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the columns of a table, which may be those of the table that it goes on from."""
    known = [_Known([*range(len(before))], before)] if before else []
    for _, _, plan in sections(rows, 0, known):
        before = plan.names
    return before


def sections(
    rows: Iterable[Row], heads: int, known: list[_Known], left: int = 0
) -> Iterator[tuple[list[Row], Iterable[Row], Plan]]:
    """The parts of a table with a plan of their own: rows before it, its other rows, the plan.

    Nothing stands left of the column `left`.
    """
    for filled, block in groupby(map(tidied, rows), key=bool):
        if not filled:
            continue
        rest = chain(block)
        sample = list(islice(rest, _SAMPLE_ROWS))
        starts = _side_by_side(sample) if not heads else [0]
        if len(starts) > 1:
            copies = tee(chain(sample, rest), len(starts))
            for start, end, copy in zip(starts, [*starts[1:], None], copies, strict=True):
                of_part = ([*[""] * start, *row[start:end]] for row in copy)
                yield from sections(of_part, 0, known, start)
            continue
        is_whole = len(sample) < _SAMPLE_ROWS
        inner = range(1, len(sample) - 1) if is_whole else ()
        again = {0, *(_with_titles(sample, i) for i in inner if _is_header_again(sample, i))}
        parts = [sample[a:b] for a, b in pairwise([*sorted(again), len(sample)])]
        titled = [i for i, row in enumerate(sample) if is_titled(row)]
        if is_whole and titled and len(again) == 1:
            # Headings over the whole row may begin tables of other kinds, or forms that are alike.
            below = [sample[a:b] for a, b in pairwise([0, *titled, len(sample)]) if a < b]
            plan, *plans = [_plan(only(p, filled_columns(p)), heads, ()) for p in (sample, *below)]
            if not (plan.names or plan.form) or all(each.form for each in plans):
                parts = below
        for part in parts:
            width = max(map(len, part))
            places = filled_columns(part) if is_whole else [*range(left, width)]
            above = next((k for k in known[::-1] if {*places} <= {*k.places}), _Known([], ()))
            names = above.names if _goes_on(part, above) else ()
            plan = _plan(only(part, places), heads, names)
            if plan.names and not plan.heads:
                places = above.places
            elif len(places) > 1:
                known[:] = [k for k in known if not {*places} & {*k.places}]
            if plan.heads:
                body = part[plan.titles + plan.heads :]
                known.append(_Known(places, plan.names, {i: _holds(body, i) for i in places}))
            part = only(part, places)
            heads, at = 0, plan.titles + plan.heads
            start = at if plan.names else max(at - 1, 0)  # the last title may be a heading, too
            headings = _headings(part[start:], plan)
            has_groups = len(titled) > 1 and titled[-1] >= len(titled)  # not only titles
            if not plan.names and has_groups and headings == "none":
                start, headings = at * (not is_titled(part[0])), "whole"
            if headings != "none":
                plan, at = replace(plan, titles=plan.titles - at + start, headings=headings), start
            if len(again) > 1 and plan.names and plan.titles:
                plan = replace(plan, group=part[plan.titles - 1][0] or "")
            named = {place for place, name in enumerate(plan.names) if name}
            # else a name without values is lost
            first = part[: at if named.difference(filled_columns(part[at:])) else plan.titles]
            yield first, chain(part[at:], (row[left:] for row in rest)), plan


def _with_titles(rows: list[Row], at: int) -> int:
    """Where the titles above a row begin."""
    while at and num_filled(rows[at - 1]) == 1:
        at -= 1
    return at


def _headings(rows: list[Row], plan: Plan) -> Headings:
    """Which rows with nothing but their first cell are headings."""
    alone = [i for i, row in enumerate(rows) if len(row) == 1 and not is_note(row)]
    full = [row for row in rows if num_filled(row) > 1]
    width = len(plan.names) or max(map(len, rows), default=0)
    if not alone or not full or width < 2:
        return "none"
    if not plan.names and (len(alone) < 2 or any(kind_of(rows[i][0]) != "word" for i in alone)):
        return "none"
    if any(strong(rows[i]) for i in alone) and not all(strong(row[:1]) for row in full):
        return "bold"
    if plan.form and (width > 2 or any(is_label(row[0] or "") for row in rows[1:])):
        return "none"  # one alone may be a field without its value
    is_followed = alone[-1] < len(rows) - 1
    is_placed = alone[0] == 0 and is_followed and all(b - a > 1 for a, b in pairwise(alone))
    if width == 2:
        numbers = all(kind_of(row[1]) == "number" for row in full)
        are_few = 1 < len(alone) <= len(full) / 2
        return "all" if is_placed and numbers and are_few else "none"
    is_complete = all(len(row) == width and "" not in row for row in full)
    if is_placed and (is_complete or (plan.names and len(alone) > 1)):
        return "all"
    return "bare" if is_complete and is_followed and plan.names else "none"


def is_heading(row: Row, plan: Plan) -> bool:
    """Whether a row is one cell over all columns, or its first one alone and that a heading."""
    if not row or not (plan.names or plan.headings != "none"):
        return False
    if len(row) > 1:
        return num_filled(row) == 1 and row[-1] is None
    marks = {"none": False, "whole": False, "bold": strong(row) == 1}
    return len(plan.names) != 1 and (marks.get(plan.headings, True) or is_note(row))


def _side_by_side(rows: list[Row]) -> list[int]:
    """First columns of tables beside each other, which empty columns part.

    A column of its own, and numbers alone, belong to the rows on the left.
    """
    rows = [row for row in rows if num_filled(row) > 1]  # without titles over all of them
    filled = filled_columns(rows)
    starts = [0]
    for _, run in groupby(enumerate(filled), key=lambda pair: pair[1] - pair[0]):
        places = [place for _, place in run]
        before = [place for place in filled if starts[-1] <= place < places[0]]
        if min(len(places), len(before)) > 1:
            part = [row for row in only(rows, places) if any(row)]
            names = {cell for row in only(rows, before)[:1] for cell in row if cell}
            kinds = [[*map(kind_of, filter(None, c))] for c in zip_longest(*(part[1:] or part))]
            numeric = all(2 * kinds.count("number") > len(kinds) for kinds in kinds if kinds)
            if not numeric or not names.isdisjoint(part[0]):
                starts.append(places[0])
    return starts


def _holds(rows: list[Row], place: int) -> set[str]:
    """What stands in a column: its words, and the kinds of all else."""
    cells = [row[place] for row in rows if place < len(row)]
    return {kind if (kind := kind_of(cell)) in MEASURED else cell for cell in cells if cell}


def _goes_on(rows: list[Row], above: _Known) -> bool:
    """Whether rows below an empty one hold what the columns above do; words alone tell nothing."""
    if above.holds is None:
        return True
    first = next((row for row in rows if num_filled(row) > 1), ())
    for place, cell in enumerate(first):
        is_word = kind_of(cell) == "word" and not _MISSING.fullmatch(cell or "")
        if is_word and above.holds.get(place, set()) & MEASURED:
            return False  # the name of a column
    return any(held & _holds(rows, place) for place, held in above.holds.items())


def _is_header_again(rows: list[Row], at: int) -> bool:
    """Whether a row inside of a table is marked as names of columns, and those around it not."""
    marked = (strong(rows[i]) == 1 for i in (at - 1, at, at + 1))
    return num_filled(rows[at]) > 1 and [*marked] == [False, True, False]


# --- what the rows are --------------------------------------------------------


def _plan(rows: list[Row], heads: int, before: tuple[str, ...]) -> Plan:
    """What a table is, by its marks, the kinds of its cells, and words that are often labels.

    Args:
        rows: The first rows of the table.
        heads: Number of rows that the file marks as names; 0 if it does not tell.
        before: Names of the table above it, from which an empty row may only seem to part it.
    """
    filled = [num_filled(row) for row in rows]
    titles = 0
    while (
        filled[titles] == 1
        and (heads - titles != 1 or None in rows[titles])
        and max(filled[titles + 1 :], default=1) > 1
    ):
        titles += 1
    rows, heads = rows[titles:], heads - titles
    while 1 < heads <= len(rows) and is_titled(rows[heads - 1]):
        heads -= 1  # a heading of the first rows
    if 0 < heads < len(rows):
        return Plan(titles, heads, _names(rows[:heads]))
    heads = 2 if _has_two_levels(rows) else 1
    names, body = _names(rows[:heads]), rows[heads:]
    contrast = _contrast(names, body)
    labels = _share(names)
    names += ("",) * _lacks_last(rows[heads - 1], names, body)
    both = labels >= (1 if len(names) == 2 else 0.5)
    header = contrast + 0.5 * (labels > 0) + 0.5 * both + 0.5 * _repeats(body)
    header += 2.0 * (len(names) > 2 and {*map(kind_of, names[1:])} == {"period"})
    header += 3.0 * (strong(rows[0]) == 1 and min(map(strong, body), default=1) < 1)
    header += 0.5 * (len(names) not in (2, 4))  # forms have pairs of columns
    header += 1.0 * (len(names) > 2 and not names[0] and all(names[1:]))
    header += 1.0 * any(is_below(cell) for row in body for cell in row[:1])
    header += 1.0 * (names[0] != "" and names[:1] == before[:1])  # no value is its own name
    groups = any(is_below(cell) for row in rows for cell in row[:1])
    fields = [row[groups:] for row in rows]
    widest = max(map(len, fields))
    pairs = widest % 2 == 0 and all(
        len(own_cells(row)) % 2 == 0 or len(row) < widest or num_filled(row) == 1 for row in fields
    )
    form = _form_score(rows, pairs, groups)
    if _can_name(rows[:heads], names, body):
        enough = 1.5 if before else 1.0 if len(names) == 2 else 0.5
        if header >= enough and header >= form + 0.5 * (contrast < 1 or labels < 1):
            return Plan(titles, heads, names)
    if pairs and form >= (2 if before or groups else 1):
        return Plan(titles, form=True, groups=groups)
    if before and not all(is_note([cell]) for cell in own_cells(rows[0])):
        return Plan(names=before)
    return Plan(titles)


def _names(heads: list[Row]) -> tuple[str, ...]:
    """Names of the columns: of several rows, the group before the column."""
    width = max(map(len, heads))
    parts: list[list[str]] = [[] for _ in range(width)]
    for row in heads:
        cell = ""
        for place in range(width):
            found = row[place] if place < len(row) else ""
            cell = cell if found is None else found
            if cell and cell not in parts[place]:
                parts[place].append(cell)
    return tuple(" ".join(part) for part in parts)


def _has_two_levels(rows: list[Row]) -> bool:
    """Whether the second row divides groups of columns that the first one names."""
    if len(rows) < 3 or None not in rows[0]:
        return False
    for place, below in enumerate(rows[1]):
        above = rows[0][place] if place < len(rows[0]) else ""
        spans = above is None or rows[0][place + 1 : place + 2] == [None]
        if spans != bool(below and not is_below(below)) and (above or not below):
            return False
    return all(kind_of(cell) in ("", "word", "period", "code") for cell in rows[1])


def _can_name(heads: list[Row], names: tuple[str, ...], body: list[Row]) -> bool:
    """Whether rows can hold the names of the columns."""
    if len(names) < 2 or not are_few(sum(len(row) > len(names) for row in body), len(body)):
        return False
    known = [cell for cell in (names if len(heads) > 1 else heads[0]) if cell]
    # The corner may be empty, and the last one.
    blank = sum(not name for name in names[1:]) - (not names[-1])
    if len(set(known)) < len(known) or blank * 4 > len(names) or (len(names) == 2 and blank):
        return False
    if any(is_below(cell) for cell in body[0]):
        return False  # a cell of the first row reaches into the second
    kinds = [kind_of(cell) for row in heads for cell in row if cell]
    if len(names) == 2 and kinds[-1] == "code" and not getattr(known[-1], "strong", False):
        return False
    known_kinds = ("word", "period", "code", *["prose"] * (strong(heads[-1]) == 1))
    return all(kind in known_kinds for kind in kinds)


def _lacks_last(head: Row, names: tuple[str, ...], body: list[Row]) -> bool:
    """Whether the last column has no name: those of the others must not be those beside them."""
    longer = [row for row in body if len(row) > len(names)]
    if not longer or are_few(len(longer), len(body)) or max(map(len, longer)) > len(names) + 1:
        return False
    if len(names) < 2 or getattr(head[-1], "short", False):
        return False
    for place, name in enumerate(names):
        kinds = {kind_of(row[place]) for row in body if row[place : place + 1]} - {""}
        if kind_of(name) == "word" and kinds and kinds <= MEASURED:
            return True
    return _share(names) == 1 and not _share(filter(None, body[0]))


def are_few(longer: int, rows: int) -> bool:
    """Whether rows with more cells than the names are faults: R writes no name for the first."""
    return longer < rows and (longer < 2 or longer * 5 <= rows)


def _contrast(names: tuple[str, ...], body: list[Row]) -> float:
    """Number of columns whose values are of one kind, and their name of another."""
    found = 0.0
    for place, name in enumerate(names):
        kinds: Counter[str] = Counter()
        for row in body:
            if kind := kind_of(row[place]) if place < len(row) else "":
                # 80 m² and 900 € are values of two fields, not of one column.
                cell = row[place] or ""
                unit = _DIGITS.sub("", cell) if kind == "number" and cell[0] != "=" else ""
                kinds[kind + unit] += 1
        kind, count = kinds.most_common(1)[0] if kinds else ("word", 0)
        if kind not in ("word", "prose", kind_of(name)) and count * 5 >= kinds.total() * 4:
            found += 1.0 if count > 1 else 0.5
    return found


def _repeats(body: list[Row]) -> bool:
    """Whether a word stands twice in a column, as in records and not in forms."""
    columns: dict[int, list[str]] = {}
    for row in body:
        for place, cell in enumerate(row):
            if cell and not is_below(cell) and kind_of(cell) == "word":
                columns.setdefault(place, []).append(cell)
    return any(len(set(column)) < len(column) for column in columns.values())


def _share(cells: Iterable[str]) -> float:
    known = [is_label(cell) for cell in cells if cell]
    return sum(known) / max(len(known), 1)


def _form_score(rows: list[Row], pairs: bool, groups: bool) -> float:
    """How much speaks for labels beside their values: in pairs, or else in the first column."""
    # One cell alone is a heading between the fields, or a field that was left empty.
    rows = [row for row in rows if num_filled(row[groups:]) > 1]
    cells = [own_cells(row[groups:] if pairs else row[groups : groups + 1]) for row in rows]
    if not cells:
        return 0.0
    first = cells[0][1::2] if pairs else own_cells(rows[0][groups:])[1:]
    labels = [[cell for cell in row[::2] if cell and not is_below(cell)] for row in cells]
    flat = [cell for row in labels for cell in row]
    whole = {
        (groups and row[0], cell)
        for row, of_row in zip(rows, labels, strict=True)
        for cell in of_row
    }
    if not labels[0] or len(whole) < len(flat) or max(map(len, flat)) > LABEL_CHARS:
        return 0.0
    if sum(kind_of(cell) not in ("word", "period", "code") for cell in flat) * 5 > len(flat):
        return 0.0
    below = _share(chain.from_iterable(labels[1:] or labels))
    beside = _share(first)
    score = 1.0 * (below > 0) + 1.0 * (below >= 0.5)
    score += 3.0 * (sum(cell[-1] in ":：" for cell in flat) * 5 >= len(flat) * 4)
    score += 3.0 * (strong(flat) == 1 and strong(first) < 1)
    plain = ("", "word", "period", *["code"] * (len(rows) == 1))
    score += 1.0 * any(kind_of(cell) not in plain for cell in first)
    return score - 2.0 * (beside >= 0.5 and (below < 0.75 or not pairs))
