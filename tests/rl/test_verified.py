"""Reinforcement learning from rewards that a program verifies: refusals, arms, and a whole run."""

import asyncio
import logging
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanol import models
from hanol.engines import CheckpointEngine, Completion, Engine, Request, Usage
from hanol.errors import ConfigError, DataError
from hanol.rl import RlvrRecipe, RlvrResult, VerifiedEnvironment
from hanol.sampling import Sampling
from hanol.training import read_metrics, read_recipe, train
from hanol.worlds import MathProblem, open_problems

ROOT = Path(__file__).parents[2]
CHAT = ROOT / "tests" / "training" / "chat_model.py"
chat = SimpleNamespace(**runpy.run_path(str(CHAT)))
PLAIN = Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, max_tokens=4)


def environment(problems: Any = None, **options: Any) -> VerifiedEnvironment:
    found = open_problems("sums", count=40) if problems is None else problems
    return VerifiedEnvironment(found, **{"sampling": PLAIN, **options})


def says_yes(prompt: str, completion: str, row: Any) -> bool:
    """A verifier that takes everything."""
    return True


def says_no(prompt: str, completion: str, row: Any) -> bool:
    """A verifier that takes nothing."""
    return False


@pytest.mark.parametrize("spec", ["sums", "chains:level=2", "countdown:numbers=3", "stories"])
def test_problems_of_the_worlds_tell_right_from_wrong(spec: str) -> None:
    environment(open_problems(spec, count=40)).check_reward()


def test_a_verifier_that_does_not_know_right_from_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "broken_verifiers", sys.modules[__name__])
    with pytest.raises(DataError, match="gives a wrong answer 1 instead of 0"):
        environment(verifier="broken_verifiers:says_yes").check_reward()
    with pytest.raises(DataError, match="gives a right answer 0 instead of 1"):
        environment(verifier="broken_verifiers:says_no").check_reward()
    same = [MathProblem(f"p{i}", f"Say 7 for {i}", "7") for i in range(30)]
    with pytest.raises(DataError, match="All 30 problems have the answer '7'"):
        environment(same).check_reward()
    # One wrong answer in the file is enough, where it is looked at.
    problems = open_problems("sums", count=20)
    problems[3] = replace(problems[3], answer=str(int(problems[3].answer) + 1))
    with pytest.raises(DataError, match="gives a right answer 0"):
        environment(problems).check_reward()


def test_what_an_answer_earns_in_each_arm() -> None:
    (problem, *_) = problems = open_problems("sums", count=10)
    right, wrong = f"The answer is {problem.answer}.", f"The answer is {problem.answer}1."
    true = environment(problems)
    assert [true.reward(problem, t, ended=True, seed=0) for t in (right, wrong)] == [1, 0]
    assert true.reward(problem, right, ended=False, seed=0) == 0
    form = environment(problems, arm="format", form=r"The answer is -?\d+\.$")
    assert [form.reward(problem, t, ended=True, seed=0) for t in (right, wrong, "7")] == [1, 1, 0]
    readable = environment(problems, arm="format")
    assert [readable.reward(problem, t, ended=True, seed=0) for t in ("7", "so")] == [1, 0]
    chance = environment(problems, arm="random")
    found = [chance.reward(problem, right, ended=True, seed=seed) for seed in range(400)]
    assert 150 < sum(found) < 250
    assert found == [chance.reward(problem, wrong, ended=True, seed=seed) for seed in range(400)]
    cut = environment(problems, no_stop_penalty=0.5)
    assert cut.reward(problem, right, ended=False, seed=0) == -0.5
    with pytest.raises(ConfigError, match="no regular expression"):
        environment(problems, arm="format", form="(")
    with pytest.raises(DataError, match="no answer, or no verifier"):
        environment([replace(problem, verifier="")])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat.make_checkpoint(tmp_path_factory.mktemp("rlvr") / "model")


def recipe(checkpoint: Path, rows: Path, **changes: Any) -> RlvrRecipe:
    values: dict[str, Any] = {
        "kind": "rlvr", "name": "small", "model": str(checkpoint), "problems": str(rows),
        "steps": 4, "questions": 4, "rollouts": 6, "max_tokens": 3, "adamw_lr": 0.01,
        "eval_problems": 0, "save_every": 2,
    }  # fmt: skip
    return RlvrRecipe(**{**values, **changes})


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    made = [{"id": f"p{i}", "problem": f"Say {i}", "answer": str(i)} for i in range(24)]
    return chat.write_rows(tmp_path / "problems.jsonl", made)


def test_one_answer_a_problem_with_its_tokens(checkpoint: Path, rows: Path) -> None:
    model, tokenizer = models.load(checkpoint)
    here = environment(open_problems(str(rows)))
    engine = CheckpointEngine(model, tokenizer)

    async def attempt() -> Any:
        try:
            return await here.rollouts(
                engine, here.tasks[:6], seeds=range(6), concurrency=4, folder=rows.parent / "log"
            )
        finally:
            await engine.aclose()

    made = asyncio.run(attempt())
    assert [one.task.id for one in made] == [f"p{i}" for i in range(6)]
    for one in made:
        (segment,) = one.segments
        assert sum(segment.action_mask) == len(one.turns[0].token_ids) > 0
        assert one.has_answer == (segment.input_ids[-1] == tokenizer.eos_token_id)
    assert len((rows.parent / "log" / "answers.jsonl").read_text().splitlines()) == 6


