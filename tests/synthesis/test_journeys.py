"""Reasoning trees and what is walked through them: order, pairs, rewrites, resume."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from hanol.cli.synth import app
from hanol.engines import Completion, Message, Request, ScriptedEngine
from hanol.errors import CapabilityError, ConfigError, DataError, RunError
from hanol.runs import synchronous
from hanol.scoring import parse_verifier
from hanol.synthesis import (
    JudgedStep,
    ModelJudge,
    PairedThoughts,
    ReasoningNode,
    ReasoningTree,
    ScorerJudge,
    TreeSettings,
    VerifierJudge,
    Walk,
    arewrite,
    asynthesize_journeys,
    grow_tree,
    journey,
    paired_rows,
    propose_critique,
    read_long_thoughts,
    score_judge,
    score_thoughts,
    shortcut,
    token_matched,
    validate_rewrite,
)
from hanol.training import read_recipe
from hanol.worlds import ExactSteps, MathProblem, open_problems

synthesize = synchronous(asynthesize_journeys)
rewrite = synchronous(arewrite)

GAME = MathProblem("game", "Make 63 from 3, 7 and 12.", "63", "countdown:63:3,7,12")


def node(id: int, parent: int, step: str, **more: Any) -> ReasoningNode:
    return ReasoningNode(id, parent, step, **more)


BAD: dict[str, Any] = {"verdict": "incorrect", "reason": "no way leads on"}
# The question has a right child (1) and two wrong ones (2 with a body, 3); behind 1 stand a right
# step (4), a step never followed (5) and a wrong leaf (6).
TREE = ReasoningTree(
    "Make 63 from 3, 7 and 12.",
    "63",
    (
        node(1, 0, "12 - 3 = 9"),
        node(2, 0, "3 + 7 = 10", **BAD),
        node(3, 0, "3 * 7 = 21", **BAD),
        node(7, 2, "10 + 12 = 22", **BAD),
        node(8, 2, "12 - 10 = 2", **BAD),
        node(4, 1, "9 * 7 = 63"),
        node(5, 1, "7 * 9 = 63"),
        node(6, 1, "The answer is 9.", is_leaf=True, answer="9", correct=False),
        node(9, 4, "The answer is 63.", is_leaf=True, answer="63", correct=True),
    ),
    "game",
)


class WorldModel(ScriptedEngine):
    """Writes right steps of countdown, or any calculation, by a coin of the request's seed."""

    def __init__(self, right: float = 0.6) -> None:
        self.right, self.calls = right, 0
        super().__init__(self._write, name="scripted world model")

    def _write(self, request: Request) -> Completion:
        self.calls += 1
        texts = [self._step(request, (request.sampling.seed or 0) + i) for i in range(request.n)]
        made = [Completion.of(text) for text in texts]
        return Completion(tuple(one.choices[0] for one in made))

    def _step(self, request: Request, seed: int) -> str:
        rng = Random(seed)
        target, *given = map(int, re.findall(r"\d+", request.messages[-1].text))
        pool = list(given)
        for a, b, result in re.findall(r"(\d+) . (\d+) = (\d+)", request.prefill):
            for used in (a, b):
                if int(used) in pool:
                    pool.remove(int(used))
            pool.append(int(result))
        if len(pool) == 1:
            return f"The answer is {pool[0]}."
        if rng.random() < self.right:
            from hanol.worlds._problems._countdown import countdown_way  # private: the oracle

            way = countdown_way(tuple(sorted(pool)), target)
            if way:
                return way[0]
        a, b = rng.sample(pool, 2)
        return f"{a} + {b} = {a + b}"


def test_the_shortcut_is_the_right_way_alone() -> None:
    walk = shortcut(TREE)
    assert walk.text == "12 - 3 = 9\n9 * 7 = 63\nThe answer is 63."
    assert [event.type for event in walk] == ["step", "step", "terminate"]
    assert walk.final == "63"


