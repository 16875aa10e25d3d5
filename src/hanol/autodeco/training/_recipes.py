"""Recipes of AutoDeco: heads trained on rows, and heads that learn to follow commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from hanol import models
from hanol.autodeco._config import AutoDecoConfig
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._data import Row, function_rows, read_rows
from hanol.autodeco.training._heads_trainer import HeadsLearning
from hanol.autodeco.training._steer import (
    SteeringReport,
    SteeringSettings,
    steering_report,
    train_steering,
)
from hanol.autodeco.training._train import HeadsSettings
from hanol.errors import DataError, HanolError
from hanol.scoring import parse_verifier
from hanol.training import Estimate, OnStep, Recipe, Section, TrainingResult
from hanol.worlds import small_tasks

# Rows that need no file: functions of the standard library, and small tasks for a chat model.
STDLIB, TASKS = "stdlib", "tasks"


class RowsSection(Section):
    """The rows that heads learn from."""

    rows: str = Field(
        STDLIB,
        description='JSON lines with "prompt" and "completion" or "messages"; or "stdlib": the '
        'functions of the standard library, or "tasks": `hanol.worlds.small_tasks`.',
    )
    max_rows: int | None = Field(
        None, ge=1, le=10_000_000, description="Rows to use, spread evenly; None: all."
    )
    max_length: int = Field(4096, ge=2, description="Tokens of a row; longer ones are left out.")


class AnswersSection(RowsSection):
    """The rows that heads learn from: given ones, or the model's own right answers."""

    verify: str | None = Field(
        None,
        description="Learn from the model's own answers that pass this check: arithmetic, python, "
        "python:body, regex:PATTERN or module:function. None learns from the given completions.",
    )
    samples: int = Field(4, ge=1, le=100_000, description="Own answers sampled per prompt.")
    keep: int = Field(2, ge=1, description="Right answers kept per prompt.")
    max_new_tokens: int = Field(512, ge=1, description="Tokens of an own answer, at most.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.verify is not None:
            try:
                parse_verifier(self.verify)
            except HanolError as err:
                raise ValueError(str(err)) from err
        return self


class _OfHeads(Recipe):
    model: str = Field(
        description="Bundled name, folder or hub id: a base that gets new heads, or heads to train "
        "further."
    )
    base_model: str | None = Field(None, description="Base to use in place of the heads' own.")

    def _estimate(self, settings: HeadsLearning, reads: int, max_length: int) -> Estimate:
        report = models.inspect(self.base_model or self.model)
        tokens = settings.steps * settings.batch * reads * max_length
        return Estimate(
            parameters=report.parameters,
            active_parameters=report.active_parameters,
            steps=settings.steps,
            tokens=tokens,  # at most
            train_flops=2.0 * report.active_parameters * tokens,  # the base only runs forward
            state_gib=report.parameters * 4 / 2**30,
        )


class HeadsRecipe(HeadsSettings, _OfHeads):
    """Heads that choose temperature and top-p, trained over a frozen base."""

    kind: Literal["heads"]
    data: AnswersSection = AnswersSection()

    def estimate(self) -> Estimate:
        """An upper bound of what the run takes: rows have their greatest length."""
        return self._estimate(self, 1, self.data.max_length)


class SteeringRecipe(SteeringSettings, _OfHeads):
    """Trained heads that learn to follow commands such as "be more diverse"."""

    kind: Literal["steering"]
    data: RowsSection = RowsSection()
    held_out: int = Field(
        100, ge=1, le=1_000_000, description="Rows for the report, not trained on."
    )

    def estimate(self) -> Estimate:
        """An upper bound of what the run takes: rows have their greatest length."""
        return self._estimate(self, 3, self.max_length)


class SteeringResult(TrainingResult):
    """Result of a steering run; its checkpoint has the heads alone."""

    report: SteeringReport = Field(description="Effect of held-out commands on held-out prompts.")

    def summary(self) -> str:
        """The result in a few lines."""
        lines = [f"{self.checkpoint}: {self.report.prompts} held-out prompts, held-out words"]
        for name, moved in (("T", self.report.temperature), ("P", self.report.top_p)):
            if moved is not None:
                low, high = moved.low_moves, moved.high_moves
                lines.append(
                    f"  {name} {moved.base:.2f}; asked for less {moved.low:.2f}, down in "
                    f"{low}; asked for more {moved.high:.2f}, up in {high}"
                )
        return "\n".join(lines)


def run_steering(
    recipe: SteeringRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> SteeringResult:
    """Run a recipe of the kind `steering`; see `hanol.training.train`, which calls this."""
    source, count = recipe.data.rows, recipe.held_out
    rows = training_rows(source, recipe.data.max_rows)
    if source in (STDLIB, TASKS):
        test = training_rows(source, count, held_out=True)
    elif len(rows) <= count:
        raise DataError(
            f"{source!r} has {len(rows)} rows, of which {count} are held out: none is left to "
            "train on. Lower `held_out`."
        )
    else:
        rows, test = rows[:-count], rows[-count:]
    model, tokenizer = open_heads(recipe.model, recipe.base_model)
    heads = train_steering(model, tokenizer, rows, recipe, folder, resume=resume, on_step=on_step)
    report = steering_report(
        model, tokenizer, test, template=recipe.template, max_length=recipe.max_length
    )
    return SteeringResult(folder=str(folder), checkpoint=str(heads), report=report)


def open_heads(
    model: str, base_model: str | None = None, *, new: bool = False
) -> tuple[AutoDecoForCausalLM, PreTrainedTokenizerBase]:
    """Load heads with their base, and its tokenizer.

    Args:
        model: Bundled name, folder or hub id.
        base_model: Base to use instead of the one that the heads name.
        new: Accept a base without heads too, and give it new ones.
    """
    if new and models.load_config(model).model_type != AutoDecoConfig.model_type:
        loaded = models.load(model)
        return AutoDecoForCausalLM.from_base(loaded.model, base_name=model), loaded.tokenizer
    wrapped = AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
    return wrapped, models.load_tokenizer(model, base_model=base_model)


def training_rows(
    source: str, number: int | None = None, *, held_out: bool = False, seed: int = 0
) -> list[Row]:
    """Rows of a JSON lines file, of "stdlib" or of "tasks".

    Args:
        source: File; or "stdlib", functions of the standard library; or "tasks", small tasks for a
            chat model, whose verifier is `hanol.worlds:check_task`.
        number: Number of rows, spread evenly over the data; None gives all (of the tasks, 400).
        held_out: Functions or tasks that no training reads.
        seed: Which tasks; files and functions have no choice.
    """
    if source == TASKS:
        tasks = small_tasks(number or 400, seed=seed, held_out=held_out)
        return [
            Row(
                messages=({"role": "user", "content": task.question},),
                answer=task.answer,
                extra={"kind": task.kind, "check": task.check},
                line=line,
            )
            for line, task in enumerate(tasks, start=1)
        ]
    rows = function_rows(held_out=held_out) if source == STDLIB else read_rows(source)
    if number is None or number >= len(rows):
        return rows
    return [rows[i * len(rows) // number] for i in range(number)]
