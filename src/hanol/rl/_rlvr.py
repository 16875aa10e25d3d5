"""Reinforcement learning from verifiable rewards, as a kind of recipe (arXiv 2411.15124)."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hanol import models
from hanol.engines import CheckpointEngine
from hanol.errors import require
from hanol.files import replace_text
from hanol.rl._grpo import GrpoTrainer
from hanol.rl._grpo_settings import FREE as FREE_OF_GRPO
from hanol.rl._grpo_settings import GrpoSettings
from hanol.rl._trl import TrlRollouts
from hanol.rl._verified import RewardArm, VerifiedEnvironment
from hanol.runs import ResumeGuard
from hanol.sampling import Sampling
from hanol.training import (
    FREE,
    Estimate,
    OnStep,
    Recipe,
    Seed,
    TrainingResult,
    read_metrics,
    read_result,
)
from hanol.worlds import open_problems

_log = logging.getLogger(__name__)
_MANY = 0.8  # share of groups, or of answers, above which nearly nothing is learned


class RlvrRecipe(GrpoSettings, Recipe):
    """Reinforcement learning of a model on problems with exact answers."""

    kind: Literal["rlvr"]
    model: str = Field(description="Bundled or pulled name, folder or hub id to start from.")
    problems: str = Field(
        description="What is asked, as `hanol.worlds.open_problems` takes it: chains, "
        "countdown:numbers=3, gym:NAME, or a file of problems with answers."
    )
    count: int | None = Field(None, ge=1, description="Number of problems; None: all of a file.")
    reward: RewardArm = Field(
        "verified",
        description="verified, or an arm that knows no answer: random or format.",
    )
    verifier: str | None = Field(
        None, description="Judges in place of the problems' own: arithmetic, module:function."
    )
    form: str | None = Field(
        None, description="Regular expression that an answer contains under `reward: format`."
    )
    no_stop_penalty: float = Field(
        0.0, ge=0, description="Taken from the reward of an answer that `max_tokens` cut."
    )
    trainer: Literal["hanol", "trl"] = Field(
        "hanol", description="hanol's GRPO or TRL's; both resume from their last checkpoint."
    )
    temperature: float = Field(1.0, gt=0, description="Temperature of sampling.")
    max_tokens: int = Field(256, ge=1, description="Tokens per answer.")
    template: str = Field("{problem}", description='What is asked, with "{problem}" in it.')
    system: str | None = Field(None, description="System message; None: that of the template.")
    raw: bool | None = Field(
        None, description="Ask without a chat template; None: where the model has none."
    )
    calculator: bool = Field(
        False,
        description='Answers may calculate: behind "<<12 * 3>>" the value is put, and not learned.',
    )
    eval_problems: int = Field(
        100, ge=0, description="Held-out problems answered greedily before and after; 0: none."
    )
    rollouts: int = Field(8, ge=2, le=100_000, description="Answers to each problem.")
    max_flat_steps: int | None = Field(
        None, ge=1, description="End the run after so many steps in a row without a signal."
    )
    seed: Seed = Field(0, description="Seed of problems, their order and sampling.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if "{problem}" not in self.template:
            raise ValueError('`template` must contain "{problem}"')
        if self.form is not None and self.reward != "format":
            raise ValueError("`form` is of `reward: format`")
        return self

    def estimate(self) -> Estimate:
        """What the run will take, at most: every answer as long as `max_tokens`."""
        size = models.inspect(self.model)
        answers = self.steps * self.questions * self.rollouts
        tokens = answers * self.max_tokens
        return Estimate(
            parameters=size.parameters,
            active_parameters=size.active_parameters,
            steps=self.steps * self.updates_per_batch,
            tokens=tokens,
            rollouts=answers,
            train_flops=(2.0 + 6.0 * self.updates_per_batch) * size.active_parameters * tokens,
            state_gib=size.parameters * 16 / 2**30,
        )


class RlvrResult(TrainingResult):
    """What a finished run made."""

    steps: int
    reward: float = Field(description="Mean reward of the last tenth of the steps.")
    zero_variance: float = Field(
        description="Share of problems whose answers all earned the same, over the run."
    )
    truncated: float = Field(description="Share of answers that `max_tokens` cut, over the run.")
    accuracy_before: float | None = Field(description="Held-out problems right, greedily.")
    accuracy_after: float | None = Field(description="The same with the trained model.")
    minutes: float = Field(description="Minutes of this call; a resumed run counts its last part.")

    def summary(self) -> str:
        """The result in a sentence."""
        text = f"{self.checkpoint}: reward {self.reward:.3f} after {self.steps:,} steps"
        if self.accuracy_before is not None and self.accuracy_after is not None:
            text += f", held-out accuracy {self.accuracy_before:.3f} -> {self.accuracy_after:.3f}"
        return f"{text}; {self.zero_variance:.0%} of groups without a signal"


def train_rlvr(
    recipe: RlvrRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> RlvrResult:
    """Run a recipe of verifiable rewards; see `hanol.training.train`, which calls this.

    Raises:
        DataError: The verifier takes a right answer for wrong, or a wrong one for right.
    """
    require("accelerate", extra="train", feature="Reinforcement learning")
    began = time.perf_counter()
    tokenizer = models.load_tokenizer(recipe.model)
    environment = _environment(recipe, tokenizer, recipe.count, "train")
    if recipe.reward == "verified":
        environment.check_reward()
    guard = ResumeGuard(
        folder, {"recipe": recipe.model_dump(mode="json")}, free=FREE | FREE_OF_GRPO
    )
    if guard.check(resume=resume):
        made = read_result(RlvrResult, folder)
        if made is not None and made.steps >= recipe.steps:
            return made
    else:
        guard.write()
    final = folder / "final"
    model = models.load_model(recipe.model, dtype=torch.float32, device=_device())
    before = _accuracy(recipe, model, tokenizer)
    lines: list[Mapping[str, Any]] = []

    def told(line: Mapping[str, Any]) -> None:
        named = {**line, "truncated": line["no_answer"], "steps": recipe.steps}
        lines.append(line)
        for key, what in (
            ("zero_variance", "of the problems earned the same with every answer"),
            ("truncated", "of the answers were cut by `max_tokens`"),
        ):
            if named[key] >= _MANY:
                _log.warning("Step %d: %.0f %% %s: nearly nothing is learned from them.",
                             line["step"], 100 * named[key], what)  # fmt: skip
        on_step(named)

    train = _with_trl if recipe.trainer == "trl" else _with_grpo
    train(recipe, environment, model, tokenizer, folder, told)
    models.save(model, final, tokenizer)
    every: Sequence[Mapping[str, Any]] = read_metrics(folder) or lines  # of earlier calls, too
    recent = every[-max(1, len(every) // 10) :]
    result = RlvrResult(
        folder=str(folder),
        checkpoint=str(final),
        steps=recipe.steps,
        reward=_mean(recent, "reward"),
        zero_variance=_mean(every, "zero_variance"),
        truncated=_mean(every, "no_answer"),
        accuracy_before=before,
        accuracy_after=_accuracy(recipe, model.eval(), tokenizer),
        minutes=(time.perf_counter() - began) / 60,
    )
    replace_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _with_grpo(
    recipe: RlvrRecipe,
    environment: VerifiedEnvironment,
    model: Any,
    tokenizer: Any,
    folder: Path,
    on_step: OnStep,
) -> None:
    names = GrpoSettings.model_fields
    settings = GrpoSettings(**{name: getattr(recipe, name) for name in names})
    trainer = GrpoTrainer(model, tokenizer, environment, environment.tasks, folder, settings)
    trainer.train(on_step)


def _with_trl(
    recipe: RlvrRecipe,
    environment: VerifiedEnvironment,
    model: Any,
    tokenizer: Any,
    folder: Path,
    on_step: OnStep,
) -> None:
    trl = require("trl", extra="grpo", feature="Training with TRL")
    rollouts = TrlRollouts(
        environment, environment.tasks, concurrency=recipe.concurrency,
        no_answer=recipe.no_answer, seed=recipe.seed,
    )  # fmt: skip
    args = rollouts.config(
        folder / "trl", max_steps=recipe.steps, learning_rate=recipe.adamw_lr,
        per_device_train_batch_size=recipe.questions * recipe.rollouts,
        num_generations=recipe.rollouts, max_completion_length=recipe.max_tokens,
        max_grad_norm=recipe.clip_norm, num_iterations=recipe.updates_per_batch,
        epsilon=recipe.clip_low, epsilon_high=recipe.clip_high, seed=recipe.seed,
        lr_scheduler_type="constant", logging_steps=1, report_to=[],
        save_steps=recipe.save_every, save_total_limit=2,
        bf16=False, use_cpu=model.device.type == "cpu", activation_checkpointing=False,
        disable_tqdm=True,
    )  # fmt: skip

    class TrlLog(TrainerCallback):
        """Passes TRL's metrics on under our names."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = kwargs["logs"]
            if "reward" in logs:
                on_step(
                    {
                        "step": state.global_step,
                        "loss": logs.get("loss", 0.0),
                        "reward": logs["reward"],
                        "zero_variance": logs["frac_reward_zero_std"],
                        "no_answer": logs.get("completions/clipped_ratio", 0.0),
                    }
                )

    trainer = trl.GRPOTrainer(
        model, rollouts.reward, args=args, train_dataset=rollouts.dataset(),
        processing_class=tokenizer, rollout_func=rollouts, callbacks=[TrlLog()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))


