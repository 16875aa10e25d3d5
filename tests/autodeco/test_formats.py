"""The official checkpoint layouts: read, merged, split, described; refused by name and shape."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.autodeco.conftest import (
    VOCAB,
    WIDTH,
    build,
    official_config,
    official_tensors,
    same_bits,
    write_heads,
)
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config

from hanol import autodeco, models
from hanol.autodeco import AutoDecoForCausalLM, inspect, merge, split
from hanol.errors import CheckpointError, ConfigError

IDS = torch.randint(0, 250, (2, 7), generator=torch.Generator().manual_seed(0))


def contents(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by the library's own reader."""
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def tied_qwen2() -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    return models.build(config, seed=3).eval()


BASES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: build("llama"),
    "kimi": lambda: build("kimi"),
    "qwen2, tied": tied_qwen2,
}


# -- every layout gives the same model


@pytest.mark.parametrize("prefix", ["", "adapter.", "module.adapter."])
@pytest.mark.parametrize("name", ["model.safetensors", "autodeco_heads.safetensors"])
def test_heads_alone_with_any_prefix(prefix: str, name: str, tmp_path: Path) -> None:
    base = build("llama")
    folder = write_heads(
        tmp_path / "h", official_config(base), official_tensors(), name=name, prefix=prefix
    )
    model = AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
    ours = {k: v for k, v in model.state_dict().items() if not k.startswith("llm.")}
    assert same_bits(ours, official_tensors())
    assert inspect(folder).layout == ("adapter" if prefix else "heads")


@pytest.mark.parametrize("shard", ["100MB", "20KB"], ids=["one file", "sharded"])
@pytest.mark.parametrize("kind", BASES)
def test_heads_merged_and_split_are_the_same_bits(kind: str, shard: str, tmp_path: Path) -> None:
    base = BASES[kind]()
    base_folder, out = tmp_path / "the base's folder", tmp_path / "merged; here"
    with models.no_progress_bars():
        base.save_pretrained(base_folder, max_shard_size=shard)
    sharded = len(list(base_folder.glob("*.safetensors"))) > 1
    assert sharded == (shard == "20KB")
    tensors = official_tensors(dtype=torch.bfloat16)
    heads = write_heads(tmp_path / "h e a d s", official_config(base), tensors)
    assert merge(heads, base_folder, out) == out

    merged = contents(out)
    expected = {f"llm.{name}": tensor for name, tensor in contents(base_folder).items()}
    assert same_bits(merged, {**expected, **tensors})
    assert ("llm.lm_head.weight" in merged) == ("tied" not in kind)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in merged.values())
    for name, file in index["weight_map"].items():
        with safe_open(out / file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert name in opened.keys()  # noqa: SIM118
    assert index["weight_map"].keys() == merged.keys()

    split(out, tmp_path / "split")
    assert same_bits(contents(tmp_path / "split"), tensors)
    assert {f.name for f in (tmp_path / "split").iterdir()} == {"config.json", "model.safetensors"}
    again = json.loads((tmp_path / "split" / "config.json").read_text())
    first = json.loads((heads / "config.json").read_text())
    assert {k: again[k] for k in first} == first

    wanted = AutoDecoForCausalLM.from_pretrained(heads, base_model=base_folder).state_dict()
    for loaded in (
        AutoDecoForCausalLM.from_pretrained(out),
        AutoModelForCausalLM.from_pretrained(out),
        AutoDecoForCausalLM.from_pretrained(tmp_path / "split", base_model=base_folder),
    ):
        assert same_bits(loaded.state_dict(), wanted)
        assert loaded(IDS).logits.shape == (2, 7, VOCAB)


def test_base_of_a_merged_checkpoint_can_be_replaced(tmp_path: Path) -> None:
    base, other = build("llama"), build("llama", rms_norm_eps=1e-2)
    models.save(base, tmp_path / "b")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, tmp_path / "b", tmp_path / "m")
    model = AutoDecoForCausalLM.from_pretrained(tmp_path / "m", base_model=other)
    assert model.llm is other


def test_merged_half_precision_base_stays_so(tmp_path: Path) -> None:
    base = models.cast(build("qwen3"), torch.bfloat16)
    models.save(base, tmp_path / "b")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, tmp_path / "b", tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.llm.dtype == torch.bfloat16
    assert model.temp_head.mlp[0].weight.dtype == torch.float32
    assert inspect(tmp_path / "m").dtype == "F32"


