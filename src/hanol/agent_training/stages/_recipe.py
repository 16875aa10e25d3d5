"""The recipe of a research agent: one YAML file that defines its training completely.

Its stages are those of Tongyi DeepResearch (arXiv 2510.24701): agentic mid-training, supervised
fine-tuning on rejection-sampled trajectories, reinforcement learning, merging.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from hanol.rl import GrpoSettings
from hanol.runs import Mode
from hanol.training import Estimate, LearningSection, Recipe, Section, Seed


class AgentModelSection(Section):
    """What is trained: random weights of a small shape, or a checkpoint."""

    config: Literal["conv-attention", "kimi-linear", "lfm2", "qwen3"] | None = Field(
        None, description="Random weights of this kind, with the sizes below."
    )
    hidden_size: int = Field(128, ge=8, le=65_536, description="Width of the model.")
    num_layers: int = Field(2, ge=1, le=1000, description="Blocks.")
    num_heads: int = Field(4, ge=1, description="Heads; the width is divided among them.")
    intermediate_size: int = Field(320, ge=8, le=1_000_000, description="Width of the SwiGLU.")
    conv_kernel: int = Field(
        4, ge=2, le=32, description="Tokens that a short convolution sees; qwen3 has none."
    )
    kv_lora_rank: int = Field(
        64, ge=8, le=65_536, description="Latent width of kimi-linear's cache."
    )
    full_attention_every: int = Field(
        2, ge=0, description="kimi-linear, lfm2: full attention in each n-th and the last; 0 none."
    )
    max_length: int = Field(
        4096, ge=64, le=10_000_000, description="Tokens that the model reads at most."
    )
    verbatim_calls: bool = Field(
        False, description="With `config`: write the JSON of calls mark by mark, not in one token."
    )
    checkpoint: str | None = Field(
        None, description="Bundled name, folder or hub id to start from, instead of `config`."
    )
    preset: str | None = Field(
        None, description="Name of the checkpoint's shape: a dry run then needs no checkpoint."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.config is None) == (self.checkpoint is None):
            raise ValueError("give either `config` or `checkpoint`")
        if self.preset is not None and self.checkpoint is None:
            raise ValueError("`preset` is the shape of a `checkpoint`; `config` has its own sizes")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"`num_heads` ({self.num_heads}) does not divide `hidden_size` ({self.hidden_size})"
            )
        return self


Hops = Annotated[int, Field(ge=0, le=5)]


class WorldSection(Section):
    """The generated encyclopedias in which the agent learns; their questions have exact answers."""

    name: Literal["encyclopedia"] = "encyclopedia"
    seed: Seed = Field(
        0, description="Seed of the first training world; the others count on from it."
    )
    entities: int = Field(300, ge=16, le=5000, description="Pages of a training world.")
    worlds: int = Field(40, ge=1, description="Different training worlds.")
    num_distractors: tuple[Annotated[int, Field(ge=0, le=12)], ...] = Field(
        (1,),
        min_length=1,
        description="Distractor sentences of a page, 7 make about 120 words; training worlds take "
        "these numbers in turn, the model is asked in worlds with the first.",
    )
    hops: tuple[Hops, ...] = Field((1, 2, 3), min_length=1, description="Hops of the questions.")
    described: float = Field(
        0.0, ge=0, le=1, description="Share of questions whose start is described, not named."
    )
    detours: float = Field(
        0.1, ge=0, le=1, description="Share of the expert's runs that begin with a bad query."
    )


class DocumentsSection(Section):
    """One's own documents and questions about them."""

    folder: Path = Field(description="Folder of the documents.")
    questions: Path = Field(description="JSON lines with `question` and `answer`.")


class _Attempting(Section):
    model_calls: int = Field(12, ge=1, description="Turns of one attempt at most.")
    max_length: int = Field(
        2048, ge=2048, description="Tokens of one attempt at most; 1,024 are kept for its answer."
    )
    entities: int = Field(1000, ge=16, le=5000, description="Pages of the world.")


