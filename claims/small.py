"""Small models and short training runs that the experiments share.

Every model of a comparison sees the same batches in the same order, and the same optimiser.

Shape suffixes: B sequences, T tokens, D width.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mamba2Config, Mamba2Model, PreTrainedModel

from hanol import models
from hanol.attention import GdnHybridConfig
from hanol.errors import UnknownNameError
from hanol.worlds import IGNORED, SequenceBatch

_log = logging.getLogger(__name__)

MIXERS = ("kda", "gdn", "mamba2")


def small_model(
    mixer: str,
    vocab_size: int,
    *,
    num_layers: int = 2,
    full_attention_every: int = 0,
    width: int = 128,
    num_heads: int = 2,
    head_dim: int = 32,
    seed: int = 0,
) -> PreTrainedModel:
    """A small decoder whose blocks differ in the token mixer alone.

    Args:
        mixer: "kda" (Kimi Delta Attention), "gdn" (gated delta net), or "mamba2" (transformers'
            Mamba-2 mixer with a state of about the same size, and no delta rule).
        vocab_size: Tokens.
        num_layers: Blocks.
        full_attention_every: Every n-th block, and the last, is latent attention; 0 for none.
        width: Width of the model; the SwiGLU is twice as wide.
        num_heads: Heads of every mixer but Mamba-2's.
        head_dim: Key and value width of a head.
        seed: Seed of the weights.

    Raises:
        UnknownNameError: There is no such mixer.
    """
    if mixer not in MIXERS:
        raise UnknownNameError("token mixer", mixer, MIXERS)
    config = models.kimi_config(
        vocab_size=vocab_size,
        hidden_size=width,
        num_layers=num_layers,
        num_heads=num_heads,
        head_dim=head_dim,
        intermediate_size=2 * width,
        kv_lora_rank=width // 2,
        full_attention_every=full_attention_every,
        # Every token is an ordinary one: the embedding of a padding token would stay zero.
        pad_token_id=None,
    )
    if mixer == "gdn":
        values = config.to_dict()
        for key in ("model_type", "architectures", "transformers_version"):
            values.pop(key, None)
        config = GdnHybridConfig(**values)
    model = models.build(config, seed=seed)
    if mixer == "mamba2":
        inner = 2 * width
        mamba = Mamba2Config(
            vocab_size=8,
            hidden_size=width,
            num_hidden_layers=num_layers,
            num_heads=inner // head_dim,
            head_dim=head_dim,
            expand=2,
            # As many floats of state as the delta attention's num_heads * head_dim^2.
            state_size=max(1, num_heads * head_dim * head_dim // inner),
            n_groups=1,
            # The whole-chunk products of the mixer's plain path grow with the chunk.
            chunk_size=16,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            blocks = Mamba2Model(mamba).layers
        for layer, block in zip(model.model.layers, blocks, strict=True):
            layer.self_attn = _Mamba2(block.mixer)
    return model


class _Mamba2(nn.Module):
    """Mamba-2's mixer with the call of an attention layer."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden_states: Tensor, **kwargs: object) -> Tensor:
        x_BTD: Tensor = self.mixer(hidden_states)
        return x_BTD


def train(
    model: PreTrainedModel,
    batches: Sequence[SequenceBatch],
    *,
    learning_rate: float,
    name: str,
    until: Callable[[], bool] | None = None,
    check_every: int = 25,
) -> int:
    """Train on each batch once: AdamW, warm-up over a tenth (20 steps at most), cosine decay.

    Args:
        model: Trained in place.
        batches: One a step.
        learning_rate: Peak rate.
        name: Of the run, for the log.
        until: Asked after every `check_every` steps; training stops where it is true.
        check_every: Steps.

    Returns:
        Steps done.
    """
    steps = len(batches)
    warm_up = max(1, min(20, steps // 10))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    model.train()
    for step, batch in enumerate(batches):
        decay = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / warm_up) * decay
        loss = _loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % check_every == 0:
            _log.info("%s: step %d of %d, loss %.3f", name, step + 1, steps, loss.item())
            if until is not None and until():
                return step + 1
    return steps


@torch.no_grad()
def accuracy(model: PreTrainedModel, batch: SequenceBatch) -> float:
    """Share of the targets that the model ranks first."""
    logits, targets = _targets(model.eval(), batch)
    model.train()
    return float((logits.argmax(-1) == targets).float().mean())


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, batch: SequenceBatch) -> float:
    """Mean cross entropy of the targets, in nats."""
    loss = float(_loss(model.eval(), batch))
    model.train()
    return loss


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, so that CPU seconds are seconds of work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through the points."""
    x_mean, y_mean = mean(x), mean(y)
    over = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return over / sum((a - x_mean) ** 2 for a in x)


def _loss(model: PreTrainedModel, batch: SequenceBatch) -> Tensor:
    logits, targets = _targets(model, batch)
    return F.cross_entropy(logits, targets)


def _targets(model: PreTrainedModel, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Logits at the positions that have a target, and the targets."""
    hidden_BTD = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    is_target_BT = batch.labels != IGNORED
    return model.lm_head(hidden_BTD[is_target_BT]), batch.labels[is_target_BT]
