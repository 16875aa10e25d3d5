"""llama.cpp as a peer, where `llama-cpp-python` is installed, and GGUF files of random models."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hanol import models


class LlamaCpp:
    """A GGUF file in llama.cpp."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(
            str(path), n_ctx=context, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0,
            verbose=False,
        )  # fmt: skip

    def prefill(self, ids: list[int]) -> None:
        self.model.reset()
        self.model.eval(ids)

    def decode(self, steps: int) -> None:
        for _ in range(steps):
            self.model.eval([7])

    def all_logits(self, ids: list[int]) -> Tensor:
        """Logits after each token, [T, V]."""
        found = []
        self.model.reset()
        for token in ids:
            self.model.eval([token])
            found.append(self.last_logits())
        return torch.stack(found)

    def last_logits(self) -> Tensor:
        logits = self.model._ctx.get_logits()
        return torch.from_numpy(np.ctypeslib.as_array(logits, (self.model.n_vocab(),)).copy())


def is_installed() -> bool:
    """Whether llama.cpp can take part; says so where it cannot."""
    found = find_spec("llama_cpp") is not None
    if not found:
        print("llama-cpp-python is not installed: llama.cpp takes no part", file=sys.stderr)
    return found


def write_gguf(model: Any, path: Path, dtype: str) -> Path:
    """A model with random weights as a GGUF file, with a tokenizer of bytes."""
    vocab_size = model.config.vocab_size
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<bos>", "<eos>", "<pad>", *letters, "ab"]
    words += [f"<unused{i}>" for i in range(vocab_size - len(words))]
    # llama.cpp wants at least one merge.
    backend = Tokenizer(tokenizer_models.BPE({w: i for i, w in enumerate(words)}, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    return models.to_gguf(model, tokenizer, path, dtype)


def quantized(source: Path, target: Path, kind: str) -> Path:
    """A GGUF file with weights of llama.cpp's type `kind`, such as Q8_0."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if code:
        sys.exit(f"llama.cpp could not write {target.name} ({code})")
    return target
