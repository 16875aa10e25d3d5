"""What a run of reinforcement learning is, without its model and its questions."""

from typing import Literal

from pydantic import Field

from hanol.training import Section

# What may change between a run and its continuation: the updates stay what they are.
FREE = {
    "steps", "concurrency", "micro_batch_tokens", "save_every", "keep", "keep_rollouts_every",
    "max_deviation", "max_flat_steps",
}  # fmt: skip


class GrpoSettings(Section):
    """Group-relative policy optimisation as Tongyi DeepResearch has it (arXiv 2510.24701).

    The paper publishes neither rates nor sizes: these suit a model of about a million parameters.
    """

    steps: int = Field(100, ge=1, le=1_000_000, description="Batches of rollouts.")
    questions: int = Field(8, ge=1, le=100_000, description="Questions per optimizer step.")
    rollouts: int = Field(8, ge=2, le=100_000, description="Attempts at each question.")
    updates_per_batch: int = Field(
        1, ge=1, description="Optimizer steps with the same rollouts; 1 is strictly on-policy."
    )

    baseline: Literal["loo", "mean"] = Field(
        "loo", description="What a reward is compared with: the mean of the others, or of all."
    )
    no_answer: Literal["excluded", "kept"] = Field(
        "excluded", description="Whether rollouts that a limit cut, unrewarded, are in the loss."
    )
    excluded_in_baseline: bool = Field(
        True, description="The reward of excluded rollouts counts in what others compare with."
    )
    normalize: Literal["batch", "question"] = Field(
        "batch", description="Divide by the written tokens of the batch, or of each question."
    )
    drop_zero_variance: bool = Field(
        False, description="Questions without a signal do not count in what is divided by."
    )
    clip_low: float = Field(
        0.2, gt=0, lt=1, description="How far below 1 a token's probability ratio counts."
    )
    clip_high: float = Field(
        0.28, gt=0, description="How far above 1 it counts; the value of DAPO (2503.14476)."
    )

    adamw_lr: float = Field(1e-3, gt=0, description="Learning rate of AdamW.")
    muon_lr: float | None = Field(
        None, gt=0, description="Learning rate of Muon; None updates matrices by AdamW too."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of matrices.")
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the gradient.")

    active_questions: int | None = Field(
        None, ge=1, description="Questions in use, neither too easy nor too hard; None uses all."
    )
    refresh_every: int | None = Field(20, ge=1, description="Steps between two refreshes.")
    plateau_steps: int | None = Field(
        None, ge=1, description="Also refresh when the reward did not rise in so many steps."
    )
    max_probes: int = Field(256, ge=1, description="Questions that one refresh probes at most.")

    concurrency: int = Field(64, ge=1, le=100_000, description="Rollouts at once.")
    micro_batch_tokens: int = Field(16_384, ge=1, description="Padded tokens of one forward pass.")
    max_deviation: float | None = Field(
        1e-3,
        gt=0,
        description="Largest difference, in nats, of a token's log-probability when it was drawn "
        "and computed again; more ends the run. None for engines with other rounding.",
    )
    max_flat_steps: int | None = Field(
        5,
        ge=1,
        description="End the run after so many steps in a row in which each question's rewards "
        "were all the same, so that nothing was learned; None goes on.",
    )
    save_every: int = Field(10, ge=1, description="Steps between two checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")
    keep_rollouts_every: int | None = Field(
        1, ge=1, description="Keep the logs of every n-th step's rollouts; None keeps none."
    )
    seed: int = Field(
        0, ge=0, lt=2**33, description="Seed of the questions' order and of the sampling."
    )
