"""What every benchmark here shares: interleaved timing, and one report as text, JSON or a page.

Peers of a comparison run in turn, round after round, so that a slow moment of the machine meets
all of them; the figure is the median over the rounds.
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

ROOT = Path(__file__).resolve().parents[1]
_errors = Console(stderr=True)
Peer = TypeVar("Peer", bound=Hashable)


@dataclass
class Table:
    """Rows of text under a header."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass
class Report:
    """What a benchmark found: tables for people, figures for programs."""

    name: str
    title: str
    command: str
    figures: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    machine: str = ""
    commit: str = ""
    date: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def arguments(
    description: str,
    threads: int = 2,
    sections: tuple[str, ...] = (),
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """The options of every benchmark; `threads` unless told otherwise.

    A benchmark with `sections` also gets `--only`, and finds what to run in `options.only`; `more`
    adds options of its own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smallest sizes: only that it runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--record", action="store_true", help="write docs/benchmarks/<name>.md from this run"
    )
    parser.add_argument("--threads", type=int, default=threads, help="CPU threads of every peer")
    if sections:
        listed = ",".join(sections)
        parser.add_argument("--only", default=listed, help=f"sections to run, of {listed}")
    more(parser)
    options = parser.parse_args()
    if sections:
        options.only = options.only.split(",")
        if unknown := set(options.only) - set(sections):
            parser.error(f"--only knows {listed}, not {', '.join(sorted(unknown))}")
        if options.record and set(options.only) != set(sections):
            parser.error("--record writes the whole page: leave --only out")
    if options.quick and options.record:
        parser.error("--quick measures nothing worth recording: leave one of the two out")
    torch.set_num_threads(options.threads)
    return options


def interleaved(
    peers: Mapping[Peer, Callable[[], object]], rounds: int, title: str
) -> dict[Peer, list[float]]:
    """Wall-clock seconds of each peer in each round, peers taking turns.

    Args:
        peers: What to run, by name; warmed up by the caller.
        rounds: Repetitions of each.
        title: Of the progress bar.
    """
    seconds: dict[Peer, list[float]] = {name: [] for name in peers}
    with progress() as bar:
        task = bar.add_task(title, total=rounds * len(peers))
        for _ in range(rounds):
            for name, run in peers.items():
                begin = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - begin)
                bar.advance(task)
    return seconds


def progress() -> Progress:
    """A bar on standard error with counts, elapsed time and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_errors,
        transient=True,
    )


def medians(seconds: Mapping[Peer, list[float]]) -> dict[Peer, float]:
    """Median of each peer."""
    return {name: median(values) for name, values in seconds.items()}


def spread(values: list[float]) -> str:
    """Smallest and largest as a share of the median."""
    middle = median(values)
    return f"{min(values) / middle:.2f} to {max(values) / middle:.2f}"


def finish(report: Report, options: argparse.Namespace, packages: tuple[str, ...]) -> None:
    """Add what identifies the run, then print and record as the options say."""
    report.machine = (
        f"{_cpu()}, {options.threads} of {os.cpu_count()} cores used, {platform.system()}"
    )
    report.commit = _commit()
    report.date = time.strftime("%Y-%m-%d")
    for package in ("hanol", "torch", *packages):
        try:
            report.versions[package] = version(package)
        except PackageNotFoundError:
            report.versions[package] = "not installed"
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        console = Console(width=max(110, Console().width))
        for table in report.tables:
            drawn = RichTable(title=table.title, caption=table.note or None)
            for i, name in enumerate(table.header):
                drawn.add_column(name, justify="left" if i == 0 else "right")
            for row in table.rows:
                drawn.add_row(*row)
            console.print(drawn)
    if options.record:
        page = ROOT / "docs" / "benchmarks" / f"{report.name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_markdown(report), "utf-8")
        _errors.print(f"Recorded in {page.relative_to(ROOT)}")


def _markdown(report: Report) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    lines = [
        f"# {report.title}",
        "",
        f"Printed by `{report.command}` on {report.date}, commit {report.commit}.",
        "",
        f"- Machine: {report.machine}",
        f"- Versions: {versions}",
    ]
    for table in report.tables:
        lines += ["", f"## {table.title}", ""]
        lines += [f"| {' | '.join(table.header)} |"]
        lines += ["|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
        if table.note:
            lines += ["", table.note]
    return "\n".join(lines) + "\n"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
        )
        return done.stdout.strip()

    # What earlier benchmarks have recorded is no change of the code.
    changed = git("status", "--porcelain", "-uno", "--", ".", ":!docs", ":!claims")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")
