"""How the package is laid out: sizes that keep it readable, and walls that imports respect."""

import ast
import importlib
from pathlib import Path

import hanol

SOURCE = Path(hanol.__file__).parent
# Bounds of lines: of the whole package, of some rooms, of any other room. The plan of the house has
# 3,000 lines a system; whoever raises a bound says why in the commit. Above it: attention (decode
# steps of whole layers, the family), engines (images), retrieval (readers of a dozen formats),
# autodeco, research (quotations that must hold the answer, values of JSON);
# evaluation (judges by rubrics, statistics about them, tasks, suites: four systems);
# a little above: synthesis (journeys), worlds (problems), models (tokenizers of strangers).
MOST_LINES = {
    "": 84_600,
    "attention": 5_460,
    "engines": 4_650,
    "evaluation": 10_600,
    "research": 5_080,
    "autodeco": 6_000,
    "cli": 5_800,
    "models": 4_100,
    "retrieval": 9_000,
    "synthesis": 4_150,
    "training": 4_800,
    "test_time": 5_100,
    "worlds": 4_150,
}
MOST_LINES_OF_A_ROOM = 4_000
MOST_MODULES = 15
MOST_NAMES = 72
MOST_NAMES_OF = {"evaluation": 130}  # its four systems have one public room


def _lines(folder: Path) -> int:
    return sum(file.read_text("utf-8").count("\n") for file in folder.rglob("*.py"))


def _room(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_sizes() -> None:
    rooms = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    assert {"research", "autodeco", "cli"} < set(rooms)
    found = {room: _lines(SOURCE / room) for room in ["", *rooms]}
    bounds = {room: MOST_LINES.get(room, MOST_LINES_OF_A_ROOM) for room in found}
    assert {room: n for room, n in found.items() if n > bounds[room]} == {}


def test_folders_hold_few_modules() -> None:
    folders = {file.parent for file in SOURCE.rglob("*.py")}
    assert len(folders) > 20
    crowded = {
        str(folder.relative_to(SOURCE)): count
        for folder in folders
        if (count := len(list(folder.glob("*.py")))) > MOST_MODULES
    }
    assert crowded == {}


def test_no_room_imports_private_modules_of_another() -> None:
    reached = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("hanol."):
                continue
            _, room, *inner = str(node.module).split(".")
            names = [alias.name for alias in node.names]
            private = any(part.startswith("_") for part in [*inner, *names])
            if private and room != _room(file):
                reached.append(f"{file.relative_to(SOURCE)}:{node.lineno} imports {node.module}")
    assert reached == []


def test_rooms_have_few_public_names() -> None:
    rooms = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    assert len(rooms) > 15
    names = {room: len(importlib.import_module(f"hanol.{room}").__all__) for room in rooms}
    bounds = {room: MOST_NAMES_OF.get(room, MOST_NAMES) for room in rooms}
    assert {room: count for room, count in names.items() if count > bounds[room]} == {}


def test_tests_give_a_reason_for_each_private_import() -> None:
    files = sorted(Path(__file__).parent.rglob("*.py"))
    assert len(files) > 100
    bare = []
    for file in files:
        text = file.read_text("utf-8")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("hanol"):
                continue
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            shown = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            if any(part.startswith("_") for part in parts) and "# private: " not in shown:
                bare.append(f"{file.name}:{node.lineno} imports {node.module}")
    assert bare == []
