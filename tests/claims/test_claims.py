"""Claims: complete, runnable, honestly recorded, and rendered into the documentation."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hanol.claims import (
    Claim,
    Measurement,
    all_claims,
    claims_folder,
    find_claim,
    read_results,
    render,
    run_claim,
    write_result,
)
from hanol.cli import app
from hanol.errors import ConfigError, DataError, UnknownNameError

ROOT = Path(__file__).parents[2]
FAKE = Claim(
    id="test.fake", title="T.", paper="P.", scale="S.", expectation="E.", larger="L.",
    experiment=lambda seeds, quick: Measurement(
        verdict="not shown", summary=f"{len(seeds)} seeds.", figures={"a": 1.5}, spread={"a": 0.1}
    ),
)  # fmt: skip


# Written down before any run, and not run yet.
TO_RECORD = {
    "journey.beats-shortcut", "journey.distillation", "journey.dpo", "rlvr.improves",
    "test-time.aggregation", "test-time.beam-vs-best-of-n-by-difficulty",
    "test-time.beats-14x-model", "test-time.compute-optimal-4x", "test-time.flip-rate",
    "test-time.revision-parallel-mix",
}  # fmt: skip


@pytest.mark.parametrize("claim", all_claims(), ids=lambda claim: claim.id)
def test_claim_is_complete(claim: Claim) -> None:
    for text in (claim.title, claim.paper, claim.scale, claim.expectation, claim.larger):
        assert len(text) > 20
    assert "hown if" in claim.expectation or "annot be shown" in claim.expectation


# Those of AutoDeco run in tests/claims/test_autodeco.py. Those of deep research, of thinking and of
# journeys train models, or run them for minutes; their parts have tests of their own.
_LONG = ("deep-research.", "journey.", "rlvr.", "test-time.")


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(c, id=c.id, marks=[pytest.mark.slow] * c.id.startswith(_LONG))
        for c in all_claims()
        if not c.id.startswith("autodeco.")
    ],
)
def test_claim_runs(claim: Claim) -> None:
    if claim.id == "diting.metrics-correlations":
        pytest.importorskip("sacrebleu")
        pytest.importorskip("rouge_score")
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
    assert "| [test.fake](#testfake) | not shown |" in page
    assert "Verdict: **not shown**. 2 seeds." in page
    assert "| a | 1.5 | ± 0.1 |" in page
    assert "not recorded yet" in render([], [FAKE])
    (tmp_path / "test" / "other.json").write_text("{}")
    with pytest.raises(DataError, match="is not a recorded result of a claim"):
        read_results(tmp_path)
    with pytest.raises(DataError, match="no folder '.*none'"):
        read_results(tmp_path / "none")


def test_values_that_fit_no_claim_are_named() -> None:
    with pytest.raises(ConfigError, match="fit Measurement: `verdict`: .*, not 'maybe'"):
        Measurement(verdict="maybe", summary="S.", figures={})
    with pytest.raises(ConfigError, match="`figures.a`: .*, not 'many'"):
        Measurement(verdict="shown", summary="S.", figures={"a": "many"})
    with pytest.raises(ConfigError, match="fit Claim: unknown key `titel`, did you mean 'title'"):
        Claim(**{**dict(FAKE), "titel": "T."})
    with pytest.raises(ConfigError, match="`title`: Field required"):
        Claim(**{name: value for name, value in FAKE if name != "title"})


def test_unknown_claim_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'kimi-linear.kv-cache'"):
        find_claim("kimi-linear.kvcache")


def test_recorded_results_belong_to_claims_as_they_stand() -> None:
    recorded = read_results()
    assert {one.id for one in recorded} | TO_RECORD == {one.id for one in all_claims()}
    assert TO_RECORD.isdisjoint(one.id for one in recorded)
    for result in recorded:
        claim = find_claim(result.id)
        assert result.expectation == claim.expectation, "an expectation is not changed after a run"
        assert result.commit != "unknown"


def test_page_of_claims_is_fresh() -> None:
    page = (ROOT / "docs" / "claims.md").read_text("utf-8")
    assert page == render(read_results(), all_claims()), "hanol claims render"


def test_experiments_lie_beside_their_results() -> None:
    for claim in all_claims():
        file = claims_folder() / f"{claim.id.replace('-', '_').replace('.', '/')}.json"
        assert file.with_suffix(".py").is_file()
        assert file.is_file() is (claim.id not in TO_RECORD)


def test_experiments_import_public_names_only() -> None:
    files = sorted(claims_folder().rglob("*.py"))
    assert len(files) > 25
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            private = [n for n in names if any(part.startswith("_") for part in n.split("."))]
            assert not private, f"{file}, line {node.lineno}: {private}"


def installed(folder: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code with a copy of the package that lies outside the clone, as a wheel's does."""
    if not (folder / "hanol").exists():
        shutil.copytree(ROOT / "src" / "hanol", folder / "hanol")
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_installed_package_finds_a_clone_around_it_and_only_a_clone(tmp_path: Path) -> None:
    command = ["hanol", "claims", "show", "kimi-linear.kv-cache"]
    code = f"from hanol.cli import main; sys.argv = {command}; main()"
    where = "from hanol.claims import claims_folder; print(claims_folder())"
    done = installed(tmp_path, where, ROOT / "docs" / "reference")
    assert done.stdout.strip() == str(ROOT / "claims"), done.stderr
    other = tmp_path / "other"
    (other / "claims").mkdir(parents=True)
    (other / "claims" / "__init__.py").write_text("raise SystemExit('another project was run')")
    (other / "pyproject.toml").write_text('[project]\nname = "another"\n')
    done = installed(tmp_path, code, other)
    assert done.returncode == 1
    assert done.stderr.startswith("hanol: The claims live in the repository of hanol")
    assert "Clone the repository" in done.stderr


def test_commands(tmp_path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["claims", "list", "--json", "--results", str(tmp_path)])
    assert {c["verdict"] for c in json.loads(listed.stdout)["claims"]} == {"not recorded"}
    run = ["claims", "run", "kimi-linear.kv-cache", "--quick", "--output", str(tmp_path)]
    quick = runner.invoke(app, run)
    assert quick.exit_code == 0
    assert quick.stdout.startswith("shown:")
    assert not list(tmp_path.iterdir()), "quick runs are not recorded"
    show = ["claims", "show", "kimi-linear.kv-cache", "--results", str(tmp_path)]
    assert "Not recorded yet" in runner.invoke(app, show).stdout
    page = tmp_path / "page.md"
    rendered = runner.invoke(app, ["claims", "render", "--output", str(page)])
    assert (rendered.exit_code, rendered.stdout) == (0, f"wrote {page}\n")
    nowhere = runner.invoke(app, ["claims", "render", "--output", str(page / "below" / "it.md")])
    assert nowhere.exit_code == 1
    assert nowhere.stderr.startswith(
        f"hanol: {str(page / 'below' / 'it.md')!r} could not be written"
    )
    assert (nowhere.stdout, nowhere.stderr.count("\n")) == ("", 1)
    wrong = runner.invoke(app, ["claims", "run", "kimi-linear.nothing", "--json"])
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["error"]["kind"] == "UnknownNameError"
