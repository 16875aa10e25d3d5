"""kimi-linear.hybrid-ratio: three delta layers for each full-attention layer."""

from collections.abc import Sequence

from claims.figures import mean_and_spread
from claims.kimi_linear.copy_text import VOCAB_SIZE, copy_text
from claims.small import held_out_loss, small_model, train
from hanol.claims import Claim, Measurement

# Ratio of delta layers to full attention -> every n-th of 8 layers is full attention.
_RATIOS = {"0:1": 1, "1:1": 2, "3:1": 4, "7:1": 8}
_STEPS = 160
_LENGTH = 128
_RATE = 3e-3


def _measure(seeds: Sequence[int], quick: bool) -> Measurement:
    losses: dict[str, list[float]] = {ratio: [] for ratio in _RATIOS}
    length = 40 if quick else _LENGTH
    for seed in seeds:
        held_out = copy_text(2 if quick else 64, length, seed=10**9 + seed)
        batches = [
            copy_text(2 if quick else 16, length, seed=10**6 * seed + i)
            for i in range(1 if quick else _STEPS)
        ]
        for ratio, every in _RATIOS.items():
            model = small_model(
                "kda", VOCAB_SIZE, num_layers=8, full_attention_every=every, width=64, seed=seed
            )
            train(model, batches, learning_rate=_RATE, name=f"ratio {ratio}, seed {seed}")
            losses[ratio].append(held_out_loss(model, held_out))
    summaries = {ratio: mean_and_spread(values) for ratio, values in losses.items()}
    at_best, spread_at_best = summaries["3:1"]

    def clearly_apart(other: str) -> float:
        """Difference to 3:1 beyond twice its standard error; positive where 3:1 is better."""
        value, spread = summaries[other]
        noise = 2 * ((spread**2 + spread_at_best**2) / len(seeds)) ** 0.5
        difference = value - at_best
        return difference if abs(difference) > noise else 0.0

    better_than_all_attention = clearly_apart("0:1") > 0
    never_worse = all(clearly_apart(ratio) >= 0 for ratio in _RATIOS if ratio != "3:1")
    return Measurement(
        verdict="shown" if better_than_all_attention and never_worse else "not shown",
        summary="Held-out loss "
        + ", ".join(f"{ratio} {value:.3f} ± {sd:.3f}" for ratio, (value, sd) in summaries.items())
        + "; an order of 1:1, 3:1 and 7:1 is only what lies outside twice the standard error.",
        figures={f"{ratio} held-out loss": value for ratio, (value, _) in summaries.items()},
        spread={f"{ratio} held-out loss": sd for ratio, (_, sd) in summaries.items()},
    )


HYBRID_RATIO = Claim(
    id="kimi-linear.hybrid-ratio",
    title="Three delta layers to one full-attention layer is the best mixture.",
    paper="Validation perplexity 5.77 (0:1), 5.66 (1:1), 5.65 (3:1), 5.70 (7:1), 5.82 (15:1); 16 "
    "layers (arXiv 2510.26692, section 5.2).",
    scale="8 layers of width 64, 2 heads of 32, on procedural text with copies from up to 127 "
    "tokens back; the same 160 batches of 16 x 128 tokens for every ratio. All attention is "
    "without positions, as in the hybrid.",
    expectation="Shown if 3:1 has a lower held-out loss than 0:1, and none of 1:1 and 7:1 is lower "
    "than 3:1, each by more than twice the standard error of the difference. The order of "
    "1:1, 3:1 and 7:1 is expected to be inside the noise.",
    larger="recipes/kimi-linear/350m.yaml with `model` changed to each ratio; differences of 1 % "
    "in perplexity need several seeds at that size.",
    experiment=_measure,
)
