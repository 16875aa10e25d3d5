"""Which implementation computes each kind of layer of a model, and why not a faster one."""

from collections import Counter
from importlib.util import find_spec
from typing import NamedTuple

from transformers import PreTrainedConfig

from hanol.attention._family import FAMILY, families
from hanol.attention.kda._backend import numba_kernels_exist

_OURS = ("kimi_linear", "hanol_gdn_hybrid")  # whose layers are ours, not only their kernels


class LayerKernel(NamedTuple):
    """What computes one kind of layer."""

    kind: str  # as transformers names it in `layer_types`
    layers: int
    implementation: str
    reason: str  # why not a faster one; empty where there is none

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.layers} {self.kind.replace('_', ' ')}: {self.implementation}{why}"


def kernels(config: PreTrainedConfig, device: str = "cpu") -> list[LayerKernel]:
    """Name the implementation of each kind of layer of a model that `hanol.models` loads.

    Args:
        config: Of a text model, or of one that has a text model in it.
        device: Where it runs: "cpu", "cuda" or "cuda:1".
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    return [LayerKernel(k, n, *_of(k, config, device)) for k, n in Counter(kinds).items()]


def _of(kind: str, config: PreTrainedConfig, device: str) -> tuple[str, str]:
    model_type = config.get_text_config().model_type
    if kind != "linear_attention":
        if model_type in _OURS:
            return "hanol's latent attention", ""
        return f"transformers, {getattr(config, '_attn_implementation', None) or 'sdpa'}", ""
    member = next(iter(families(config)), None)
    if model_type not in _OURS and member is None:
        return "transformers", f"hanol knows no delta rule in {model_type!r}"
    if device != "cpu":
        if find_spec("fla") is not None:
            return "fla", ""
        if member is None:
            return "none", "on a GPU the layers need fla: pip install 'hanol[gpu]'"
        return "transformers' PyTorch fallback", "fla is not installed: pip install 'hanol[gpu]'"
    gate = FAMILY[member] if member else {"kimi_linear": "channel"}.get(model_type, "head")
    form = f"hanol's delta rule, one decay a {gate}"
    if numba_kernels_exist():
        return f"{form}, PyTorch and Numba", ""
    return f"{form}, PyTorch", "Numba is not installed or HANOL_NUMBA=0: pip install 'hanol[fast]'"
