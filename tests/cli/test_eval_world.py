"""`hanol eval world`: a model asked about a generated encyclopedia."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import Lfm2Config
from typer.testing import CliRunner, Result

from hanol import agent_training, engines, models
from hanol.agent_training import Examination, Expert, encyclopedia_tokenizer
from hanol.cli import app
from hanol.worlds import Encyclopedia

runner = CliRunner()
WORLD = ("encyclopedia", "--world-seed", 7)
SKILLS = ["call format", "query copy", "right page", "extraction", "next hop", "right answer"]


def invoke(*arguments: object) -> Result:
    return runner.invoke(app, ["eval", "world", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(autouse=True)
def entities(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Pages of the world: 150 for the command's 1,000, except where a test wants them."""
    count: int = getattr(request, "param", 150)
    if count != 1000:
        smaller = partial(agent_training.examine, num_entities=count)
        monkeypatch.setattr(agent_training, "examine", smaller)
    return count


@pytest.fixture
def expert(entities: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked is the expert, who knows this world and no other."""
    world = Encyclopedia(7, entities, split="test")
    questions = world.questions(3, hops=(1, 2), described=True, seed=7)
    for hops in range(1, 6):
        questions += world.questions(3, hops=hops, seed=7)

    def open_expert(spec: str, **options: Any) -> Expert:
        assert spec == "the-expert"
        return Expert(world, questions, detours=0.0)

    monkeypatch.setattr(engines, "open_engine", open_expert)


@pytest.mark.usefixtures("expert")
@pytest.mark.parametrize("entities", [1000], indirect=True)
def test_json_has_accuracy_by_hops_and_nothing_else_is_on_stdout() -> None:
    done = invoke(
        *WORLD, "--num-questions", 3, "--hops", "1,3,5", "--model", "the-expert", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["accuracy"] == {"1": 1.0, "3": 1.0, "5": 1.0, "described": 1.0}
    assert found["intervals"].keys() == found["accuracy"].keys()
    assert found["format_errors"] == 0.0
    assert found["cited"] == 1.0
    assert found["skills"] == dict.fromkeys(SKILLS, 1.0)
    assert (found["questions"], found["broken"]) == (12, 0)
    spent = found["spent"]
    assert spent["model_calls"] > spent["tool_calls"] >= 12
    assert spent["generated_tokens"] > 0
    settings = found["settings"]
    assert settings.pop("seconds") > 0
    assert settings == {
        "world": "encyclopedia", "split": "test", "seed": 7, "num_questions": 3,
        "model": "the-expert", "mode": "react", "max_calls": 16, "num_distractors": 1,
        "temperature": 0.0, "own_sampling": False, "sampling_seed": 0, "top_p": 1.0,
        "top_k": None, "max_tokens": 192,
    }  # fmt: skip


def test_the_expert_on_the_factbook_by_either_command() -> None:
    options = [*("--num-questions", 2), *("--hops", "1,3"), *("--max-calls", 8), "--json"]
    arguments = ["--model", "expert", *options]
    done = invoke("factbook:bare", *arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["accuracy"] == {"1": 1.0, "3": 1.0}  # no described starts of their own
    assert (found["questions"], found["broken"], found["format_errors"]) == (4, 0, 0.0)
    assert found["settings"]["leads"] == 0
    assert "num_distractors" not in found["settings"]
    same = ["research", "eval", "--world", "factbook:bare", *map(str, arguments)]
    again = json.loads(runner.invoke(app, same, catch_exceptions=False).stdout)
    assert {**again, "settings": 0, "spent": 0} == {**found, "settings": 0, "spent": 0}
    shown = invoke("factbook:bare", "--model", "expert", "--num-questions", 1, "--hops", 1)
    assert "1 questions about the factbook and 0 leads of Wikipedia, seed 12345" in shown.stdout


@pytest.mark.usefixtures("expert")
def test_the_table_shows_what_a_call_cap_costs() -> None:
    # A search and a visit, then the answer is asked for: enough for one hop and not for two.
    done = invoke(
        *WORLD, "--num-questions", 2, "--hops", "1,2", "--max-calls", 2, "--model", "the-expert"
    )
    assert done.exit_code == 0, done.output
    lines = {line[:18].strip(): line for line in done.stdout.splitlines()}
    assert "6 questions about an unseen encyclopedia, seed 7" in done.stdout
    assert lines["2 hops"].split()[2:4] == ["0.0", "%"]
    assert lines["1 hop"].split()[2:4] == ["100.0", "%"]
    assert lines["query copy"].split()[2:] == ["100.0", "%"]
    assert [name for name in lines if name in SKILLS] == SKILLS
    assert "of the turns" in lines["format errors"]


@pytest.mark.usefixtures("expert")
@pytest.mark.parametrize(
    ("options", "expected"),
    [((), (0.0, 1.0)), (("--own-sampling",), (None, None)), (("--temperature", 0.5), (0.5, 1.0))],
    ids=["greedy", "own", "tempered"],
)
def test_who_chooses_temperature_and_top_p(
    options: tuple[object, ...], expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, asked = Expert.complete, set()

    async def noted(self: Expert, request: engines.Request) -> engines.Completion:
        asked.add((request.sampling.temperature, request.sampling.top_p))
        return await complete(self, request)

    monkeypatch.setattr(Expert, "complete", noted)
    done = invoke(
        *WORLD, "--num-questions", 1, "--hops", "1", "--model", "the-expert", "--json", *options
    )
    assert done.exit_code == 0, done.output
    assert asked == {expected}


def test_a_random_checkpoint_knows_nothing(tmp_path: Path) -> None:
    tokenizer = encyclopedia_tokenizer(2048)
    config = Lfm2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, layer_types=["full_attention"],
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, block_auto_adjust_ff_dim=False,
    )  # fmt: skip
    folder = models.save(models.build(config, seed=0), tmp_path / "model", tokenizer)
    arguments = [
        "--num-questions",
        1,
        "--hops",
        "1",
        "--max-calls",
        1,
        "--mode",
        "markov",
        "--json",
    ]
    done = invoke(*WORLD, *arguments, "--temperature", "1", "--model", folder)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["accuracy"] == {"1": 0.0, "described": 0.0}
    assert found["format_errors"] == 1.0
    assert found["broken"] == 0
    assert found["settings"]["temperature"] == 1.0
    assert Examination.model_validate({k: v for k, v in found.items() if k != "settings"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*WORLD], "Missing option '--model'"),
        ([*WORLD, "--model", "x", "--num-questions", "0"], "--num-questions"),
        (["castle", "--model", "x"], "'castle' is not"),
        (
            [*WORLD, "--model", "x", "--own-sampling", "--temperature", "1"],
            "give one of --temperature, --greedy and --own-sampling",
        ),
    ],
    ids=["no model", "no questions", "no such world", "two samplings"],
)
def test_wrong_use_is_told_before_anything_is_loaded(arguments: list[object], said: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    shown = " ".join(done.stderr.replace("│", " ").split())
    assert said in shown


@pytest.mark.parametrize("hops", ["0", "6", "1,1", "2;3", ""], ids="hops={}".format)
def test_hops_that_no_world_has(hops: str) -> None:
    done = invoke(*WORLD, "--model", "tiny", "--hops", hops, "--json")
    assert done.exit_code == 2
    message = json.loads(done.stdout)["error"]["message"]
    assert (
        message
        == f"Invalid value for '--hops': {hops!r}: give different numbers from 1 to 5, like 1,2,3."
    )


def test_a_model_that_cannot_be_asked_gets_no_accuracy() -> None:
    done = invoke("--model", "tiny", "--num-questions", 1, "--hops", "1")
    assert done.exit_code == 1
    assert "None of 2 questions could be asked" in done.stderr
    assert "no chat template" in done.stderr
    assert done.stdout == ""