def test_merging_takes_the_tokenizer_but_not_the_sampling_values(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base = build("llama")
    base.generation_config.update(do_sample=True, temperature=0.6, top_p=0.95, top_k=20)
    models.save(base, tmp_path / "b", byte_tokenizer)
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, tmp_path / "b", tmp_path / "m")
    stored = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert stored["eos_token_id"] == 257
    assert stored.get("temperature", 1.0) == stored.get("top_p", 1.0) == 1.0
    assert stored["top_k"] == 0
    loaded = models.load(tmp_path / "m")
    assert loaded.tokenizer("한").input_ids == byte_tokenizer("한").input_ids
    # Nothing stacks any more, so nothing is warned of (warnings are errors here).
    loaded.model.generate(IDS, max_new_tokens=2)


def test_tokenizer_is_the_checkpoints_or_the_bases(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    base = build("llama")
    with_one, without = tmp_path / "b", tmp_path / "without"
    models.save(base, with_one, byte_tokenizer)
    models.save(base, without)
    named = write_heads(
        tmp_path / "h", official_config(base, base_model_name_or_path=str(with_one)),
        official_tensors(),
    )  # fmt: skip
    nameless = write_heads(
        tmp_path / "n", official_config(base, base_model_name_or_path=None), official_tensors()
    )
    merge(named, with_one, tmp_path / "m")
    for spec, options in (
        (named, {}), (nameless, {"base_model": with_one}), (tmp_path / "m", {}), (with_one, {}),
    ):  # fmt: skip
        tokenizer = autodeco.load_tokenizer(spec, **options)
        assert tokenizer("abc").input_ids == byte_tokenizer("abc").input_ids
    with pytest.raises(CheckpointError, match="does not name its base: pass `base_model`"):
        autodeco.load_tokenizer(nameless)
    with pytest.raises(CheckpointError, match="tokenizer of .*without.* could not be loaded"):
        autodeco.load_tokenizer(nameless, base_model=without)


@pytest.mark.parametrize("length", [1, 3])
def test_heads_that_name_each_other_as_their_base_are_refused_in_a_line(
    length: int, tmp_path: Path
) -> None:
    base = build("llama")
    names = [str(tmp_path / str(number)) for number in range(length)]
    for number, name in enumerate(names):
        config = official_config(base, base_model_name_or_path=names[(number + 1) % length])
        write_heads(Path(name), config, official_tensors())
    for load in (AutoDecoForCausalLM.from_pretrained, autodeco.load_tokenizer):
        with pytest.raises(CheckpointError, match="has heads itself: name the model under it") as e:
            load(names[0])
        assert len(str(e.value)) < 400 + 3 * len(names[0])


def test_bundled_model_takes_heads(tmp_path: Path) -> None:
    tiny = models.load_model("tiny")
    model = AutoDecoForCausalLM.from_base(tiny)
    model.save_heads(tmp_path / "h")
    again = AutoDecoForCausalLM.from_pretrained(tmp_path / "h", base_model="tiny")
    merge(tmp_path / "h", "tiny", tmp_path / "m")
    merged = AutoDecoForCausalLM.from_pretrained(tmp_path / "m")
    ids = torch.arange(40, 60)[None]
    expected = model.state_dict()
    assert same_bits(again.state_dict(), expected)
    assert same_bits(merged.state_dict(), expected)
    assert merged(ids).temperature.shape == (1, 20)
    report = inspect(tmp_path / "m")
    assert report.layout == "merged"
    assert report.base_tensors == inspect(tmp_path / "m").base_tensors > 0
    assert report.vocab_size == tiny.config.vocab_size
    H = tiny.config.hidden_size
    assert report.parameters == (H * 256 + 513) + ((H + 5) * 256 + 513)


# -- configurations: older ones, one head, plain inputs


@pytest.mark.parametrize("enhanced", [True, False])
def test_older_heads(enhanced: bool, tmp_path: Path) -> None:
    """Without widths and switches: they follow from the weights."""
    base = build("llama")
    config = official_config(base, use_enhanced_features=enhanced)
    for key in ("enable_temperature_head", "enable_top_p_head", "temperature_hidden_size",
                "top_p_hidden_size"):  # fmt: skip
        del config[key]
    config |= {"train_temp": True, "train_top_p": True}
    tensors = official_tensors(enhanced=enhanced)
    folder = write_heads(tmp_path / "h", config, tensors)
    model = AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
    assert model.top_p_head.enhanced is enhanced
    expected = write_heads(
        tmp_path / "now", official_config(base, use_enhanced_features=enhanced), tensors
    )
    wanted = AutoDecoForCausalLM.from_pretrained(expected, base_model=base)
    assert same_bits(model.state_dict(), wanted.state_dict())
    report = inspect(folder)
    assert (report.hidden_size, report.enhanced) == (WIDTH, enhanced)


@pytest.mark.parametrize("enhanced", [True, False])
def test_configuration_that_says_nearly_nothing(enhanced: bool, tmp_path: Path) -> None:
    """No key of the base and no switch at all: the weights tell what there is."""
    base = build("llama")
    folder = write_heads(
        tmp_path / "h", {"model_type": "autodeco"}, official_tensors(enhanced=enhanced)
    )
    model = AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
    assert model.top_p_head.enhanced is enhanced
    assert model.config.vocab_size == VOCAB
    report = inspect(folder)
    assert (report.enhanced, report.hidden_size, report.vocab_size) == (enhanced, WIDTH, None)
    merge(folder, models.save(base, tmp_path / "b"), tmp_path / "m")
    merged = AutoDecoForCausalLM.from_pretrained(tmp_path / "m")
    assert same_bits(merged.state_dict(), model.state_dict())


def test_older_heads_with_one_trained(tmp_path: Path) -> None:
    base = build("llama")
    config = official_config(base) | {"train_temp": True, "train_top_p": False}
    del config["enable_temperature_head"], config["enable_top_p_head"]
    tensors = official_tensors()
    only = {name: t for name, t in tensors.items() if name.startswith("temp_head")}
    for name, stored in (("one", only), ("both", tensors)):
        folder = write_heads(tmp_path / name, config, stored)
        model = AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
        assert model.top_p_head is None
        with torch.no_grad():
            out = model(IDS, output_base_logits=True)
        assert torch.equal(out.logits, out.base_logits / out.temperature[..., None])


@pytest.mark.parametrize("head", ["temp_head", "top_p_head"])
def test_one_head_round_trip(head: str, tmp_path: Path) -> None:
    base = build("llama")
    models.save(base, tmp_path / "b")
    base = models.load_model(tmp_path / "b")
    model = AutoDecoForCausalLM.from_base(
        base, enable_temperature_head=head == "temp_head", enable_top_p_head=head == "top_p_head"
    )
    model.save_heads(tmp_path / "h")
    assert all(name.startswith(head) for name in contents(tmp_path / "h"))
    again = AutoDecoForCausalLM.from_pretrained(tmp_path / "h")
    assert same_bits(again.state_dict(), model.state_dict())
    report = inspect(tmp_path / "h")
    assert (report.temperature_head, report.top_p_head) == (
        head == "temp_head", head == "top_p_head",
    )  # fmt: skip


# -- what does not fit: expected and found


def change(tensors: dict[str, Tensor], name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    rest = {key: value for key, value in tensors.items() if key != name}
    return rest if tensor is None else {**rest, name: tensor}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            lambda t: change(t, "top_p_head.mlp.2.weight", None),
            r"`top_p_head.mlp.2.weight` is missing; its shape should be \(1, 256\)",
        ),
        (
            lambda t: change(t, "temp_head.mlp.0.bias", torch.zeros(255)),
            r"`temp_head.mlp.0.weight` has shape \(256, 32\).*needs \(255, 32\)",
        ),
        (
            lambda t: change(t, "temp_head.mlp.2.bias", torch.zeros(2)),
            r"`temp_head.mlp.2.bias` has shape \(2,\).*needs \(1,\)",
        ),
        (
            lambda t: change(t, "top_p_head.mlp.0.weight", torch.zeros(256, WIDTH + 1)),
            r"`top_p_head.mlp.0.weight` has shape \(256, 33\).*use_enhanced_features=True needs "
            r"\(256, 37\)",
        ),
        (
            lambda t: change(t, "temp_head.mlp.4.weight", torch.zeros(3)),
            r"not expected: `temp_head.mlp.4.weight` of shape \(3,\)",
        ),
        (
            lambda t: {name: x for name, x in t.items() if name.startswith("top_p")},
            r"`temp_head.mlp.0.weight` is missing; its shape should be \(256, 32\)",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(changed: Any, text: str, tmp_path: Path) -> None:
    base = build("llama")
    folder = write_heads(tmp_path / "h", official_config(base), changed(official_tensors()))
    models.save(base, tmp_path / "b")
    for use in (
        lambda: AutoDecoForCausalLM.from_pretrained(folder, base_model=base),
        lambda: merge(folder, tmp_path / "b", tmp_path / "m"),
        lambda: inspect(folder),
    ):
        with pytest.raises(CheckpointError, match=text):
            use()
    assert not (tmp_path / "m").exists()


def test_heads_for_another_width(tmp_path: Path) -> None:
    wide = build("llama", hidden_size=64)
    config = official_config(wide, temperature_hidden_size=64, top_p_hidden_size=64)
    folder = write_heads(tmp_path / "h", config, official_tensors(width=64))
    text = r"`temp_head.mlp.0.weight` has shape \(256, 64\).*32 numbers.*needs \(256, 32\)"
    with pytest.raises(CheckpointError, match=text):
        AutoDecoForCausalLM.from_pretrained(folder, base_model=build("llama"))
    with pytest.raises(CheckpointError, match=text):
        merge(folder, models.save(build("llama"), tmp_path / "b"), tmp_path / "m")


def test_heads_for_another_vocabulary(tmp_path: Path) -> None:
    folder = write_heads(tmp_path / "h", official_config(build("llama")), official_tensors())
    other = build("llama", vocab_size=300)
    text = r"logits of shape \(..., 260\), but the base gives \(..., 300\)"
    with pytest.raises(CheckpointError, match=text):
        AutoDecoForCausalLM.from_pretrained(folder, base_model=other)
    with pytest.raises(CheckpointError, match=text):
        merge(folder, models.save(other, tmp_path / "b"), tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"enable_min_p_head": True}, "`enable_min_p_head` is no key.*enable_top_p_head"),
        ({"use_extra_features": True}, "`use_extra_features` is no key.*use_enhanced_features"),
        ({"train_topp_head": 1}, "`train_topp_head` is no key"),
        ({"use_enhanced_features": "yes"}, "`use_enhanced_features` is 'yes'.*true or false"),
        ({"enable_top_p_head": 1}, "`enable_top_p_head` is 1, but must be true or false"),
        ({"top_p_hidden_size": "32"}, "`top_p_hidden_size` is '32'.*whole number"),
        ({"temperature_hidden_size": 0}, "`temperature_hidden_size` is 0.*whole number"),
        ({"base_model_type": "lama"}, "`base_model_type` is 'lama'"),
    ],
)
def test_configuration_that_is_not_known(
    changes: dict[str, Any], text: str, tmp_path: Path
) -> None:
    base = build("llama")
    folder = write_heads(tmp_path / "h", official_config(base, **changes), official_tensors())
    for use in (
        lambda: AutoDecoForCausalLM.from_pretrained(folder, base_model=base),
        lambda: inspect(folder),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=text):
            use()