class EvalSection(_Attempting):
    """How well the model does, on worlds and questions that no stage trains on."""

    every: int | None = Field(
        1_000_000, ge=1, description="Trained tokens between evaluations in a stage; None for none."
    )
    questions: int = Field(200, ge=1, le=100_000, description="Questions of each kind.")
    glance: int = Field(
        10, ge=1, le=100_000, description="Questions of each kind for evaluations in a stage."
    )
    hops: tuple[Hops, ...] = Field(
        (1, 2, 3),
        min_length=1,
        description="Kinds of questions of a world; where the agent learns from starts that are "
        "described, those of 1 and 2 hops are one kind more.",
    )
    seed: Seed = Field(12345, description="Seed of the world and its questions.")
    turn_tokens: int = Field(192, ge=1, description="Tokens of one turn at most.")


DataKind = Literal["trajectories", "planning", "reasoning", "decisions", "tools", "text"]


def _add_up(shares: dict[Any, float]) -> dict[Any, float]:
    total = math.fsum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the shares add up to {total:.6g}, but must add up to 1")
    return {name: share for name, share in shares.items() if share > 0}


Share = Annotated[float, Field(ge=0, le=1)]
DataShares = Annotated[dict[DataKind, Share], AfterValidator(_add_up)]
ModeShares = Annotated[dict[Mode, Share], AfterValidator(_add_up)]


class _Named(Section):
    name: str = Field(
        "", pattern=r"^[\w-]*$", description="What other stages call it; its kind by default."
    )


class _Starting(_Named):
    start: str | None = Field(
        None, description="Stage whose model it starts from; None is the one before."
    )


class SftStage(LearningSection, _Starting):
    """Supervised fine-tuning on what an agent should do."""

    kind: Literal["sft"]
    tokens: int | None = Field(None, gt=0, description="Tokens of the stage.")
    epochs: float | None = Field(None, gt=0, le=1e6, description="Or how often its data are read.")
    data: DataShares = Field(
        {"trajectories": 1.0},
        description="Share of its tokens by kind (arXiv 2509.13310 for the first five).",
    )
    different_tokens: int | None = Field(
        None, ge=1, description="Tokens to generate; None is `tokens`: each row is read about once."
    )
    loss: Literal["agent", "all"] = Field(
        "agent", description="Learn what the agent wrote, or every token."
    )
    files: dict[DataKind, Path] = Field(
        {}, description="Samples by kind, as `hanol synth` writes them; other kinds are generated."
    )
    source: str | None = Field(
        None, description="`reject` stage whose trajectories are read; None takes the expert's."
    )
    modes: ModeShares = Field(
        {"react": 1.0}, description="Modes of the agent in the trajectories: share of questions."
    )

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("give either `tokens` or `epochs`")
        return self


class MidtrainStage(SftStage):
    """Agentic mid-training (arXiv 2509.13310): pre-training continued on agents' data."""

    kind: Literal["midtrain"]  # type: ignore[assignment]
    loss: Literal["agent", "all"] = "all"


