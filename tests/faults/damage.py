"""Damaged files: cut, flipped, emptied, of another version, or with another value in them."""

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from tests.faults import kills, trainings
from tests.faults.lab import Lab, Outcome, kind, scripted
from tests.research.test_faults import VALUES, _places
from tests.retrieval.test_documents_fuzz import cut, digits, flip, remove, repeat, swap
from tests.training import chat_model as chat

from hanol.files import write_sums

ANSWER = "<answer>amber is a word [1]</answer>"
SEARCH = '<tool_call>\n{"name": "search", "arguments": {"query": ["amber"]}}\n</tool_call>'


BYTES = (flip, remove, repeat, digits, swap)
ODD = [*VALUES, "", "2.0", 999, True, 1e308, -(2**63), [None], [[]], "\x1b]0;owned\x07"]


def damage(path: Path, rng: Random) -> str:
    """Change a file for the worse; says how."""
    data = path.read_bytes()
    how = rng.choice(["cut", "flip", "bytes", "empty", "noise", "value", "value", "value", "gone"])
    if how == "value" and (changed := other_value(data, path.suffix, rng)) is not None:
        path.write_bytes(changed)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(rng.randbytes(rng.choice([1, 100, 5000])))
    elif how == "gone":
        path.unlink()
        if (instead := rng.random()) < 0.5:  # links are a kind of their own
            path.mkdir()
        elif instead < 0.7:  # waits for ever for who opens it
            os.mkfifo(path)
    elif how == "cut":
        path.write_bytes(cut(data, rng) if len(data) > 1 else b"")
    elif len(data) > 4:
        path.write_bytes(rng.choice(BYTES)(data, rng))
    return f"{path.name}: {how}"


def other_value(data: bytes, suffix: str, rng: Random) -> bytes | None:
    """JSON, JSON lines or YAML with one value replaced or missing, such as a foreign version."""
    lines = data.split(b"\n") if suffix == ".jsonl" else [data]
    number = rng.randrange(max(len(lines) - (suffix == ".jsonl"), 1))
    try:
        content = yaml.safe_load(lines[number]) if suffix == ".yaml" else json.loads(lines[number])
    except (ValueError, yaml.YAMLError):
        return None
    if not isinstance(content, dict | list) or not content:
        return None
    change(content, rng)
    lines[number] = (yaml.safe_dump if suffix == ".yaml" else json.dumps)(content).encode()
    return b"\n".join(lines)


def change(content: Any, rng: Random, *, values: Sequence[Any] = (), depth: int = 99) -> None:
    """Replace a value somewhere in a tree of dicts and lists by another one, or remove it.

    `values` are further ones to take; what lies deeper than `depth` stays as it is.
    """
    *way, last = rng.choice([place for place in _places(content) if len(place) <= depth])
    for key in way:
        content = content[key]
    if rng.random() < 0.2:
        del content[last]
    else:
        content[last] = deepcopy(rng.choice([*ODD, *values]))  # which may be changed in turn


