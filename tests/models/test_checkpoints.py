"""Round trips through files, the official layout, and what a broken folder is answered with."""

import errno
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    KimiLinearConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import logging as transformers_logging

from hanol import attention, models
from hanol.errors import CheckpointError, ConfigError, WriteError
from hanol.models._tensors import official_shapes  # private: the shapes that transformers gives

IDS = torch.arange(3, 40).reshape(1, -1)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def folder(
    moe_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    return models.save(moe_model, tmp_path_factory.mktemp("saved") / "model", tokenizer)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_saved_names_shapes_and_types_are_official(
    folder: Path, moe_config: KimiLinearConfig
) -> None:
    assert {
        name: stored.shape for name, stored in models.stored_tensors(folder).items()
    } == official_shapes(moe_config)
    tensors = load_file(folder / "model.safetensors")
    assert tensors["model.layers.0.self_attn.A_log"].shape == (1, 1, 2, 1)
    assert "model.layers.0.mlp.gate_proj.weight" in tensors
    assert "model.layers.1.block_sparse_moe.experts.7.w2.weight" in tensors
    assert not any(".layers.0.block_sparse_moe" in name for name in tensors)


def test_full_size_index_is_official() -> None:
    config = models.preset("kimi-linear-48b-a3b")
    model = models.build(config, device="meta")
    stored = revert_weight_conversion(model, model.state_dict())
    expected = official_shapes(config)
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == expected
    biases = 26 * 256  # selection scores of the experts are no parameters
    assert sum(map(math.prod, expected.values())) == 49_122_675_072 + biases


def test_saved_config_is_official(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    assert stored["architectures"] == ["KimiLinearForCausalLM"]
    assert stored["linear_attn_config"] == {
        "kda_layers": [1, 2, 3], "full_attn_layers": [4], "head_dim": 16, "num_heads": 2,
        "short_conv_kernel_size": 4,
    }  # fmt: skip
    assert stored["first_k_dense_replace"] == 1
    assert stored["mla_use_nope"] is True
    for key in ("num_experts", "num_experts_per_token", "num_shared_experts", "num_expert_group"):
        assert key in stored


def test_config_is_complete_for_a_model_made_by_transformers(
    moe_config: KimiLinearConfig, tmp_path: Path
) -> None:
    values = moe_config.to_dict()
    for key in ("linear_attn_config", "first_k_dense_replace", "mla_use_nope"):
        values.pop(key, None)
    model = AutoModelForCausalLM.from_config(KimiLinearConfig(**values))
    models.save(model, tmp_path / "m")
    stored = json.loads((tmp_path / "m" / "config.json").read_text())
    assert stored["linear_attn_config"]["full_attn_layers"] == [4]
    assert stored["first_k_dense_replace"] == 1
    assert models.inspect(tmp_path / "m").official_layout


def test_load_save_load_is_the_identity(folder: Path, tmp_path: Path) -> None:
    loaded = models.load(folder)
    again = models.save(loaded.model, tmp_path / "again", loaded.tokenizer)
    first, second = (load_file(f / "model.safetensors") for f in (folder, again))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert torch.equal(tensor, second[name]), name
    assert json.loads((folder / "config.json").read_text()) == json.loads(
        (again / "config.json").read_text()
    )


def test_exponents_stay_float32_in_bfloat16(folder: Path, tmp_path: Path) -> None:
    model = models.load_model(folder, dtype=torch.bfloat16)
    models.save(model, tmp_path / "half")
    reference = load_file(folder / "model.safetensors")
    kept = 0
    for name, tensor in load_file(tmp_path / "half" / "model.safetensors").items():
        if name.endswith(("A_log", "dt_bias", "e_score_correction_bias")):
            kept += 1
            assert torch.equal(tensor, reference[name]), name
        elif not name.endswith(".gate.weight"):  # transformers 5.24 keeps routers in float32
            assert tensor.dtype == torch.bfloat16
    assert kept == 2 * 3 + 3


def test_loaded_model_computes_the_same(folder: Path, moe_model: PreTrainedModel) -> None:
    assert torch.equal(logits(models.load_model(folder)), logits(moe_model))


_PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM
model, report = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
assert not report["missing_keys"] and not report["unexpected_keys"], report
with torch.no_grad():
    torch.save(model(torch.arange(3, 40).reshape(1, -1)).logits, sys.argv[2])
model.save_pretrained(sys.argv[3])
"""


def test_plain_transformers_reads_ours_and_we_read_its(
    folder: Path, moe_model: PreTrainedModel, tmp_path: Path
) -> None:
    arguments = [str(folder), str(tmp_path / "logits.pt"), str(tmp_path / "plain")]
    subprocess.run([sys.executable, "-c", _PLAIN, *arguments], check=True, capture_output=True)
    theirs = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.allclose(theirs, logits(moe_model), atol=1e-4)
    # what plain transformers writes is not official: this is the fault that `save` cures
    names = {
        name: stored.shape for name, stored in models.stored_tensors(tmp_path / "plain").items()
    }
    assert "model.layers.0.block_sparse_moe.gate_proj.weight" in names
    assert not models.inspect(tmp_path / "plain").official_layout
    again = models.load_model(tmp_path / "plain")
    assert torch.equal(logits(again), logits(moe_model))
    models.save(again, tmp_path / "cured")
    assert models.inspect(tmp_path / "cured").official_layout


def test_correcting_names_again_changes_nothing() -> None:
    before = len(get_checkpoint_conversion_mapping("kimi_linear"))
    attention.correct_names()
    with attention.registered():
        pass
    assert len(get_checkpoint_conversion_mapping("kimi_linear")) == before


# Two tests in one process, which first knows `hanol.attention` alone, then `hanol.models` too, and
# never `hanol.autodeco`, which makes the heads' configuration known.
_FRESH = """
import sys, hanol.attention
from transformers import AutoModelForCausalLM
assert "hanol.models" not in sys.modules
hanol.attention.register()
AutoModelForCausalLM.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])

