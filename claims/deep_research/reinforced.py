"""Reinforcement learning from one fine-tuned model: what three claims share."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from claims.deep_research.lab import (
    TURN,
    WINDOW,
    Attempt,
    attempted,
    demonstrated,
    fine_tuned,
    place,
    shuffled,
    small_agent,
    unseen,
)
from hanol import agent_training, models, rl
from hanol.runs import Budget
from hanol.sampling import Sampling
from hanol.worlds import Encyclopedia

_log = logging.getLogger(__name__)
_SFT_TOKENS = 1_600_000
STEPS, CHECKPOINTS = 40, 4
POOL, _ACTIVE = 1600, 200  # questions, and those in use at a time
_TEMPERATURE = 1.0
_SAMPLING = Sampling(temperature=_TEMPERATURE, top_p=1.0, presence_penalty=0.0, max_tokens=TURN)
BASE = (
    f"Qwen3 with a short convolution, 2 layers of width 128, fine-tuned on {_SFT_TOKENS / 1e6:.1f} "
    "M tokens of an expert's rollouts and then never again"
)
HOW = (
    f"{STEPS} steps of 24 questions with 8 attempts each at temperature {_TEMPERATURE:g}, "
    f"{_ACTIVE} questions in use that are neither too easy nor too hard, strictly on-policy, "
    "leave-one-out, token-level loss, AdamW at 5e-4"
)


def base(seed: int, quick: bool) -> Path:
    """The fine-tuned model, stopped early."""
    return fine_tuned(
        small_agent("convolution", seed),
        demonstrated(seed, quick),
        place(seed, quick, "fine-tuned"),
        tokens=3_000 if quick else _SFT_TOKENS,
        muon_lr=0.009,
        seed=seed,
    )


def reinforced(seed: int, quick: bool, name: str, hops: Sequence[int], **settings: Any) -> Path:
    """Reinforcement learning from the fine-tuned model; what its folder has is gone on with.

    Args:
        seed: Of everything.
        quick: Smallest sizes.
        name: Of the run.
        hops: Of the questions, which the expert has not shown.
        settings: Others of `GrpoSettings`.

    Returns:
        The folder of the run.
    """
    folder = place(seed, quick, name)
    steps = 1 if quick else STEPS
    if checkpoint_of(folder, steps).exists():
        return folder
    chosen = rl.GrpoSettings(
        steps=steps,
        questions=2 if quick else 24,
        rollouts=2 if quick else 8,
        active_questions=None if quick else _ACTIVE,
        adamw_lr=5e-4,
        save_every=max(1, steps // CHECKPOINTS),
        keep=CHECKPOINTS,
        keep_rollouts_every=None,
        seed=seed,
        **settings,
    )
    world = Encyclopedia(1_000 * seed + 500, 100 if quick else 2000)
    model, tokenizer = models.load(base(seed, quick))
    with agent_training.WorldEnvironment(
        world,
        place(seed, quick, f"world-{world.seed}"),
        tools=shuffled(seed),
        budget=Budget(model_calls=2 if quick else 8, context_tokens=WINDOW, seconds=None),
        sampling=_SAMPLING,
    ) as environment:
        questions = world.questions(4 if quick else POOL, hops=hops, seed=seed)
        trainer = rl.GrpoTrainer(
            model, tokenizer, environment, environment.tasks(questions), folder, chosen
        )
        trainer.train(_tell(folder, steps))
    return folder


def checkpoint_of(folder: Path, step: int) -> Path:
    """The checkpoint after a step of a run."""
    return folder / "checkpoints" / f"step-{step}"


def last(folder: Path, quick: bool) -> Path:
    """The last checkpoint of a run."""
    return checkpoint_of(folder, 1 if quick else STEPS)


def _tell(folder: Path, steps: int) -> Callable[[dict[str, float]], None]:
    def tell(line: dict[str, float]) -> None:
        _log.info(
            "%s: step %d of %d, reward %.3f, no answer %.3f",
            folder, line["step"], steps, line["reward"], line["no_answer"],
        )  # fmt: skip

    return tell


def asked(seed: int, quick: bool, name: str, checkpoint: Path, **options: Any) -> list[Attempt]:
    """Answers to unseen questions, drawn as in training where nothing else is said."""
    world, kinds = unseen(seed, quick, (1, 2), 200)
    file = place(seed, quick, "answers") / f"{name}.jsonl"
    options = {"sampling": _SAMPLING, "max_calls": 2 if quick else 8} | options
    return attempted(checkpoint, world, kinds, file, **options)
