"""Advantages of groups against formulas in float64 and against TRL's own trainers."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hanol.errors import ConfigError, DataError, ShapeError
from hanol.training import group_advantages

chat = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_model.py"))))
REWARD = st.none() | st.sampled_from([0.0, 1.0, 0.5, 0.1, -1 / 3])


def reference(rewards: Any, keys: Any, kind: str, scale: str) -> list[float]:
    """The formulas, one answer at a time."""

    def spread(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))

    found: list[float] = []
    differences: list[float] = []
    for reward, key in zip(rewards, keys, strict=True):
        own = [r for r, k in zip(rewards, keys, strict=True) if k == key and r is not None]
        if reward is None or len(own) < 2:
            found.append(0.0)
            continue
        mean = (sum(own) - reward) / (len(own) - 1) if kind == "rloo" else sum(own) / len(own)
        found.append(reward - mean)
        differences.append(reward - mean)
        if scale == "group":
            found[-1] /= spread(own) + 1e-4
    if scale == "batch" and differences:
        of_all = differences if kind == "rloo" else [r for r in rewards if r is not None]
        found = [x / (spread(of_all) + 1e-4) for x in found]
    return found


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("kind", ["grpo", "rloo", "dr_grpo"])
@given(data=st.data())
def test_advantages_are_those_of_the_formulas(kind: Any, scale: Any, data: Any) -> None:
    keys = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=14))
    rewards = data.draw(st.lists(REWARD, min_size=len(keys), max_size=len(keys)))
    found = group_advantages(rewards, keys, kind=kind, scale=scale)
    assert found.tolist() == pytest.approx(reference(rewards, keys, kind, scale), abs=1e-9)


def test_each_kind_has_the_scale_of_its_source() -> None:
    rewards = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    for kind, scale in (("grpo", "group"), ("rloo", "none"), ("dr_grpo", "none")):
        own = group_advantages(rewards, 3, kind=kind)  # type: ignore[arg-type]
        assert torch.equal(own, group_advantages(rewards, 3, kind=kind, scale=scale))  # type: ignore[arg-type]


@given(st.floats(0, 1), st.integers(1, 8))
def test_equal_rewards_have_advantages_of_exactly_zero(reward: float, count: int) -> None:
    for kind in ("grpo", "rloo", "dr_grpo"):
        for scale in ("group", "batch", "none"):
            rewards = [reward] * count + [0.0, 1.0, 1.0]
            keys = [0] * count + [1, 1, 1]
            found = group_advantages(rewards, keys, kind=kind, scale=scale)  # type: ignore[arg-type]
            assert found[:count].tolist() == [0.0] * count


REWARDS = [1.0, 0.0, None, 0.0, 0.3, 0.3, 0.3, 0.3, None, None, 2.0, None, 0.1, 0.9, 0.2, 0.7]


@pytest.fixture(scope="module")
def trl_trainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """TRL's trainers over a model of a few thousand weights, with rewards that are given."""
    import trl
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("trl")
    checkpoint = chat.make_checkpoint(folder / "model")
    rows = Dataset.from_list([{"prompt": "Say 1"}] * len(REWARDS))
    options = {
        "num_generations": 4, "per_device_train_batch_size": 16, "max_completion_length": 2,
        "use_cpu": True, "bf16": False, "report_to": [], "activation_checkpointing": False,
    }  # fmt: skip

    def rewards(completions: list[str], **columns: Any) -> list[float | None]:
        return REWARDS

    return {
        "rloo": trl.RLOOTrainer(
            str(checkpoint), rewards, trl.RLOOConfig(str(folder), **options, beta=0.0), rows
        ),
        "grpo": trl.GRPOTrainer(
            str(checkpoint), rewards, trl.GRPOConfig(str(folder), **options), rows
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("grpo", "group"), ("grpo", "batch"), ("grpo", "none"), ("rloo", "none"), ("rloo", "batch")],
)
def test_advantages_are_trls(trl_trainers: dict[str, Any], kind: Any, scale: Any) -> None:
    trainer = trl_trainers[kind]
    trainer.scale_rewards, trainer.normalize_advantages = scale, scale == "batch"
    made = trainer._generate_and_score_completions([{"prompt": "Say 1"}] * len(REWARDS))
    found = group_advantages(REWARDS, 4, kind=kind, scale=scale)
    assert found.tolist() == pytest.approx(made["advantages"].tolist(), abs=2e-5)
    assert found.abs().sum() > 1


def test_groups_and_rewards_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="nan"):
        group_advantages([1.0, math.nan], 2)
    with pytest.raises(ShapeError, match="5 rewards do not make groups of 2"):
        group_advantages([0.0] * 5, 2)
    with pytest.raises(ShapeError, match="2 rewards, but `group` has 3"):
        group_advantages([0.0] * 2, [1, 2, 3])
    with pytest.raises(ConfigError, match=r"`kind` is 'ppo'.*'rloo'"):
        group_advantages([0.0], 1, kind="ppo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`scale` is 'std'"):
        group_advantages([0.0], 1, scale="std")  # type: ignore[arg-type]
