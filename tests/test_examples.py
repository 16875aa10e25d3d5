"""The scripts in examples/: short, and they run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_runs(script: Path) -> None:
    text = script.read_text("utf-8")
    assert text.count("\n") < 40
    assert text.startswith('"""')
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example shows something"
