"""From a recipe to a reward model, or to a model that revises its answers.

In the folder: `solutions.jsonl`, the finished problems with their samples and labels, of which a
resumed run makes none again; checkpoints; `final`, a checkpoint in the native format.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from hanol import models
from hanol.engines import Engine, open_engine
from hanol.errors import DataError, RecipeError
from hanol.files import read_json, replace_json, whole_file
from hanol.rows import replace_rows
from hanol.runs import restoring, synchronous
from hanol.test_time.rewards._formats import FORMATS, StepFormat
from hanol.test_time.rewards._labels import amonte_carlo_labels, asample_answers
from hanol.test_time.rewards._model import ProcessRewardModel
from hanol.test_time.rewards._recipe import (
    PrmRecipe,
    PrmResult,
    RevisionRecipe,
    RolloutsSection,
)
from hanol.test_time.rewards._revisions import revision_rows
from hanol.test_time.rewards._rows import (
    StepObjective,
    StepRow,
    UnusableRow,
    label_entropy,
    step_row,
)
from hanol.training import (
    ChatData,
    Estimate,
    FinetuneResult,
    Finetuning,
    MessagesSection,
    Objective,
    OnStep,
    SftRecipe,
    data_rows,
    finetune_estimate,
    is_held_out,
    read_chats,
    with_adapters,
)
from hanol.worlds import open_problems

_log = logging.getLogger(__name__)
_SOLUTIONS, _REVISIONS = "solutions.jsonl", "revisions.jsonl"
_BEST, _BEST_LOSS = "best.safetensors", "best.json"


class _PrmTraining(Finetuning):
    """A training of a reward model."""

    recipe: PrmRecipe
    result_class = PrmResult

    def __init__(self, recipe: PrmRecipe, folder: Path | None = None) -> None:
        super().__init__(recipe, folder)
        self.makes_rows = recipe.rollouts is not None
        self.counts: Counter[str] = Counter()
        self.prm: ProcessRewardModel | None = None
        self._last: dict[str, float] = {}

    def read(self, tokenizer: Any, on_step: OnStep) -> ChatData:
        """Rows of the file, or those that the policy makes."""
        recipe, sides = self.recipe, (list[StepRow](), list[StepRow]())
        format = self._format(tokenizer)
        left_out: Counter[str] = Counter()
        examples: dict[str, str] = {}
        count = 0
        for place, row in self._rows(on_step):
            count += 1
            try:
                made = step_row(
                    row, format, max_length=recipe.max_length, target=recipe.target,
                    after_first_error=recipe.after_first_error, counts=self.counts,
                )  # fmt: skip
                if not made.is_learned:
                    raise UnusableRow("no_label", "no step of it has a label")
            except UnusableRow as err:
                left_out[err.reason] += 1
                examples.setdefault(err.reason, f"{place}: {err}")
                continue
            # By question, never by solution: those of one question are alike.
            sides[is_held_out(str(row["prompt"]), self._share)].append(made)
        data = ChatData(*sides, count, dict(left_out), examples)
        if len(data.train) < recipe.min_rows:
            why = f" Left out: {data.left_out_text()}." if left_out else ""
            raise DataError(
                f"Only {len(data.train)} of {count} solutions can be learned from, fewer than "
                f"`min_rows` ({recipe.min_rows}).{why} Use more problems or samples, problems that "
                "are easier for the policy, or lower `min_rows`."
            )
        if self.counts["dropped_steps"]:
            _log.warning(
                "%d steps at the ends of %d solutions do not fit into %d tokens and are left out.",
                self.counts["dropped_steps"], self.counts["truncated_rows"], recipe.max_length,
            )  # fmt: skip
        self.counts["labels"] = sum(x is not None for row in data.train for x in row.labels)
        return data

    def _rows(self, on_step: OnStep) -> Any:
        if self.recipe.data is not None:
            yield from data_rows(self.recipe.data)
            return
        assert self.recipe.rollouts is not None
        for row in _labelled(self.recipe, self.recipe.rollouts, self.folder, on_step):
            yield f"the problem {row['id']!r}", row

    @property
    def _share(self) -> float:
        return self.recipe.held_out if self.recipe.data is None else self.recipe.data.held_out

    def _format(self, tokenizer: Any) -> StepFormat:
        if _is_reward_model(self.recipe.model):
            self.prm = ProcessRewardModel.from_pretrained(self.recipe.model, dtype=torch.float32)
            return self.prm.format
        return FORMATS["native"](tokenizer, self.recipe.separator)

    def load(self) -> tuple[Any, None]:
        """The reward model that is trained further, or the body of a language model with a head."""
        recipe, device = self.recipe, "cuda" if torch.cuda.is_available() else "cpu"
        if self.prm is not None:
            model: Any = self.prm.model.to(device)
        else:
            body: Any = models.load_model(
                recipe.model, dtype=torch.float32, model_class=AutoModelForCausalLM
            )
            config = models.load_config(recipe.model)
            config.num_labels, config.classifier_dropout = 1, recipe.dropout
            torch.manual_seed(recipe.seed)  # of the head
            try:
                model = AutoModelForTokenClassification.from_config(config, dtype=torch.float32)
            except ValueError as err:
                raise RecipeError(
                    f"transformers has no token classifier for {config.model_type!r} models, which "
                    f"{recipe.model!r} is: start from another one."
                ) from err
            model.base_model.load_state_dict(body.base_model.state_dict())
            model.to(device)
        if recipe.lora is not None:
            base = recipe.model
            model = with_adapters(model, recipe.lora, base=base, seed=recipe.seed, whole=["score"])
        return model, None

    def objective(self, model: Any, tokenizer: Any, data: ChatData, on_step: OnStep) -> Objective:
        """The values of steps."""
        return StepObjective(self._format(tokenizer) if self.prm is None else self.prm.format)

    def evaluated(self, loss: float, held_out: Sequence[Any], model: Any) -> dict[str, float]:
        """How far the loss is above what any model could reach; the lowest one is kept."""
        labels = [x for row in held_out for x in row.labels if x is not None]
        excess = {"eval_excess": loss - label_entropy(labels)}
        if self.recipe.keep_best and loss < self._best().get("eval_loss", math.inf):
            state = {name: x.detach().cpu().contiguous() for name, x in _trained(model).items()}
            with whole_file(self.folder / _BEST) as part:
                save_file(state, part)
            replace_json(self.folder / _BEST_LOSS, {"eval_loss": loss, **excess})
        self._last = {"eval_loss": loss, **excess}
        return excess

    def _best(self) -> dict[str, float]:
        """The lowest evaluation so far; a resumed run makes the later ones again, and equal."""
        path = self.folder / _BEST_LOSS
        if not self.recipe.keep_best or not path.exists():
            return {}
        with restoring(path):
            found = read_json(path)
            return {**found, "eval_loss": float(found["eval_loss"])}

    def facts(self) -> dict[str, Any]:
        """Counts of labels, and the evaluation of what is written."""
        counts = {name: self.counts[name] for name in ("labels", "dropped_steps")}
        return {**counts, **self._last, **self._best()}

    def save(self, model: Any, adapter: Any, tokenizer: Any, final: Path) -> None:
        """Write a whole checkpoint; adapters are merged into it."""
        recipe = self.recipe
        if self._best():
            with restoring(self.folder / _BEST), torch.no_grad():
                trained, best = _trained(model), load_file(self.folder / _BEST)
                for name, value in best.items():
                    trained[name].copy_(value)
        if recipe.lora is not None:
            model = model.merge_and_unload()
        model = models.cast(model, getattr(torch, recipe.save_dtype)).eval()
        format = "native" if self.prm is None else self.prm.format.name
        separator = recipe.separator if self.prm is None else self.prm.format.separator
        ProcessRewardModel(
            model, tokenizer, format=format, separator=separator, aggregation=recipe.aggregation
        ).save_pretrained(final)


class _RevisionTraining(Finetuning):
    """A fine-tuning on revisions that the model's own answers make."""

    recipe: RevisionRecipe
    makes_rows = True

    def read(self, tokenizer: Any, on_step: OnStep) -> ChatData:
        """Sample answers, make the rows and read them as any other conversations."""
        recipe, rollouts = self.recipe, self.recipe.rollouts
        samples = _answers(recipe, rollouts, self.folder, on_step)
        rows = revision_rows(samples, most=recipe.most, seed=recipe.seed)
        usable = sum(bool(row.pop("wrong")) for row in rows)
        if usable < recipe.min_rows:
            raise DataError(
                f"Only {usable} right answers stand behind a wrong one, fewer than `min_rows` "
                f"({recipe.min_rows}): the model is too often right, or too often wrong. Use more "
                "problems or samples, problems of another difficulty, or lower `min_rows`."
            )
        path = self.folder / _REVISIONS
        replace_rows(path, rows)
        data = MessagesSection(path=(str(path),), held_out=recipe.held_out)
        return read_chats(data, tokenizer, recipe.max_length)


