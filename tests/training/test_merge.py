"""Merging checkpoints: the average itself, files cut in other ways, what must be refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig
from typer.testing import CliRunner

from hanol import models
from hanol.cli.checkpoints import merge
from hanol.errors import CheckpointError, ConfigError, WriteError
from hanol.training import merge_checkpoints

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "intermediate_size": 48,
}  # fmt: skip


def checkpoint(
    folder: Path, seed: int, dtype: torch.dtype = torch.float32, shards: str = "1GB", **changes
) -> Path:
    model = models.build(LlamaConfig(**{**SHAPE, **changes}), seed=seed)
    models.cast(model, dtype).save_pretrained(folder, max_shard_size=shards)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def change(folder: Path, **changed: torch.Tensor | None) -> Path:
    """The checkpoint with tensors replaced, added or, by None, removed."""
    values = tensors(folder) | {name.replace("__", "."): v for name, v in changed.items()}
    kept = {name: value for name, value in values.items() if value is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Callable[[int, torch.dtype], Path]:
    """A checkpoint of a seed and a type, written once."""
    root = tmp_path_factory.mktemp("parents")
    return cache(lambda seed, dtype: checkpoint(root / f"{seed}-{dtype}", seed, dtype))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    raw=st.lists(st.integers(0, 9), min_size=2, max_size=4).filter(any),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_equals_the_average_in_float64(tmp_path_factory, parent, raw, dtype) -> None:
    root = tmp_path_factory.mktemp("merge")
    weights = [value / sum(raw) for value in raw]
    parents = [parent(i, dtype) for i in range(len(raw))]
    merge_checkpoints(parents, weights, root / "merged")
    stored = [tensors(parent) for parent in parents]
    found = tensors(root / "merged")
    assert found.keys() == stored[0].keys()
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        terms = [
            weight * values[name].double() for weight, values in zip(weights, stored, strict=True)
        ]
        exact, size = sum(terms), sum(term.abs() for term in terms)
        # One rounding of each product and sum in float32, and one to the stored type.
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        bound = 2 * len(raw) * torch.finfo(wide).eps * size + torch.finfo(dtype).eps * exact.abs()
        bound += torch.finfo(dtype).smallest_normal  # float16 has fewer digits near zero
        assert ((tensor.double() - exact).abs() <= bound).all(), name


def test_result_loads_and_is_between_its_parents(tmp_path) -> None:
    parents = [checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "b", 2)]
    merge_checkpoints(parents, None, tmp_path / "merged")
    ours = models.load_model(tmp_path / "merged")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    a, b = (models.load_model(parent).state_dict() for parent in parents)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2, rtol=1e-6, atol=1e-8)
    ids = torch.arange(9)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_weight_one_gives_back_a_checkpoint_bit_for_bit(tmp_path) -> None:
    parents = [checkpoint(tmp_path / str(i), i, torch.bfloat16) for i in range(3)]
    merge_checkpoints(parents, [0, 1, 0], tmp_path / "merged")
    wanted = tensors(parents[1])
    assert all(torch.equal(value, wanted[k]) for k, value in tensors(tmp_path / "merged").items())


def test_checkpoints_cut_in_other_ways(tmp_path) -> None:
    """Shards of the first, one file of the second: the result is cut as the first."""
    a = checkpoint(tmp_path / "a", 1, shards="20KB")
    b = checkpoint(tmp_path / "b", 2)
    merge_checkpoints([a, b], [0.25, 0.75], tmp_path / "merged")
    names = {file.name for file in a.glob("*.safetensors*")}
    assert len(names) > 3
    assert {file.name for file in (tmp_path / "merged").glob("*.safetensors*")} == names
    merged = models.load_model(tmp_path / "merged").state_dict()
    first, second = tensors(a), tensors(b)
    for name in first:
        torch.testing.assert_close(merged[name], 0.25 * first[name] + 0.75 * second[name])
    # and the other way round
    merge_checkpoints([b, a], [0.75, 0.25], tmp_path / "turned")
    turned = models.load_model(tmp_path / "turned").state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(turned[name], value, rtol=1e-6, atol=1e-8)


def test_experts_on_disk_are_averaged_one_by_one(tmp_path) -> None:
    config = Qwen3MoeConfig(
        **SHAPE, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, head_dim=16
    )
    for seed in (1, 2):
        models.build(config, seed=seed).save_pretrained(tmp_path / str(seed))
    merge_checkpoints([tmp_path / "1", tmp_path / "2"], None, tmp_path / "merged")
    a, b, c = (models.load_model(tmp_path / n).state_dict() for n in ("1", "2", "merged"))
    for name, value in c.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2, rtol=1e-6, atol=1e-8)


def test_tokenizer_and_configuration_come_along_but_not_the_trainer(tmp_path) -> None:
    a, b = (shutil.copytree(models.resolve("tiny"), tmp_path / name) for name in "ab")
    (a / "trainer_state.json").write_text("{}")
    (a / "optimizer.pt").write_bytes(b"1")
    merged = merge_checkpoints([a, b], [0.5, 0.5], tmp_path / "merged")
    found = {file.name for file in (tmp_path / "merged").iterdir()}
    assert found == {
        "config.json", "generation_config.json", "merge.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    model, tokenizer = models.load(tmp_path / "merged")
    assert tokenizer("def f(x):").input_ids
    whole = models.load_model("tiny")
    for name, value in model.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])
    stored = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert stored["weights"] == [0.5, 0.5]
    assert stored["checkpoints"] == [str(a), str(b)]
    assert stored == merged.model_dump()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5], "2 checkpoints, but 1 weights"),
        ([1.5, -0.5], "The weight -0.5"),
        ([0.5, float("nan")], "The weight nan"),
        ([0.5, 0.4], "add up to 0.9"),
        ([0.0, 0.0], "add up to 0,"),
    ],
)
def test_weights_that_are_not_convex(tmp_path, weights, said) -> None:
    parents = [checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "b", 2)]
    with pytest.raises(ConfigError, match=said):
        merge_checkpoints(parents, weights, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_one_checkpoint_is_not_enough(tmp_path) -> None:
    with pytest.raises(ConfigError, match="two checkpoints or more, but got 1"):
        merge_checkpoints([checkpoint(tmp_path / "a", 1)], [1.0], tmp_path / "merged")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model__norm__weight": torch.ones(31)}, r"norm.weight is F32 \[32\] and F32 \[31\]"),
        (
            {"model__norm__weight": torch.ones(32, dtype=torch.float16)},
            r"model.norm.weight is F32 \[32\] and F16 \[32\]",
        ),
        ({"model__norm__weight": None}, "model.norm.weight is only in '.*a'"),
        ({"extra": torch.ones(1)}, "extra is only in '.*b'"),
        ({"model__norm__weight": torch.full((32,), torch.nan)}, "'model.norm.weight' .* 32 values"),
        (
            {"model__norm__weight": torch.tensor([torch.inf] + [1.0] * 31)},
            "'model.norm.weight' of '.*b' has 1 values that are not finite",
        ),
    ],
    ids=["shape", "type", "missing", "more", "nan", "infinity"],
)
def test_checkpoints_that_do_not_fit(tmp_path, changed, said) -> None:
    a = checkpoint(tmp_path / "a", 1)
    b = change(checkpoint(tmp_path / "b", 2), **changed)
    with pytest.raises(CheckpointError, match=said):
        merge_checkpoints([a, b], None, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_other_configurations_are_named(tmp_path) -> None:
    a = checkpoint(tmp_path / "a", 1)
    b = checkpoint(tmp_path / "b", 2, rms_norm_eps=1e-5)
    with pytest.raises(CheckpointError, match="`rms_norm_eps` of config.json is 1e-06 and 1e-05"):
        merge_checkpoints([a, b], None, tmp_path / "merged")


def test_other_tokenizers_are_refused(tmp_path) -> None:
    a, b = (shutil.copytree(models.resolve("tiny"), tmp_path / name) for name in "ab")
    content = json.loads((b / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-1]
    (b / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="`model` of tokenizer.json differs"):
        merge_checkpoints([a, b], None, tmp_path / "merged")


def test_quantised_checkpoints_are_refused(tmp_path) -> None:
    parents = [checkpoint(tmp_path / name, 1) for name in "ab"]
    for parent in parents:
        config = json.loads((parent / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "fp8"}
        (parent / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="is quantised"):
        merge_checkpoints(parents, None, tmp_path / "merged")


def test_whole_numbers_are_kept_where_they_agree(tmp_path) -> None:
    a, b = (checkpoint(tmp_path / name, seed) for seed, name in enumerate("ab"))
    for parent in (a, b):
        change(parent, steps=torch.tensor([3, 4]))
    merge_checkpoints([a, b], None, tmp_path / "merged")
    assert torch.equal(tensors(tmp_path / "merged")["steps"], torch.tensor([3, 4]))
    change(b, steps=torch.tensor([3, 5]))
    with pytest.raises(CheckpointError, match="'steps' holds whole numbers"):
        merge_checkpoints([a, b], None, tmp_path / "again")


def test_files_that_are_cut_off_or_missing(tmp_path) -> None:
    a = checkpoint(tmp_path / "a", 1)
    b = checkpoint(tmp_path / "b", 2)
    file = b / "model.safetensors"
    whole = file.read_bytes()
    for part in (whole[:-10], whole[:5], b""):
        file.write_bytes(part)
        with pytest.raises(CheckpointError, match="is not a readable safetensors file"):
            merge_checkpoints([a, b], None, tmp_path / "merged")
    file.unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        merge_checkpoints([a, b], None, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_folder_that_exists_is_not_replaced(tmp_path) -> None:
    a, b = (checkpoint(tmp_path / name, seed) for seed, name in enumerate("ab"))
    before = tensors(a)
    with pytest.raises(WriteError, match="exists already"):
        merge_checkpoints([a, b], None, a)
    assert all(torch.equal(value, before[name]) for name, value in tensors(a).items())
    (tmp_path / "empty").mkdir()
    merge_checkpoints([a, b], None, tmp_path / "empty")
    models.load_model(tmp_path / "empty")


# Not `ru_maxrss`: a process that is started by a larger one begins with the peak of that one.
PEAK = """
import sys
from pathlib import Path
from hanol.training import merge_checkpoints

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

