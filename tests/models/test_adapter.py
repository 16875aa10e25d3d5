"""LoRA adapters as models: found by name, merged as PEFT does, refused where they do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, PreTrainedModel

from hanol import models
from hanol.errors import CheckpointError, MissingExtraError

# The bundled folder of the package, in whose place a test puts its own.
from hanol.models.pulled import _names  # private: the folder of bundled models

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    config = LlamaConfig(
        vocab_size=288, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, initializer_range=0.2,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return models.save(
        models.build(config, seed=1), tmp_path_factory.mktemp("base") / "base", tokenizer
    )


def write_adapter(folder: Path, base: str | Path, **config: Any) -> Path:
    """An adapter on two layers, by hand."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer, shape in (("self_attn.k_proj", (16, 32)), ("mlp.down_proj", (32, 48))):
        prefix = f"base_model.model.model.layers.1.{layer}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(3, shape[1], generator=generator)
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(shape[0], 3, generator=generator)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    content = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": 3,
        "lora_alpha": 7, "target_modules": ["k_proj", "down_proj"], "layers_to_transform": [1],
        **config,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    peft = pytest.importorskip("peft")
    model = models.load_model(base)
    merged: PreTrainedModel = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return merged.state_dict()


@pytest.mark.parametrize(
    "config",
    [{}, {"use_rslora": True}, {"use_dora": False, "bias": "none", "init_lora_weights": True}],
    ids=["plain", "rank-stabilised", "defaults"],
)
def test_it_is_merged_as_peft_does(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "a", base, **config)
    ours, theirs = models.load_model(adapter).state_dict(), merged_by_peft(base, adapter)
    before = models.load_model(base).state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    changed = [name for name, tensor in ours.items() if not torch.equal(tensor, before[name])]
    assert changed == [
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    ]


def test_what_peft_writes_is_read(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = models.load_model(base)
    config = peft.LoraConfig(
        r=2, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 4}, lora_alpha=5,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "a")
    ours, theirs = models.load_model(tmp_path / "a"), merged_by_peft(base, tmp_path / "a")
    assert all(torch.equal(x, theirs[name]) for name, x in ours.state_dict().items())
    report = models.inspect(tmp_path / "a")
    assert report.adapter is not None
    assert (report.adapter.rank, report.adapter.layers) == (None, 4)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_what_is_more_than_plain_is_merged_by_peft(
    base: Path, tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    made = peft.LoraConfig(
        r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM", **config
    )
    peft.get_peft_model(models.load_model(base), made).save_pretrained(tmp_path / "a")
    ours, theirs = models.load_model(tmp_path / "a"), merged_by_peft(base, tmp_path / "a")
    assert all(torch.equal(x, theirs[name]) for name, x in ours.state_dict().items())
    assert not ours.training
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(
        MissingExtraError, match=r"more than plain LoRA .* pip install 'hanol\[lora\]'"
    ):
        models.load_model(tmp_path / "a")


def test_half_precision_is_rounded_once(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", base)
    exact = models.load_model(adapter).state_dict()
    half = models.load_model(adapter, dtype=torch.bfloat16).state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    stored = load_file(adapter / WEIGHTS)
    before = models.load_model(base, dtype=torch.bfloat16).state_dict()[name].float()
    a, b = (stored[f"base_model.model.{name[:-7]}.lora_{half}.weight"] for half in "AB")
    assert torch.equal(half[name], (before + b @ a * (7 / 3)).bfloat16())
    torch.testing.assert_close(half[name].float(), exact[name], rtol=2e-2, atol=2e-2)


def test_a_bundled_adapter_is_used_by_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hanol.engines import open_engine

    shutil.copytree(base, tmp_path / "small")
    write_adapter(tmp_path / "small-reader", "small")
    monkeypatch.setattr(_names, "_BUNDLED", tmp_path)
    assert models.bundled_names() == ["small", "small-reader"]
    model, tokenizer = models.load("small-reader")
    assert len(tokenizer) == len(models.load_tokenizer("small"))
    found = models.adapter_of("small-reader")
    assert found is not None
    assert (found.base, found.folder) == ("small", tmp_path / "small-reader")
    assert models.adapter_of("small") is None
    assert models.model_type("small-reader") == "llama"
    report = models.inspect("small-reader")
    assert report.model == "small-reader"
    assert report.parameters == model.num_parameters()
    assert report.adapter is not None
    assert report.adapter.model_dump() == {
        "base": "small", "kind": "LORA", "parameters": 3 * (16 + 32 + 32 + 48), "rank": 3,
        "layers": 2, "num_bytes": 4 * 3 * (16 + 32 + 32 + 48),
    }  # fmt: skip
    engine = open_engine("small-reader")
    assert engine.name == "small-reader"
    with pytest.raises(CheckpointError, match="hanol convert small-reader --output FOLDER"):
        models.fetch("small-reader")
    models.convert("small-reader", tmp_path / "whole")
    whole = models.load_model(tmp_path / "whole").state_dict()
    assert all(torch.equal(x, whole[name]) for name, x in model.state_dict().items())


def test_a_tokenizer_of_its_own_wins(base: Path, tmp_path: Path, tokenizer: Any) -> None:
    adapter = write_adapter(tmp_path / "a", base)
    assert models.load_tokenizer(adapter).chat_template is None
    changed = models.load_tokenizer(base)
    changed.chat_template = "{{ messages }}"
    changed.save_pretrained(adapter)
    assert models.load_tokenizer(adapter).chat_template == "{{ messages }}"


def test_a_base_that_is_not_here(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", "no-such-model")
    with pytest.raises(CheckpointError, match="adapter of 'no-such-model', which is not here"):
        models.load(adapter)
    stacked = write_adapter(tmp_path / "b", write_adapter(tmp_path / "c", base))
    with pytest.raises(CheckpointError, match="which is an adapter too"):
        models.load(stacked)
    itself = write_adapter(tmp_path / "d", tmp_path / "d")
    with pytest.raises(CheckpointError, match="which is an adapter too"):
        models.load(itself)


def _drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**content, **values}))

    return change


