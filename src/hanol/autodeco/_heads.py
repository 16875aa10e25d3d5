"""AutoDeco's two heads: a temperature and a top-p for every token, read from the hidden state.

Shape suffixes: N rows (one per position; the heads take any leading dimensions), V vocabulary,
H hidden width, F features of the top-p head, 4 statistics of the tempered distribution.
Source: arXiv 2510.26697, section 2.2 and equation 4. The paper's equation shows hidden state and
temperature as inputs of the top-p head; the official checkpoints add four statistics ("enhanced").

Everything is computed in float32 whatever the weights are stored in: a sum over 150,000
probabilities in bfloat16 is worth nothing.
"""

import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hanol.errors import ConfigError, ShapeError

Init = Literal["official", "neutral"]

# Logits whose statistics are computed at a time: on CPU the temporaries then stay in its cache.
_BLOCK = 1 << 18


class _Head(nn.Module):
    """Linear, ReLU, Linear to one number; subclasses squash it. Keys are the official ones."""

    neutral_bias: float

    def __init__(self, num_features: int, intermediate: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(num_features, intermediate), nn.ReLU(), nn.Linear(intermediate, 1)
        )

    def init(self, kind: Init = "official") -> Self:
        """Set the weights anew.

        Args:
            kind: "official" is the default of `nn.Linear`: about T = 1 and P = 0.5, so that an
                untrained top-p head cuts hard. "neutral" gives exactly T = 1 and P = 0.95.

        Raises:
            ConfigError: Another name.
        """
        if kind not in ("official", "neutral"):
            raise ConfigError(f'`init` is {kind!r}, but must be "official" or "neutral".')
        first, last = self._layers()
        first.reset_parameters()
        last.reset_parameters()
        if kind == "neutral":
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, self.neutral_bias)
        return self

    def _layers(self) -> tuple[nn.Linear, nn.Linear]:
        first, last = self.mlp[0], self.mlp[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        return first, last

    def _logit(self, features_NF: Tensor) -> Tensor:
        dtype = torch.float64 if features_NF.dtype == torch.float64 else torch.float32
        first, last = self._layers()
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
        super().__init__(hidden_size, intermediate)
        self.hidden_size = hidden_size

    def forward(self, hidden_NH: Tensor) -> Tensor:
        """Temperatures of the next tokens.

        Args:
            hidden_NH: Hidden states after the final norm, any float dtype.

        Returns:
            `temperature_N`, float32 (float64 for float64 input).

        Raises:
            ShapeError: The width is not `hidden_size`.
        """
        _check_width(hidden_NH, self.hidden_size)
        return 2 * self._logit(hidden_NH).sigmoid()


class TopPHead(_Head):
    """Top-p in (0, 1) from the last hidden state, the temperature and statistics of the logits.

    Args:
        hidden_size: Width of the hidden state.
        enhanced: Whether the head reads the four numbers of `statistics` too.
        intermediate: Width between the two layers; 256 in every official checkpoint.
    """

    neutral_bias = math.log(0.95 / 0.05)

    def __init__(self, hidden_size: int, enhanced: bool = True, intermediate: int = 256) -> None:
        super().__init__(hidden_size + (5 if enhanced else 1), intermediate)
        self.hidden_size = hidden_size
        self.enhanced = enhanced

    def forward(
        self, hidden_NH: Tensor, temperature_N: Tensor, statistics_N4: Tensor | None = None
    ) -> Tensor:
        """Top-p of the next tokens.

        Args:
            hidden_NH: Hidden states after the final norm, any float dtype.
            temperature_N: Their temperatures.
            statistics_N4: Result of `statistics`; a head that is not enhanced ignores it.

        Returns:
            `top_p_N`, float32 (float64 for float64 input).

        Raises:
            ShapeError: A shape does not fit, or an enhanced head got no statistics.
        """
        _check_width(hidden_NH, self.hidden_size)
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
    """What an enhanced top-p head reads of q = softmax(logits / (temperature + 1e-8)).

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
    # An accelerator has no such cache, but a launch for every operation.
    block = _BLOCK * (torch.get_num_threads() if logits_NV.device.type == "cpu" else 64)
    rows = max(1, block // V)
    blocks = zip(
        logits_NV.reshape(-1, V).split(rows), temperature_N.reshape(-1, 1).split(rows), strict=True
    )
    parts = [_statistics(*pair, entropy == "parity") for pair in blocks]
    return torch.cat(parts).view(*temperature_N.shape, 4)


def _check_width(hidden_NH: Tensor, hidden_size: int) -> None:
    if hidden_NH.shape[-1] != hidden_size:
        raise ShapeError(
            f"`hidden_NH` has shape {tuple(hidden_NH.shape)}, but this head was made for a hidden "
            f"width of {hidden_size}. Heads fit only the base model that they were trained on."
        )


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