def train_prm(
    recipe: PrmRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> FinetuneResult:
    """Run a recipe of a reward model; see `hanol.training.train`, which calls this."""
    return _PrmTraining(recipe, folder).run(resume=resume, on_step=on_step)


def train_revision(
    recipe: RevisionRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> FinetuneResult:
    """Run a recipe of a revision model; see `hanol.training.train`, which calls this."""
    return _RevisionTraining(recipe, folder).run(resume=resume, on_step=on_step)


def prm_estimate(recipe: PrmRecipe) -> Estimate:
    """What a run will take."""
    if recipe.rollouts is None:
        return finetune_estimate(recipe, _PrmTraining(recipe))
    return _sampling_estimate(recipe, recipe.rollouts, 1 + recipe.rollouts.rollouts)


def revision_estimate(recipe: RevisionRecipe) -> Estimate:
    """What a run will take."""
    return _sampling_estimate(recipe, recipe.rollouts, 1)


def _sampling_estimate(recipe: SftRecipe, rollouts: RolloutsSection, each: int) -> Estimate:
    """What is known before anything is sampled: its rows are not."""
    size = models.inspect(recipe.model)
    count = rollouts.count or len(open_problems(rollouts.problems, count=None, seed=recipe.seed))
    return Estimate(
        parameters=size.parameters,
        active_parameters=size.active_parameters,
        steps=0,
        tokens=recipe.tokens or 0,
        rollouts=count * rollouts.samples * each,
        train_flops=6.0 * size.active_parameters * (recipe.tokens or 0),
        state_gib=size.parameters * 16 / 2**30,
    )


def _trained(model: Any) -> dict[str, torch.Tensor]:
    """The weights that are trained, each once."""
    return {name: x for name, x in model.named_parameters() if x.requires_grad}


def _is_reward_model(spec: str) -> bool:
    architectures = getattr(models.load_config(spec), "architectures", None) or ()
    return not all(str(one).endswith("ForCausalLM") for one in architectures)


def _labelled(
    recipe: PrmRecipe, rollouts: RolloutsSection, folder: Path, on_step: OnStep
) -> list[dict[str, Any]]:
    """Solutions of the policy with labels of their steps, or of their outcome alone."""

    async def make(engine: Engine, options: dict[str, Any]) -> list[dict[str, Any]]:
        if recipe.target == "steps":
            return await amonte_carlo_labels(engine, rollouts=rollouts.rollouts, **options)
        return [
            {
                "id": row["id"],
                "prompt": row["prompt"],
                "completions": [answer.strip()],
                "labels": [float(right)],
            }
            for row in await asample_answers(engine, **options)
            for answer, right in zip(row["answers"], row["right"], strict=True)
        ]

    return _sampled(recipe, rollouts, folder, on_step, make)


def _answers(
    recipe: SftRecipe, rollouts: RolloutsSection, folder: Path, on_step: OnStep
) -> list[dict[str, Any]]:
    async def make(engine: Engine, options: dict[str, Any]) -> list[dict[str, Any]]:
        return await asample_answers(engine, **options)

    return _sampled(recipe, rollouts, folder, on_step, make)


def _sampled(
    recipe: SftRecipe, rollouts: RolloutsSection, folder: Path, on_step: OnStep, make: Any
) -> list[dict[str, Any]]:
    """What the policy makes of the problems, which is not loaded when all of it is there."""
    problems = open_problems(rollouts.problems, count=rollouts.count, seed=recipe.seed)
    done = 0

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal done
        done += 1
        on_step({"sampled": done, "of": len(problems)})

    async def run() -> list[dict[str, Any]]:
        options = {} if rollouts.dtype is None else {"dtype": rollouts.dtype}
        engine = open_engine(rollouts.policy or recipe.model, **options)
        try:
            return await make(
                engine,
                {
                    "problems": problems,
                    "samples": rollouts.samples,
                    "settings": rollouts.settings(),
                    "seed": recipe.seed,
                    "file": folder / _SOLUTIONS,
                    "on_problem": tell,
                },
            )
        finally:
            await engine.aclose()

    return synchronous(run)()
