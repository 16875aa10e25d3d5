"""Injects faults and prints one table: `python -m tests.faults`, or `make faults`.

    python -m tests.faults                     3 minutes, some of every kind
    python -m tests.faults --long              all of them, 80 minutes of one processor
    python -m tests.faults --kind damaged --count 200 --seed 7
    python -m tests.faults --list

The same seed injects the same faults. The exit code is 1 if a fault ended in a crash, a hang or a
loss; those are listed under the table with what repeats them.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import (  # noqa: F401 - each makes its kinds known
    calls,
    checkpoints,
    damage,
    disks,
    documents,
    endpoints,
    kills,
    trainings,
)
from tests.faults.lab import KINDS, LIMIT, REPOSITORY, Kind, Lab, Outcome, generator

VERDICTS = ("survived", "refused", "crash", "hang", "lost")
SECONDS = 180.0  # of the short form
BATCH = 200  # faults of a process that injects many


class Tally:
    """The outcomes so far, kind by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.failures: list[tuple[str, int, Outcome]] = []

    def add(self, name: str, number: int, outcome: Outcome) -> None:
        """Count one."""
        self.counts.setdefault(name, Counter())[outcome.verdict] += 1
        if outcome.is_failure:
            self.failures.append((name, number, outcome))

    def table(self) -> str:
        """The table, as Markdown."""
        rows = [["kind", "injected", "survived", "refused cleanly", "crash", "hang", "lost"]]
        total: Counter[str] = sum(self.counts.values(), Counter())
        for name, found in [*self.counts.items(), ("all", total)]:
            rows.append(
                [name, f"{found.total():,}", *(f"{found[verdict]:,}" for verdict in VERDICTS)]
            )
        rows.insert(1, ["---", *["---:"] * 6])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def inject(lab: Lab, one: Kind, seed: int, first: int, last: int) -> Iterator[tuple[int, Outcome]]:
    """Faults number `first` to `last` of a kind."""
    if one.is_inside:
        yield from _inside(lab, one, seed, first, last)
        return
    for number in range(first, last):
        try:
            outcome = one.fault(lab, generator(seed, one.name, number))
        except Exception as err:  # of the harness, or of hanol in it: either is to be looked at
            outcome = Outcome("crash", f"in the harness: {type(err).__name__}: {err}"[:300])
        yield number, outcome
        lab.done(keep=outcome.is_failure and KEEP)


KEEP = False


def _inside(lab: Lab, one: Kind, seed: int, first: int, last: int) -> Iterator[tuple[int, Outcome]]:
    """Let a process inject many; one that dies or stalls costs its fault alone."""
    module = one.fault.__module__
    while first < last:
        root = lab.root / "work" / "inside"
        code = (
            f"import sys; sys.path[:0] = [{str(REPOSITORY)!r}]; import {module}; "
            f"from tests.faults.lab import serve; "
            f"serve({module!r}, {one.name!r}, {seed}, {first}, {last}, {str(root)!r})"
        )
        process = lab.python(code)
        seen, began, last_seen = 0, time.monotonic(), first
        is_begun = False
        while True:
            code_now = process.poll()
            lines = process.stdout.splitlines(keepends=True)
            for line in lines[seen:]:
                if not line.endswith("\n"):
                    break
                seen += 1
                row = json.loads(line)
                began = time.monotonic()
                if len(row) == 1:
                    last_seen, is_begun = row[0], True
                else:
                    yield row[0], Outcome(*row[1:])
                    last_seen, is_begun = row[0] + 1, False
            if code_now is not None and seen >= len(process.stdout.splitlines()):
                if is_begun:  # it died in the middle of one
                    told = f"exit code {code_now}: {process.stderr[-200:]}"
                    yield last_seen, Outcome("crash", told)
                    last_seen += 1
                elif last_seen < last:
                    raise RuntimeError(f"{one.name}: {process.stderr[-2000:]}")
                break
            if time.monotonic() - began > LIMIT:
                process.send_signal(9)
                process.wait()
                yield last_seen, Outcome("hang", f"after {LIMIT:.0f} s")
                last_seen += 1
                break
            time.sleep(0.02)
        first = last_seen


