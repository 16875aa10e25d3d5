"""`hanol think`: one problem, strategies side by side, and a policy."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

# Private: the application is no part of the Python interface.
from hanol.cli import app


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Knows the sum, and not the capital."""
    replies = [
        {"text": "7 + 5 = 12\n\nThe answer is 12.", "match": r"7 \+ 5"},
        {"text": "I do not know.", "match": "capital"},
    ]
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join(map(json.dumps, replies)))
    return f"scripted:{path}"


def think(*arguments: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(app, ["think", *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_a_problem_is_answered_with_its_ledger(model: str, tmp_path: Path) -> None:
    page = tmp_path / "tree.html"
    done = CliRunner().invoke(
        app, ["think", model, "-p", "What is 7 + 5?", "--budget", "8", "--html", str(page)]
    )
    assert done.exit_code == 0, done.stderr
    assert "no policy was given" in done.stdout
    assert "answer: 12" in done.stdout
    # 4 of 8 decide the vote: of two answers with 4 the earlier one wins.
    assert "32 of 4,096 tokens generated" in done.stdout
    assert "<h2>adaptive, budget 8</h2>" in page.read_text()
    code, plain = think("solve", model, "-p", "What is the capital?", "--strategy", "majority")
    assert code == 0
    assert plain["answer"] is None


def test_strategies_stand_side_by_side(model: str, tmp_path: Path) -> None:
    page = tmp_path / "tree.html"
    code, plain = think(
        model, "-p", "What is 7 + 5?", "--strategy", "greedy", "--strategy", "majority",
        "--budget", "2", "--html", str(page), "--log", str(tmp_path / "calls.jsonl"),
    )  # fmt: skip
    assert code == 0
    assert [one["strategy"] for one in plain["thoughts"]] == ["greedy", "majority"]
    assert page.read_text().count("<section>") == 2
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 3


def test_every_strategy_says_what_it_spends() -> None:
    code, plain = think("strategies")
    assert code == 0
    named = {one["name"]: one["spends"] for one in plain["strategies"]}
    assert len(named) >= 11
    assert all(named.values())
    assert "lookahead" in named["beam"]


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["--strategy", "beam"], "ConfigError", "needs a verifier"),
        (["--strategy", "beams"], "UnknownNameError", "Did you mean 'beam'?"),
        (["--strategy", "majority", "--set", "width=4"], "ConfigError", "'majority' does not take"),
        (["--strategy", "confidence"], "CapabilityError", "majority"),
        (["--policy", "none.json"], "DataError", "none.json"),
        (["--template", "Solve it"], "ConfigError", "{problem}"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], kind: str, said: str, model: str
) -> None:
    code, plain = think(model, "-p", "What is 7 + 5?", *arguments)
    assert code == 1
    assert plain["error"]["kind"] == kind
    assert said in plain["error"]["message"]


def test_a_policy_is_fitted_compared_and_refused(model: str, tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "problem": f"{i}: what is 7 + 5?", "answer": "12"} for i in range(10)]
    paths = [tmp_path / name for name in ("train.jsonl", "test.jsonl")]
    for path, mine in zip(paths, (rows[:8], rows[7:]), strict=True):
        path.write_text("\n".join(map(json.dumps, mine)))
    fitted = tmp_path / "fitted"
    asked = ("--strategy", "majority", "--strategy", "adaptive", "--budgets", "1,3")
    code, plain = think("fit", model, "--problems", str(paths[0]), "--output", str(fitted), *asked)
    assert code == 0, plain
    assert set(plain["entries"]) == {"1", "3"}
    policy = str(fitted / "policy.json")
    code, plain = think(model, "-p", "1: what is 7 + 5?", "--policy", policy, "--budget", "8")
    assert code == 0, plain
    assert "difficulty bin" in plain["note"]
    assert plain["answer"] == "12"
    compared = ("compare", model, "--problems", str(paths[1]), "--output", str(tmp_path / "c"))
    code, plain = think(*compared, *asked, "--policy", policy)
    assert code == 1
    assert "1 of 3 questions were used to fit the policy" in plain["error"]["message"]
    code, plain = think(*compared, *asked)
    assert code == 0, plain
    assert {point["accuracy"]["value"] for point in plain["points"]} == {1.0}
    assert (tmp_path / "c" / "thinking.png").exists()
    code, plain = think(*compared, *asked)
    assert code == 1
    assert "--resume" in plain["error"]["message"]
    done = CliRunner().invoke(app, ["think", *compared, *asked, "--resume"])
    assert done.exit_code == 0
    assert "majority" in done.stdout
    code, plain = think(model, "-p", "7 + 5", "--policy", policy, "--template", "Solve: {problem}")
    assert code == 1
    assert "another template" in plain["error"]["message"]