from hanol import errors, models
print(len(models.load_tokenizer("tiny-autodeco")))
assert "hanol.autodeco" not in sys.modules
try:
    models.load("tiny-autodeco")
except errors.CheckpointError as err:
    print(err)
"""


@pytest.fixture(scope="module")
def fresh(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What a new process has saved and printed."""
    saved = tmp_path_factory.mktemp("fresh") / "m"
    command = [sys.executable, "-c", _FRESH, str(folder), str(saved)]
    return saved, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_register_alone_cures_save_pretrained(fresh: tuple[Path, str]) -> None:
    assert models.inspect(fresh[0]).official_layout


def test_plain_save_pretrained_is_cured_too(moe_model: PreTrainedModel, tmp_path: Path) -> None:
    moe_model.save_pretrained(tmp_path / "m")
    assert {
        name: stored.shape for name, stored in models.stored_tensors(tmp_path / "m").items()
    }.keys() == official_shapes(moe_model.config).keys()


def test_sharded_checkpoint(moe_model: PreTrainedModel, tmp_path: Path) -> None:
    moe_model.save_pretrained(tmp_path / "m", max_shard_size="50KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    assert models.inspect(tmp_path / "m").official_layout
    assert torch.equal(logits(models.load_model(tmp_path / "m")), logits(moe_model))


def test_llama_round_trip(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = models.build("llama-3m", vocab_size=288).eval()
    loaded = models.load(models.save(model, tmp_path / "m", tokenizer))
    assert torch.equal(logits(loaded.model), logits(model))
    report = models.inspect(tmp_path / "m")
    assert report.official_layout is None
    assert report.layers == {"full attention": 6}


# --- writing ---


def test_saving_replaces_a_checkpoint(folder: Path, copy: Path, moe_model: PreTrainedModel) -> None:
    (copy / "stale.txt").write_text("")
    models.save(moe_model, copy)
    assert not (copy / "stale.txt").exists()
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy"]


def test_saving_spares_other_folders(moe_model: PreTrainedModel, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(CheckpointError, match="is not a checkpoint folder"):
        models.save(moe_model, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["system", "safetensors"],
)
def test_full_disk_leaves_the_old_checkpoint(
    error: Exception, copy: Path, moe_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: PreTrainedModel, path: Path) -> None:
        (path / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(type(moe_model), "save_pretrained", fail)
    before = (copy / "model.safetensors").read_bytes()
    with pytest.raises(WriteError, match="copy' could not be written: the disk is full"):
        models.save(moe_model, copy)
    assert (copy / "model.safetensors").read_bytes() == before
    assert [entry.name for entry in copy.parent.iterdir()] == ["copy"]


# --- reading what is broken ---


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("./nowhere", "There is no folder or GGUF file './nowhere'"),
        ("no-such-model", "neither a bundled model"),
        ("tinny", "Did you mean 'tiny'"),
        ("", "No checkpoint is named"),
        ("kimi-linear-30m", "a preset without weights"),
    ],
)
def test_unknown_place(spec: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        models.load(spec)


@pytest.mark.parametrize("spec", ["x" * 300, "~nobody-here/x", "a\0b", "y/" * 3000])
def test_names_that_no_system_takes(spec: str) -> None:
    with pytest.raises(CheckpointError) as found:
        models.load(spec)
    assert len(str(found.value)) < 7000
    assert "\n" not in str(found.value)


def test_hub_id_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="'nobody/nothing' could not be loaded"):
        models.load("nobody/nothing")


def test_folder_without_config(tmp_path: Path) -> None:
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"has no config.json.*weights.txt"):
        models.load(tmp_path)


def test_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="configuration of .*not a valid JSON file"):
        models.load(copy)


