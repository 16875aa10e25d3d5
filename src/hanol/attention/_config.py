"""What a Kimi-Linear configuration must satisfy before a model is built from it."""

from typing import Any

from hanol.errors import ConfigError


def check_config(config: Any) -> None:
    """Refuse a configuration that cannot work, before a shape error deep inside does.

    Args:
        config: A `KimiLinearConfig`, or the dictionary of an official `config.json`.

    Raises:
        ConfigError: A value is impossible; the message names the key and what would be right.
    """
    get = (
        config.get
        if isinstance(config, dict)
        else lambda key, default=None: getattr(config, key, default)
    )
    layers = get("num_hidden_layers", 27)
    _check_layer_lists(get("linear_attn_config"), layers)
    heads, kv_heads = get("num_attention_heads", 32), get("num_key_value_heads")
    if kv_heads not in (None, heads):
        raise ConfigError(
            f"`num_key_value_heads` is {kv_heads}, but latent attention has one key head for each "
            f"of its {heads} query heads. Set it to {heads}."
        )
    if get("mla_use_nope", True) is False:
        raise ConfigError(
            "`mla_use_nope` is false, but Kimi Linear's attention has no positions: set it to true."
        )
    function = get("moe_router_activation_func", "sigmoid")
    if function != "sigmoid":
        raise ConfigError(
            f"`moe_router_activation_func` is {function!r}, but only 'sigmoid' is known."
        )
    _check_experts(get, layers)


def _check_experts(get: Any, layers: int) -> None:
    kinds, dense = get("mlp_layer_types"), get("first_k_dense_replace")
    is_dense = (dense or 0) >= layers if kinds is None else "sparse" not in kinds
    if is_dense:
        return
    experts = get("num_experts") or get("num_local_experts") or 256
    groups = get("num_expert_group") or get("n_group") or 1
    kept = get("topk_group") or 1
    chosen = get("num_experts_per_token") or get("num_experts_per_tok") or 8
    if experts % groups:
        raise ConfigError(
            f"`num_expert_group` is {groups}, which does not divide the {experts} experts."
        )
    if kept > groups:
        raise ConfigError(f"`topk_group` is {kept}, but there are {groups} groups.")
    allowed = experts // groups * kept
    if chosen > allowed:
        raise ConfigError(
            f"`num_experts_per_token` is {chosen}, but {kept} of {groups} groups hold only "
            f"{allowed} experts."
        )


def _check_layer_lists(linear: dict[str, Any] | None, layers: int) -> None:
    if not linear or "kda_layers" not in linear or "full_attn_layers" not in linear:
        return
    kda, full = linear["kda_layers"], linear["full_attn_layers"]
    if 0 in kda or 0 in full:
        raise ConfigError(
            "`kda_layers` and `full_attn_layers` count from 1, but one of them names layer 0."
        )
    if both := sorted(set(kda) & set(full)):
        raise ConfigError(f"Layers {both} are in `kda_layers` and in `full_attn_layers`.")
    if missing := sorted(set(range(1, layers + 1)) - set(kda) - set(full)):
        raise ConfigError(f"Layers {missing} are neither in `kda_layers` nor `full_attn_layers`.")
    if beyond := sorted(n for n in {*kda, *full} if n > layers):
        raise ConfigError(f"Layers {beyond} are listed, but `num_hidden_layers` is {layers}.")
