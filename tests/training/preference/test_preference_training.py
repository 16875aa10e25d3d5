"""Recipes of the kind `preference`, and pairs of a model's own answers."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanol import models
from hanol.errors import DataError
from hanol.training import (
    FinetuneResult,
    PreferenceRecipe,
    preference_loss,
    read_metrics,
    read_recipe,
    sample_pairs,
    train,
)

ROOT = Path(__file__).parents[3]
CHAT = Path(__file__).parents[1] / "chat_model.py"
chat = SimpleNamespace(**runpy.run_path(str(CHAT)))


def pairs(count: int) -> list[dict[str, Any]]:
    """Half of them texts, half messages."""
    made: list[dict[str, Any]] = []
    for i in range(count):
        answers = {"chosen": f"yes {i}", "rejected": f"no, not {i}"}
        if i % 2:
            made.append({"prompt": f"Say {i}", **answers})
        else:
            said = {k: [{"role": "assistant", "content": v}] for k, v in answers.items()}
            made.append({"prompt": chat.turns(f"Say {i}"), **said})
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preference")
    chat.make_checkpoint(root / "model")
    rows = [
        *pairs(40),
        {"prompt": "a", "chosen": "b"},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
    ]
    chat.write_rows(root / "rows.jsonl", rows)
    return root


def recipe(folder: Path, **changes: Any) -> PreferenceRecipe:
    values: dict[str, Any] = {
        "kind": "preference", "name": "small", "model": str(folder / "model"),
        "data": {"path": str(folder / "rows.jsonl"), "held_out": 0.2}, "epochs": 4,
        "batch_size": 8, "adamw_lr": 0.002, "warmup_steps": 0, "max_length": 200,
    }  # fmt: skip
    return PreferenceRecipe(**{**values, **changes})


def run(folder: Path, made: PreferenceRecipe, **options: Any) -> FinetuneResult:
    result = train(made, folder, **options)
    assert isinstance(result, FinetuneResult)
    return result


def test_the_chosen_answers_become_likelier(folder: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "run", recipe(folder))
    assert result.left_out == {"malformed": 1, "equal": 1}
    assert result.rows + result.held_out_rows == 40
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    # Before the first step policy and reference are one: the loss is log 2.
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["preferred"] == 1
    assert lines[-1]["loss"] < 0.3
    assert result.eval_loss is not None
    assert result.eval_loss < 0.5
    models.load_model(result.checkpoint)


def test_a_run_that_was_broken_off_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, save_tokens=1_000, micro_batches=2, nll_weight=0.2, mask_formatting=True)
    whole = run(tmp_path / "whole", made)

    def stop(line: Mapping[str, Any]) -> None:
        if line.get("step", 0) > whole.steps * 0.6 and "loss" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", made, on_step=stop)
    again = run(tmp_path / "part", made, resume=True)
    states = [models.load_model(one.checkpoint).state_dict() for one in (whole, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert again.eval_loss == whole.eval_loss


def test_the_likelihood_term_keeps_the_chosen_answers_likely(folder: Path, tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 1.0):
        run(tmp_path / str(weight), recipe(folder, nll_weight=weight))
        lines = [line for line in read_metrics(tmp_path / str(weight)) if "loss" in line]
        found[weight] = lines[-1]["chosen_margin"]
    assert found[1.0] > found[0.0]


def test_the_first_loss_of_a_batch_is_that_of_the_function(folder: Path, tmp_path: Path) -> None:
    """The likelihood of an untrained model, by hand."""
    made = recipe(folder, nll_weight=0.5, nll_norm="token", epochs=1, batch_size=40,
                  data={"path": str(folder / "rows.jsonl"), "held_out": 0.0})  # fmt: skip
    run(tmp_path / "run", made)
    model, tokenizer = models.load(folder / "model")
    total, tokens = 0.0, 0
    for row in pairs(40):
        if isinstance(row["prompt"], str):
            read, said = tokenizer(row["prompt"]).input_ids, tokenizer(row["chosen"]).input_ids
            ids = [*read, *said, tokenizer.eos_token_id]
        else:
            text = tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            )
            read = tokenizer(text, add_special_tokens=False).input_ids
            said = tokenizer(row["chosen"][0]["content"], add_special_tokens=False).input_ids
            ids = [*read, *said, tokenizer.eos_token_id]
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        own = logp.gather(-1, torch.tensor(ids[1:])[:, None])[len(read) - 1 :]
        total, tokens = total - own.sum().item(), tokens + len(own)
    first = read_metrics(tmp_path / "run")[0]["loss"]
    assert first == pytest.approx(0.693147 + 0.5 * total / tokens, abs=1e-3)


def test_adapters_are_trained_against_the_frozen_model(folder: Path, tmp_path: Path) -> None:
    made = recipe(folder, lora={"rank": 4, "alpha": 8}, adamw_lr=0.02)
    result = run(tmp_path / "run", made)
    lines = [line for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert lines[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["preferred"] > 0.9
    assert result.trained_parameters < result.parameters / 2


@pytest.mark.parametrize("name", ["llama3", "tulu3"])
def test_shipped_recipes(name: str) -> None:
    made = read_recipe(ROOT / "recipes" / "preference" / f"{name}.yaml")
    assert isinstance(made, PreferenceRecipe)
    if name == "llama3":
        assert (made.beta, made.nll_weight, made.mask_formatting, made.loss) == (
            0.1, 0.2, True, "sigmoid",
        )  # fmt: skip
    else:
        assert (made.beta, made.loss, made.batch_size, made.max_length) == (
            5.0, "sigmoid_norm", 128, 2048,
        )  # fmt: skip


# -- pairs of a model's own answers


@given(st.lists(st.booleans(), max_size=24), st.integers(1, 7), st.integers(0, 99))
def test_pairs_hold_a_right_and_a_wrong_answer(right: list[bool], most: int, seed: int) -> None:
    answers = [f"answer {i}" for i in range(len(right))]
    row = {"prompt": "q", "answers": answers, "right": right}
    made, counts = sample_pairs([row], most=most, seed=seed)
    assert len(made) == min(most, sum(right), len(right) - sum(right))
    verdict = dict(zip(answers, right, strict=True))
    assert all(verdict[pair["chosen"]] and not verdict[pair["rejected"]] for pair in made)
    used = [pair[side] for pair in made for side in ("chosen", "rejected")]
    assert len(used) == len(set(used))
    assert counts["questions"] == bool(made)
    assert sum(counts.values()) == 1


def test_malformed_samples_are_refused() -> None:
    with pytest.raises(DataError, match='"right"'):
        sample_pairs([{"prompt": "q", "answers": ["a"]}])


def test_the_loss_is_public() -> None:
    x = torch.zeros(2, 1)
    assert preference_loss(x, x, x + 1, beta=0.1).item() == pytest.approx(0.6931, abs=1e-4)