def _tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Any:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


HALF = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_drop(WEIGHTS), f"no {WEIGHTS}"),
        (lambda f: (f / CONFIG).write_text("{"), "not the configuration of an adapter"),
        (lambda f: (f / CONFIG).write_text("[]"), "not the configuration of an adapter"),
        (lambda f: (f / CONFIG).write_text("[" * 100_000), "not the configuration of an adapter"),
        (_config(base_model_name_or_path=None), "does not name the adapter's base"),
        (_config(base_model_name_or_path=["tiny"]), "does not name the adapter's base"),
        (_config(lora_alpha="7"), "`lora_alpha` is '7'"),
        (_config(megatron_config={"a": 1}, megatron_core="antigravity"), "Megatron"),
        (_config(peft_type="UNHEARD"), "does not fit its base"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\0" * 40), "not a readable safetensors file"),
        (_tensors(lambda t: {k: v for k, v in t.items() if k != HALF}), "one half only"),
        (_tensors(lambda t: {**t, "other": torch.ones(1)}), "it has a tensor `other`"),
        (_tensors(lambda t: {**t, HALF: torch.ones(3, 47)}), "are not for a linear"),
        (_tensors(lambda t: {**t, HALF: torch.ones(4, 48)}), "are not for a linear"),
        (_tensors(lambda t: {**t, HALF: torch.ones(())}), "are not for a linear"),
        (
            _tensors(lambda t: {k.replace("layers.1", "layers.9"): v for k, v in t.items()}),
            "the base has no layer `model.layers.9",
        ),
    ],
)
def test_a_damaged_adapter(
    base: Path, tmp_path: Path, damage: Callable[[Path], object], text: str
) -> None:
    if "Megatron" in text or "UNHEARD" in str(damage):
        pytest.importorskip("peft")
    adapter = write_adapter(tmp_path / "a", base)
    damage(adapter)
    with pytest.raises(CheckpointError, match=text) as raised:
        models.load_model(adapter)
    assert "\n" not in str(raised.value)


def test_an_adapter_in_the_cache_of_the_hub(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a download leaves it; without a network, and with a base that is a folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, commit = tmp_path / "models--someone--reader", "0" * 40
    adapter = write_adapter(repository / "snapshots" / commit, base)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = models.load_model("someone/reader").state_dict()
    assert all(
        torch.equal(x, found[name]) for name, x in models.load_model(adapter).state_dict().items()
    )
    assert models.load_tokenizer("someone/reader").eos_token == "<eos>"
    with pytest.raises(
        CheckpointError, match="configuration of 'someone/else' could not be loaded"
    ):
        models.load_model("someone/else")