def test_the_journey_takes_one_wrong_turn_at_a_time_and_ends_rightly() -> None:
    bodies = set()
    for seed in range(30):
        walk = journey(TREE, seed)
        assert walk == journey(TREE, seed)
        assert walk.events[-1].node == 9
        assert walk.events[-1].type == "terminate"
        nodes = [event.node for event in walk if event.type != "reflect"]
        first = nodes[: nodes.index(0)]
        bodies.add(tuple(first))
        # Behind the question one wrong child, walked to its end; then the way back, and the right.
        assert first in ([2, 7], [2, 8], [3])
        # The step that was never followed is not known to be wrong.
        assert nodes[len(first) :] == [0, 1, 6, 1, 4, 9]
        short = iter(walk)
        assert all(any(event == other for other in short) for event in shortcut(TREE))
        assert walk.num_backtracks == 2
        assert parse_verifier(GAME.verifier)("", walk.text, GAME)
    assert bodies == {(2, 7), (2, 8), (3,)}
    assert journey(TREE, wrong_turns=0.0).events == shortcut(TREE).events
    plain = journey(TREE, 1, varied=False).text
    assert "Wait, no way leads on." in plain
    assert "Back to the start." in plain
    assert 'Back to "12 - 3 = 9".' in plain


def test_trees_that_are_none_and_leaves_that_are_none() -> None:
    with pytest.raises(DataError, match="no correct leaf"):
        shortcut(ReasoningTree("?", "1", TREE.nodes[:-1], "game"))
    with pytest.raises(
        DataError, match="Node 6 of the tree 'game' is no correct leaf; these are 9"
    ):
        journey(TREE, leaf=6)
    with pytest.raises(ConfigError, match="`wrong_turns` is 2"):
        journey(TREE, wrong_turns=2)
    with pytest.raises(DataError, match="stands before its parent"):
        ReasoningTree("?", "1", (node(1, 5, "a"),))
    with pytest.raises(DataError, match="is a leaf with steps"):
        ReasoningTree("?", "1", (node(1, 0, "a", is_leaf=True), node(2, 1, "b")))
    assert ReasoningTree.from_dict(json.loads(json.dumps(TREE.to_dict()))) == TREE
    with pytest.raises(DataError, match="no reasoning tree"):
        ReasoningTree.from_dict({"problem": "?"})


def test_a_tree_is_grown_pruned_and_the_same_again() -> None:
    settings = TreeSettings(width=3, depth=6, keep=2)
    for problem in open_problems("countdown:numbers=3", count=5):
        tree = grow_tree(problem, WorldModel(), settings=settings, seed=1)
        assert tree == grow_tree(problem, WorldModel(), settings=settings, seed=1)
        for one in tree:
            children = tree.children(one.id)
            steps = [child.step for child in children]
            assert len(set(steps)) == len(steps) <= 3
            if one.verdict == "incorrect":
                assert len(children) <= 1, "a wrong step does not branch"
                assert one.reason
            if one.is_leaf:
                assert one.correct is (one.answer == problem.answer)
        assert tree.provenance["model"] == "scripted world model"
        assert tree.provenance["width"] == 3
        levels: dict[int, int] = {}
        for one in tree:
            path = tree.path(one.id)
            if one.verdict == "correct" and any(
                child.verdict == "correct" for child in tree.children(one.id)
            ):
                levels[len(path)] = levels.get(len(path), 0) + 1
        assert all(count <= 2 for count in levels.values())