class _Asking(_Starting, _Attempting):
    """A stage in which the model attempts questions."""

    pool: int = Field(1000, ge=1, le=1_000_000, description="Different questions.")
    hops: tuple[Hops, ...] | None = Field(
        None, description="Hops of the questions; None takes the world's."
    )
    described: float | None = Field(
        None, ge=0, le=1, description="Share of described starts; None takes the world's."
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of the sampling.")


class RejectStage(_Asking):
    """Rejection sampling: trajectories that ended in the right answer are kept."""

    kind: Literal["reject"]
    engine: str | None = Field(
        None,
        description="Who attempts the questions, such as http://127.0.0.1:8000/v1#teacher; None "
        "is the model so far, by the recipe's.",
    )
    modes: ModeShares = Field(
        {"react": 1.0}, description="Modes of the agent: share of the questions."
    )
    attempts: int = Field(4, ge=1, le=100_000, description="Attempts at each question.")
    keep: int | None = Field(
        None, ge=1, description="Trajectories kept at most, one of a question; None keeps all."
    )
    concurrency: int = Field(64, ge=1, le=100_000, description="Attempts at once.")
    seed: Seed = Field(0, description="Added to the recipe's.")


class GrpoStage(GrpoSettings, _Asking):
    """Reinforcement learning in the agent's environment."""

    kind: Literal["grpo"]
    mode: Mode = Field("react", description="Mode of the agent.")


class MergeStage(_Named):
    """The average of models from earlier stages."""

    kind: Literal["merge"]
    of: tuple[str, ...] = Field(min_length=2, description="Names of stages.")
    weights: tuple[float, ...] | None = Field(
        None, description="One for each, together 1; None makes them equal."
    )

    @model_validator(mode="after")
    def _is_convex(self) -> Self:
        if self.weights is None:
            return self
        if len(self.weights) != len(self.of):
            raise ValueError(f"`of` names {len(self.of)} stages, but `weights` {len(self.weights)}")
        if min(self.weights) < 0 or abs(math.fsum(self.weights) - 1) > 1e-6:
            raise ValueError(f"`weights` are {list(self.weights)}: each 0 or more, together 1")
        return self


AgentStage = Annotated[
    MidtrainStage | SftStage | RejectStage | GrpoStage | MergeStage, Field(discriminator="kind")
]


class ResearcherRecipe(Recipe):
    """A complete training of a research agent."""

    kind: Literal["researcher"]
    model: AgentModelSection
    world: WorldSection | None = Field(None, description="Where it learns; or `documents`.")
    documents: DocumentsSection | None = None
    engine: str = Field(
        "{checkpoint}",
        pattern=r"\{checkpoint\}",
        description="What answers for the model in `reject` stages and evaluations; {checkpoint} "
        "stands for the folder of the model so far: ray:8:{checkpoint}.",
    )
    stages: tuple[AgentStage, ...] = Field(min_length=1)
    eval: EvalSection = EvalSection()

    @field_validator("model", mode="before")
    @classmethod
    def _checkpoint(cls, value: Any) -> Any:
        """A plain string is a checkpoint: `--set model=Qwen/Qwen3-4B`."""
        return {"checkpoint": value} if isinstance(value, str) else value

    @field_validator("stages", mode="after")
    @classmethod
    def _named(cls, stages: tuple[Any, ...]) -> tuple[Any, ...]:
        named = tuple(
            stage if stage.name else stage.model_copy(update={"name": stage.kind})
            for stage in stages
        )
        twice = [name for name, n in Counter(stage.name for stage in named).items() if n > 1]
        if twice:
            raise ValueError(f"two stages are called {twice[0]!r}: give each a `name` of its own")
        return named

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.world is None) == (self.documents is None):
            raise ValueError("give either `world` or `documents`")
        models: list[str] = []
        rejects: list[str] = []
        for stage in self.stages:
            start, source = getattr(stage, "start", None), getattr(stage, "source", None)
            for key, known, what in (
                *((name, models, "the stages with a model") for name in getattr(stage, "of", ())),
                (start, models, "the stages with a model"),
                (source, rejects, "the `reject` stages"),
            ):
                if key is not None and key not in known:
                    raise ValueError(
                        f"stage {stage.name!r} refers to {key!r}, but {what} before it "
                        f"{'are ' + ', '.join(known) if known else 'there are none'}"
                    )
            (rejects if stage.kind == "reject" else models).append(stage.name)
        return self

    def estimate(self) -> Estimate:
        """What the run will take, computed without allocating the model."""
        from hanol.agent_training.stages._agent_model import researcher_estimate

        return researcher_estimate(self)
