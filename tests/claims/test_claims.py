"""Claims: complete, runnable, honestly recorded, and rendered into the documentation."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hanol.claims import (
    Claim,
    Measurement,
    all_claims,
    find_claim,
    read_results,
    render,
    run_claim,
    write_result,
)
from hanol.cli._app import app
from hanol.errors import DataError, UnknownNameError

ROOT = Path(__file__).parents[2]
FAKE = Claim(
    id="test.fake", title="T.", paper="P.", scale="S.", expectation="E.", larger="L.",
    experiment=lambda seeds, quick: Measurement(
        verdict="not shown", summary=f"{len(seeds)} seeds.", figures={"a": 1.5}, spread={"a": 0.1}
    ),
)  # fmt: skip


# Those of deep research train agents, or run them for minutes; their parts have tests of their own.
LONG = [pytest.mark.slow]


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(c, id=c.id, marks=LONG if c.id.startswith("deep-research.") else [])
        for c in all_claims()
    ],
)
def test_claim_is_complete_and_runs(claim: Claim) -> None:
    for text in (claim.title, claim.paper, claim.scale, claim.expectation, claim.larger):
        assert len(text) > 20
    assert "hown if" in claim.expectation or "annot be shown" in claim.expectation
    result = run_claim(claim, (0,), quick=True)
    assert result.measurement.figures
    assert result.measurement.summary.endswith(".")


def test_result_is_kept_and_read_back(tmp_path) -> None:
    result = run_claim(FAKE, (3, 4))
    write_result(result, tmp_path)
    assert read_results(tmp_path) == [result]
    assert result.seeds == [3, 4]
    assert result.commit
    page = render([result], [FAKE])
    assert "| [test.fake](#testfake) | not shown | 2 seeds. |" in page
    assert "| a | 1.5 | ± 0.1 |" in page
    assert "not recorded yet" in render([], [FAKE])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="is not a recorded claim"):
        read_results(tmp_path)


def test_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'kimi-linear.kv-cache'"):
        find_claim("kimi-linear.kvcache")


def test_recorded_results_belong_to_claims_as_they_stand() -> None:
    recorded = read_results(ROOT / "claims")
    assert recorded
    for result in recorded:
        claim = find_claim(result.id)
        assert result.expectation == claim.expectation, "an expectation is not changed after a run"
        assert result.commit != "unknown"


def test_page_of_claims_is_fresh() -> None:
    page = (ROOT / "docs" / "claims.md").read_text("utf-8")
    assert page == render(read_results(ROOT / "claims"), all_claims()), "hanol claims render"


def test_commands(tmp_path) -> None:
    runner = CliRunner()
    folder = ["--dir", str(tmp_path)]
    listed = runner.invoke(app, ["claims", "list", "--json", *folder])
    assert {c["verdict"] for c in json.loads(listed.stdout)["claims"]} == {"not recorded"}
    quick = runner.invoke(app, ["claims", "run", "kimi-linear.kv-cache", "--quick", *folder])
    assert quick.exit_code == 0
    assert quick.stdout.startswith("shown:")
    assert not list(tmp_path.iterdir()), "quick runs are not recorded"
    shown = runner.invoke(app, ["claims", "show", "kimi-linear.kv-cache", *folder])
    assert "Not recorded yet" in shown.stdout
    wrong = runner.invoke(app, ["claims", "run", "kimi-linear.nothing", "--json", *folder])
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["error"]["kind"] == "UnknownNameError"
