"""A GGUF file as configuration, weights and tokenizer, through transformers.

transformers unpacks the tensors and knows their names. What its readers leave out and the result
depends on is put right here: scaled rotations, biases, the width of heads, how text is split.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    __version__,
)

from hanol.errors import CheckpointError, require
from hanol.models._reference_llama import frequencies
from hanol.models.gguf._header import ARRAY, STRING, GgufHeader, read_header

_NAME = "model.gguf"
_LOCK = RLock()  # what is patched is patched for the whole process
_FLOATS = {"F32": torch.float32, "F16": torch.float16}
_COUNTED = ("llama", "mistral", "qwen2", "qwen3")
_FREQUENCIES = "rope_freqs.weight"
# llama.cpp's names of tokenizers that set digits apart before they split as GPT-2 does.
_DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_COMPOSING = {"qwen2", "qwen35", "deepseek-r1-qwen"}  # these normalise to NFC first


def gguf_config(path: str | Path) -> dict[str, Any]:
    """The configuration as `config.json` would hold it.

    Raises:
        CheckpointError: The file is damaged, or transformers does not read its architecture.
        MissingExtraError: `gguf` or `accelerate` is not installed.
    """
    header = read_header(path)
    require("accelerate", extra="gguf", feature="Loading GGUF files")
    if (parts := header.values.get("split.count", 1)) not in (0, 1):
        raise CheckpointError(
            f"{str(path)!r} is one of {parts} parts. Join them with llama.cpp's "
            "`llama-gguf-split --merge` first."
        )
    try:
        with _folder(header) as folder:
            stored: dict[str, Any] = PreTrainedConfig.get_config_dict(folder, gguf_file=_NAME)[0]
    except (OSError, ValueError, LookupError, TypeError) as err:
        if "not supported" not in str(err):
            raise CheckpointError(f"{str(path)!r} describes no model: {err!r}.") from err
        raise CheckpointError(
            f"{str(path)!r} holds a model of the architecture {header.architecture!r}, which "
            f"transformers {__version__} does not read from GGUF files. Load the checkpoint that "
            "it was made from."
        ) from err
    stored = {key: _shortest(value) for key, value in stored.items() if key[0] != "_"}
    return stored | _left_out(header, stored)


def load_gguf(
    path: str | Path, config: PreTrainedConfig, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with its weights unpacked, and what transformers reports of its tensors.

    Without a data type it is that of the file, and bfloat16 where the weights are quantised.
    """
    header = read_header(path)
    if dtype is None:
        dtype = _FLOATS.get(header.stored_as, torch.bfloat16)
    with _folder(header) as folder:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=_NAME, config=config, dtype=dtype, output_loading_info=True,
            quantization_config=GgufConfig(dequantize=True),
        )  # fmt: skip
    model.config._name_or_path = model.name_or_path = str(path)
    tensors = header.tensors.items()
    count = sum(prod(one.shape) for name, one in tensors if not name.startswith("rope_"))
    # transformers passes over what it has no place for, such as biases.
    if config.model_type in _COUNTED and count > model.num_parameters():
        raise CheckpointError(
            f"{str(path)!r} holds {count:,} weights, but transformers has place for "
            f"{model.num_parameters():,} only in a {config.model_type!r}: it would not be the same "
            "model."
        )
    ends = {header.values.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")}
    if len(ends - {None}) == 2:
        model.generation_config.eos_token_id = sorted(ends)
    return model, report


def gguf_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with the chat template of the file."""
    header = read_header(path)
    try:
        with _folder(header) as folder:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_NAME)
    except Exception as err:  # the tokenizers library raises all kinds
        raise CheckpointError(f"{str(path)!r} holds no tokenizer that is known: {err!r}.") from err
    tokenizer.name_or_path = str(path)
    tokenizer.model_max_length = header.own("context_length", tokenizer.model_max_length)
    rule, backend = header.values.get("tokenizer.ggml.pre"), tokenizer.backend_tokenizer
    if rule in _DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )  # fmt: skip
    if rule in _COMPOSING:
        backend.normalizer = normalizers.NFC()
    if len(tokenizer) > (rows := header.values.get("tokenizer.ggml.tokens", 0)):
        # transformers adds GPT-2's end token to files that lack it, beyond the embedding's rows.
        state = json.loads(backend.to_str())
        state["added_tokens"] = [one for one in state["added_tokens"] if one["id"] < rows]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    return tokenizer


@contextmanager
def _folder(header: GgufHeader) -> Iterator[str]:
    """A folder with the file alone, so that transformers reads no file that lies beside it.

    Inside, transformers gets the header that was read already: the reader of the `gguf` package
    takes seconds for a large vocabulary, and transformers opens a file several times.
    """
    gguf = require("gguf", extra="gguf", feature="Reading GGUF files")
    fields = _fields(header)
    tensors = [
        SimpleNamespace(
            name=name, data=header.packed(name), tensor_type=gguf.GGMLQuantizationType[tensor.kind]
        )
        for name, tensor in header.tensors.items()
    ]

    def reader(_path: str) -> SimpleNamespace:
        return SimpleNamespace(fields=fields, tensors=tensors)

    with _LOCK, TemporaryDirectory() as folder:
        (Path(folder) / _NAME).symlink_to(header.path)
        quiet = partial(tqdm, disable=True)
        with (
            patch("gguf.GGUFReader", reader),
            patch("transformers.modeling_gguf_pytorch_utils.tqdm", quiet),
        ):
            yield folder


def _fields(header: GgufHeader) -> dict[str, SimpleNamespace]:
    """The values as the `gguf` package gives them; the vocabulary only as long as it is."""
    fields = {}
    for key, kinds in header.types.items():
        value, parts, places = header.values[key], [], [0]
        if kinds[0] == STRING:
            parts = [value.encode()]
        elif kinds[0] != ARRAY:
            parts = [[value]]
        elif key == "tokenizer.ggml.tokens":
            parts, places = [b""], [0] * value
        elif isinstance(value, tuple) and not key.startswith("tokenizer."):
            parts, places = [[one] for one in value], list(range(len(value)))
        if parts:
            fields[key] = SimpleNamespace(parts=parts, data=places, types=kinds)
    return fields


def _shortest(value: Any) -> Any:
    """A number as it was before the file rounded it to float32: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _left_out(header: GgufHeader, stored: dict[str, Any]) -> dict[str, Any]:
    """Values of the configuration that transformers' reader passes over."""
    found: dict[str, Any] = {}
    kind, tensors = stored["model_type"], header.tensors
    if kind in ("qwen2", "qwen3") and (width := header.own("attention.key_length")):
        found["head_dim"] = width
    if kind in ("llama", "qwen3") and "blk.0.attn_q.bias" in tensors:
        found["attention_bias"] = True
    if kind == "llama" and "blk.0.ffn_gate.bias" in tensors:
        found["mlp_bias"] = True
    theta = stored.get("rope_theta", 10000.0)
    scaling = header.own("rope.scaling.type", "none")
    if _FREQUENCIES in tensors:
        found["rope_parameters"] = _llama3_rotations(header, theta)
    elif scaling in ("linear", "yarn") and kind != "gpt_oss":  # which transformers reads itself
        rope = {"rope_type": scaling, "rope_theta": theta}
        rope["factor"] = _shortest(header.own("rope.scaling.factor"))
        if scaling == "yarn":
            window = header.own("rope.scaling.original_context_length")
            rope["original_max_position_embeddings"] = window
        found["rope_parameters"] = rope
    return found


def _llama3_rotations(header: GgufHeader, theta: float) -> dict[str, Any]:
    """The scaling of Llama 3 whose divisors of frequencies the file holds.

    The files hold no parameters. Every Llama has 1 and 4 as factors of its two ends; the window
    that it was trained with follows from a frequency between these.
    """
    divisors = torch.from_numpy(header.packed(_FREQUENCIES).view(np.float32).astype(np.float64))
    plain, factor = frequencies(2 * len(divisors), theta, None), divisors.max().item()
    window = 8192
    between = divisors[(divisors > 1) & (divisors < factor)]
    if len(between):
        middle = between[0]
        smooth = (1 / middle - 1 / factor) / (1 - 1 / factor)
        wave = 2 * torch.pi / plain[divisors == middle][0]
        window = round((wave * (1 + 3 * smooth)).item())
    expected = plain / frequencies(2 * len(divisors), theta, factor, context=window)
    if not torch.allclose(divisors, expected, rtol=1e-3):
        raise CheckpointError(
            f"{str(header.path)!r} scales its rotations in a way that transformers cannot express."
        )
    return {
        "rope_type": "llama3", "rope_theta": theta, "factor": _shortest(factor),
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": window,
    }  # fmt: skip
