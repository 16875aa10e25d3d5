"""A GGUF file is a model: loaded, described, converted; and what is wrong with a file is said."""

import asyncio
import json
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import models as backends
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app  # private: the application is no part of the Python interface
from hanol.engines import Completion, Message, Request, open_engine
from hanol.errors import CheckpointError, MissingExtraError

gguf = pytest.importorskip("gguf")

TEXTS = [
    "def mean(values):\n    return sum(values) / len(values)\n",
    "한올, one strand. 안녕하세요! It's 2026,  12345 of  67.\n\n",
    "컴퓨터 cafe\u0301 중문 <think>no</think>",
    "<|im_start|>user\nhello<|im_end|>\n",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


def make_tokenizer(rule: str) -> PreTrainedTokenizerFast:
    split = {
        "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        "llama-bpe": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated"), BYTES]
        ),
        "qwen2": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), behavior="isolated"), BYTES]
        ),
    }[rule]  # fmt: skip
    backend = Tokenizer(backends.BPE())
    backend.pre_tokenizer, backend.decoder = split, decoders.ByteLevel()
    if rule == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(TEXTS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>", chat_template=TEMPLATE, model_max_length=512,
    )  # fmt: skip
    made.add_tokens(["<think>", "</think>"])  # whole, but no special tokens
    return made


def rope(kind: str, **more: object) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500000.0, **more}}


LLAMA31 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)  # fmt: skip
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=128)
CONFIGS: dict[str, tuple[PreTrainedConfig, str]] = {
    "llama": (LlamaConfig(**SIZES), "smollm"),
    "llama-tied": (LlamaConfig(**SIZES, tie_word_embeddings=True), "gpt-2"),
    "llama-3.1": (LlamaConfig(**SIZES, head_dim=32, **LLAMA31), "llama-bpe"),
    "llama-linear": (LlamaConfig(**SIZES, **rope("linear", factor=2.0)), "gpt-2"),
    "qwen2": (Qwen2Config(**SIZES), "qwen2"),
    "qwen2-yarn": (Qwen2Config(**SIZES, **YARN), "qwen2"),
    "qwen3": (Qwen3Config(**SIZES, head_dim=32), "qwen2"),
}


@pytest.fixture(scope="module", params=CONFIGS, ids=str)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[models.Loaded, Path]:
    """A model and its GGUF file."""
    config, rule = CONFIGS[request.param]
    model = models.build(config, seed=5).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # norms of ones and biases of zeros would hide that they are lost
        for name, tensor in model.named_parameters():
            if "norm" in name or "bias" in name:
                tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
    tokenizer = make_tokenizer(rule)
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return models.Loaded(model, tokenizer), models.to_gguf(model, tokenizer, path)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(2, 202).reshape(1, -1)).logits


