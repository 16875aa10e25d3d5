"""What a claim is, how it is run, and how its result is kept.

The expectation is written in the code, before any run; the verdict is what the run printed.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field

from hanol.errors import DataError

Verdict = Literal["shown", "not shown", "cannot be shown at this scale"]


class Measurement(BaseModel):
    """What an experiment found."""

    verdict: Verdict
    summary: str = Field(description="One sentence with the figures that decide.")
    figures: dict[str, float] = Field(description="Every figure, by name.")
    spread: dict[str, float] = Field(
        default={}, description="Standard deviation over seeds, for figures that depend on them."
    )


@dataclass(frozen=True)
class Claim:
    """A headline claim of a paper as an experiment.

    Args:
        id: "<system>.<claim>".
        title: The claim in a sentence.
        paper: The paper's figure, and where it stands.
        scale: What is run here instead.
        expectation: What should come out, and when the claim counts as shown; written first.
        larger: What it would take to show it at the paper's scale.
        experiment: Runs it with these seeds; `quick` only checks that it runs.
    """

    id: str
    title: str
    paper: str
    scale: str
    expectation: str
    larger: str
    experiment: Callable[[Sequence[int], bool], Measurement]


class ClaimResult(BaseModel):
    """A recorded run of a claim."""

    id: str
    title: str
    paper: str
    scale: str
    expectation: str
    larger: str
    measurement: Measurement
    seeds: list[int]
    seconds: float
    machine: str
    commit: str
    versions: dict[str, str]


def run_claim(
    claim: Claim, seeds: Sequence[int] = (0, 1, 2), *, quick: bool = False
) -> ClaimResult:
    """Run a claim's experiment.

    Args:
        claim: What to run.
        seeds: One repetition for each.
        quick: Smallest sizes: to see that it runs, never for a verdict.
    """
    begin = time.perf_counter()
    measurement = claim.experiment(list(seeds), quick)
    return ClaimResult(
        id=claim.id,
        title=claim.title,
        paper=claim.paper,
        scale=claim.scale,
        expectation=claim.expectation,
        larger=claim.larger,
        measurement=measurement,
        seeds=list(seeds),
        seconds=round(time.perf_counter() - begin, 1),
        machine=_machine(),
        commit=_commit(),
        versions={name: version(name) for name in ("hanol", "torch", "transformers")},
    )


def write_result(result: ClaimResult, folder: Path) -> Path:
    """Keep a result as `<folder>/<id>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.id}.json"
    part = path.with_suffix(".part")
    part.write_text(result.model_dump_json(indent=2) + "\n", "utf-8")
    part.rename(path)
    return path


def read_results(folder: Path) -> list[ClaimResult]:
    """All recorded results, by id.

    Raises:
        DataError: A file is no recorded result.
    """
    results = []
    for file in sorted(folder.glob("*.json")):
        try:
            results.append(ClaimResult.model_validate(json.loads(file.read_text("utf-8"))))
        except ValueError as err:
            raise DataError(f"{str(file)!r} is not a recorded claim: {err}") from err
    return results


def render(results: Sequence[ClaimResult], claims: Sequence[Claim]) -> str:
    """The documentation page of all claims, recorded or not."""
    by_id = {result.id: result for result in results}
    lines = [
        "# Claims",
        "",
        "Headline claims of the papers, re-run by a command. Each says what the paper reports, at "
        "which scale it was run here, and what was expected before the run; the verdict is what "
        "the command printed.",
        "",
        "This page is made by `hanol claims render` from the files in `claims/`.",
        "",
        "| claim | verdict | result |",
        "|---|---|---|",
    ]
    for claim in claims:
        result = by_id.get(claim.id)
        verdict = result.measurement.verdict if result else "not recorded yet"
        summary = result.measurement.summary if result else claim.title
        lines.append(f"| [{claim.id}](#{_anchor(claim.id)}) | {verdict} | {summary} |")
    for claim in claims:
        lines += ["", f"## {claim.id}", "", f"**{claim.title}**", ""]
        lines += [
            f"- Paper: {claim.paper}",
            f"- Here: {claim.scale}",
            f"- Expected before the run: {claim.expectation}",
            f"- At full scale: {claim.larger}",
        ]
        result = by_id.get(claim.id)
        if result is None:
            lines += ["", f"Not recorded yet: `hanol claims run {claim.id}`."]
            continue
        lines += [
            f"- Verdict: **{result.measurement.verdict}**. {result.measurement.summary}",
            f"- Run: seeds {', '.join(map(str, result.seeds))}, {result.seconds:,.0f} s, "
            f"{result.machine}, commit {result.commit}",
            "",
            "| figure | value | over seeds |",
            "|---|---|---|",
        ]
        for name, value in result.measurement.figures.items():
            spread = result.measurement.spread.get(name)
            lines.append(
                f"| {name} | {value:,.6g} | {'' if spread is None else f'± {spread:.2g}'} |"
            )
    return "\n".join(lines) + "\n"


def _anchor(claim_id: str) -> str:
    return claim_id.replace(".", "")


def _machine() -> str:
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return f"{os.cpu_count()} CPUs ({platform.machine()}), {torch.get_num_threads()} threads{gpu}"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
