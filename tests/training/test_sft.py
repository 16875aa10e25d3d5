"""SFT on trajectories: only what the policy wrote, every row equally often, exact resuming."""

import copy
import json
import math
import os
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from hanol import models
from hanol.errors import DataError, TrainingError
from hanol.training import MuonAdamW, SftResult, SftRow, SftSettings, train_sft

# The plan itself is what its properties are tested on.
from hanol.training._sft import SftSteps  # private: the batches alone, without training

DRIVER = Path(__file__).with_name("killed_sft.py")
driver = SimpleNamespace(**runpy.run_path(str(DRIVER)))
VOCABULARY: int = driver.VOCABULARY


def make_model(seed: int = 0) -> Any:
    return models.build(driver.make_config(VOCABULARY), seed=seed)


def make_rows(count: int, seed: int = 0) -> list[SftRow]:
    rows: list[SftRow] = driver.make_rows(count, VOCABULARY, seed)
    return rows


def plan_of(**options: Any) -> SftSettings:
    defaults: dict[str, Any] = {"tokens": 1, "batch_size": 4, "warmup_steps": 0}
    return SftSettings(**(defaults | options))


def run(
    folder: Path, rows: list[SftRow], model: Any = None, *, calls: Any = None, **options: Any
) -> SftResult:
    calls = calls or {}
    return train_sft(
        model if model is not None else make_model(), rows, plan_of(**options), folder,
        **calls,
    )  # fmt: skip


def weights(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# --- What is learned -----------------------------------------------------------------------------


def reference_gradients(model: Any, rows: list[SftRow]) -> dict[str, Tensor]:
    """Of the mean over all written tokens, row by row and without padding."""
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0]
        for place in range(1, len(row.input_ids)):
            if row.action_mask[place]:
                total = total - logits[place - 1].log_softmax(-1)[row.input_ids[place]]
    (total / sum(sum(row.action_mask[1:]) for row in rows)).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [{}, {"micro_batches": 3}, {"gradient_checkpointing": True}, {"muon_lr": None}],
    ids=["one batch", "in parts", "recomputed", "adamw"],
)
def test_the_loss_is_that_of_the_written_tokens_alone(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    rows = make_rows(3)
    # The very first token was read from nothing, so it cannot be learned even if it is written.
    rows[0] = SftRow(rows[0].input_ids, (True, *rows[0].action_mask[1:]))
    model = make_model()
    expected = reference_gradients(copy.deepcopy(model), rows)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():

        def note(p: Tensor, name: str = name) -> None:
            assert p.grad is not None
            found[name] = p.grad.clone()  # with micro-batches, the sum so far

        parameter.register_post_accumulate_grad_hook(note)
    run(tmp_path, rows, model, batch_size=3, clip_norm=1e9, **options)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=2e-7, msg=name)
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3


def test_it_learns_rows_by_heart(tmp_path: Path) -> None:
    rows = make_rows(4)
    lines: list[dict[str, Any]] = []
    model = make_model()
    run(
        tmp_path, rows, model, tokens=16_000, batch_size=4, warmup_steps=10, muon_lr=0.03,
        adamw_lr=0.01,
        calls={"on_step": lines.append},
    )  # fmt: skip
    losses = [line["loss"] for line in lines]
    assert losses[0] == pytest.approx(math.log(VOCABULARY), abs=1.0)  # ten steps from chance
    assert losses[-1] < 0.2
    right = 0
    for row in rows:
        with torch.no_grad():
            said = model(input_ids=torch.tensor([row.input_ids])).logits[0].argmax(-1).tolist()
        right += sum(
            said[i - 1] == row.input_ids[i] for i in range(1, len(said)) if row.action_mask[i]
        )
    assert right == sum(sum(row.action_mask[1:]) for row in rows)


def plan_for(lengths: list[int], plan: SftSettings) -> SftSteps:
    return SftSteps([SftRow((5,) * n, (True,) * n) for n in lengths], plan)