def test_there_and_back(pair: tuple[models.Loaded, Path], tmp_path: Path) -> None:
    (model, tokenizer), path = pair
    loaded = models.load(path)
    assert torch.equal(logits(loaded.model), logits(model))
    assert loaded.tokenizer.model_max_length == 512
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert loaded.tokenizer(text).input_ids == ids
        assert loaded.tokenizer.decode(ids) == tokenizer.decode(ids)
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert loaded.tokenizer.eos_token == "<|im_end|>"

    folder = models.convert(path, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert torch.equal(logits(plain), logits(model))
    assert plain.config.rms_norm_eps == model.config.rms_norm_eps
    assert not hasattr(plain.config, "quantization_config")
    again = AutoTokenizer.from_pretrained(folder)
    assert [again(text).input_ids for text in TEXTS] == [tokenizer(x).input_ids for x in TEXTS]
    assert again.chat_template == TEMPLATE
    second = models.to_gguf(plain, again, tmp_path / "second.gguf")
    assert torch.equal(logits(models.load_model(second)), logits(model))


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = models.build(CONFIGS["llama"][0], seed=5)
    path = tmp_path_factory.mktemp("chat") / "chat.gguf"
    return models.to_gguf(model, make_tokenizer("smollm"), path, "f16")


def test_description(chat_file: Path) -> None:
    report = models.inspect(chat_file)
    assert (report.model_type, report.vocab_size, report.dtype) == ("llama", 400, "F16")
    assert report.parameters == models.load_model(chat_file).num_parameters()
    assert models.model_type(chat_file) == "llama"


def test_engine_applies_the_template(chat_file: Path) -> None:
    async def ask() -> Completion:
        engine = open_engine(str(chat_file))
        try:
            return await engine.complete(Request((Message("user", "hello"),)))
        finally:
            await engine.aclose()

    done = asyncio.run(ask())
    expected = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert done.usage.prompt_tokens == len(make_tokenizer("smollm")(expected).input_ids)


def test_quantised_weights_are_unpacked(chat_file: Path, tmp_path: Path) -> None:
    """A file as llama-quantize makes it: matrices in 32-blocks of 8 bits, with an end of turn."""
    reader = gguf.GGUFReader(chat_file)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    writer.add_eot_token_id(0)
    for tensor in reader.tensors:
        data, kind = gguf.dequantize(tensor.data, tensor.tensor_type), gguf.GGMLQuantizationType.F32
        if len(tensor.shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            data = gguf.quantize(data, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = models.load_model(tmp_path / "q.gguf")
    assert models.inspect(tmp_path / "q.gguf").dtype == "Q8_0"
    expected = logits(models.load_model(chat_file))
    assert (logits(model) - expected).abs().max() < 0.05 * expected.abs().max()
    assert model.generation_config.eos_token_id == [0, 1]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "saved")  # refuses models that count as quantised


def test_the_command_takes_the_new_folder_as_second_word(chat_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["convert", str(chat_file), str(out), "--json"])
    assert json.loads(done.stdout)["output"] == str(out)
    assert AutoTokenizer.from_pretrained(out).chat_template == TEMPLATE
    back = CliRunner().invoke(app, ["convert", str(out), str(tmp_path / "b.gguf")])
    assert back.exit_code == 0
    assert models.inspect(tmp_path / "b.gguf").dtype == "F32"
    for words in ([], [str(tmp_path / "a"), "--output", str(tmp_path / "b")]):
        assert CliRunner().invoke(app, ["convert", str(chat_file), *words]).exit_code == 2


def written(path: Path, change: Callable[[Any], None]) -> Path:
    """A GGUF file with one tensor, and what a test changes of it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def spoiled(source: Path, path: Path, place: int, form: str, value: object) -> Path:
    data = bytearray(source.read_bytes())
    struct.pack_into(form, data, place, value)
    path.write_bytes(data)
    return path


def _other_architecture(chat: Path, path: Path) -> Path:
    return spoiled(chat, path, chat.read_bytes().index(b"llama"), "5s", b"zebra")


def _unknown_type(chat: Path, path: Path) -> Path:
    data = chat.read_bytes()
    place = data.index(b"token_embd.weight") + 17 + 4 + 2 * 8
    return spoiled(chat, path, place, "<I", 99)


def _plain(chat: Path, path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    return path


def _part(chat: Path, path: Path) -> Path:
    return written(path, lambda writer: writer.add_uint16("split.count", 3))


def _vocabulary(chat: Path, path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_plain, "is a file, but no GGUF file"),
        (_other_architecture, r"architecture 'zebra', which transformers .* Load the checkpoint"),
        (_unknown_type, "'token_embd.weight' is of type 99, which the installed gguf"),
        (_part, "one of 3 parts"),
        (_vocabulary, "holds no tensors"),
        (lambda chat, path: spoiled(chat, path, 4, "<I", 1), "version 1 of the GGUF format"),
        (lambda chat, path: spoiled(chat, path, 8, "<Q", 1 << 60), "cut off or damaged"),
        (lambda chat, path: spoiled(chat, path, 16, "<Q", 1 << 60), "cut off or damaged"),
        (lambda chat, path: spoiled(chat, path, 24, "<Q", 1 << 60), "cut off or damaged"),
    ],
)
def test_files_that_are_no_models(
    make: Callable[[Path, Path], Path], message: str, chat_file: Path, tmp_path: Path
) -> None:
    path = make(chat_file, tmp_path / "bad.gguf")
    for read in (models.load, models.inspect, models.load_tokenizer):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 20, 200, 5000, -1])
def test_files_that_are_cut_off(kept: int, chat_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(chat_file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut off or damaged|no GGUF file"):
        models.load(path)


def test_damage_anywhere_in_the_header_is_no_crash(chat_file: Path, tmp_path: Path) -> None:
    data, random = chat_file.read_bytes(), np.random.default_rng(0)
    end = data.index(b"token_embd.weight") + 300
    for n in range(60):
        spoilt = bytearray(data)
        for place in random.integers(4, end, size=3):
            spoilt[place] = random.integers(256)
        path = tmp_path / f"{n}.gguf"
        path.write_bytes(spoilt)
        for read in (models.load_config, models.load_tokenizer):
            with suppress(CheckpointError):
                read(path)


def test_what_a_file_holds_beyond_the_model_is_not_passed_over(tmp_path: Path) -> None:
    config = LlamaConfig(**SIZES)
    path = models.to_gguf(models.build(config), make_tokenizer("gpt-2"), tmp_path / "m.gguf")
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(tmp_path / "more.gguf", "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.add_tensor("blk.0.attn_output.bias", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="place for"):
        models.load(tmp_path / "more.gguf")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = models.to_gguf(
        models.build(LlamaConfig(**SIZES)), make_tokenizer("gpt-2"), tmp_path / "m.gguf"
    )
    data = path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight")
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"1 missing \(model.layers.1.mlp.up_proj.weight\)"):
        models.load(path)


def test_no_package_no_file_no_folder(
    chat_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"no folder or GGUF file 'missing.gguf'"):
        models.load("missing.gguf")
    with pytest.raises(CheckpointError, match="hanol convert"):
        models.fetch(chat_file)
    (tmp_path / "new.gguf").write_bytes(chat_file.read_bytes())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"hanol\[gguf\]"):
        models.load(tmp_path / "new.gguf")


def test_files_beside_it_are_not_read(chat_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(chat_file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "other"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "adapter_config.json").write_text("{}")
    loaded = models.load(path)
    assert loaded.tokenizer.chat_template == TEMPLATE
    assert loaded.model.config.model_type == "llama"
