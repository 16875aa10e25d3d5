"""What a Kimi-Linear configuration must satisfy before a model is built from it."""

from typing import Any

from transformers import KimiLinearConfig

from hanol.errors import ConfigError


def check_config(config: KimiLinearConfig) -> None:
    """Refuse a configuration that cannot work, before a shape error deep inside does.

    Raises:
        ConfigError: A value is impossible; the message names the key and what would be right.
    """
    # What transformers does not know stays an attribute under its official name.
    _check_layer_lists(getattr(config, "linear_attn_config", None), config.num_hidden_layers)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if kv_heads != heads:
        raise ConfigError(
            f"`num_key_value_heads` is {kv_heads}, but latent attention has one key head for each "
            f"of its {heads} query heads. Set it to {heads} or leave it out."
        )
    if getattr(config, "mla_use_nope", True) is False:
        raise ConfigError(
            "`mla_use_nope` is false, but Kimi Linear's attention has no positions: set it to true."
        )
    function = getattr(config, "moe_router_activation_func", "sigmoid")
    if function != "sigmoid":
        raise ConfigError(
            f"`moe_router_activation_func` is {function!r}, but only 'sigmoid' is known."
        )
    if "sparse" not in config.mlp_layer_types:
        return
    experts, groups, kept = config.num_local_experts, config.n_group or 1, config.topk_group or 1
    if experts % groups:
        raise ConfigError(
            f"`num_expert_group` is {groups}, which does not divide the {experts} experts."
        )
    if kept > groups:
        raise ConfigError(f"`topk_group` is {kept}, but there are {groups} groups.")
    allowed = experts // groups * kept
    if config.num_experts_per_tok > allowed:
        raise ConfigError(
            f"`num_experts_per_token` is {config.num_experts_per_tok}, but {kept} of {groups} "
            f"groups hold only {allowed} experts."
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