def chosen(words: list[str]) -> list[Kind]:
    """The kinds whose names contain one of the words; all of them without any."""
    found = [one for name, one in KINDS.items() if not words or any(w in name for w in words)]
    if not found:
        sys.exit(f"no kind is called {words[0]!r}: see --list")
    return found


def run(
    lab: Lab, kinds: list[Kind], seed: int, counts: dict[str, int], seconds: float | None,
    say: Any = None,
) -> Tally:  # fmt: skip
    """Inject faults of every kind in turn, until all are, or the time is up (then one of each)."""
    tally, begun = Tally(), time.monotonic()
    done = dict.fromkeys(counts, 0)
    last_said = begun
    # Slices, so that every kind had its turn when the time is up.
    slices = 1 if seconds is not None else 10
    while open_kinds := [one for one in kinds if done[one.name] < counts[one.name]]:
        for one in open_kinds:
            left = counts[one.name] - done[one.name]
            many = BATCH if one.is_inside else slices
            first = done[one.name]
            for number, outcome in inject(lab, one, seed, first, first + min(left, many)):
                tally.add(one.name, number, outcome)
                done[one.name] += 1
                now = time.monotonic()
                if say is not None and (now - last_said > 5 or outcome.is_failure):
                    last_said = now
                    share = sum(done.values()) / max(sum(counts.values()), 1)
                    spent = now - begun
                    rest = spent / share - spent
                    rest = rest if seconds is None else min(rest, seconds - spent)
                    say(one.name, done[one.name], counts[one.name], rest, outcome)
            is_late = seconds is not None and time.monotonic() - begun > seconds
            if is_late and all(done.values()):
                return tally
    return tally


def main() -> int:
    """Take the arguments, inject, print."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.split("\n")[0])
    parser.add_argument("--kind", action="append", default=[], help="part of a name; repeatable")
    parser.add_argument("--count", type=int, help="faults of each kind; omitted: its own number")
    parser.add_argument("--seconds", type=float, help=f"time limit; short form: {SECONDS:.0f}")
    parser.add_argument("--long", action="store_true", help="the long form: all counts, no limit")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds inject equal faults")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failures")
    parser.add_argument("--list", action="store_true", help="print the kinds and their numbers")
    parser.add_argument("--first", type=int, default=0, help="with --count: number of the first")
    given = parser.parse_args()
    kinds = chosen(given.kind)
    if given.list:
        for one in kinds:
            print(f"{one.name:32} short {one.short:5,}  long {one.long:6,}")
        return 0
    global KEEP
    KEEP = given.keep
    counts = {one.name: given.count or (one.long if given.long else one.short) for one in kinds}
    seconds = given.seconds or (None if given.long or given.count else SECONDS)

    def say(name: str, n: int, of: int, rest: float, outcome: Outcome) -> None:
        left = f"{rest / 60:.0f} min" if rest >= 90 else f"{max(rest, 0):.0f} s"
        what = f"  {outcome.verdict}: {outcome.detail}" if outcome.is_failure else ""
        print(f"{name}: {n:,} of {of:,}, {left} left{what}", file=sys.stderr, flush=True)

    root = Path(tempfile.mkdtemp(prefix="hanol-faults-"))
    lab = Lab(root)
    try:
        if given.first:
            tally = Tally()
            for one in kinds:
                last = given.first + counts[one.name]
                for number, outcome in inject(lab, one, given.seed, given.first, last):
                    tally.add(one.name, number, outcome)
        else:
            tally = run(lab, kinds, given.seed, counts, seconds, say)
    finally:
        lab.close()
        if not KEEP:
            shutil.rmtree(root, ignore_errors=True)
    if given.json:
        rows = {name: dict(found) for name, found in tally.counts.items()}
        failures = [[name, number, *outcome] for name, number, outcome in tally.failures]
        print(json.dumps({"seed": given.seed, "counts": rows, "failures": failures}))
    else:
        print(tally.table())
        for name, number, outcome in tally.failures:
            again = f"--kind {name!r} --seed {given.seed} --first {number} --count 1 --keep"
            print(f"\n{outcome.verdict}: {name}, number {number} ({again})\n  {outcome.detail}")
    if KEEP and tally.failures:
        print(f"folders: {root}", file=sys.stderr)
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
