"""What a stage is given and what it makes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from hanol.agent_training.stages._recipe import AgentStage, ResearcherRecipe
from hanol.scoring import Interval, wilson
from hanol.training import OnStep, TrainingResult

CHECKPOINT = "checkpoint"  # folder of a finished stage's model
TRAJECTORIES = "trajectories.jsonl"  # what a `reject` stage keeps

# By number of hops ("1", "2", ...) or another kind of question: whether each was answered rightly.
Outcomes = Mapping[str, Sequence[bool]]
Facts = dict[str, Any]


@dataclass(frozen=True)
class StageRun:
    """What the body of a stage is given.

    The body leaves its model in `folder / CHECKPOINT`, or that of a `reject` stage its trajectories
    in `folder / TRAJECTORIES`.
    """

    recipe: ResearcherRecipe
    stage: AgentStage
    folder: Path
    start: Path | None  # checkpoint to continue from; None: what `recipe.model` says
    folders: Mapping[str, Path]  # of the stages before it, by name
    is_resumed: bool  # the body continues from what an earlier process left in `folder`
    on_step: OnStep = field(default=lambda line: None)  # called with each line of metrics


Body = Callable[[StageRun], Facts]


class Accuracy(Interval, frozen=True):
    """Share of right answers to one kind of question, with a 95 % interval."""

    n: int = Field(description="Questions.")

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> "Accuracy":
        """From whether each was answered rightly."""
        return cls(**wilson(sum(outcomes), len(outcomes)).model_dump(), n=len(outcomes))


class StageResult(BaseModel):
    """What a stage made."""

    name: str
    kind: str
    folder: str
    start: list[str] = Field(description="Checkpoints that it started from; none: random weights.")
    checkpoint: str | None = Field(None, description="None where no model is trained.")
    minutes: float = Field(description="Time to finish it, without the evaluation.")
    facts: dict[str, Any] = Field(default={}, description="What its body reports.")
    accuracy: dict[str, Accuracy] = Field(default={}, description="By kind of question.")

    def accuracy_text(self) -> str:
        """Right answers by kind of question, with their intervals."""
        return "   ".join(f"{kind_label(kind)} {found}" for kind, found in self.accuracy.items())


def kind_label(kind: str) -> str:
    """A kind of question in words: "1" is "1 hop"."""
    return f"{kind} hop{'s' * (kind != '1')}" if kind.isdigit() else kind


class ResearcherResult(TrainingResult):
    """What a run made; `summary.json`. Its checkpoint is that of the last stage that has one."""

    name: str
    stages: list[StageResult]

    def summary(self) -> str:
        """The result in a sentence."""
        judged = [stage for stage in self.stages if stage.accuracy]
        accuracy = f": {judged[-1].accuracy_text()}" if judged else ""
        minutes = sum(stage.minutes for stage in self.stages)
        return f"{self.checkpoint or self.folder}{accuracy} after {minutes:.1f} minutes"