def test_merged_checkpoint_that_lost_a_tensor(tmp_path: Path) -> None:
    base = build("llama")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, models.save(base, tmp_path / "b"), tmp_path / "m")
    tensors = contents(tmp_path / "m")
    del tensors["llm.model.norm.weight"]
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 tensors are missing, such as llm.model.norm"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "m")


def test_merged_weights_without_keys_of_the_base(tmp_path: Path) -> None:
    base = build("llama")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, models.save(base, tmp_path / "b"), tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"model_type": "autodeco"}')
    with pytest.raises(CheckpointError, match="no keys of the base .*Pass `base_model`"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "m")
    AutoDecoForCausalLM.from_pretrained(tmp_path / "m", base_model=base)


def test_same_head_in_two_files(tmp_path: Path) -> None:
    base = build("llama")
    folder = write_heads(
        tmp_path / "h", official_config(base), official_tensors(), name="a.safetensors"
    )
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(CheckpointError, match="is twice.*a.safetensors.*b.safetensors"):
        inspect(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 7, b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
     b'\x11\x00\x00\x00\x00\x00\x00\x00{"a": {"x": "y"}}'],
    ids=["empty", "short", "huge header", "a list", "no offsets"],
)  # fmt: skip
def test_file_that_is_no_safetensors(content: bytes, tmp_path: Path) -> None:
    folder = write_heads(tmp_path / "h", official_config(build("llama")), official_tensors())
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        inspect(folder)