def made(lab: Lab, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is made once, to be copied and damaged."""

    def first() -> Path:
        folder = lab.root / f"sound-{name}"
        folder.mkdir(exist_ok=True)
        make(folder)
        return folder

    return lab.once(f"made {name}", first)


def chosen(folder: Path, rng: Random, *patterns: str) -> Path:
    """One of the files of a folder."""
    return rng.choice(
        sorted(file for one in patterns for file in folder.glob(one) if file.is_file())
    )


def damaged(
    lab: Lab, rng: Random, folder: Path, files: Sequence[str], use: Callable[[Path], Outcome],
    name: str,
) -> Outcome:  # fmt: skip
    """The use of a copy, one of whose files is damaged; once, that of a copy as it is."""
    target = lab.folder() / "copy"

    def whole() -> Outcome:
        shutil.copytree(folder, target, symlinks=True)
        outcome = use(target)
        shutil.rmtree(target)
        return outcome

    lab.sound(name, whole)
    shutil.copytree(folder, target, symlinks=True)
    how = damage(chosen(target, rng, *files), rng)
    outcome = use(target)
    return outcome._replace(detail=f"{how}: {outcome.detail}")


def make_index(lab: Lab, folder: Path) -> None:
    kills.write_documents(folder, Random(0), 8)
    lab.run("index", folder)


@kind("damaged: index", short=2, long=400)
def damaged_index(lab: Lab, rng: Random) -> Outcome:
    sound = made(lab, "index", partial(make_index, lab))
    expected = lab.once("hits", lambda: hits(lab.run("search", sound, "amber", "--json").out))
    is_made_anew = rng.random() < 0.5

    def use(folder: Path) -> Outcome:
        ended = lab.run("search", folder, "amber", "--json")
        outcome = lab.judged(ended)
        if outcome.verdict == "survived" and hits(ended.out) != expected:
            return Outcome("lost", "another result without a word")
        if outcome.is_failure or not is_made_anew:
            return outcome
        rebuild = ["--rebuild"] * (outcome.verdict == "refused")
        again = lab.judged(lab.run("index", folder, *rebuild))
        if again.verdict != "survived":
            return Outcome("lost", f"it cannot be made anew: {again.detail}")
        return outcome

    return damaged(lab, rng, sound, [".hanol/*"], use, "searching an index")


def hits(text: str) -> list[Any]:
    return [(hit["document"], hit["text"]) for hit in json.loads(text)["hits"]]


@kind("damaged: log", short=3, long=600)
def damaged_log(lab: Lab, rng: Random) -> Outcome:
    # Of the same name for each copy: a run goes on with the model that it began with.
    model = lab.once("turns", lambda: scripted(lab.root / "turns.jsonl", [SEARCH, ANSWER, ANSWER]))

    def make(folder: Path) -> None:
        command = ["research", kills.notes(lab), "What is amber?", "--model", model]
        lab.run(*command, "--output", folder / "run")

    files = rng.choice(["events.jsonl", "events.jsonl", "events.jsonl", "*"])
    number = rng.randrange(5)

    def use(copy: Path) -> Outcome:
        run = copy / "run"
        command = [
            ["replay", run], ["export", run], ["export", run, "--format", "tongyi"],
            ["resume", run, "--model", model],
            ["fork", run, "--at", "1", "--model", model, "--output", copy / "new"],
        ][number]  # fmt: skip
        outcome = lab.judged(lab.run("research", *command))
        return outcome._replace(detail=f"{command[0]}: {outcome.detail}")

    return damaged(
        lab, rng, made(lab, "run", make), [f"run/{files}"], use, f"use {number} of a log"
    )


@kind("damaged: batch", short=1, long=100)
def damaged_batch(lab: Lab, rng: Random) -> Outcome:
    def make(folder: Path) -> None:
        rows = [{"id": f"q{i}", "question": f"What is amber {i}?", "answer": "x"} for i in range(2)]
        chat.write_rows(folder / "questions.jsonl", rows)
        use(folder)

    def use(folder: Path) -> Outcome:
        # Of the same name for each copy, as above.
        model = scripted(lab.root / "batch-turns.jsonl", [SEARCH, ANSWER] * 4)
        ended = lab.run(
            "research", "batch", kills.notes(lab), folder / "questions.jsonl",
            "--model", model, "--output", folder / "batch",
        )  # fmt: skip
        outcome = lab.judged(ended)
        if outcome.verdict == "survived":
            results = (folder / "batch" / "results.jsonl").read_text().splitlines()
            asked = (folder / "questions.jsonl").read_text().splitlines()
            if len(results) != len(asked) or any(json.loads(row)["error"] for row in results):
                return Outcome("lost", f"results are missing: {results}"[:300])
        return outcome

    files = ["questions.jsonl", "batch/*", "batch/**/events.jsonl"]
    return damaged(lab, rng, made(lab, "batch", make), files, use, "going on with a batch")


def killed_training(lab: Lab, recipe: Path) -> Path:
    """The folder of a run that was killed in its third checkpoint."""
    stop = (
        "from hanol.training import StepTrainer; import os; seen = []\n"
        "def die(self, checkpoint): seen.append(1); len(seen) == 3 and os._exit(9)\n"
        "StepTrainer.write_more = die\n"
    )

    def make(folder: Path) -> None:
        lab.run("train", recipe, "--output", folder / "run", prelude=stop)
        if len(list((folder / "run").glob("checkpoint-*"))) != 2:
            raise RuntimeError("there are no two checkpoints to damage")

    return made(lab, "training", make)


@kind("damaged: training", short=1, long=200)
def damaged_training(lab: Lab, rng: Random) -> Outcome:
    """A run that was killed, one of whose files is damaged."""
    recipe, expected, _ = trainings.trained(lab, "sft")

    def use(folder: Path) -> Outcome:
        run = folder / "run"
        outcome = lab.judged(lab.run("train", recipe, "--output", run, "--resume", seconds=60))
        if outcome.verdict == "survived" and trainings.weights(run) != expected:
            return Outcome("lost", "other weights without a word")
        return outcome

    files = ["run/*", "run/checkpoint-*/*", "run/checkpoint-*/*"]
    return damaged(lab, rng, killed_training(lab, recipe), files, use, "resuming a training")


@kind("changed: training", short=1, long=100)
def changed_training(lab: Lab, rng: Random) -> Outcome:
    """The same, but the checksums are those of the files as they have become."""
    recipe, _, _ = trainings.trained(lab, "sft")
    sound = killed_training(lab, recipe)
    run = lab.folder() / "run"
    shutil.copytree(sound / "run", run)
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    names = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
    file = newest / rng.choice(names)
    how = forge(lab, file, rng)
    write_sums(newest)
    outcome = lab.judged(lab.run("train", recipe, "--output", run, "--resume", seconds=60))
    return outcome._replace(detail=f"{file.name}, {how}: {outcome.detail}")


class Ran:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


def forge(lab: Lab, file: Path, rng: Random) -> str:
    """Put something else in the place of a file of a checkpoint; says how."""
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        content.pop("log_history")
        change(content, rng, values=[10**12, -5, "x", {"args": {"a": 1}}])
        file.write_text(json.dumps(content))
        return "value"
    how = rng.choice(["pickle", "other", "shape", "value"])
    if how == "pickle":
        file.write_bytes(pickle.dumps(Ran(lab.ran)))
    elif how == "other":
        torch.save(rng.choice([1, [1], {}, {"state": {}, "param_groups": []}]), file)
    else:
        content = torch.load(file, weights_only=False)  # our own
        if how == "shape":
            shrink(content)
        else:
            change(content, rng)
        torch.save(content, file)
    return how


def shrink(content: Any) -> None:
    """Give all tensors in a tree another shape."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, torch.Tensor):
            content[key] = torch.zeros(1, 2, 3)
        shrink(value)


HOSTILE_SQL = [
    "UPDATE passages SET text = x'ff00fe'",
    "UPDATE passages SET text = 5",
    'UPDATE passages SET start = 9223372036854775807, "end" = -5',
    "UPDATE passages SET page = 'x', start = 'y'",
    "UPDATE passages SET text = replace(hex(zeroblob(5000000)), '0', 'amber ') WHERE id = 1",
    "UPDATE documents SET remarks = '[[[[['",
    "UPDATE documents SET remarks = '[{\"reason\": 5}]'",
    "UPDATE documents SET remarks = '5'",
    "UPDATE documents SET path = '../../etc/passwd' WHERE id = 1",
    "UPDATE documents SET path = char(27) || ']0;owned' || char(7) WHERE id = 1",
    "UPDATE documents SET kind = char(27), pages = 'many', size = 'x', title = x'ff'",
    "INSERT OR REPLACE INTO meta VALUES ('width', '999999999999'), ('embedder', '../../x')",
    "INSERT OR REPLACE INTO meta VALUES ('width', 'x'), ('folder', '/etc'), ('ocr', 'x')",
    "INSERT INTO vectors VALUES (1, x'00')",
    "UPDATE meta SET value = '9' WHERE key = 'version'",
    "DROP TABLE common",
    "DROP TABLE vocabulary",
    "DROP TABLE words; CREATE TABLE words (title, text)",
    "DROP TABLE words; CREATE VIRTUAL TABLE words USING fts5 (title, text, tokenize='trigram')",
    "DROP TABLE passages; CREATE TABLE passages (id INTEGER PRIMARY KEY, x)",
    "DROP TABLE meta; CREATE TABLE meta (key, other)",
    "ALTER TABLE documents ADD COLUMN g AS (hex(zeroblob(400000000)))",
    "CREATE INDEX z ON passages (length(hex(zeroblob(400000000))))",
    "INSERT OR REPLACE INTO common VALUES ('amber', 'x')",
    "DELETE FROM documents",
    "DELETE FROM passages",
    "INSERT INTO unread VALUES ('x', '[')",
    "INSERT INTO unread VALUES ('x', '{\"a\": 1}')",
]


@kind("hostile index", short=2, long=200)
def hostile_index(lab: Lab, rng: Random) -> Outcome:
    """An index of a stranger, with odd values, tables and expressions in its database."""
    sound = made(lab, "index", partial(make_index, lab))
    number = rng.randrange(5)

    def use(statements: Sequence[str]) -> Outcome:
        folder = lab.folder() / "copy"
        shutil.copytree(sound, folder)
        with contextlib.closing(sqlite3.connect(folder / ".hanol" / "index.sqlite")) as db:
            for statement in statements:
                with contextlib.suppress(sqlite3.OperationalError):  # the one before took its table
                    db.executescript(statement)
        (folder / ".hanol" / "index.sum").unlink()
        command: list[object] = [
            ["search", folder, "amber"], ["search", folder, "amber", "--json"],
            ["ask", folder, "What is amber?"], ["index", folder], ["index", folder, "--report"],
        ][number]  # fmt: skip
        outcome = lab.judged(lab.run(*command))
        if outcome.verdict == "refused" and command[0] == "index":
            again = lab.judged(lab.run("index", folder, "--rebuild", "--embedder", "none"))
            if again.verdict != "survived":
                return Outcome("lost", f"it cannot be made anew: {again.detail}")
        return outcome._replace(detail=f"{command[0]}: {outcome.detail}")

    lab.sound(f"use {number} of an index", lambda: use([]))
    statements = rng.sample(HOSTILE_SQL, rng.choice([1, 1, 2]))
    outcome = use(statements)
    return outcome._replace(detail=f"{' and '.join(statements)[:90]}, {outcome.detail}")


@kind("damaged: checkpoint", short=2, long=300)
def damaged_checkpoint(lab: Lab, rng: Random) -> Outcome:
    folder = made(lab, "checkpoint", lambda folder: chat.make_checkpoint(folder / "model"))
    number = rng.randrange(3)

    def use(copy: Path) -> Outcome:
        model = copy / "model"
        command = [
            ["inspect", model], ["generate", model, "-p", "a", "--max-tokens", "2"],
            ["convert", model, copy / "new"],
        ][number]  # fmt: skip
        outcome = lab.judged(lab.run(*command))
        return outcome._replace(detail=f"{command[0]}: {outcome.detail}")

    return damaged(lab, rng, folder, ["model/*"], use, f"use {number} of a checkpoint")


def damaged_input(lab: Lab, rng: Random, what: str) -> Outcome:
    """A recipe, or the rows that it names."""

    def make(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(trainings.sft(folder)))

    def use(copy: Path) -> Outcome:
        rows = ["--set", f"data.path={copy / 'rows.jsonl'}"] if what == "rows.jsonl" else []
        return lab.judged(lab.run("train", copy / "recipe.yaml", "--dry-run", *rows))

    return damaged(lab, rng, made(lab, "recipe", make), [what], use, f"reading {what}")


for _what, _name in (("recipe.yaml", "recipe"), ("rows.jsonl", "rows")):
    kind(f"damaged: {_name}", short=1, long=200)(partial(damaged_input, what=_what))