a, b, output, small = sys.argv[1:]
merge_checkpoints([small, small], None, output + "-small")  # what it imports is no part of it
before = peak()
merge_checkpoints([a, b], None, output)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux")
def test_memory_is_that_of_a_few_tensors(tmp_path) -> None:
    """128 tensors of 1 MiB, 128 MiB a checkpoint, are merged in less than a quarter of one."""
    for seed, name in enumerate("ab"):
        folder = checkpoint(tmp_path / name, seed)
        values = {
            f"t{i}": torch.full((512, 512), float(seed + i), dtype=torch.float32)
            for i in range(128)
        }
        save_file(values, folder / "model.safetensors", {"format": "pt"})
    folders = [
        tmp_path / "a",
        tmp_path / "b",
        tmp_path / "merged",
        checkpoint(tmp_path / "small", 0),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, folders)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 2**20 < int(done.stdout) < 32 * 2**20
    assert tensors(tmp_path / "merged")["t3"][5, 5] == 3.5


def test_the_command(tmp_path) -> None:
    import typer

    app = typer.Typer()
    app.command()(merge)
    a, b = (str(checkpoint(tmp_path / name, seed)) for seed, name in enumerate("ab"))
    runner = CliRunner()
    done = runner.invoke(
        app, [a, b, "--weights", "0.25,0.75", "--output", str(tmp_path / "c"), "--json"]
    )
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["weights"] == [0.25, 0.75]
    assert told["parameters"] == sum(t.numel() for t in tensors(tmp_path / "c").values())
    again = runner.invoke(app, [a, b, "--output", str(tmp_path / "c")])
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    wrong = runner.invoke(app, [a, b, "--weights", "half", "--output", str(tmp_path / "d")])
    assert wrong.exit_code == 2
    assert "'half': give numbers like 0.5,0.5" in wrong.stderr