def _environment(
    recipe: RlvrRecipe,
    tokenizer: Any,
    count: int | None,
    split: Literal["train", "test"],
    *,
    greedy: bool = False,
) -> VerifiedEnvironment:
    problems = open_problems(recipe.problems, count=count, seed=recipe.seed, split=split)
    temperature = 0.0 if greedy else recipe.temperature
    raw = tokenizer.chat_template is None if recipe.raw is None else recipe.raw
    return VerifiedEnvironment(
        problems,
        sampling=Sampling(
            temperature=temperature, top_p=1.0, presence_penalty=0.0, max_tokens=recipe.max_tokens
        ),
        arm="verified" if greedy else recipe.reward,
        verifier=recipe.verifier,
        form=None if greedy else recipe.form,
        no_stop_penalty=0.0 if greedy else recipe.no_stop_penalty,
        template=recipe.template,
        system=recipe.system,
        raw_with=tokenizer if raw else None,
        calculator=recipe.calculator,
    )


def _accuracy(recipe: RlvrRecipe, model: Any, tokenizer: Any) -> float | None:
    """Share of held-out problems that greedy answers solve: another reward changes nothing here."""
    if not recipe.eval_problems:
        return None
    environment = _environment(recipe, tokenizer, recipe.eval_problems, "test", greedy=True)
    tasks = environment.tasks

    async def answer() -> list[float]:
        engine = CheckpointEngine(model, tokenizer, max_batch=recipe.concurrency)
        try:
            seeds = [0] * len(tasks)
            most = recipe.concurrency
            made = await environment.rollouts(engine, tasks, seeds=seeds, concurrency=most)
        finally:
            await engine.aclose()
        return [one.reward or 0.0 for one in made]

    return sum(found := asyncio.run(answer())) / len(found)


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(float(line[key]) for line in lines) / len(lines) if lines else 0.0


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
