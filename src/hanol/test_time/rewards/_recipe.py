"""Recipes of process and outcome reward models, and of models that revise their answers."""

from typing import Literal, Self

from pydantic import Field, model_validator

from hanol.sampling import Sampling
from hanol.test_time._prompts import ThinkSettings
from hanol.test_time.rewards._rows import AfterFirstError
from hanol.training import Estimate, FinetuneResult, MessagesSection, Section, SftRecipe


class RolloutsSection(Section):
    """Solutions that a model writes to problems, which a verifier judges."""

    problems: str = Field(
        description="What is solved, as `hanol.worlds.open_problems` takes it: chains, "
        "countdown:numbers=3, gym:NAME, or a file of problems with answers."
    )
    count: int | None = Field(None, ge=1, description="Number of problems; None: all of a file.")
    policy: str | None = Field(
        None, description="Model that writes them; None: the one that is trained."
    )
    samples: int = Field(16, ge=1, description="Solutions per problem.")
    rollouts: int = Field(
        16, ge=1, description="Continuations of each step: the share that ends right is its label."
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of sampling.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus of sampling.")
    max_tokens: int = Field(256, ge=1, description="Tokens per solution; longer ones are left out.")
    separator: str = Field("\n", min_length=1, description="Text that ends a step of a solution.")
    template: str = Field("{problem}", description='What is asked, with "{problem}" in it.')
    system: str | None = Field(None, description="System message; None: that of the template.")
    raw: bool | None = Field(
        None, description="Ask without a chat template; None: where the model has none."
    )
    concurrency: int = Field(16, ge=1, description="Problems at once.")
    dtype: str | None = Field(None, description="Data type of a policy in this process.")

    def settings(self) -> ThinkSettings:
        """How solutions are sampled."""
        sampling = Sampling(
            temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens
        )
        return ThinkSettings(
            sampling, self.separator, self.system, self.template, self.raw, self.concurrency
        )


class PrmRecipe(SftRecipe):
    """Training a process or an outcome reward model."""

    kind: Literal["prm"]  # type: ignore[assignment]
    data: MessagesSection | None = Field(  # type: ignore[assignment]
        None, description='Rows {"prompt", "completions", "labels"}; or `rollouts`.'
    )
    rollouts: RolloutsSection | None = Field(
        None, description="Make the labels from a model's own solutions; or `data`."
    )
    target: Literal["steps", "outcome"] = Field(
        "steps", description='What is learned: every step, or the answer alone ("outcome").'
    )
    after_first_error: AfterFirstError = Field(
        "auto",
        description="Labels behind the first 0: ignore, zero or keep. auto ignores them where all "
        "labels of a row are true or false.",
    )
    separator: str = Field("\n\n", min_length=1, description="Text behind each step.")
    aggregation: Literal["last", "min", "prod", "mean"] = Field(
        "last", description="How scores of steps become one of a solution."
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout in front of the classifier.")
    held_out: float = Field(0.1, ge=0, lt=1, description="Share of problems that are held out.")
    min_rows: int = Field(200, ge=1, description="Fewest solutions that a training starts with.")
    keep_best: bool = Field(
        True, description="Write the model of the evaluation with the lowest loss, not the last."
    )
    eval_rows: int = Field(512, ge=1, description="Held-out rows that an evaluation reads at most.")
    batch_size: int = Field(32, ge=1, le=100_000, description="Solutions per optimizer step.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="Betas of AdamW.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.data is None) == (self.rollouts is None):
            raise ValueError("give either `data` or `rollouts`")
        if self.muon_lr is not None:
            raise ValueError("`muon_lr` is for pre-training: reward models are trained by AdamW")
        return self

    def estimate(self) -> Estimate:
        """What the run will take; rows of a file are counted."""
        from hanol.test_time.rewards._train import prm_estimate

        return prm_estimate(self)


class PrmResult(FinetuneResult):
    """What a training of a reward model made."""

    labels: int = Field(description="Steps that were learned.")
    dropped_steps: int = Field(description="Steps that did not fit, dropped from ends of rows.")
    eval_excess: float | None = Field(
        None, description="Held-out loss above the entropy of its labels, in nats a step."
    )

    def summary(self) -> str:
        """The result in a sentence."""
        excess = (
            "" if self.eval_excess is None else f" ({self.eval_excess:.4f} above their labels')"
        )
        return super().summary().replace(" after ", f"{excess} after ", 1)


class RevisionRecipe(SftRecipe):
    """Fine-tuning a model on wrong answers that a right one follows."""

    kind: Literal["revision"]  # type: ignore[assignment]
    data: MessagesSection | None = None  # type: ignore[assignment]
    rollouts: RolloutsSection = Field(description="Answers to learn from; `rollouts` is not used.")
    most: int = Field(4, ge=1, description="Largest number of wrong answers before a right one.")
    held_out: float = Field(0.1, ge=0, lt=1, description="Share of problems that are held out.")
    min_rows: int = Field(
        200, ge=1, description="Fewest right answers behind a wrong one to start with."
    )

    def estimate(self) -> Estimate:
        """What the run will take."""
        from hanol.test_time.rewards._train import revision_estimate

        return revision_estimate(self)
