"""deep-research.short-convolution: what lets a small agent learn from two million tokens."""

from collections.abc import Sequence

from claims.deep_research.lab import (
    Attempt,
    Shape,
    add_attempts,
    attempted,
    demonstrated,
    fine_tuned,
    held_out_rows,
    place,
    right,
    small_agent,
    token_accuracy,
    unseen,
)
from claims.figures import Figures, gain
from claims.small import one_thread
from hanol import models
from hanol.claims import Claim, Measurement

_MUON = 0.009
VARIANTS: dict[str, tuple[Shape, float | None]] = {
    "convolution, Muon": ("convolution", _MUON),
    "no convolution, Muon": ("plain", _MUON),
    "convolution, AdamW": ("convolution", None),
    "Kimi-Linear hybrid, Muon": ("hybrid", _MUON),
}
_BEST, *_OTHERS = VARIANTS
_TOKENS = 2_000_000


def _convolution(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        with one_thread():
            _one_convolution(seed, quick, figures)
    return convolution_verdict(figures)


def _one_convolution(seed: int, quick: bool, figures: Figures) -> None:
    rows = demonstrated(seed, quick)
    expert = held_out_rows(seed, quick)
    world, kinds = unseen(seed, quick, (1, 2), 100)
    found: dict[str, list[Attempt]] = {}
    for name, (shape, muon_lr) in VARIANTS.items():
        folder = place(seed, quick, name.replace(", ", "-").replace(" ", "-").lower())
        checkpoint = fine_tuned(
            small_agent(shape, seed),
            rows,
            folder,
            tokens=3_000 if quick else _TOKENS,
            muon_lr=muon_lr,
            seed=seed,
        )
        found[name] = attempted(
            checkpoint, world, kinds, folder / "unseen.jsonl", max_calls=2 if quick else 12
        )
        add_attempts(figures, f"right answers, {name}", found[name])
        tokens = 100 * token_accuracy(models.load_model(checkpoint), expert)
        figures.add(f"tokens of the expert, {name}", tokens)
    for name in _OTHERS:
        figures.add_gain(f"{_BEST} over {name}", gain(right(found[name]), right(found[_BEST])))


def convolution_verdict(figures: Figures) -> Measurement:
    """Whether the convolution and Muon are both what makes the agent learn in time."""
    plain, adamw = (f"{_BEST} over {name}" for name in _OTHERS[:2])
    shown = (
        figures[plain] >= 30
        and min(figures.values[f"{plain}, low"]) > 0
        and figures[adamw] >= 10
        and min(figures.values[f"{adamw}, low"]) > 0
    )
    told = "; ".join(
        f"{name} {figures[f'right answers, {name}']:.0f} % "
        f"({figures[f'tokens of the expert, {name}']:.1f} %)"
        for name in VARIANTS
    )
    return figures.measurement(
        shown,
        f"Right answers to questions of 1 and 2 hops (the expert's tokens ranked first): {told}. "
        f"The convolution gives {figures[plain]:+.0f} points, Muon {figures[adamw]:+.0f}.",
    )


SHORT_CONVOLUTION = Claim(
    id="deep-research.short-convolution",
    title="A short convolution before attention, and Muon, let a small agent learn to research "
    "from two million tokens.",
    paper="Kimi Linear without its convolutions: validation perplexity 5.70 instead of 5.65 "
    "(arXiv 2510.26692, table 1); Muon is the optimiser of its models. Neither is about agents: "
    "what they contribute to one is not published.",
    scale="2 layers of width 128, about 0.5 M parameters, four times from random weights on the "
    "same 2 M tokens of an expert's rollouts at questions of 1 and 2 hops in 60 encyclopedias "
    "(opaque addresses, links, shuffled results), batches of 8, constant rates that fall linearly "
    "in the second half: Qwen3 with a convolution of 4 tokens on queries, keys and values, and the "
    "same without it, both by Muon at 0.009 with AdamW at 2e-3 for the rest; with it, by AdamW at "
    "2e-3 alone; and a hybrid of a delta-attention and a latent-attention layer by Muon. 100 "
    "questions of each number of hops in a world of other names, greedy, in the real environment; "
    "intervals of paired differences from resampling questions. No rates were searched for.",
    expectation="Shown if convolution and Muon together get at least 30 points more of the "
    "questions right than Muon without the convolution, and at least 10 points more than the "
    "convolution with AdamW (means over seeds), with 95 % intervals above 0 in every seed. "
    "Expected from one seed of another, easier world: 94, 10 and 72 % after 1.2 to 1.6 M tokens. "
    "The hybrid is reported; it is expected to learn later than the baseline with attention in "
    "both layers.",
    larger="`hanol train recipes/researcher/tiny.yaml` with `--set model.num_layers=8` and more "
    "tokens on a GPU; whether plain attention catches up with four layers and more tokens is seen "
    "there.",
    experiment=_convolution,
)