# --- The plan ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=120),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_row_comes_once_before_any_comes_again(
    lengths: list[int], size: int, seed: int
) -> None:
    tokens = 5 * sum(lengths)
    plan = plan_for(lengths, plan_of(tokens=tokens, batch_size=size, seed=seed))
    # Batches come in groups, in each of which rows are sorted by length.
    group = max(1, min(6, len(lengths) // size))
    for end in range(group, len(plan.batches), group):
        counts = Counter(row for batch in plan.batches[:end] for row in batch)
        times = [counts[row] for row in range(len(lengths))]
        assert max(times) - min(times) <= 1
    assert all(len(batch) == size for batch in plan.batches)
    # It ends with the step that reaches the tokens.
    seen = [sum(lengths[row] for row in batch) for batch in plan.batches]
    assert plan.tokens_before == [sum(seen[:n]) for n in range(len(seen) + 1)]
    assert plan.tokens_before[-2] < tokens <= plan.tokens_before[-1]
    again = plan_for(lengths, plan_of(tokens=tokens, batch_size=size, seed=seed))
    assert again.batches == plan.batches


def test_rows_of_a_batch_are_of_similar_length_but_not_always_the_same() -> None:
    lengths = [2 + place for place in range(96)]
    plan = plan_for(lengths, plan_of(tokens=20 * sum(lengths), batch_size=8))
    padding = sum(8 * max(lengths[i] for i in batch) for batch in plan.batches)
    assert padding < 1.2 * plan.tokens_before[-1]
    batches = Counter(frozenset(batch) for batch in plan.batches)
    assert batches.most_common(1)[0][1] < 5  # of 20 times that every row is read
    orders = [[max(batch) for batch in plan.batches[n : n + 6]] for n in range(0, 240, 6)]
    assert any(order != sorted(order) for order in orders)  # short and long ones mixed
    other = plan_for(lengths, plan_of(tokens=20 * sum(lengths), batch_size=8, seed=1))
    assert other.batches != plan.batches


def test_batches_have_few_different_lengths() -> None:
    """Each new one would cost a CPU memory that it does not give back."""
    lengths = [2 + place for place in range(98)]
    plan = plan_for(lengths, plan_of(tokens=5 * sum(lengths), batch_size=2, max_length=100))
    parts = [plan.part(step, 0) for step in range(len(plan.batches))]
    assert {part["input_ids"].shape[1] for part in parts} == {32, 64, 96, 100}
    for batch, part in zip(plan.batches, parts, strict=True):
        learned = (part["labels"] != -100).sum(1).tolist()
        assert learned == [lengths[row] - 1 for row in batch]


def test_the_rates_are_those_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[float, ...]] = []
    step = MuonAdamW.step

    def noted(self: MuonAdamW, closure: Any = None) -> Any:
        used.append(tuple(sorted({group["lr"] for group in self.param_groups})))
        return step(self, closure)

    monkeypatch.setattr(MuonAdamW, "step", noted)
    chosen = {"tokens": 600, "warmup_steps": 4, "decay": 0.5, "final": 0.1}
    result = run(tmp_path, make_rows(12), muon_lr=0.02, adamw_lr=0.004, **chosen)
    assert result.steps == len(used) >= 10
    shares = [plan_of(**chosen).rate(n, result.steps) for n in range(result.steps)]
    for (adamw, muon), share in zip(used, shares, strict=True):
        assert (adamw, muon) == pytest.approx((0.004 * share, 0.02 * share))
    assert shares[0] == 0.25
    assert max(shares) == 1.0
    assert shares[-1] == pytest.approx(0.1 + 0.9 * (1 / result.steps) / 0.5)


def test_rows_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    rows = make_rows(6)
    long = SftRow((5,) * 31, (True,) * 31)
    fits = SftRow((5,) * 30, (True,) * 30)
    read = SftRow((5, 6, 7), (False,) * 3)
    first = SftRow((5, 6, 7), (True, False, False))
    one = SftRow((5,), (True,))
    result = run(tmp_path, [*rows, long, read, first, one, fits], max_length=30, tokens=100)
    assert (result.rows, result.left_out) == (7, 4)
    assert result.tokens >= 100


@pytest.mark.parametrize(
    "rows", [[], [SftRow((5,) * 40, (True,) * 40)], [SftRow((5, 6), (True, False))]],
    ids=["none", "long", "nothing written"],
)  # fmt: skip
def test_nothing_to_learn_from(tmp_path: Path, rows: list[SftRow]) -> None:
    with pytest.raises(DataError, match=rf"all {len(rows)} exceed `max_length` \(30\)"):
        run(tmp_path, rows, max_length=30)


def test_processes_must_share_a_batch_equally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(DataError, match="`batch_size` is 4: 3 processes"):
        run(tmp_path, make_rows(4))


# --- Metrics, evaluations, checkpoints -----------------------------------------------------------


def test_more_steps_than_can_be_decided_beforehand(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="100,000,000,000,000 tokens of these rows are more than"):
        run(tmp_path, make_rows(8), make_model(), tokens=10**14)


def test_evaluations_come_by_tokens_and_at_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    lines: list[dict[str, Any]] = []
    model = make_model()

    def on_eval(tokens: int) -> Mapping[str, Any]:
        assert not model.training
        seen.append(tokens)
        return {"score": tokens / 2}

    calls = {"on_eval": on_eval, "on_step": lines.append}
    result = run(tmp_path, make_rows(20), model, tokens=1500, eval_tokens=400, calls=calls)
    assert [tokens // 400 for tokens in seen[:3]] == [1, 2, 3]
    assert seen[-1] == result.tokens
    assert metrics_of(tmp_path) == [
        {key: value for key, value in line.items() if key != "steps"} for line in lines
    ]
    scores = [(line["tokens"], line["score"]) for line in lines if "score" in line]
    assert scores == [(tokens, tokens / 2) for tokens in seen]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(10, result.steps + 1, 10))
    assert all(line["grad_norm"] > 0 for line in losses)


def test_a_checkpoint_is_one_that_transformers_loads(tmp_path: Path) -> None:
    model = make_model()
    result = run(tmp_path, make_rows(8), model, tokens=300, save_tokens=50)
    saved = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert len(saved) == 2  # should the last be damaged, there is the one before it
    assert saved[-1].name == f"checkpoint-{result.steps}"
    loaded = AutoModelForCausalLM.from_pretrained(saved[-1])
    for name, tensor in weights(model).items():
        assert torch.equal(loaded.get_parameter(name), tensor)


def test_a_run_that_has_ended_is_not_gone_on_with(tmp_path: Path) -> None:
    rows, model = make_rows(8), make_model()
    first = run(tmp_path, rows, model, tokens=900)
    lines = metrics_of(tmp_path)
    again = make_model(seed=1)
    assert run(tmp_path, rows, again, tokens=900, calls={"resume": True}) == first
    for name, tensor in weights(model).items():
        assert torch.equal(again.get_parameter(name), tensor)
    assert metrics_of(tmp_path) == lines != []


def test_another_run_does_not_take_over_a_folder(tmp_path: Path) -> None:
    rows = make_rows(8)
    run(tmp_path, rows, tokens=300)
    with pytest.raises(DataError, match="has checkpoints of another run"):
        run(tmp_path, rows, tokens=300)
    with pytest.raises(DataError, match=r"belongs to a run of \d+ steps, but .* give \d+"):
        run(tmp_path, rows, tokens=900, calls={"resume": True})


def test_the_same_run_gives_the_same_weights(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        model = make_model()
        run(tmp_path / name, make_rows(8), model, tokens=400)
        found.append(weights(model))
    for name, tensor in found[0].items():
        assert torch.equal(found[1][name], tensor)
    assert not torch.equal(found[0]["model.norm.weight"], make_model().model.norm.weight)


def test_bfloat16(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    run(tmp_path, make_rows(8), tokens=1500, dtype="bfloat16", calls={"on_step": lines.append})
    losses = [line["loss"] for line in lines]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("saves", [False, True], ids=["before", "after"])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, saves: bool) -> None:
    model = make_model()
    evaluations = 0

    def poison(tokens: int) -> Mapping[str, Any]:
        nonlocal evaluations
        evaluations += 1
        if evaluations == 2:
            with torch.no_grad():
                model.model.norm.weight[0] = math.nan
        return {}

    # Saved after the first evaluation, poisoned at the second.
    tokens = {"tokens": 2000, "eval_tokens": 300, "save_tokens": 300 if saves else 10**9}
    told = "resume from .*checkpoint-" if saves else "nothing was saved yet"
    with pytest.raises(TrainingError, match=f"The loss is nan at step .*{told}"):
        run(tmp_path, make_rows(8), model, calls={"on_eval": poison}, **tokens)


def test_a_run_that_broke_off_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    rows, options = make_rows(12), {"tokens": 900, "save_tokens": 200, "eval_tokens": 300}
    whole, model = make_model(), make_model()
    told: list[int] = []
    run(tmp_path / "whole", rows, whole, **options, calls={"on_eval": noted(told)})

    def stop(tokens: int) -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", rows, model, **options, calls={"on_eval": stop})
    [saved] = (tmp_path / "parts").glob("checkpoint-*")
    again = make_model(seed=1)  # what it has is replaced by the checkpoint's
    told_again: list[int] = []
    calls = {"on_eval": noted(told_again), "resume": True}
    run(tmp_path / "parts", rows, again, **options, calls=calls)
    for name, tensor in weights(whole).items():
        assert torch.equal(again.get_parameter(name), tensor)
    assert told_again == told
    assert not saved.exists()


def noted(told: list[int]) -> Any:
    def on_eval(tokens: int) -> Mapping[str, Any]:
        told.append(tokens)
        return {}

    return on_eval


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, killed = (
        json.loads((tmp_path / name / "done.json").read_text()) for name in ("whole", "killed")
    )
    assert killed == whole
    metrics = [metrics_of(tmp_path / name) for name in ("whole", "killed")]
    # The mean of the loss begins anew where a run does.
    for lines in metrics:
        for line in lines:
            line.pop("loss", None)
            line.pop("tokens_per_second", None)
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) >= 5


@pytest.mark.slow
def test_two_processes_make_the_same_updates_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for folder, launched in ((one, []), (two, launch)):
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, *launched, str(DRIVER), "shared", str(folder)],
            capture_output=True, text=True, timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    alone = json.loads((one / "done.json").read_text())
    first, second = (json.loads((two / f"done{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["result"] == alone["result"]
    for name, values in alone["weights"].items():
        torch.testing.assert_close(
            torch.tensor(first["weights"][name]), torch.tensor(values), rtol=1e-4, atol=1e-5
        )
    losses = [
        [line["loss"] for line in metrics_of(folder) if "loss" in line] for folder in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
