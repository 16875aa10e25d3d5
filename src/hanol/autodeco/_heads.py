"""AutoDeco's two heads, what they choose, and the logits that follow from it.

Shape suffixes: N rows (one per position; any leading dimensions), V vocabulary, H hidden width,
F features of the top-p head, 4 statistics of the tempered distribution; B batch and T positions
where limits are applied.
Source: arXiv 2510.26697, section 2 and equation 4. The paper's equation shows hidden state and
temperature as inputs of the top-p head; the official checkpoints add four statistics ("enhanced").

Everything is computed in float32 whatever the weights are stored in: a sum over 150,000
probabilities in bfloat16 is worth nothing.
"""

import math
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from hanol.errors import ConfigError, ShapeError
from hanol.lazy import when_imported
from hanol.sampling import STEEPNESS, excess, tempered, top_p_keep
from hanol.training import Section

Init = Literal["official", "neutral"]
Apply = Literal["hard", "soft", "none", "off"]
Mask = Literal["finite", "inf"]

MIN_TEMPERATURE = 1e-2
# Tokens outside of the nucleus: exp(-1000) is exactly 0 in float32, so sampling never takes them.
# Not -inf: when a grammar bans the whole nucleus, what is left keeps its tempered order.
EXCLUDED = 1000.0

_top_p_keep = top_p_keep


def _cut_graph() -> None:
    """Its searches read values and branch on them: a compiled graph is cut around it once."""
    global _top_p_keep
    _top_p_keep = torch.compiler.disable(top_p_keep)


when_imported("torch._dynamo", _cut_graph)  # which `disable` would do, where nobody compiles

# Logits whose statistics are computed at a time: on CPU the temporaries then stay in its cache.
_BLOCK = 1 << 18


class _Head(nn.Module):
    """Linear, ReLU, Linear to one number; subclasses squash it. Keys are the official ones."""

    neutral_bias: float

    def __init__(self, hidden_size: int, more: int, intermediate: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.mlp: Any = nn.Sequential(
            nn.Linear(hidden_size + more, intermediate), nn.ReLU(), nn.Linear(intermediate, 1)
        )

    def init(self, kind: Init = "official") -> Self:
        """Initialise the weights, "official" or "neutral" as `from_base` has them."""
        if kind not in ("official", "neutral"):
            raise ConfigError(f'`init` is {kind!r}, but must be "official" or "neutral".')
        first, _, last = self.mlp
        first.reset_parameters()
        last.reset_parameters()
        if kind == "neutral":
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, self.neutral_bias)
        return self

    def _check_width(self, hidden_NH: Tensor) -> None:
        if hidden_NH.shape[-1] != self.hidden_size:
            raise ShapeError(
                f"`hidden_NH` has shape {tuple(hidden_NH.shape)}, but this head was made for a "
                f"hidden width of {self.hidden_size}. Heads fit only the base model that they were "
                "trained on."
            )

    def _logit(self, features_NF: Tensor) -> Tensor:
        dtype = torch.float64 if features_NF.dtype == torch.float64 else torch.float32
        first, _, last = self.mlp
        # Autocast would turn the products back to half precision.
        with torch.autocast(features_NF.device.type, enabled=False):
            inner = F.linear(features_NF.to(dtype), first.weight.to(dtype), first.bias.to(dtype))
            logit = F.linear(inner.relu(), last.weight.to(dtype), last.bias.to(dtype))
        return logit.squeeze(-1)


class TemperatureHead(_Head):
    """Temperature in (0, 2) from the last hidden state.

    Args:
        hidden_size: Width of the hidden state.
        intermediate: Width between the two layers; 256 in every official checkpoint.
    """

    neutral_bias = 0.0  # 2 * sigmoid(0) = 1

    def __init__(self, hidden_size: int, intermediate: int = 256) -> None:
        super().__init__(hidden_size, 0, intermediate)

    def forward(self, hidden_NH: Tensor) -> Tensor:
        """`temperature_N` from hidden states after the final norm, any float dtype.

        float32 (float64 for float64 input).

        Raises:
            ShapeError: The width is not `hidden_size`.
        """
        self._check_width(hidden_NH)
        return 2 * self._logit(hidden_NH).sigmoid()


