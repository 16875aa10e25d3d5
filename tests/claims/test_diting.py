"""DITING's claims: what they compute, without the items that are not part of the repository."""

import numpy as np
import pytest

from claims.diting.debate_beats_single import DEBATE_BEATS_SINGLE
from claims.diting.lab import items, names
from claims.diting.leaderboard_arithmetic import LEADERBOARD_ARITHMETIC
from hanol.claims import find_claims, run_claim
from hanol.errors import DataError


def test_all_of_them_are_there() -> None:
    assert [claim.id for claim in find_claims("diting")] == [
        "diting.annotator-agreement", "diting.debate-beats-single",
        "diting.leaderboard-arithmetic", "diting.metrics-correlations",
    ]  # fmt: skip


def test_items_are_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANOL_METRICALIGN", raising=False)
    with pytest.raises(DataError, match="set HANOL_METRICALIGN"):
        items(False)
    made = items(True)
    assert len(made) == 48
    assert names(made[0]) == ["specific", "general_1", "general_2"]


def test_with_shared_errors_all_protocols_are_one() -> None:
    figures = run_claim(DEBATE_BEATS_SINGLE, (0, 1), quick=True).measurement.figures
    shared = {name: value for name, value in figures.items() if name.startswith("shared 1:")}
    of_protocols = [value for name, value in shared.items() if "draws" not in name]
    assert len(of_protocols) == 7
    assert np.ptp(of_protocols) == pytest.approx(0, abs=1e-9)
    assert figures["shared 0: debate"] > figures["shared 0: single"]
    assert figures["shared 0: judge alone"] > figures["shared 0: single"]


def test_means_of_the_leaderboard_follow_from_its_rows() -> None:
    result = run_claim(LEADERBOARD_ARITHMETIC, (0,)).measurement
    assert result.verdict == "shown"
    assert result.figures["largest difference from the printed means"] <= 0.0051
    assert result.figures["iFLYTEK, zero pronoun: from its rows"] == pytest.approx(2.22)
    assert result.figures["cells that are multiples of 1/50"] == 1
    assert result.figures["lead of the first, in standard errors"] < 1
