"""A minute of `make faults`, with at least one fault of every kind, on one processor."""

import json
import os
import subprocess
import sys

import pytest
from tests.faults.lab import REPOSITORY


@pytest.mark.timeout(600)
@pytest.mark.slow  # CI runs three minutes of them, `make faults`
def test_a_slice_of_every_kind_of_fault() -> None:
    """What hanol promises of faults holds; `make faults` injects more, its long form thousands."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--seconds", "60", "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=590,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["failures"] == []
    assert done.returncode == 0
    assert len(told["counts"]) >= 25
    assert sum(sum(found.values()) for found in told["counts"].values()) > 300
