"""llama.cpp as a peer, where `llama-cpp-python` is installed, and GGUF files of random models."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
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
    tokenizer = byte_tokenizer(model.config.vocab_size)
    if model.config.model_type == "qwen3_5_text":
        return write_qwen35(model, tokenizer, path)
    return models.to_gguf(model, tokenizer, path, dtype)


def byte_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<bos>", "<eos>", "<pad>", *letters, "ab"]
    words += [f"<unused{i}>" for i in range(vocab_size - len(words))]
    # llama.cpp wants at least one merge.
    backend = Tokenizer(tokenizer_models.BPE({w: i for i, w in enumerate(words)}, [("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def write_qwen35(model: Any, tokenizer: PreTrainedTokenizerFast, path: Path) -> Path:
    """A Qwen3.5 with as many value heads as key heads, as llama.cpp's converter cuts it, in F32."""
    config = model.config
    arch = gguf.MODEL_ARCH.QWEN35
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    rotated = int(config.head_dim * config.rope_parameters["partial_rotary_factor"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_dimension_sections([11, 11, 10, 0])  # transformers' own where none are named
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_num_value_heads * config.linear_value_head_dim)
    writer.add_full_attention_interval(4)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    words = tokenizer.convert_ids_to_tokens(list(range(config.vocab_size)))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(["a b"])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        part = name.rpartition("layers.")[2].partition(".")[2]
        if part.endswith("A_log"):
            tensor = -tensor.exp()
        elif part.endswith("conv1d.weight"):
            tensor = tensor.squeeze(1)
        elif "norm" in name and not part.endswith("linear_attn.norm.weight"):
            tensor = tensor + 1
        official = name.replace(".dt_bias", ".dt_proj.bias")
        writer.add_tensor(
            names.get_name(official, try_suffixes=(".weight", ".bias")),
            tensor.float().contiguous().numpy(),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantized(source: Path, target: Path, kind: str) -> Path:
    """A GGUF file with weights of llama.cpp's type `kind`, such as Q8_0."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if code:
        sys.exit(f"llama.cpp could not write {target.name} ({code})")
    return target