def test_a_run_goes_on_exactly_and_says_what_it_did(
    checkpoint: Path, rows: Path, tmp_path: Path
) -> None:
    # Chance gives every group a signal, whatever a model of random weights answers.
    made = recipe(checkpoint, rows, reward="random", no_answer="kept")
    whole = train(made, tmp_path / "whole")
    assert isinstance(whole, RlvrResult)
    assert 0 < whole.reward < 1
    assert 0 <= whole.truncated <= 1
    assert whole.zero_variance < 0.8

    def stop(line: Any) -> None:
        if line.get("step") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "part", on_step=stop)
    again = train(made, tmp_path / "part", resume=True)
    states = [models.load_model(str(one.checkpoint)).state_dict() for one in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    start = models.load_model(checkpoint).state_dict()
    assert any(not torch.equal(states[0][name], start[name]) for name in start)


def test_equal_rewards_leave_the_weights_as_they_are_and_say_so(
    checkpoint: Path, rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = recipe(checkpoint, rows, reward="format", form="(?!)", steps=2)  # nothing has the form
    with caplog.at_level(logging.WARNING):
        result = train(made, tmp_path / "run")
    assert "100 % of the problems earned the same with every answer" in caplog.text
    assert all(line["zero_variance"] == 1 for line in read_metrics(tmp_path / "run"))
    states = [models.load_model(x).state_dict() for x in (checkpoint, str(result.checkpoint))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_trl_trains_on_the_same_environment(
    checkpoint: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    made = recipe(checkpoint, rows, reward="random", no_answer="kept", trainer="trl", steps=2)
    result = train(made, tmp_path / "run")
    assert isinstance(result, RlvrResult)
    assert 0 < result.reward < 1
    models.load_model(str(result.checkpoint))


def test_trl_resumes_from_its_checkpoint_to_the_same_weights(
    checkpoint: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    options = {"reward": "random", "no_answer": "kept", "trainer": "trl", "save_every": 1}
    train(recipe(checkpoint, rows, steps=1, **options), tmp_path / "run")
    made = [
        train(recipe(checkpoint, rows, steps=3, **options), tmp_path / name, resume=name == "run")
        for name in ("run", "straight")
    ]
    states = [models.load_model(str(one.checkpoint)).state_dict() for one in made]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("name", ["chains", "random", "format", "smollm2"])
def test_shipped_recipes(name: str) -> None:
    made = read_recipe(ROOT / "recipes" / "rlvr" / f"{name}.yaml")
    assert isinstance(made, RlvrRecipe)
    arms = {"random": "random", "format": "format"}
    assert made.reward == arms.get(name, "verified")
    problems = open_problems(made.problems, count=40)
    environment(problems).check_reward()
    if name in arms:  # the controls differ in their reward alone
        true = read_recipe(ROOT / "recipes" / "rlvr" / "chains.yaml")
        other = {**made.model_dump(), "name": "", "reward": ""}
        assert other == {**true.model_dump(), "name": "", "reward": ""}


def test_a_calculator_answers_in_the_middle_and_is_not_learned() -> None:
    """The model's tokens are learned, the calculator's are not; limits hold over all turns."""

    class Calculates(Engine):
        name = "calculates"
        capabilities = frozenset({"prompt_ids", "keep_stop", "logprobs"})

        def __init__(self, *texts: str) -> None:
            self.texts, self.requests = list(texts), list[Request]()

        async def complete(self, request: Request) -> Completion:
            self.requests.append(request)
            text = self.texts.pop(0)
            ids = tuple(text.encode())
            prompt = tuple(request.prompt_ids or b"asked")
            return Completion.of(
                text, usage=Usage(), ids=ids, logprobs=(-0.5,) * len(ids), prompt_ids=prompt
            )

        def encode(self, prompt: Any, *, begins: bool = True) -> tuple[int, ...]:
            assert not begins
            return tuple(prompt.encode())

        def count_tokens(self, messages: Any) -> int:
            return 1

    problem = MathProblem("p", "What is 12 * 3 + 1?", "37")
    engine = Calculates("First <<12 * 3>>", ", then <<36 + >>", " oh. The answer is 37.")
    made = environment([problem], calculator=True, sampling=replace(PLAIN, max_tokens=99))
    [rollout] = asyncio.run(made.rollouts(engine, made.tasks, seeds=[7], concurrency=1))
    assert rollout.reward == 1.0
    [segment] = rollout.segments
    text = bytes(segment.input_ids).decode()
    assert text == "askedFirst <<12 * 3>>36, then <<36 + >>? oh. The answer is 37."
    pairs = zip(segment.input_ids, segment.action_mask, strict=True)
    learned = bytes(token for token, acts in pairs if acts)
    assert learned.decode() == "First <<12 * 3>>, then <<36 + >> oh. The answer is 37."
    assert [request.sampling.seed for request in engine.requests] == [7, 8, 9]
    left = [request.sampling.max_tokens for request in engine.requests]
    assert left[0] - left[1] == len("First <<12 * 3>>")
    assert all(request.sampling.stop == (">>",) for request in engine.requests)