def test_file_that_was_cut_off(tmp_path: Path) -> None:
    base = build("llama")
    folder = write_heads(tmp_path / "h", official_config(base), official_tensors())
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors.*cut off"):
        AutoDecoForCausalLM.from_pretrained(folder, base_model=base)


def test_index_that_names_files_that_are_not_there(tmp_path: Path) -> None:
    base = build("llama")
    with models.no_progress_bars():
        base.save_pretrained(tmp_path / "b", max_shard_size="20KB")
    sorted((tmp_path / "b").glob("*.safetensors"))[0].unlink()
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    with pytest.raises(CheckpointError, match="1 are missing, such as 'model-00001"):
        merge(heads, tmp_path / "b", tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".m-*"))


def test_index_cannot_point_outside_of_the_folder(tmp_path: Path) -> None:
    base = build("llama")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    models.save(base, tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (tmp_path / "b" / "model.safetensors.index.json").write_text(json.dumps(index))
    # The folder needs some weights to count as a checkpoint.
    save_file({"x": torch.zeros(1)}, tmp_path / "b" / "other.safetensors")
    with pytest.raises(CheckpointError, match="'../secret.safetensors' is no name of a file"):
        merge(heads, tmp_path / "b", tmp_path / "m")


def test_stale_index_in_a_heads_folder_does_no_harm(tmp_path: Path) -> None:
    """The official split leaves the index of the merged checkpoint behind."""
    base = build("llama")
    folder = write_heads(tmp_path / "h", official_config(base), official_tensors())
    stale = {"weight_map": {"llm.lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(stale))
    AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
    assert inspect(folder).layout == "heads"


def test_plain_checkpoints_have_no_heads(tmp_path: Path) -> None:
    base = models.save(build("llama"), tmp_path / "b")
    heads = write_heads(tmp_path / "h", official_config(build("llama")), official_tensors())
    with pytest.raises(CheckpointError, match="'llama' without AutoDeco heads"):
        merge(base, base, tmp_path / "m")
    with pytest.raises(CheckpointError, match="'llama' without AutoDeco heads"):
        inspect(base)
    with pytest.raises(CheckpointError, match=r"no AutoDeco heads.*lm_head\.weight"):
        split(base, tmp_path / "s")
    with pytest.raises(CheckpointError, match="is not a base but"):
        merge(heads, heads, tmp_path / "m")


def test_output_that_is_an_input_or_something_else(tmp_path: Path) -> None:
    base = build("llama")
    base_folder = models.save(base, tmp_path / "b")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    before = contents(base_folder)
    for out in (heads, base_folder, tmp_path / "x" / ".." / "b"):
        with pytest.raises(CheckpointError, match="is the input folder"):
            merge(heads, base_folder, out)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "diary.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="will not be replaced"):
        merge(heads, base_folder, notes)
    assert (notes / "diary.txt").read_text() == "mine"
    assert same_bits(contents(base_folder), before)


def test_merging_again_replaces(tmp_path: Path) -> None:
    base = build("llama")
    with models.no_progress_bars():
        base.save_pretrained(tmp_path / "b", max_shard_size="20KB")
    models.save(base, tmp_path / "one")
    heads = write_heads(tmp_path / "h", official_config(base), official_tensors())
    merge(heads, tmp_path / "b", tmp_path / "m")
    merge(heads, tmp_path / "one", tmp_path / "m")
    assert [f.name for f in (tmp_path / "m").glob("*.safetensors")] == ["model.safetensors"]
    AutoDecoForCausalLM.from_pretrained(tmp_path / "m")


def test_bundled_heads_of_a_pulled_model_are_small_and_name_it() -> None:
    """The base is not in the repository; the heads alone are."""
    report = inspect("smollm2-autodeco")
    assert (report.layout, report.base_model, report.dtype) == ("heads", "smollm2", "F32")
    assert (report.hidden_size, report.vocab_size) == (576, 49_152)
    assert report.temperature_head
    assert report.top_p_head
    assert report.num_bytes < 2_000_000
