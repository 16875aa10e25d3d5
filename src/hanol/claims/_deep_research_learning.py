"""deep-research.short-convolution and .mid-training: what makes a small agent learn sooner."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from hanol import agent_training, models
from hanol.claims._claim import Claim, Measurement
from hanol.claims._deep_research import (
    BENCHMARKS,
    PAPER,
    WINDOW,
    Attempt,
    Figures,
    Shape,
    attempted,
    demonstrated,
    fine_tuned,
    gain,
    held_out_rows,
    place,
    right,
    small_agent,
    token_accuracy,
    unseen,
)
from hanol.claims._small import one_thread

_log = logging.getLogger(__name__)
_MUON = 0.009

# -- short convolution

_VARIANTS: dict[str, tuple[Shape, float | None]] = {
    "convolution, Muon": ("convolution", _MUON),
    "no convolution, Muon": ("plain", _MUON),
    "convolution, AdamW": ("convolution", None),
    "Kimi-Linear hybrid, Muon": ("hybrid", _MUON),
}
_BEST, *_OTHERS = _VARIANTS
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
    for name, (shape, muon_lr) in _VARIANTS.items():
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
        figures.add_attempts(f"right answers, {name}", found[name])
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
        for name in _VARIANTS
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

# -- mid-training

_MID_TOKENS, _SFT_TOKENS = 1_200_000, 600_000


def _mid_training(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        with one_thread():
            _one_mid_training(seed, quick, figures)
    return mid_training_verdict(figures)


def _one_mid_training(seed: int, quick: bool, figures: Figures) -> None:
    world, kinds = unseen(seed, quick, (1, 2), 100)
    found: dict[str, list[Attempt]] = {}
    for name, stages in (("without", ["sft"]), ("with", ["midtrain", "sft"])):
        folder = place(seed, quick, f"{name}-mid-training")
        for stage, checkpoint in _trained(seed, quick, folder, stages).items():
            key = name if stage == "sft" else "mid-training alone"
            found[key] = attempted(
                checkpoint, world, kinds, folder / f"unseen-{stage}.jsonl",
                max_calls=2 if quick else 12,
            )  # fmt: skip
    for name, attempts in found.items():
        figures.add_attempts(f"right answers, {name}", attempts)
        figures.add(f"turns refused, {name}", mean(one.refused for one in attempts))
    figures.add_gain("gain", gain(right(found["without"]), right(found["with"])))


def _trained(seed: int, quick: bool, folder: Path, stages: Sequence[str]) -> dict[str, Path]:
    """Run some stages of one recipe; the checkpoint of each."""
    short = 2_000
    common = {"muon_lr": _MUON, "max_length": WINDOW // 2, "save_tokens": 200_000}
    every = {
        "midtrain": {
            "kind": "midtrain",
            "tokens": short if quick else _MID_TOKENS,
            "data": {"planning": 0.3, "reasoning": 0.4, "decisions": 0.2, "text": 0.1},
            "decay": 0.0,
            "seed": 1,
            **common,
        },
        "sft": {
            "kind": "sft",
            "tokens": short if quick else _SFT_TOKENS,
            "data": {"trajectories": 1.0},
            "warmup_steps": 20,
            **common,
        },
    }
    recipe = agent_training.ResearcherRecipe.model_validate(
        {
            "kind": "researcher",
            "name": folder.name,
            "model": {
                "config": "conv-attention", "hidden_size": 128, "num_layers": 2, "num_heads": 4,
                "intermediate_size": 320, "max_length": WINDOW,
            },
            "world": {"seed": 1_000 * seed, "entities": 300, "worlds": 20, "hops": (1, 2)},
            "stages": [every[name] for name in stages],
            # The claim has an evaluation of its own.
            "eval": {"every": None, "questions": 1, "entities": 100, "model_calls": 1},
            "seed": seed,
        }
    )  # fmt: skip
    result = agent_training.train_researcher(recipe, folder, resume=True, on_step=_tell(folder))
    return {stage.name: Path(stage.checkpoint or "") for stage in result.stages}


def _tell(folder: Path) -> Callable[[dict[str, Any]], None]:
    said = 0

    def tell(line: dict[str, Any]) -> None:
        nonlocal said
        if "loss" in line and abs(line["tokens"] - said) >= 200_000:
            said = line["tokens"]
            _log.info("%s: %d tokens of a stage, loss %.3f", folder, said, line["loss"])

    return tell


def mid_training_verdict(figures: Figures) -> Measurement:
    """Whether fine-tuning gives more after mid-training."""
    shown = figures["gain"] >= 10 and min(figures.values["gain, low"]) > 0
    return figures.measurement(
        shown,
        f"After the same {_SFT_TOKENS / 1e6:.1f} M tokens of fine-tuning "
        f"{figures['right answers, without']:.1f} % of the questions are right without and "
        f"{figures['right answers, with']:.1f} % with {_MID_TOKENS / 1e6:.1f} M tokens of "
        f"mid-training before ({figures['gain']:+.1f} points, {figures['gain, low']:+.1f} to "
        f"{figures['gain, high']:+.1f}); mid-training alone "
        f"{figures['right answers, mid-training alone']:.1f} %.",
    )


MID_TRAINING = Claim(
    id="deep-research.mid-training",
    title="Agentic mid-training makes the same fine-tuning give a better agent.",
    paper="Claimed without an ablation: two stages of agentic continual pre-training come before "
    f"fine-tuning (Tongyi DeepResearch, {PAPER}, section 3.2; data of AgentFounder, arXiv "
    "2509.13310, whose 30 B model reaches 39.9 on BrowseComp). Amounts are not published.",
    scale="Qwen3 with a short convolution, 2 layers of width 128, from random weights, by the "
    f"recipe's stages: {_SFT_TOKENS / 1e6:.1f} M tokens of an expert's rollouts at questions of 1 "
    f"and 2 hops, the same rows in the same order twice, once after {_MID_TOKENS / 1e6:.1f} M "
    "tokens of planning (question to first call), reasoning (question and pages to answer), "
    "decisions (a choice between next steps) and pages, with no whole rollout among them. 100 "
    "unseen questions of each number of hops, greedy; intervals of paired differences from "
    "resampling questions. Both arms have the same fine-tuning, not the same total of tokens: so "
    "the claim is meant.",
    expectation="Shown if the mid-trained agent gets at least 10 points more right (mean over "
    "seeds) and the 95 % interval is above 0 in every seed; mid-training alone gives close to "
    "nothing, as it never shows a whole rollout.",
    larger="`hanol train recipes/researcher/30b-a3b.yaml`, with and without its mid-training "
    f"stages. {BENCHMARKS}.",
    experiment=_mid_training,
)
