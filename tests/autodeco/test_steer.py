"""Steering by words: commands, what training does with them, and the report."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.autodeco.conftest import build

from hanol.autodeco import (
    TEST_COMMANDS,
    TRAIN_COMMANDS,
    AutoDecoForCausalLM,
    Commands,
    Row,
    SteeringSettings,
    steering_report,
    train_steering,
    with_command,
)
from hanol.errors import ConfigError, DataError, RecipeError, RunError
from hanol.training import read_metrics

# A byte model of two random layers sees words as little more than a mix of bytes.
SHORT = Commands(low=("((((", "((((((("), high=("zzzz", "zzzzzzz"))
UNSEEN = Commands(low=("(((((",), high=("zzzzz",))


def model() -> AutoDecoForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoDecoForCausalLM.from_base(build("llama"), init="neutral")


def rows(count: int, seed: int) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)

    def word(size: int) -> str:
        return bytes(torch.randint(97, 122, (size,), generator=generator).tolist()).decode()

    return [Row(word(8), word(12)) for _ in range(count)]


def untimed(folder: Path) -> list[dict[str, Any]]:
    lines = read_metrics(folder)
    for line in lines:
        line.pop("tokens_per_second", None)
    return lines


def recipe(**values: Any) -> SteeringSettings:
    return SteeringSettings(**{"steps": 60, "batch": 8, "lr": 5e-3, "loss_weight": 0.0, **values})


def test_commands_are_many_in_two_languages_and_held_out() -> None:
    for direction in ("low", "high"):
        train, test = getattr(TRAIN_COMMANDS, direction), getattr(TEST_COMMANDS, direction)
        korean = [text for text in train if any("가" <= c <= "힣" for c in text)]
        assert len(korean) == len(set(korean)) >= 20
        assert len(set(train) - set(korean)) >= 20
        assert not set(train) & set(test)
        assert any("가" <= c <= "힣" for text in test for c in text)
        assert any(text.isascii() for text in test)
    assert not set(TRAIN_COMMANDS.low + TEST_COMMANDS.low) & set(
        TRAIN_COMMANDS.high + TEST_COMMANDS.high
    )


def test_where_a_command_goes() -> None:
    assert with_command(Row("p", "c"), "be sure") == Row("be sure\np", "c")
    # Braces of the texts are not read as places.
    row = Row("{command} {prompt}")
    assert with_command(row, "{x}", "# {command}\n{prompt}").prompt == "# {x}\n{command} {prompt}"
    talk = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"})  # fmt: skip
    steered = with_command(Row(messages=talk, completion="d"), "be sure")
    assert [m["content"] for m in steered.messages] == ["a", "b", "c\nbe sure"]
    assert talk[2]["content"] == "c"
    with pytest.raises(DataError, match="Line 7: .*no message of the user"):
        with_command(Row(messages=({"role": "system", "content": "a"},), line=7), "be sure")
    for template in ("{prompt}", "{command}", "{command}{command}{prompt}"):
        with pytest.raises(ConfigError, match="once"):
            SteeringSettings(template=template)


def test_commands_move_held_out_prompts(byte_tokenizer, tmp_path) -> None:
    steered = model()
    test = rows(40, seed=9)
    untouched = steering_report(steered, byte_tokenizer, test, UNSEEN)
    # Neutral heads give one value to all: nothing moves.
    assert untouched.temperature.low_moves.value == 0
    seen: list[int] = []
    path = train_steering(
        steered, byte_tokenizer, rows(32, seed=1), recipe(), tmp_path / "run", commands=SHORT,
        on_step=lambda line: seen.append(line["step"]),
    )  # fmt: skip
    report = steering_report(steered, byte_tokenizer, test, UNSEEN)
    assert report.prompts == 40
    for head in (report.temperature, report.top_p):
        assert head.low < head.base < head.high
        for moves in (head.low_moves, head.high_moves):
            assert moves.low > 0.8
            assert moves.low < moves.value <= moves.high
    # The anchor: without a command nothing has changed much.
    assert report.temperature.base == pytest.approx(untouched.temperature.base, abs=0.05)
    assert report.top_p.base == pytest.approx(untouched.top_p.base, abs=0.05)
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == seen == list(range(1, 61))
    assert lines[-1]["rank"] < 0.2 * lines[0]["rank"]
    loaded = AutoDecoForCausalLM.from_pretrained(path, base_model=steered.llm)
    assert steering_report(loaded, byte_tokenizer, test, UNSEEN) == report


def test_the_first_loss_is_that_of_the_formula(byte_tokenizer, tmp_path) -> None:
    """Neutral heads: all means are equal, so each hinge is its margin and the anchor is 0."""
    train_steering(
        model(), byte_tokenizer, rows(4, seed=1), recipe(steps=1), tmp_path / "run", commands=SHORT
    )
    line = read_metrics(tmp_path / "run")[0]
    assert line["rank"] == pytest.approx(2 * 0.1 + 2 * 0.05, abs=1e-6)
    assert line["anchor"] == pytest.approx(0, abs=1e-10)
    assert line["temperature_base"] == pytest.approx(1)


def test_micro_batches_make_no_difference(byte_tokenizer, tmp_path) -> None:
    for size in (8, 2):
        train_steering(
            model(), byte_tokenizer, rows(8, seed=1), recipe(steps=3, micro_batch=size),
            tmp_path / str(size), commands=SHORT,
        )  # fmt: skip
    pair = [[line["loss"] for line in read_metrics(tmp_path / str(size))] for size in (8, 2)]
    assert pair[0] == pytest.approx(pair[1], abs=1e-5)


def test_the_usual_loss_and_the_same_result_twice(byte_tokenizer, tmp_path) -> None:
    found = []
    for name in "ab":
        torch.manual_seed(ord(name))
        train_steering(
            model(), byte_tokenizer, rows(8, seed=1), recipe(steps=4, loss_weight=1.0),
            tmp_path / name, commands=SHORT,
        )  # fmt: skip
        found.append(untimed(tmp_path / name))
    assert found[0] == found[1]
    line = found[0][0]
    assert line["usual"] > 0
    assert line["loss"] == pytest.approx(line["rank"] + line["anchor"] + line["usual"], abs=1e-5)


def test_a_resumed_run_is_the_same_to_the_bit(byte_tokenizer, tmp_path) -> None:
    def steer(folder: str, **kwargs: Any) -> AutoDecoForCausalLM:
        trained = model()
        train_steering(
            trained, byte_tokenizer, rows(8, seed=1),
            recipe(steps=6, save_every=2, loss_weight=1.0), tmp_path / folder,
            commands=SHORT, **kwargs,
        )  # fmt: skip
        return trained

    class Stopped(Exception):
        pass

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 3:
            raise Stopped

    straight = steer("straight")
    with pytest.raises(Stopped):
        steer("stopped", on_step=stop)
    resumed = steer("stopped", resume=True)
    assert untimed(tmp_path / "straight") == untimed(tmp_path / "stopped")
    for a, b in zip(straight.head_parameters(), resumed.head_parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RunError, match="`data.commands`"):
        train_steering(
            model(), byte_tokenizer, rows(8, seed=1),
            recipe(steps=6, save_every=2, loss_weight=1.0), tmp_path / "stopped", commands=UNSEEN,
            resume=True,
        )  # fmt: skip
    with pytest.raises(RunError, match="`data.heads`"):
        train_steering(
            straight, byte_tokenizer, rows(8, seed=1),
            recipe(steps=6, save_every=2, loss_weight=1.0), tmp_path / "stopped", commands=SHORT,
            resume=True,
        )  # fmt: skip


def test_one_head_alone(byte_tokenizer, tmp_path) -> None:
    single = AutoDecoForCausalLM.from_base(build("llama"), enable_top_p_head=False)
    train_steering(
        single, byte_tokenizer, rows(4, seed=1), recipe(steps=2), tmp_path / "run", commands=SHORT
    )
    report = steering_report(single, byte_tokenizer, rows(4, seed=2), SHORT)
    assert report.top_p is None
    assert report.temperature is not None
    both = model()
    before = both.top_p_head.mlp[2].bias.clone()
    train_steering(
        both, byte_tokenizer, rows(4, seed=1), recipe(steps=2, train_top_p=False),
        tmp_path / "both", commands=SHORT,
    )  # fmt: skip
    assert torch.equal(both.top_p_head.mlp[2].bias, before)


def test_what_is_refused(byte_tokenizer, tmp_path: Path) -> None:
    steered, some = model(), rows(3, seed=1)
    with pytest.raises(DataError, match="None of 2 rows"):
        train_steering(
            steered, byte_tokenizer, [Row("a"), Row("a", "b" * 90)], recipe(max_length=50),
            tmp_path / "run",
        )  # fmt: skip
    with pytest.raises(RecipeError, match="at least one text"):
        train_steering(
            steered, byte_tokenizer, some, recipe(), tmp_path / "run", commands=Commands((), ("a",))
        )
    with pytest.raises(RecipeError, match="at least one text"):
        steering_report(steered, byte_tokenizer, some, Commands(("a",), ()))
    assert not (tmp_path / "run").exists()
    first = (steered, byte_tokenizer, some, recipe(steps=1))
    train_steering(*first, tmp_path / "run", commands=SHORT)
    with pytest.raises(RunError, match="already has a run"):
        train_steering(
            steered, byte_tokenizer, some, recipe(steps=1), tmp_path / "run", commands=SHORT
        )
    with torch.no_grad():
        steered.temp_head.mlp[0].bias[0] = math.nan
    with pytest.raises(RuntimeError, match="loss is nan at step 1"):
        train_steering(
            steered, byte_tokenizer, some, recipe(steps=1), tmp_path / "nan", commands=SHORT
        )
