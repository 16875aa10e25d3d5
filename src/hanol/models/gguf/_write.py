"""Writing GGUF files for Kimi-Linear, Llama, Qwen2 and Qwen3 models.

The tensors, their names and shapes are those that llama.cpp's own converter writes.
Source: gguf 0.19 constants; ggml-org/llama.cpp, `src/models/kimi-linear.cpp`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol.errors import CheckpointError, ConfigError, require
from hanol.files import whole_file
from hanol.models._meta import to_pairs
from hanol.models._presets import leading_dense
from hanol.models._reference_llama import frequencies

# The architectures by transformers' `model_type`, as gguf names them.
_ARCHITECTURES = {
    "kimi_linear": "KIMI_LINEAR", "llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3",
}  # fmt: skip


def to_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    dtype: Literal["f32", "f16"] = "f32",
) -> Path:
    """Write a Kimi-Linear, Llama, Qwen2 or Qwen3 model as one GGUF file.

    llama.cpp splits text with one of the rules that it knows: those of Llama 3, Qwen2 or SmolLM2
    where the tokenizer has them, else GPT-2's. Where a tokenizer has rules of its own, give
    llama.cpp token ids.

    Args:
        model: Model in memory.
        tokenizer: Its byte-level BPE tokenizer.
        path: File to write; one that exists is replaced.
        dtype: Type of the matrices; norms, biases, convolutions and routers stay float32.

    Raises:
        ConfigError: llama.cpp has no such model.
        CheckpointError: The tokenizer is of another kind.
        WriteError: The disk is full, or the file cannot be written.
        MissingExtraError: The `gguf` package is not installed.
    """
    gguf = require("gguf", extra="gguf", feature="Writing GGUF")
    config: Any = model.config
    path = Path(path)
    if config.model_type not in _ARCHITECTURES:
        raise ConfigError(
            f"The model is a {config.model_type!r}, but GGUF files are written for "
            f"{', '.join(map(repr, _ARCHITECTURES))} only."
        )
    if dtype not in ("f32", "f16"):
        raise ConfigError(f"`dtype` is {dtype!r}, but must be 'f32' or 'f16'.")
    is_kimi = config.model_type == "kimi_linear"
    arch = gguf.MODEL_ARCH[_ARCHITECTURES[config.model_type]]
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    with whole_file(path) as part:
        writer = gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[arch])
        _add_shape(writer, config, gguf, dtype)
        if is_kimi:
            _add_kimi_shape(writer, config, gguf)
        else:
            _add_dense_shape(writer, config, gguf)
        _add_tokenizer(writer, tokenizer, config.vocab_size, gguf)
        for official, tensor in _kimi_tensors(model) if is_kimi else _dense_tensors(model):
            name = names.get_name(official, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ConfigError(f"The tensor {official!r} has no place in a GGUF file.")
            is_matrix = tensor.squeeze().dim() > 1 and "conv1d" not in name
            wide = not is_matrix or name.endswith("ffn_gate_inp.weight")
            data = tensor.detach().to(
                "cpu", torch.float32 if wide or dtype == "f32" else torch.half
            )
            writer.add_tensor(name, data.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _add_shape(writer: Any, config: Any, gguf: Any, dtype: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    kind = gguf.LlamaFileType
    writer.add_file_type(kind.ALL_F32 if dtype == "f32" else kind.MOSTLY_F16)


def _add_dense_shape(writer: Any, config: Any, gguf: Any) -> None:
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    rope = config.rope_parameters
    kind = rope.get("rope_type", "default")
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    windows = getattr(config, "layer_types", None) or []
    plain = {"rope_type", "rope_theta", "factor", "original_max_position_embeddings"}
    for key, value, is_known in (
        ("hidden_act", config.hidden_act, config.hidden_act == "silu"),
        ("layer_types", windows, set(windows) <= {"full_attention"}),
        ("rope_type", kind, kind in ("default", "linear", "yarn")
         or (kind == "llama3" and config.model_type == "llama")),
        ("rope_parameters", rope, kind == "llama3" or {k for k in rope if rope[k]} <= plain),
    ):  # fmt: skip
        if not is_known:
            raise ConfigError(f"`{key}` is {value!r}, which llama.cpp does not know.")


def _add_kimi_shape(writer: Any, config: Any, gguf: Any) -> None:
    if config.linear_num_heads != config.num_attention_heads:
        raise ConfigError(
            f"The model has {config.linear_num_heads} delta heads and {config.num_attention_heads} "
            "attention heads, but llama.cpp knows one number for both."
        )
    leading = leading_dense(config)
    if "dense" in config.mlp_layer_types[leading:]:
        raise ConfigError("llama.cpp knows dense layers only before the first layer with experts.")
    # One key head: the latent cache is shared by all query heads. 0 marks a delta layer.
    writer.add_head_count_kv([int(kind == "full_attention") for kind in config.layer_types])
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_kda_head_dim(config.linear_head_dim)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
    writer.add_value_length(config.kv_lora_rank)
    writer.add_key_length_mla(config.qk_nope_head_dim + config.qk_rope_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    # Asked for by llama.cpp even where every layer is dense.
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_leading_dense_block_count(leading)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if leading < config.num_hidden_layers:
        writer.add_expert_count(config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if config.n_group > 1:
            writer.add_expert_group_count(config.n_group)
            writer.add_expert_group_used_count(config.topk_group)


def _kimi_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The tensors as llama.cpp cuts them, under names that gguf's own table knows."""
    config: Any = model.config
    heads, own = config.num_attention_heads, config.qk_nope_head_dim
    for name, tensor in model.state_dict().items():
        name = name.replace(".forget_gate.dt_bias", ".dt_proj.bias").replace(".forget_gate.", ".")
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        place, _, part = name.partition(".self_attn." if ".self_attn." in name else ".mlp.")
        if part == "A_log":
            yield name, -tensor.float().exp()
        elif part == "conv1d.weight":
            for which, piece in zip("qkv", tensor.chunk(3), strict=True):
                yield f"{place}.self_attn.{which}_conv1d.weight", piece.unsqueeze(0)
        elif part == "kv_b_proj.weight":
            k, v = tensor.unflatten(0, (heads, -1)).tensor_split((own,), dim=1)
            yield f"{place}.self_attn.k_b_proj.weight", k.transpose(1, 2)
            yield f"{place}.self_attn.v_b_proj.weight", v
        elif part == "experts.gate_up_proj":
            gate, up = tensor.chunk(2, dim=1)
            yield f"{place}.mlp.experts.gate_proj.weight", gate
            yield f"{place}.mlp.experts.up_proj.weight", up
        else:
            yield name + ".weight" * (part == "experts.down_proj"), tensor


