"""Disks that are full and folders that cannot be written: one line, and it goes on with room."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.faults import kills, trainings
from tests.faults.damage import ANSWER, SEARCH
from tests.faults.lab import Lab, Outcome, kind, scripted
from tests.training import chat_model as chat

Command = tuple[list[object], int]  # what to run, and the kilobytes it needs at most


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """A disk of this size: code that a command runs first, and what makes room (new such code).

    A file system of its own where that is permitted; else a limit of the size of files.
    """
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o"]
    is_mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            [*options, f"size={kilobytes}k", "none", folder], check=False, capture_output=True
        ).returncode
    )
    if not is_mounted:
        size = kilobytes * 1024 // 4
        yield f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))", lambda: ""
        return

    def more() -> str:
        subprocess.run([*options, "remount,size=200m", "none", folder], check=True)
        return ""

    try:
        yield "", more
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def commands(lab: Lab, what: str, disk: Path, aside: Path) -> Command:
    """A command that writes to a disk."""
    if what == "index":
        kills.write_documents(aside / "notes", Random(1), 12)
        return ["index", aside / "notes", "--index", disk / "index"], 400
    model = scripted(aside / "turns.jsonl", [SEARCH, ANSWER] * 8)
    if what == "research":
        return ["research", kills.notes(lab), "What is amber?", "--model", model, "--output",
                disk / "run"], 60  # fmt: skip
    if what == "batch":
        rows = [{"id": str(i), "question": f"What is amber {i}?"} for i in range(4)]
        questions = chat.write_rows(aside / "questions.jsonl", rows)
        return ["research", "batch", kills.notes(lab), questions, "--model", model, "--output",
                disk / "batch"], 120  # fmt: skip
    recipe, _, _ = trainings.trained(lab, "sft")
    if what == "convert":
        return ["convert", recipe.parent / "model", disk / "new"], 300
    return ["train", recipe, "--output", disk / "run", "--resume"], 1500


@kind("full disk", short=2, long=200)
def full_disk(lab: Lab, rng: Random) -> Outcome:
    what = rng.choice(["index", "research", "batch", "training", "convert"])

    def roomy() -> Outcome:
        folder = lab.folder()
        with small_disk(folder / "disk", 200_000) as (prelude, _):
            command, _ = commands(lab, what, folder / "disk", folder)
            return lab.judged(lab.run(*command, prelude=prelude, seconds=60))

    lab.sound(f"{what} with room", roomy)
    folder = lab.folder()
    disk = folder / "disk"
    command, most = commands(lab, what, disk, folder)
    with small_disk(disk, rng.randrange(4, most)) as (prelude, room):
        outcome = lab.judged(lab.run(*command, prelude=prelude, seconds=60))
        if outcome.is_failure or outcome.verdict == "survived":
            return outcome._replace(detail=f"{command[:2]}: {outcome.detail}")
        prelude = room()
        log = disk / "run" / "events.jsonl"
        if log.exists() and log.stat().st_size and command[0] == "research":
            command = ["research", "resume", disk / "run"]
        again = lab.judged(lab.run(*command, prelude=prelude, seconds=60))
        if again.verdict != "survived":
            return Outcome("lost", f"{command[:2]} does not go on with room: {again.detail}")
    return outcome


@kind("read-only folder", short=2, long=100)
def read_only(lab: Lab, rng: Random) -> Outcome:
    number, is_indexed = rng.randrange(10), rng.random() < 0.7

    def use(*, is_writable: bool) -> Outcome:
        folder = lab.folder()
        notes, out = folder / "notes", folder / "out"
        kills.write_documents(notes, Random(1), 3)
        out.mkdir()
        if is_indexed or is_writable:
            lab.run("index", notes)
        model = scripted(folder / "turns.jsonl", [SEARCH, ANSWER])
        recipe, _, _ = trainings.trained(lab, "sft")
        research = ["research", notes, "What is amber?", "--model", model]
        command: list[object] = [
            ["index", notes], ["search", notes, "amber"], ["ask", notes, "amber?"],
            research, [*research, "--output", out / "r"],
            ["train", recipe, "--output", out / "run"],
            ["convert", recipe.parent / "model", out / "new"],
            ["index", notes, "--index", out / "i"],
            ["index", notes, "--rebuild"], ["documents", "show", next(notes.glob("00.*"))],
        ][number]  # fmt: skip
        if is_writable:
            outcome = lab.judged(lab.run(*command))
        else:
            with unwritable(notes, out):
                outcome = lab.judged(lab.run(*command))
        return outcome._replace(detail=f"{command[:2]}: {outcome.detail}")

    lab.sound(f"command {number} in a folder", lambda: use(is_writable=True))
    return use(is_writable=False)


@contextmanager
def unwritable(*folders: Path) -> Iterator[None]:
    """Folders that cannot be written, by root neither."""
    is_root = os.geteuid() == 0
    try:
        for folder in folders:
            if is_root:
                subprocess.run(["mount", "--bind", folder, folder], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
            else:
                subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        yield
    finally:
        for folder in folders:
            undo = ["umount", "-l"] if is_root else ["chmod", "-R", "u+w"]
            subprocess.run([*undo, folder], check=False)