class TopPHead(_Head):
    """Top-p in (0, 1) from the last hidden state, the temperature and statistics of the logits.

    Args:
        hidden_size: Width of the hidden state.
        enhanced: Whether the head also reads the four numbers of `statistics`.
        intermediate: Width between the two layers; 256 in every official checkpoint.
    """

    neutral_bias = math.log(0.95 / 0.05)

    def __init__(self, hidden_size: int, enhanced: bool = True, intermediate: int = 256) -> None:
        super().__init__(hidden_size, 5 if enhanced else 1, intermediate)
        self.enhanced = enhanced

    def forward(
        self, hidden_NH: Tensor, temperature_N: Tensor, statistics_N4: Tensor | None = None
    ) -> Tensor:
        """`top_p_N` from hidden states after the final norm, any float dtype.

        float32 (float64 for float64 input). A head that is not enhanced ignores `statistics_N4`.

        Raises:
            ShapeError: A shape does not fit, or an enhanced head got no statistics.
        """
        self._check_width(hidden_NH)
        rows = hidden_NH.shape[:-1]
        if temperature_N.shape != rows:
            raise ShapeError(
                f"`temperature_N` has shape {tuple(temperature_N.shape)}, but `hidden_NH` "
                f"{tuple(hidden_NH.shape)} needs one value per row: {tuple(rows)}."
            )
        features = [hidden_NH, temperature_N.unsqueeze(-1)]
        if self.enhanced:
            if statistics_N4 is None:
                raise ShapeError(
                    "This top-p head is enhanced: it reads four statistics of the logits. Pass "
                    "`statistics(logits_NV, temperature_N)` as `statistics_N4`."
                )
            if statistics_N4.shape != (*rows, 4):
                raise ShapeError(
                    f"`statistics_N4` has shape {tuple(statistics_N4.shape)}, but must have "
                    f"{(*rows, 4)}."
                )
            features.append(statistics_N4)
        dtype = torch.float64 if hidden_NH.dtype == torch.float64 else torch.float32
        return self._logit(torch.cat([part.to(dtype) for part in features], dim=-1)).sigmoid()