def _dense_tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    config: Any = model.config
    rotated, biased = {}, set()
    if config.model_type == "llama":
        # llama.cpp rotates neighbours, transformers rotates halves.
        rotated = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    elif config.model_type == "qwen2":
        biased = {"q_proj", "k_proj", "v_proj"}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        layer = name.split(".")[-2]
        if name.endswith(".bias") and layer not in biased:
            raise ConfigError(f"The tensor {name!r} has no place in a GGUF file.")
        heads = rotated.get(layer)
        yield name, tensor if heads is None else to_pairs(tensor, heads)
    rope = config.rope_parameters
    if rope.get("rope_type") == "llama3":
        width, theta = config.head_dim, rope["rope_theta"]
        scaled = frequencies(
            width, theta, rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"],
            rope["original_max_position_embeddings"],
        )  # fmt: skip
        yield "rope_freqs.weight", (frequencies(width, theta, None) / scaled).float()


def _add_tokenizer(writer: Any, tokenizer: Any, rows: int, gguf: Any) -> None:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    if backend["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(backend["pre_tokenizer"]):
        raise CheckpointError("Only byte-level BPE tokenizers are written to GGUF files.")
    ids = tokenizer.get_vocab()
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    names = {index: token for token, index in ids.items()}
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_rule(backend["pre_tokenizer"]))
    writer.add_token_list([names.get(i, f"[PAD{i}]") for i in range(rows)])
    writer.add_token_types(
        [
            kinds.UNUSED if i not in names
            else kinds.NORMAL if names[i] not in added
            else kinds.CONTROL if added[names[i]]
            else kinds.USER_DEFINED
            for i in range(rows)
        ]
    )  # fmt: skip
    merges = backend["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    for kind in ("bos", "eos", "pad"):
        index = getattr(tokenizer, f"{kind}_token_id")
        if index is not None:
            getattr(writer, f"add_{kind}_token_id")(index)
    writer.add_add_bos_token(tokenizer.bos_token_id in tokenizer("a").input_ids)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _rule(pre_tokenizer: dict[str, Any]) -> str:
    """The name that llama.cpp has for the rule by which text is split."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    patterns = "".join(step.get("pattern", {}).get("Regex", "") for step in steps)
    if r"\p{N}{1,3}" in patterns:
        return "llama-bpe"
    if r"|\p{N}|" in patterns:
        return "qwen35" if r"\p{M}" in patterns else "qwen2"
    digits = steps[0]["type"] == "Digits" and steps[0]["individual_digits"]
    return "smollm" if digits else "gpt-2"
