"""Kills at random times: whatever was finished is there afterwards, and the command goes on."""

import json
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.lab import Endpoint, Lab, Outcome, completion, http, kind
from tests.research.killed_runs import Model
from tests.training import chat_model as chat

from hanol.engines import Message, Request, Sampling
from hanol.errors import HanolError
from hanol.retrieval import Index
from hanol.runs import ModelAnswered, RunEnded, RunFolder

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet"]


def write_documents(folder: Path, rng: Random, count: int) -> None:
    """Small documents of several kinds, each with words of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        words = " ".join(rng.choices(WORDS, k=rng.randrange(5, 400)))
        suffix = rng.choice(["txt", "md", "html", "csv"])
        text = {"html": f"<p>{words}</p>", "csv": f"a,b\n{words},{i}\n"}.get(suffix, words)
        (folder / f"{i:02d}.{suffix}").write_text(f"{text}\n")


def damaged(place: Path) -> str | None:
    """What is wrong with an index."""
    if not (place / "index.sqlite").exists():
        return None
    with sqlite3.connect(place / "index.sqlite") as db:
        found = db.execute("PRAGMA integrity_check").fetchone()
    db.close()
    return None if found == ("ok",) else f"the index is damaged: {found}"


@kind("kill: index", short=2, long=300)
def kill_index(lab: Lab, rng: Random) -> Outcome:
    folder = lab.folder() / "notes"
    write_documents(folder, rng, 12)
    whole = lab.once("seconds of index", lambda: lab.run("index", folder).seconds)
    if rng.random() < 0.5:  # an older index, some of whose documents change
        lab.run("index", folder)
        write_documents(folder, rng, 6)
    lab.killed(partial(lab.start, "index", folder), rng.uniform(0, whole))
    if problem := damaged(folder / ".hanol"):
        return Outcome("lost", problem)
    outcome = lab.judged(lab.run("index", folder))
    if outcome.verdict != "survived":
        return Outcome("lost", f"it does not go on: {outcome.detail}")
    with Index.open(folder) as index, Index.open(folder, index_folder=folder.parent / "new") as new:
        new.add(isolated=False)
        if index.version != new.version:
            return Outcome("lost", "the index differs from a new one")
    return outcome


def answer(body: dict[str, Any]) -> Iterator[bytes]:
    """A model that searches and answers; what it says depends on the request alone."""
    time.sleep(0.02)
    messages = tuple(Message(m["role"], _text(m["content"])) for m in body.get("messages", ()))
    if not messages:
        yield http(json.dumps({"object": "list", "data": [{"id": "m"}]}).encode())
        return
    model = Model(Path("/dev/null"))
    seed = sum(m.role == "assistant" for m in messages) + 1
    request = Request(messages, sampling=Sampling(seed=body.get("seed", seed)))
    yield http(json.dumps(completion(model._write(request))).encode())


def _text(content: Any) -> str:
    return (
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    )


def notes(lab: Lab) -> Path:
    """An indexed folder that many runs share."""

    def make() -> Path:
        folder = lab.root / "notes"
        write_documents(folder, Random(0), 6)
        lab.run("index", folder)
        return folder

    return lab.once("notes", make)


def server(lab: Lab) -> Endpoint:
    """The model of all runs."""
    return lab.once("model", lambda: lab.endpoint(answer))


def asked(endpoint: Endpoint, name: str) -> int:
    """Requests of one run, which its question names."""
    return sum(name in json.dumps(body["messages"]) for body in endpoint.asked)


def logged(folder: Path) -> int:
    """Answers in the logs below a folder."""
    logs = (log.parent for log in folder.rglob("events.jsonl"))
    return sum(
        isinstance(event, ModelAnswered) for log in logs for event in RunFolder(log).events()
    )


MODES = {
    "react": ["--mode", "react"], "markov": ["--mode", "markov"],
    "resum": ["--mode", "resum"], "heavy": ["--heavy", "2", "--mode", "react"],
}  # fmt: skip


def kill_research(lab: Lab, rng: Random, mode: str) -> Outcome:
    model, run, name = server(lab), lab.folder() / "run", f"topic{rng.getrandbits(40):x}"
    command = ["research", notes(lab), f"What is {name}?", "--model", model.model, "--max-calls",
               "6", "--turns", "free", *MODES[mode]]  # fmt: skip

    def undisturbed() -> float:
        return lab.run(*command, "--output", run.with_name("first")).seconds

    whole = lab.once(f"seconds of {mode}", undisturbed)
    before = asked(model, name)
    kills = rng.choice([1, 1, 2])
    command += ["--output", run]
    for number in range(kills):
        again = number and any(run.glob("events.jsonl")) and RunFolder(run).events()
        lab.killed(
            partial(lab.start, *(["research", "resume", run] if again else command)),
            rng.uniform(0, whole),
        )
    try:
        begun = bool(run.exists() and RunFolder(run).events())
    except HanolError as err:
        return Outcome("lost", f"the log cannot be read: {err}")
    outcome = lab.judged(lab.run(*(["research", "resume", run] if begun else command)))
    if outcome.verdict != "survived":
        return Outcome("lost", f"it does not go on: {outcome.detail}")
    twice = asked(model, name) - before - logged(run)
    if twice > kills * (2 if mode == "heavy" else 1):
        return Outcome("lost", f"{twice} answers were paid for and are not in the log")
    ended = RunFolder(run).events()[-1]
    if not isinstance(ended, RunEnded) or ended.answer is None:
        return Outcome("lost", f"it has no answer: {ended}"[:200])
    return lab.judged(lab.run("research", "replay", run)) if rng.random() < 0.2 else outcome


for _mode, _long in (("react", 150), ("markov", 100), ("resum", 100), ("heavy", 100)):
    kind(f"kill: research, {_mode}", short=1, long=_long)(partial(kill_research, mode=_mode))


@kind("kill: batch", short=1, long=100)
def kill_batch(lab: Lab, rng: Random) -> Outcome:
    model, folder = server(lab), lab.folder()
    name, place = f"topic{rng.getrandbits(40):x}", folder / "batch"
    rows = [{"id": f"q{i}", "question": f"What is {name} {i}?"} for i in range(6)]
    questions = chat.write_rows(folder / "questions.jsonl", rows)
    command = ["research", "batch", notes(lab), questions, "--model", model.model, "--output",
               place, "--max-calls", "3", "--concurrency", "2", "--turns", "free"]  # fmt: skip
    whole = lab.once(
        "seconds of batch", lambda: lab.run(*command[:7], folder / "first", *command[8:]).seconds
    )
    before, kills = asked(model, name), rng.choice([1, 2, 3])
    for _ in range(kills):
        lab.killed(partial(lab.start, *command), rng.uniform(0, whole))
    outcome = lab.judged(lab.run(*command))
    if outcome.verdict != "survived":
        return Outcome("lost", f"it does not go on: {outcome.detail}")
    found = [json.loads(line) for line in (place / "results.jsonl").read_text().splitlines()]
    if [row["id"] for row in found] != [row["id"] for row in rows] or any(
        r["error"] for r in found
    ):
        return Outcome("lost", f"results are missing: {[row['id'] for row in found]}")
    if (twice := asked(model, name) - before - logged(place)) > 2 * kills:
        return Outcome("lost", f"{twice} answers were paid for and are not in the logs")
    return outcome
