"""Evaluate a question on a graph: what can stand where the question mark is.

Source: the triples are those of arXiv 2507.15061 (WebShaper), read from subject to object only.
"""

from collections.abc import Iterable, Iterator, Mapping

from hanol.worlds._encyclopedia._graph import Triple


def evaluate(triples: Iterable[Triple], facts: Mapping[str, Mapping[str, set[str]]]) -> set[str]:
    """Everything that "?" can stand for.

    Args:
        triples: Of a question, in any order.
        facts: Values by relation, then by entity.
    """
    # A row of the growing join holds a value for each variable met so far.
    rows: list[dict[str, str]] = [{}]
    waiting = list(triples)
    while waiting and rows:
        # Triples with a known end first: the others would multiply the rows by a whole relation.
        chosen = max(waiting, key=lambda triple: _num_known(triple, rows[0]))
        waiting.remove(chosen)
        facts_of_relation = facts.get(chosen[1], {})
        rows = [new for row in rows for new in _extended(row, chosen, facts_of_relation)]
    return {row["?"] for row in rows}


def _extended(
    row: Mapping[str, str], triple: Triple, facts: Mapping[str, set[str]]
) -> Iterator[dict[str, str]]:
    """A row with the values that the triple's ends take in the facts of its relation."""
    one, _, other = triple
    subject, told = _value(one, row), _value(other, row)
    for head in facts if subject is None else (subject,):
        for value in facts.get(head, ()):
            if told is None or told == value:
                yield {**row, one: head, other: value}


def _value(end: str, row: Mapping[str, str]) -> str | None:
    return end[2:] if end.startswith("C@") else row.get(end)


def _num_known(triple: Triple, row: Mapping[str, str]) -> int:
    return sum(_value(end, row) is not None for end in (triple[0], triple[2]))
