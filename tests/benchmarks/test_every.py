"""Every benchmark runs: nothing else calls them between two recordings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = [
    "ask", "attention", "attention_family", "autodeco", "compression", "decode", "documents",
    "judging", "optimizer", "research", "rollouts", "start", "thinking",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs_at_its_small_size(name: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", "--quick", "--json"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["figures"]


def test_every_benchmark_is_run() -> None:
    assert sorted(p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py")) == BENCHMARKS
