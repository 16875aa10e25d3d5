"""deep-research.mid-training: agentic mid-training before fine-tuning."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    WINDOW,
    Attempt,
    add_attempts,
    attempted,
    place,
    right,
    unseen,
)
from claims.figures import Figures, gain
from claims.small import one_thread
from hanol import agent_training
from hanol.claims import Claim, Measurement

_log = logging.getLogger(__name__)
_MUON = 0.009
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
        add_attempts(figures, f"right answers, {name}", attempts)
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


def _tell(folder: Path) -> Callable[[Mapping[str, Any]], None]:
    said = 0

    def tell(line: Mapping[str, Any]) -> None:
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
