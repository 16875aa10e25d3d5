"""Patterns of English sentences, ways to ask and synonyms, from the file rules.txt beside it."""

import re
from pathlib import Path


def _sections() -> dict[str, list[str]]:
    """The lines of each section of the file, without comments."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_name("rules.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def _rules(lines: list[str]) -> list[tuple[str, "re.Pattern[str]", list[str]]]:
    """Kind, pattern and ways to ask of each rule."""
    parts = re.compile(rf"<({'|'.join(PARTS)})>|(?<![A-Z])({'|'.join(PARTS)})(?![A-Z])")
    found = []
    for rule in re.split(r"\n(?=\S)", "\n".join(lines)):
        line, *ways = rule.split("\n")
        kind, _, pattern = line.partition(" ")
        pattern = parts.sub(lambda match: PARTS[match[1] or match[2]], pattern)
        asked = " / ".join(way.strip() for way in ways).split(" / ")
        found.append((kind, re.compile(pattern + r"\."), asked))
    return found


_FILE = _sections()
PARTS = dict(line.split(" ", 1) for line in _FILE["parts"])
RULES = _rules(_FILE["rules"])
ASKS, FIELDS = (
    {
        name: ways.replace("\n ", " /").split(" / ")
        for name, _, ways in (line.partition(": ") for line in joined)
    }
    for joined in (re.split(r"\n(?=\S)", "\n".join(_FILE[each])) for each in ("asks", "fields"))
)
SYNONYMS = [line.split() for line in _FILE["synonyms"]]
