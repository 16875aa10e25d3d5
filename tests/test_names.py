"""One name, one meaning: no two public or private classes of the package share a name."""

import ast
from collections import defaultdict
from pathlib import Path

import hanol

SOURCE = Path(hanol.__file__).parent

# Two places, one name, and why both keep it.
ALLOWED: dict[str, str] = {
    "Reply": "an answer of a script, and what was read from a judge's; both names are public",
    "Search": "the tool that searches the web, and the base of searches for an answer",
}


def test_every_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{file.relative_to(SOURCE)}:{node.lineno}")
    clashes = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in clashes.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) <= set(clashes), "an allowance that nothing needs"