def statistics(
    logits_NV: Tensor,
    temperature_N: Tensor,
    *,
    entropy: Literal["parity", "logsumexp"] = "parity",
) -> Tensor:
    """Statistics of q = softmax(logits / (temperature + 1e-8)) for an enhanced top-p head.

    Columns of -inf are not part of the vocabulary: they change nothing, not even the variance.

    Args:
        logits_NV: Logits before the temperature, any float dtype.
        temperature_N: Temperature of each row; the result is differentiable in it, not in the
            logits.
        entropy: "parity" is -sum q log(q + 1e-8), as most official heads were trained;
            "logsumexp" is the entropy itself (the "megatron" recipe), higher by at most V * 1e-8.

    Returns:
        `statistics_N4`, float32 (float64 for float64 logits): the largest q, the entropy, the
        unbiased variance of q over the vocabulary, the sum of the five largest q.

    Raises:
        ShapeError: `temperature_N` does not have one value per row.
        ConfigError: `entropy` is another name.
    """
    if temperature_N.shape != logits_NV.shape[:-1]:
        raise ShapeError(
            f"`temperature_N` has shape {tuple(temperature_N.shape)}, but `logits_NV` "
            f"{tuple(logits_NV.shape)} needs one value per row: {tuple(logits_NV.shape[:-1])}."
        )
    if entropy not in ("parity", "logsumexp"):
        raise ConfigError(f'`entropy` is {entropy!r}, but must be "parity" or "logsumexp".')
    V = logits_NV.shape[-1]
    flat_NV, flat_N1 = logits_NV.reshape(-1, V), temperature_N.reshape(-1, 1)
    rows = max(1, len(flat_NV))
    if not torch.compiler.is_compiling():  # a compiled graph makes few temporaries
        # An accelerator has no such cache, but a launch for every operation.
        block = _BLOCK * (torch.get_num_threads() if logits_NV.device.type == "cpu" else 64)
        rows = max(1, block // V)
    blocks = zip(flat_NV.split(rows), flat_N1.split(rows), strict=True)
    parts = [_statistics(*pair, entropy == "parity") for pair in blocks]
    return torch.cat(parts).view(*temperature_N.shape, 4)


def _statistics(logits_NV: Tensor, temperature_N1: Tensor, parity: bool) -> Tensor:
    dtype = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
    logits_NV = logits_NV.detach().to(dtype)
    below_NV = logits_NV - logits_NV.amax(-1, keepdim=True)
    # A column of -inf has q = 0, but 0 * -inf is not a number.
    x_NV = below_NV.clamp_min_(-1e6) / (temperature_N1.to(dtype) + 1e-8)
    q_NV = x_NV.softmax(-1)
    top_NK = _largest(q_NV, min(5, q_NV.shape[-1]))
    if parity:
        entropy_N = -(q_NV * (q_NV + 1e-8).log()).sum(-1)
    else:
        # x is 0 where q is largest, so log q = x + log(max q).
        entropy_N = -(q_NV * x_NV).sum(-1) - top_NK[:, 0].log()
    size_N = (logits_NV.shape[-1] - logits_NV.isneginf().sum(-1)).to(dtype)
    # The mean of q is 1 / V exactly, so the variance needs no second pass. V = 1 has none: 0.
    variance_N = (q_NV.square().sum(-1) - 1 / size_N).clamp_min(0) / (size_N - 1).clamp_min(1)
    return torch.stack([top_NK[:, 0], entropy_N, variance_N, top_NK.sum(-1)], dim=-1)


def _largest(q_NV: Tensor, k: int) -> Tensor:
    """The k largest of each row, descending."""
    N, V = q_NV.shape
    size = 128
    if V // size < 64:
        return q_NV.topk(k).values
    # They lie in the k groups with the largest maxima, or in what the groups leave over. A maximum
    # of each group is far cheaper than a selection from all.
    grouped = V // size * size
    groups_NGS = q_NV[:, :grouped].view(N, -1, size)
    best_NK1 = groups_NGS.detach().amax(-1).topk(k).indices.unsqueeze(-1)
    inside_NS = groups_NGS.gather(1, best_NK1.expand(-1, -1, size)).view(N, k * size)
    return torch.cat([inside_NS, q_NV[:, grouped:]], dim=-1).topk(k).values


class DecodingLimits(Section, strict=True):
    """Limits of the temperature and top-p that heads choose, when they are served."""

    min_temperature: float = Field(MIN_TEMPERATURE, gt=0, description="Lowest temperature.")
    max_temperature: float = Field(2.0, description="Highest; the heads choose below 2.")
    min_top_p: float = Field(0.0, ge=0, le=1, description="Lowest top-p.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_temperature > self.max_temperature:
            raise ValueError(
                f"`min_temperature` is {self.min_temperature} and `max_temperature` "
                f"{self.max_temperature}, but they must be in this order"
            )
        return self

    def hold(self, temperature_BT: Tensor, top_p_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Both values, moved to the nearest allowed ones."""
        temperature_BT = temperature_BT.clamp(self.min_temperature, self.max_temperature)
        return temperature_BT, top_p_BT.clamp_min(self.min_top_p) if self.min_top_p else top_p_BT


def predict(
    hidden_BTH: Tensor,
    logits_BTV: Tensor,
    temp_head: TemperatureHead | None,
    top_p_head: TopPHead | None,
) -> tuple[Tensor, Tensor]:
    """`temperature_BT` and `top_p_BT`; 1 where there is no head."""
    ones_BT = torch.ones(hidden_BTH.shape[:-1], device=hidden_BTH.device)
    temperature_BT = ones_BT if temp_head is None else temp_head(hidden_BTH)
    if top_p_head is None:
        return temperature_BT, ones_BT
    # What the top-p head reads is an input, not a way for its gradient into the temperature head.
    detached_BT = temperature_BT.detach()
    read = statistics(logits_BTV, detached_BT) if top_p_head.enhanced else None
    return temperature_BT, top_p_head(hidden_BTH, detached_BT, read)


def rescale(
    logits_BTV: Tensor,
    temperature_BT: Tensor,
    top_p_BT: Tensor | None,
    apply: Apply,
    mask: Mask = "finite",
) -> Tensor:
    """The logits to sample from at temperature 1 and top-p 1, in float32; see `forward`."""
    tempered_BTV = tempered(logits_BTV.float(), temperature_BT)
    if top_p_BT is None or apply == "none":
        return tempered_BTV
    if apply == "soft":
        # The logarithm of `soft_top_p` but for its epsilons and a constant. Finite, so that here
        # too a grammar may ban every likely token.
        return tempered_BTV - STEEPNESS * excess(tempered_BTV.softmax(-1), top_p_BT)
    keep_NV = _top_p_keep(
        tempered_BTV.flatten(0, -2),
        top_p_BT.flatten(),
        # Looking for NaN would make an accelerator wait at every token.
        check=tempered_BTV.device.type == "cpu",
    )
    keep_BTV = keep_NV.view_as(tempered_BTV)
    if mask == "inf":
        return tempered_BTV.masked_fill(~keep_BTV, -torch.inf)
    return torch.where(keep_BTV, tempered_BTV, tempered_BTV - EXCLUDED)