@pytest.mark.parametrize(
    ("name", "value"), [("width", 0), ("depth", 0), ("keep", 0), ("follow", -1)]
)
def test_sizes_of_a_tree_that_cannot_be(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` is {value}"):
        TreeSettings(**{name: value})


class FixedJudge:
    name = "fixed"

    def __init__(self, **judged: Any) -> None:
        self._judged = judged

    async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
        return JudgedStep(**self._judged)


@pytest.mark.parametrize(
    ("judged", "text"),
    [
        ({"verdict": "maybe"}, "the verdict 'maybe'"),
        ({"reason": "hm"}, "neither a verdict nor a score"),
        ({"score": float("nan")}, "the score nan"),
        ({"score": 1.5}, "the score 1.5"),
    ],
)
def test_judges_that_say_nothing_of_use(judged: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        grow_tree(GAME, WorldModel(), FixedJudge(**judged))


def test_judges() -> None:
    judge = synchronous(ModelJudge(ScriptedEngine(
        lambda request: "Verdict: **Incorrect**\nReason: 10 is too small."
        if "3 + 7" in request.messages[-1].text else "verdict: correct\nreason: none"
    )).judge)  # fmt: skip
    assert judge(GAME, ["3 + 7 = 10"]) == JudgedStep("incorrect", None, "10 is too small")
    assert judge(GAME, ["12 - 3 = 9"]) == JudgedStep("correct")
    with pytest.raises(DataError, match="gave no verdict, but 'Well.'"):
        synchronous(ModelJudge(ScriptedEngine(["Well."])).judge)(GAME, ["1"])
    scored = synchronous(ScorerJudge(ExactSteps([GAME]), name="exact").judge)
    assert scored(GAME, ["3 + 7 = 10"]).verdict == "incorrect"
    assert scored(GAME, ["12 - 3 = 9"]) == JudgedStep("correct", 1.0)

    class Broken:
        def score(self, problem: str, steps: Sequence[str]) -> list[float]:
            return [float("nan")] * len(steps)

    with pytest.raises(DataError, match="one number for each step"):
        synchronous(ScorerJudge(Broken()).judge)(GAME, ["1"])
    with pytest.raises(ConfigError, match="`threshold` is 2"):
        ScorerJudge(Broken(), threshold=2)
    # A problem that says nothing of its steps: only answers tell right from wrong.
    other = MathProblem("b", "1 + 1?", "2")
    assert synchronous(VerifierJudge().judge)(other, ["1 + 1 = 3"]) == JudgedStep("correct")


def test_a_model_that_stops_without_the_word_answer() -> None:
    lines = ["4 + 3 + 8 = 15", ""]
    engine = ScriptedEngine(lambda request: lines[request.prefill.count("\n")])
    problem = MathProblem("s", "What is 4 + 3 + 8?", "15", steps=("4 + 3 + 8 = 15", "15"))
    (leaf,) = grow_tree(problem, engine)
    assert (leaf.is_leaf, leaf.answer, leaf.correct) == (True, "15", True)
    assert journey(ReasoningTree("?", "15", (leaf,))).events[-1].type == "terminate"


def test_an_engine_that_cannot_continue_is_named() -> None:
    class Plain(ScriptedEngine):
        capabilities = frozenset()

    with pytest.raises(CapabilityError, match="prefill"):
        grow_tree(GAME, Plain(lambda request: "12 - 3 = 9"))


def test_every_mutation_of_a_rewrite_is_caught() -> None:
    walk = journey(TREE, 3)
    prose = walk.text.replace("Wait,", "Hold on:").replace("\n", ".\nThen I see that ")
    assert validate_rewrite(walk, walk.text)
    assert validate_rewrite(walk, f"1. First,\n{walk.text}")
    assert validate_rewrite(walk, prose), validate_rewrite(walk, prose).problems
    rng = Random(0)
    for number in range(200):
        lines = prose.split("\n")
        numbered = [i for i, line in enumerate(lines) if re.search(r"\d", line)]
        at = rng.choice(numbered)
        if number % 2:
            del lines[at]
        else:
            digits = list(re.finditer(r"\d+", lines[at]))
            match = rng.choice(digits)
            other = str(int(match[0]) + rng.choice((-1, 1, 9, 54)))
            lines[at] = f"{lines[at][: match.start()]}{other}{lines[at][match.end() :]}"
        check = validate_rewrite(walk, "\n".join(lines))
        assert not check, (number, lines[at : at + 1])
        assert check.problems
    assert not validate_rewrite(walk, prose.replace("9 * 7 = 63", "9 + 7 = 63"))
    assert not validate_rewrite(walk, "")
    words = "Let x be the first number.\nThe answer is 4."
    assert validate_rewrite(words, "So let x be the first number, then. The answer is 4.")
    assert not validate_rewrite(words, "The answer is 4.")


def test_a_rewrite_stands_in_only_if_it_keeps_everything() -> None:
    walk = journey(TREE, 0)
    good = walk.text.replace("\n", "\n\n")
    tries = iter(["The answer is 63.", good])
    text, check = rewrite(walk, ScriptedEngine(lambda request: next(tries)))
    assert text == good
    assert check
    text, check = rewrite(walk, ScriptedEngine(lambda request: "The answer is 63."))
    assert text == walk.text
    assert "is missing" in check.problems[0]


def test_rows_of_a_tree_are_paired_with_their_controls() -> None:
    pair = PairedThoughts.of(TREE, 2)
    rows = paired_rows(pair)
    assert rows == paired_rows(PairedThoughts.of(TREE, 2))
    texts = {arm: row["messages"][1]["content"] for arm, row in rows.items()}
    assert len({row["messages"][0]["content"] for row in rows.values()}) == 1
    assert texts["shortcuts"] == shortcut(TREE).text
    assert texts["journeys"] == journey(TREE, 2).text
    assert sorted(texts["shuffled"].split("\n")) == sorted(texts["journeys"].split("\n"))
    assert texts["shuffled"].split("\n")[-1] == "The answer is 63."
    assert texts["shuffled"] != texts["journeys"]
    assert texts["wrong-answers"] == texts["journeys"][: -len("63.")] + "9."
    assert rows["journeys"]["meta"]["problem"] == "game"
    assert rows["journeys"]["meta"]["backtracks"] == 2
    matched = list(token_matched([pair, pair], len))
    spent = sum(len(row["messages"][1]["content"]) for row in matched)
    wanted = 2 * len(pair.text)
    assert wanted <= spent < wanted + len(texts["shortcuts"])


def run(folder: Path, model: WorldModel, **more: Any) -> Any:
    problems = open_problems("countdown:numbers=3", count=40)
    return synthesize(problems, model, folder, num_trees=4, seed=5, **more)


def test_a_killed_run_goes_on_and_gives_the_same_trees(tmp_path: Path) -> None:
    model = WorldModel()
    report = run(tmp_path / "whole", model)
    assert report.trees == 4
    assert report.backtracks >= 4
    assert report.rows["journeys"] == report.rows["shortcuts"] == report.rows["shuffled"] == 4
    assert report.tokens["token-matched"] >= report.tokens["journeys"] > report.tokens["shortcuts"]

    class Killed(Exception):
        pass

    class Dying(WorldModel):
        def _write(self, request: Request) -> Completion:
            if self.calls == 25:
                raise Killed
            return super()._write(request)

    first, second = Dying(), WorldModel()
    with pytest.raises(Killed):
        run(tmp_path / "killed", first)
    assert run(tmp_path / "killed", second, concurrency=3).trees == 4
    for name in ("journeys", "shortcuts", "token-matched", "shuffled", "wrong-answers"):
        both = [tmp_path / kind / f"{name}.jsonl" for kind in ("whole", "killed")]
        assert both[0].read_text() == both[1].read_text(), name
    grown = []
    for kind in ("whole", "killed"):
        rows = map(json.loads, (tmp_path / kind / "trees.jsonl").read_text().splitlines())
        grown.append({row["id"]: row for row in rows})
    assert grown[0] == grown[1]
    assert second.calls < model.calls, "finished calls were repeated"
    third = WorldModel()
    run(tmp_path / "killed", third)
    assert third.calls == 0
    with pytest.raises(RunError, match="seed"):
        synthesize([GAME], model, tmp_path / "killed", num_trees=1, seed=6)


def test_problems_without_a_tree_are_counted(tmp_path: Path) -> None:
    report = run(tmp_path / "a", WorldModel(0.3))
    assert set(report.dropped) <= {"no_correct_leaf", "no_wrong_turn"}
    assert report.problems == report.trees + sum(report.dropped.values())
    with pytest.raises(DataError, match="None of 40 problems made a tree .*judge_failed"):
        run(tmp_path / "b", WorldModel(), judge=ModelJudge(ScriptedEngine(lambda request: "Hm.")))
    with pytest.raises(ConfigError, match="`num_trees` is 0"):
        synthesize([GAME], WorldModel(), tmp_path / "c", num_trees=0)


def test_a_critic_sends_a_model_back_until_the_answer_is_right() -> None:
    solved = 0
    for problem in open_problems("countdown:numbers=3", count=5):
        walk = propose_critique(problem, WorldModel(0.4), VerifierJudge(), seed=2)
        assert walk == propose_critique(problem, WorldModel(0.4), VerifierJudge(), seed=2)
        if walk.final is not None:
            solved += 1
            assert parse_verifier(problem.verifier)("", walk.text, problem)
        assert {event.type for event in walk} <= {"step", "reflect", "backtrack", "terminate"}
        wrong = [i for i, event in enumerate(walk) if event.verdict == "incorrect"]
        assert all(walk[i + 1].type in ("reflect", "backtrack") for i in wrong)
    assert solved >= 3
    with pytest.raises(ConfigError, match="`max_steps` is 0"):
        propose_critique(GAME, WorldModel(), VerifierJudge(), max_steps=0)


def test_in_a_debate_the_model_answers_objections() -> None:
    def script(request: Request) -> str:
        if "colleague" in request.messages[-1].text:
            return "No, 9 is what is needed."
        done = request.prefill.count("\n")
        return ["12 - 3 = 9", "9 * 7 = 63", "The answer is 63."][done]

    class Stubborn:
        name = "stubborn"

        async def judge(self, problem: MathProblem, steps: Sequence[str]) -> JudgedStep:
            heard = "Remark: No, 9 is" in problem.problem
            if len(steps) == 1 and not heard:
                return JudgedStep("incorrect", reason="9 is too small")
            return JudgedStep("correct")

    walk = propose_critique(GAME, ScriptedEngine(script), Stubborn(), debate=True)
    assert isinstance(walk, Walk)
    assert [event.type for event in walk] == ["step", "reflect", "reflect", "step", "terminate"]
    assert walk.final == "63"


def test_published_rows_are_read_or_reported() -> None:
    rows = [
        {"question": "1 + 1?", "answer": "2", "longCOT": "One. Wait, two.\n#### 2"},
        {"question": "?", "answer": "\\frac{1}{2}", "longCOT": "Half.\n####\n$\\frac12$"},
        {"question": "?", "answer": "3", "longCOT": "Four. #### 4"},
        {"question": "?", "answer": "3", "longCOT": "Three."},
        {"question": "?", "longCOT": "#### 3"},
    ]
    found, wrong = read_long_thoughts(rows)
    assert [(one.answer, one.thought) for one in found] == [
        ("2", "One. Wait, two."), ("\\frac{1}{2}", "Half."),
    ]  # fmt: skip
    assert found[0].row()["messages"][1]["content"] == "One. Wait, two.\n#### 2"
    assert [text.split(":")[0] for text in wrong] == ["row 3", "row 4", "row 5"]
    assert "is '4', not '3'" in wrong[0]


def test_scores_of_thoughts_and_of_judges() -> None:
    texts = [journey(TREE, 0, varied=False).text, "12 + 3 = 15\nThe answer is 15.", "Wait,"]
    scores = score_thoughts([GAME] * 3, texts, tokens=[30, 9, 3], truncated=[False, False, True])
    assert (scores.accuracy, scores.recovery, scores.truncated) == (1 / 3, 1.0, 1 / 3)
    assert (scores.backtracks, scores.reflections, scores.tokens) == (2 / 3, 1.0, 14.0)
    with pytest.raises(DataError, match="3 texts"):
        score_thoughts([GAME], texts, tokens=[1], truncated=[False])
    found = score_judge([True, True, False, False], [True, False, True, False])
    assert (found.precision, found.recall, found.f1, found.balanced_accuracy) == (0.5,) * 4
    assert score_judge([False], [False]).f1 is None
    with pytest.raises(DataError, match="1 verdicts on 2 steps"):
        score_judge([True], [True, False])


def test_recipes_of_journeys_are_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "recipes" / "journey").glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        assert read_recipe(file).name in (file.stem, f"{file.stem}-journey")


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, file = CliRunner(), tmp_path / "problems.jsonl"
    asked = ["problems", "countdown:numbers=3", "--num-problems", "60", "--output", str(file)]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "60 problems of the split train" in done.stdout
    assert len(open_problems(str(file))) == 60
    chats = tmp_path / "chats.jsonl"
    assert runner.invoke(app, [*asked[:4], "--output", str(chats), "--chat"]).exit_code == 0
    first = json.loads(chats.read_text().splitlines()[0])["messages"]
    assert first[1]["content"].endswith(f"{open_problems(str(file))[0].answer}.")

    monkeypatch.setattr("hanol.engines.open_engine", lambda spec, **options: WorldModel())
    folder = tmp_path / "journeys"
    grow = ["journeys", str(file), "-m", "model", "--num-trees", "3", "--output", str(folder)]
    done = runner.invoke(app, [*grow, "--plain", "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary == json.loads((folder / "report.json").read_text())
    assert summary["trees"] == summary["rows"]["journeys"] == 3
    assert summary["spent"]["model_calls"] > 0
    shown = runner.invoke(app, [*grow, "--plain"])
    assert "3 trees with" in shown.stdout
    assert f"results: {folder}" in shown.stdout
    assert json.loads((folder / "report.json").read_text())["spent"]["model_calls"] == 0
    refused = runner.invoke(app, [*grow])
    assert refused.exit_code == 1
    assert "`varied` has changed" in refused.stderr or "varied" in refused.stderr


def test_messages_of_the_model(tmp_path: Path) -> None:
    seen: list[Request] = []

    def script(request: Request) -> str:
        seen.append(request)
        return "The answer is 1."

    grow_tree(GAME, ScriptedEngine(script), settings=TreeSettings(system="One step a line."))
    assert seen[0].messages == (
        Message("system", "One step a line."),
        Message("user", GAME.problem),
    )
    assert seen[0].sampling.stop == ("\n",)
