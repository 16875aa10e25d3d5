"""Llama between Meta's tensor names and transformers', both ways.

Meta rotates neighbouring lanes of a head, transformers the two halves: rows of the query and key
projections change places, bit for bit. Every import is checked against a forward pass from the
definition, so that a wrong order cannot pass unnoticed.

Source: github.com/meta-llama/llama-models, `params.json` and `consolidated.*` of Llama 3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hanol.errors import CheckpointError, ConfigError
from hanol.models._presets import llama_config
from hanol.models._reference_llama import reference_llama

_TOP = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


class MetaLlama(NamedTuple):
    """A Llama in Meta's layout: tensors by name, and the content of `params.json`."""

    tensors: dict[str, Tensor]
    params: dict[str, Any]


def llama_from_meta(
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Any],
    *,
    rope_factor: float = 8.0,
) -> PreTrainedModel:
    """A transformers Llama from Meta's tensors.

    Args:
        tensors: By Meta's names, of one part; see `merge_meta_parts` for several.
        params: Content of `params.json`.
        rope_factor: Where `use_scaled_rope` is set: 8 for Llama 3.1 and 3.3, 32 for 3.2.

    Raises:
        ConfigError: `params` contradicts itself or the tensors.
        CheckpointError: Tensors are missing or unexpected, or the logits differ.
    """
    config = _config(tensors, params, rope_factor)
    names = _names(params["n_layers"])
    missing = sorted(set(names) - set(tensors) - {"output.weight"})
    # Older files carry the rotation frequencies, which follow from `params`.
    unexpected = sorted(set(tensors) - set(names) - {"rope.freqs"})
    if missing or unexpected:
        raise CheckpointError(
            f"The tensors do not fit `params`: missing {missing[:5]}, unexpected {unexpected[:5]}."
        )
    heads = {"wq": config.num_attention_heads, "wk": config.num_key_value_heads}
    state = {}
    for name, tensor in tensors.items():
        if name in names and not (name == "output.weight" and config.tie_word_embeddings):
            part = name.split(".")[-2]
            state[names[name]] = _to_halves(tensor, heads[part]) if part in heads else tensor
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.eval()
    _check_logits(model, tensors, params, rope_factor)
    return model


def llama_to_meta(model: PreTrainedModel) -> MetaLlama:
    """Meta's tensors and `params.json` of a transformers Llama; the inverse of `llama_from_meta`.

    Raises:
        ConfigError: The model is no Llama, or has what Meta's layout cannot express.
    """
    config: Any = model.config
    if config.model_type != "llama":
        raise ConfigError(f"The model is a {config.model_type!r}, but must be a 'llama'.")
    if config.attention_bias or config.mlp_bias:
        raise ConfigError("The model has biases, which Meta's layout does not have.")
    rope = config.rope_parameters
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    state = model.state_dict()
    tensors = {}
    for meta, name in _names(config.num_hidden_layers).items():
        tensor, part = state[name], name.split(".")[-2]
        tensors[meta] = to_pairs(tensor, heads[part]) if part in heads else tensor
    multiple = math.gcd(config.intermediate_size, 1024)
    params = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        # Half a unit more keeps the product from falling below the width by rounding.
        "ffn_dim_multiplier": (config.intermediate_size + 0.5 * (multiple == 1))
        / int(8 * config.hidden_size / 3),
        "multiple_of": multiple,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": rope["rope_theta"],
        "use_scaled_rope": rope.get("rope_type") == "llama3",
    }
    return MetaLlama(tensors, params)


def merge_meta_parts(
    parts: Sequence[Mapping[str, Tensor]], params: Mapping[str, Any]
) -> dict[str, Tensor]:
    """One set of tensors from the parts of a model that was split for tensor parallelism.

    Args:
        parts: In the order of the files. With more parts than key heads, neighbours hold copies of
            the same head.
        params: Content of `params.json`.

    Raises:
        CheckpointError: The parts have different names, or copies of a head differ.
    """
    if any(part.keys() != parts[0].keys() for part in parts):
        raise CheckpointError("The parts do not hold tensors of the same names.")
    key_heads = params.get("n_kv_heads") or params["n_heads"]
    copies = max(1, len(parts) // key_heads)
    merged = {}
    for name in parts[0]:
        pieces = [part[name] for part in parts]
        kind = name.split(".")[-2]
        if kind in ("wk", "wv"):
            for i, piece in enumerate(pieces):
                if not torch.equal(piece, pieces[i - i % copies]):
                    raise CheckpointError(f"Copies of a key head differ in {name!r}, part {i}.")
            pieces = pieces[::copies]
        if pieces[0].dim() == 1:
            merged[name] = pieces[0]
        else:
            merged[name] = torch.cat(pieces, dim=1 if kind in ("wo", "w2") else 0)
    return merged


def _names(layers: int) -> dict[str, str]:
    names = dict(_TOP)
    for i in range(layers):
        names |= {f"layers.{i}.{a}": f"model.layers.{i}.{b}" for a, b in _LAYER.items()}
    return names


def _to_halves(weight: Tensor, heads: int) -> Tensor:
    """Lanes of a head from 0 1 2 3 4 5 to 0 2 4 1 3 5."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def to_pairs(weight: Tensor, heads: int) -> Tensor:
    """The inverse of `_to_halves`."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _config(
    tensors: Mapping[str, Tensor], params: Mapping[str, Any], rope_factor: float
) -> LlamaConfig:
    D, heads = params["dim"], params["n_heads"]
    key_heads = params.get("n_kv_heads") or heads
    if heads % key_heads:
        raise ConfigError(f"{key_heads} key heads do not divide {heads} attention heads.")
    multiple = params["multiple_of"]
    width = int((params.get("ffn_dim_multiplier") or 1) * int(8 * D / 3))
    width = multiple * -(-width // multiple)
    embedding, gate = (
        tensors.get(name) for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight")
    )
    if gate is not None and gate.shape[0] != width:
        raise ConfigError(
            f"`ffn_dim_multiplier` and `multiple_of` give a feed-forward width of {width}, but the "
            f"tensors have {gate.shape[0]}."
        )
    output = tensors.get("output.weight")
    tied = output is None or (embedding is not None and torch.equal(output, embedding))
    vocab = params["vocab_size"]
    return llama_config(
        D, params["n_layers"], heads, key_heads, width,
        rope_factor=rope_factor if params.get("use_scaled_rope") else None,
        rope_theta=params["rope_theta"],
        vocab_size=vocab,
        rms_norm_eps=params["norm_eps"],
        tie_word_embeddings=tied,
        bos_token_id=128000 if vocab > 128000 else 0,
        eos_token_id=128001 if vocab > 128001 else 1,
        pad_token_id=None,
        dtype=None if embedding is None else embedding.dtype,
    )  # fmt: skip


def _check_logits(
    model: Any, tensors: Mapping[str, Tensor], params: Mapping[str, Any], rope_factor: float
) -> None:
    ids = torch.arange(8).remainder(params["vocab_size"]).unsqueeze(0)
    expected = reference_llama(tensors, params, ids, rope_factor=rope_factor, dtype=torch.float32)
    with torch.no_grad():
        found = model(ids, use_cache=False).logits.float()
    # bfloat16 keeps eight bits, and layers add up: the bound tells orders apart, not digits.
    bound = 1e-4 if model.dtype == torch.float32 else 0.05
    error = ((found - expected).norm() / expected.norm()).item()
    if not error <= bound:
        raise CheckpointError(
            f"After conversion the logits differ by {error:.2g} relative to those of the "
            "definition: the rows of the query and key projections are not in Meta's order."
        )
