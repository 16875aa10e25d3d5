"""The tensors of an official Kimi-Linear checkpoint, and those that a folder really holds.

Symbols: D model width, H delta heads, K their width, N own and P shared key width, V value width
and R latent width of the latent attention, E experts.
Source: the index of Kimi-Linear-48B-A3B.
"""

from pathlib import Path
from typing import Any

from hanol.models._tensors import shapes_of, stored_tensors


def differences(config: Any, folder: Path) -> tuple[list[str], list[str]]:
    """Official tensors that a folder lacks or has in another shape, and tensors not official.

    Args:
        config: A Kimi-Linear configuration.
        folder: Checkpoint folder.

    Raises:
        CheckpointError: A file of it is not readable.
    """
    expected, stored = official_shapes(config), {}
    if any(folder.glob("*.safetensors")):
        stored = shapes_of(stored_tensors(folder))
    missing = [name for name, shape in expected.items() if stored.get(name) != shape]
    return sorted(missing), sorted(set(stored) - set(expected))


def official_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an official Kimi-Linear checkpoint."""
    D, H, K = config.hidden_size, config.linear_num_heads, config.linear_head_dim
    heads, N, V = config.num_attention_heads, config.qk_nope_head_dim, config.v_head_dim
    P, R, E = config.qk_rope_head_dim, config.kv_lora_rank, config.num_local_experts
    wide, shared = config.moe_intermediate_size, config.n_shared_experts
    delta: dict[str, tuple[int, ...]] = {
        **{f"{x}_proj.weight": (H * K, D) for x in "qkv"},
        **{f"{x}_conv1d.weight": (H * K, 1, config.linear_conv_kernel_dim) for x in "qkv"},
        **{f"{x}_a_proj.weight": (K, D) for x in "fg"},
        **{f"{x}_b_proj.weight": (H * K, K) for x in "fg"},
        "A_log": (1, 1, H, 1),
        "dt_bias": (H * K,),
        "b_proj.weight": (H, D),
        "o_norm.weight": (K,),
        "o_proj.weight": (D, H * K),
    }
    latent: dict[str, tuple[int, ...]] = {
        "q_proj.weight": (heads * (N + P), D),
        "kv_a_proj_with_mqa.weight": (R + P, D),
        "kv_a_layernorm.weight": (R,),
        "kv_b_proj.weight": (heads * (N + V), R),
        "o_proj.weight": (D, heads * V),
    }

    def swiglu(width: int) -> dict[str, tuple[int, ...]]:
        return {
            "gate_proj.weight": (width, D),
            "up_proj.weight": (width, D),
            "down_proj.weight": (D, width),
        }

    names: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, D),
        "model.norm.weight": (D,),
    }
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = (config.vocab_size, D)
    for i, (kind, mlp) in enumerate(zip(config.layer_types, config.mlp_layer_types, strict=True)):
        layer = f"model.layers.{i}"
        names[f"{layer}.input_layernorm.weight"] = (D,)
        names[f"{layer}.post_attention_layernorm.weight"] = (D,)
        mixer = latent if kind == "full_attention" else delta
        names |= {f"{layer}.self_attn.{n}": shape for n, shape in mixer.items()}
        if mlp == "dense":
            names |= {f"{layer}.mlp.{n}": s for n, s in swiglu(config.intermediate_size).items()}
            continue
        moe = f"{layer}.block_sparse_moe"
        names[f"{moe}.gate.weight"] = (E, D)
        names[f"{moe}.gate.e_score_correction_bias"] = (E,)
        names |= {f"{moe}.shared_experts.{n}": s for n, s in swiglu(wide * shared).items()}
        for e in range(E):
            names[f"{moe}.experts.{e}.w1.weight"] = (wide, D)
            names[f"{moe}.experts.{e}.w3.weight"] = (wide, D)
            names[f"{moe}.experts.{e}.w2.weight"] = (D, wide)
    return names
