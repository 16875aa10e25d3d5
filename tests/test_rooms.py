"""How the package is laid out: sizes that keep it readable, and walls that imports respect."""

import ast
import importlib
from pathlib import Path

import hanol

SOURCE = Path(hanol.__file__).parent
# Bounds of the plan of the house: lines of the whole package, of some rooms, of any other room.
# Since then came a real model, chat, answers from documents, fine-tuning and readers' data: 6,900
# lines in all, 1,000 of them commands; then a world of real pages with its expert: 1,200;
# then models that rank sentences: 200; then web pages, mails and encodings read right: 750;
# then Office files and tables that are read as a person sees them: 1,500;
# then endpoints, words and citations as people have them: 350;
# then PDFs read by PDFium apart from the process: 800;
# then what was not read or is doubtful, named where it is, and documents shown as they are indexed,
# 650 lines, 200 of them commands; then paragraphs and headings of PDF pages: 110;
# then the numbers of lists, clauses and headings, as Word and LibreOffice count them: 250;
# then what 780 more inputs of the kinds of public reports broke (groups in forms, fields): 180;
# then web pages as they are shown (exponents, formulas, filled forms, images, hidden parts): 120;
# then other forms of a word in search ("dogs" for "dog"), menus over headings: 50;
# then words of metafiles, masters of slides, hidden parts: 140;
# then runs that always go on (whatever tools, endpoints, logs and clocks do), one HTTP client: 260;
# then origins of quoted mails (60), numbers with the wrong year (50), merged cells as drawn (10);
# then folders and indexes of strangers (links, databases, embedders, damage, loops): 206;
# then tables that PDF pages draw with lines: 305;
# then a sandbox that holds against the kernel's own ways out (seccomp, keys, memory of all): 250;
# then names and numbers that no document has, Korean nouns of one syllable: 40;
# then faults of tools that end a rollout and not a user's run: 30;
# then one console, and one line with a log for what nobody foresaw: 200, 170 of them commands;
# then trainings that notice other data, damage, a second process, and foreign checkpoints: 670;
# then kept processes, bounded in time and memory, that parse each document: 140;
# then answers about the years, options, counts and prices of the question: 130;
# then what else of an index is damaged, and names of checkpoints that no system takes: 20;
# then control tokens of every family, broken in what strangers write: 230;
# then units of numbers, and claims in headings and code: 180; files that are no files: 30;
# then codes and prices of tables in answers, names inside of tables: 40.
# Then, in attention, one decay a head and the rest of the family, 450 lines; steps of whole
# layers and weights of fewer bits, 1,200; in cli the options that print them, 40.
# Then, in retrieval, tables side by side and groups of rows, 200 lines; lines from right to left,
# 150; less what said a thing twice (limits of time, locks, hashes), 200.
# Then imports that wait for their first use, and transformers without what one process leaves out:
# 420, of them 20 commands and 10 in retrieval.
# Then archives unpacked where documents are read, files opened by one module, attempts of a stage
# in batches: 200.
# Then process reward models, preference losses, rewards that are verified: 1,800.
# Then the decode step of Kimi-Linear, keys that grow in place: 700; test-time compute, process
# rewards, journeys and their worlds: 8,000.
# Then, in retrieval, headings of groups in forms and tables without names: 48; links refused: 10.
MOST_LINES = {
    "": 68_000,
    "attention": 5_420,
    "engines": 4_100,
    "research": 4_770,
    "worlds": 4_100,
    "autodeco": 6_000,
    "cli": 4_700,
    "retrieval": 8_955,
    "training": 4_800,
}
MOST_LINES_OF_A_ROOM = 4_000
MOST_MODULES = 15
MOST_NAMES = 64


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
    assert {room: count for room, count in names.items() if count > MOST_NAMES} == {}


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
