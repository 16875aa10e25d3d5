"""Damaged files: cut, flipped, emptied, of another version, or with another value in them."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml
from tests.faults import kills
from tests.faults.lab import Lab, Outcome, kind, scripted
from tests.research.test_faults import VALUES, _places
from tests.retrieval.test_documents_fuzz import cut, digits, flip, remove, repeat, swap
from tests.training import chat_model as chat

ANSWER = "<answer>amber is a word [1]</answer>"
SEARCH = '<tool_call>\n{"name": "search", "arguments": {"query": ["amber"]}}\n</tool_call>'


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
        if rng.random() < 0.7:  # a folder in its place; links and pipes are kinds of their own
            path.mkdir()
    elif how == "cut":
        path.write_bytes(cut(data, rng) if len(data) > 1 else b"")
    elif len(data) > 4:
        path.write_bytes(rng.choice([flip, remove, repeat, digits, swap])(data, rng))
    return f"{path.name}: {how}"


def other_value(data: bytes, suffix: str, rng: Random) -> bytes | None:
    """JSON, JSON lines or YAML with one value replaced or missing, such as a foreign version."""
    lines = data.split(b"\n") if suffix == ".jsonl" else [data]
    number = rng.randrange(max(len(lines) - (suffix == ".jsonl"), 1))
    try:
        content = yaml.safe_load(lines[number]) if suffix == ".yaml" else json.loads(lines[number])
        places = _places(content)
    except (ValueError, AttributeError, TypeError, yaml.YAMLError):
        return None
    if not places:
        return None
    *way, last = rng.choice(places)
    inner: Any = content
    for key in way:
        inner = inner[key]
    if rng.random() < 0.2:
        del inner[last]
    else:
        inner[last] = rng.choice([*VALUES, "2.0", 999, True, "\x1b]0;owned\x07", -(2**63)])
    lines[number] = (yaml.safe_dump if suffix == ".yaml" else json.dumps)(content).encode()
    return b"\n".join(lines)


def copied(lab: Lab, name: str, make: Callable[[Path], None]) -> Path:
    """A copy of a folder that is made once."""

    def first() -> Path:
        folder = lab.root / f"sound-{name}"
        folder.mkdir(exist_ok=True)
        make(folder)
        return folder

    source = lab.once(f"sound {name}", first)
    target = lab.folder() / "copy"
    shutil.copytree(source, target, symlinks=True)
    return target


def chosen(folder: Path, rng: Random, *patterns: str) -> Path:
    """One of the files of a folder."""
    return rng.choice(
        sorted(file for one in patterns for file in folder.glob(one) if file.is_file())
    )


@kind("damaged: index", short=2, long=400)
def damaged_index(lab: Lab, rng: Random) -> Outcome:
    def make(folder: Path) -> None:
        kills.write_documents(folder, Random(0), 8)
        lab.run("index", folder)

    folder = copied(lab, "index", make)
    sound = lab.root / "sound-index"
    expected = lab.once("hits", lambda: lab.run("search", sound, "amber", "--json").out)
    how = damage(chosen(folder, rng, ".hanol/*"), rng)
    ended = lab.run("search", folder, "amber", "--json")
    outcome = lab.judged(ended)
    if outcome.verdict == "survived" and hits(ended.out) != hits(expected):
        return Outcome("lost", f"{how}: another result without a word")
    if outcome.is_failure or rng.random() < 0.5:
        return outcome._replace(detail=f"{how}: {outcome.detail}")
    again = lab.judged(lab.run("index", folder, *(["--rebuild"] * (outcome.verdict == "refused"))))
    if again.verdict != "survived":
        return Outcome("lost", f"{how}: it cannot be made anew: {again.detail}")
    return outcome


def hits(text: str) -> list[Any]:
    return [(hit["document"], hit["text"]) for hit in json.loads(text)["hits"]]


def research(lab: Lab, folder: Path, run: Path, *more: object) -> None:
    model = scripted(folder / "turns.jsonl", [SEARCH, ANSWER])
    lab.run(
        "research", kills.notes(lab), "What is amber?", "--model", model, "--output", run, *more
    )


@kind("damaged: log", short=3, long=600)
def damaged_log(lab: Lab, rng: Random) -> Outcome:
    run = copied(lab, "run", lambda folder: research(lab, folder, folder / "run")) / "run"
    files = ["events.jsonl", "events.jsonl", "events.jsonl", "*"]
    how = damage(chosen(run, rng, rng.choice(files)), rng)
    model = scripted(run.parent / "turns.jsonl", [ANSWER] * 3)
    command = rng.choice(
        [["replay", run], ["export", run], ["export", run, "--format", "tongyi"],
         ["resume", run, "--model", model],
         ["fork", run, "--at", "1", "--model", model, "--output", run.with_name("new")]]
    )  # fmt: skip
    outcome = lab.judged(lab.run("research", *command))
    return outcome._replace(detail=f"{how}, {command[0]}: {outcome.detail}")


@kind("damaged: batch", short=1, long=100)
def damaged_batch(lab: Lab, rng: Random) -> Outcome:
    def make(folder: Path) -> None:
        rows = [{"id": f"q{i}", "question": f"What is amber {i}?", "answer": "x"} for i in range(2)]
        chat.write_rows(folder / "questions.jsonl", rows)
        lab.run(*command(folder))

    def command(folder: Path) -> Iterator[object]:
        # Of the same name in each copy: a batch goes on with the model that it began with.
        model = scripted(lab.root / "batch-turns.jsonl", [SEARCH, ANSWER] * 4)
        yield from ("research", "batch", kills.notes(lab), folder / "questions.jsonl")
        yield from ("--model", model, "--output", folder / "batch")

    folder = copied(lab, "batch", make)
    how = damage(chosen(folder, rng, "questions.jsonl", "batch/*", "batch/**/events.jsonl"), rng)
    outcome = lab.judged(lab.run(*command(folder)))
    return outcome._replace(detail=f"{how}: {outcome.detail}")


@kind("damaged: training", short=1, long=200)
def damaged_training(lab: Lab, rng: Random) -> Outcome:
    """A run that was killed in its third checkpoint, one of whose files is damaged."""
    recipe, expected, _ = kills.trained(lab, "sft")
    stop = (
        "from hanol.training import StepTrainer; import os; seen = []\n"
        "def die(self, checkpoint): seen.append(1); len(seen) == 3 and os._exit(9)\n"
        "StepTrainer.write_more = die\n"
    )

    def make(folder: Path) -> None:
        lab.run("train", recipe, "--output", folder / "run", prelude=stop)
        if not list((folder / "run").glob("checkpoint-*")):
            raise RuntimeError("there is no checkpoint to damage")

    run = copied(lab, "training", make) / "run"
    how = damage(chosen(run, rng, "*", "checkpoint-*/*", "checkpoint-*/*"), rng)
    outcome = lab.judged(lab.run("train", recipe, "--output", run, "--resume", seconds=60))
    if outcome.verdict == "survived" and kills.weights(run) != expected:
        return Outcome("lost", f"{how}: other weights without a word")
    return outcome._replace(detail=f"{how}: {outcome.detail}")


@kind("damaged: checkpoint", short=2, long=300)
def damaged_checkpoint(lab: Lab, rng: Random) -> Outcome:
    def make(folder: Path) -> None:
        chat.make_checkpoint(folder / "model")

    folder = copied(lab, "checkpoint", make) / "model"
    how = damage(chosen(folder, rng, "*"), rng)
    command = rng.choice(
        [["inspect", folder], ["generate", folder, "-p", "a", "--max-tokens", "2"],
         ["convert", folder, folder.with_name("new")]]
    )  # fmt: skip
    outcome = lab.judged(lab.run(*command))
    return outcome._replace(detail=f"{how}, {command[0]}: {outcome.detail}")


def damaged_input(lab: Lab, rng: Random, what: str) -> Outcome:
    """A recipe, or the rows that it names."""

    def make(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(yaml.safe_dump(kills.sft(folder)))

    folder = copied(lab, "recipe", make)
    how = damage(folder / what, rng)
    recipe = folder / "recipe.yaml"
    extra = ["--set", f"data.path={folder / 'rows.jsonl'}"] if what == "rows.jsonl" else []
    outcome = lab.judged(lab.run("train", recipe, "--dry-run", *extra))
    return outcome._replace(detail=f"{how}: {outcome.detail}")


for _what, _name in (("recipe.yaml", "recipe"), ("rows.jsonl", "rows")):
    kind(f"damaged: {_name}", short=1, long=200)(partial(damaged_input, what=_what))