USES = (models.inspect, models.load_model, models.load_tokenizer)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_never_read(name: str, kind: str, copy: Path) -> None:
    (copy / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(copy / name)
    else:
        (copy / name).symlink_to("/dev/zero")
    for use in USES:
        with pytest.raises(CheckpointError, match=f"{name}' is a pipe or a device, and no file"):
            use(copy)


ODD_FILES = [
    ("config.json", "[]"),
    ("config.json", "3"),
    ("config.json", "[" * 5000),
    ("config.json", {"num_hidden_layers": 10**9}),
    ("config.json", {"num_experts": 10**30}),
    ("config.json", {"hidden_size": 10**30}),
    ("config.json", {"hidden_size": "x"}),
    ("config.json", {"vocab_size": [1]}),
    ("config.json", {"vocab_size": None}),
    ("config.json", {"linear_attn_config": [3]}),
    ("config.json", {"rope_scaling": "x"}),
    ("tokenizer.json", "{}"),
    ("tokenizer.json", "[1]"),
    ("tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["a", 3]]}}),
    ("tokenizer.json", {"added_tokens": [{"id": 10**30, "content": 3}]}),
    ("tokenizer.json", {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((("}}}),
    ("tokenizer_config.json", "[]"),
    ("tokenizer_config.json", {"eos_token": {"a": [1]}}),
    ("tokenizer_config.json", {"model_max_length": "long"}),
    ("tokenizer_config.json", {"tokenizer_class": 3}),
    ("model.safetensors.index.json", {"weight_map": {"a": 3}}),
    ("model.safetensors.index.json", {"weight_map": [["a", "b"]]}),
    ("model.safetensors.index.json", {"weight_map": {"a": "x" * 300}}),
    ("model.safetensors.index.json", {"weight_map": {"a": "../model.safetensors"}}),
    ("model.safetensors.index.json", {"weight_map": {"a": "/dev/zero"}}),
    ("model.safetensors", b"\xff" * 8),
    ("model.safetensors", b"\x02" + bytes(7) + b"[]"),
    ("model.safetensors", b"\x1a" + bytes(7) + b'{"a": {"dtype": 3, "b": []}'),
]


@pytest.mark.parametrize(
    ("name", "content"), ODD_FILES, ids=[str(n) for n in range(len(ODD_FILES))]
)
def test_files_of_wrong_types_are_refused_in_a_line(name: str, content: Any, copy: Path) -> None:
    """Or used, where nothing reads what is wrong; whatever a library raises, panics included."""
    if isinstance(content, dict):
        old = json.loads((copy / name).read_text()) if (copy / name).exists() else {}
        content = json.dumps({**old, **content})
    if name.startswith("model."):
        (copy / "model.safetensors").unlink()
    (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused = []
    for use in USES:
        try:
            use(copy)
        except (CheckpointError, ConfigError) as err:
            refused.append(str(err))
    assert refused or name == "tokenizer_config.json"
    assert all(text.count("\n") < 2 for text in refused)


def test_layers_that_are_missing_from_the_lists(copy: Path) -> None:
    stored = json.loads((copy / "config.json").read_text())
    stored["linear_attn_config"]["kda_layers"].remove(1)
    (copy / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"Layers \[1\] are neither"):
        models.load(copy)


def test_file_in_place_of_folder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a file, but no GGUF file: a checkpoint"):
        models.load(folder / "model.safetensors")


def test_pickles_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(CheckpointError, match=r"only pickled weights.*Convert them to safetensors"):
        models.load(copy)


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        models.load_model(copy)


def test_missing_and_unexpected_tensors_by_official_name(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.0.self_attn.A_log"]
    tensors["model.layers.9.surprise"] = torch.zeros(1)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        models.load_model(copy)
    assert "1 missing (model.layers.0.self_attn.A_log)" in str(caught.value)
    assert "1 unexpected (model.layers.9.surprise)" in str(caught.value)
    report = models.inspect(copy)
    assert report.missing == ["model.layers.0.self_attn.A_log"]
    assert report.unexpected == ["model.layers.9.surprise"]


def test_tensor_of_another_shape(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(7, 32)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing \(lm_head.weight\)"):
        models.load_model(copy)


def test_an_embedding_model_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertModel(BertConfig(**sizes, intermediate_size=32, vocab_size=40))
    model.save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    logger, heard = transformers_logging.get_logger("transformers"), list[logging.LogRecord]()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", heard.append)
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logger.addHandler(handler)
    try:
        with pytest.raises(CheckpointError, match="is an embedding model, which writes no text"):
            models.load_model(tmp_path)
    finally:
        logger.removeHandler(handler)
    assert not heard


def test_cut_off_file(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        models.load_model(copy)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        models.inspect(copy)


def test_missing_tokenizer(copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(CheckpointError, match="The tokenizer of"):
        models.load_tokenizer(copy)


def test_bundled_names_all_have_a_tokenizer(fresh: tuple[Path, str]) -> None:
    # Heads and adapters of SmolLM2 have that of their base, which has to be pulled.
    names = [name for name in models.bundled_names() if not name.startswith("smollm2-")]
    assert len(names) >= 3
    assert all(len(models.load_tokenizer(name)) > 1000 for name in names)
    tokens, _, error = fresh[1].partition("\n")
    assert int(tokens) > 1000
    assert "AutoDecoForCausalLM" in error


def test_tokenizer_larger_than_the_embedding(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = models.build("llama-3m", vocab_size=64)
    models.save(model, tmp_path / "m", tokenizer)
    with pytest.raises(CheckpointError, match="has 280 tokens, but .* has 64 rows"):
        models.load(tmp_path / "m")


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "unheard_of", "auto_map": {"AutoConfig": "code.Config"}})
    )
    (tmp_path / "code.py").write_text("raise SystemExit('was run')")
    with pytest.raises(CheckpointError, match="The configuration of"):
        models.load_config(tmp_path)


def test_bundled_model_is_small_and_writes_python() -> None:
    folder = Path(models.__file__).parent / "bundled" / "tiny"
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 8e6
    assert models.inspect("tiny").official_layout
    model, tokenizer = models.load("tiny")
    prompt = "import os\n\nif os.path."
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    new = model.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]
    assert tokenizer.decode(new).startswith(("exists(", "isdir(", "isfile(", "join("))


def test_llama_with_missing_tensor(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    models.save(models.build(config), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.norm.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing \(model.norm.weight\)"):
        models.load_model(tmp_path / "m")
