"""Reinforcement learning of a research agent, in any of its modes.

Every step draws questions, lets the model being trained attempt each of them several times in the
real environment, and makes one update with these rollouts: strictly on-policy, as Tongyi
DeepResearch (arXiv 2510.24701).

With several processes (`accelerate launch`) each makes its share of the rollouts with its own copy
of the model, and gradients are added up.
"""

import asyncio
import json
import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import models
from hanol.engines import CheckpointEngine
from hanol.errors import TrainingError, require
from hanol.files import (
    read_json,
    whole_folder,
    write_sums,
)
from hanol.rl._curation import Curation
from hanol.rl._grpo_settings import FREE, GrpoSettings
from hanol.rl._grpo_update import Metrics, Updater, gathered, rows_of
from hanol.rl._rollout import Environment, Rollout
from hanol.rows import JsonLines
from hanol.runs import Task, TurnRejected, alone, check_unchanged, restoring
from hanol.training import (
    checkpoint_size,
    checkpoints,
    keep_metrics,
    keep_newest,
    last_checkpoint,
    metrics_file,
)

_log = logging.getLogger(__name__)
_STATE, _OPTIMIZER = "run.json", "optimizer.pt"  # of a checkpoint
_CHECKPOINTS = "checkpoints/step-*"
Groups = Sequence[Sequence[Rollout]]  # the rollouts of each question


class GrpoTrainer:
    """Trains a model on questions, and resumes the run that its folder has.

    In the folder: `metrics.jsonl`, a line a step; `checkpoints/step-N`; `rollouts/step-N/` with a
    log of each rollout, which `hanol research replay` shows; `broken.jsonl`, a line for each
    rollout that could not be judged and was skipped.

    Args:
        model: The policy. It stays in evaluation mode: dropout would change what is sampled.
        tokenizer: Its tokenizer.
        environment: Where it acts. Tokens must be drawn from the plain tempered distribution:
            `Sampling(temperature=t, top_p=1.0, presence_penalty=0.0)`.
        tasks: The questions, with different ids.
        folder: Folder of the run.
        settings: Sizes, rates and the objective.
        engine: Samples from `model`; None takes a `CheckpointEngine` over it.

    Raises:
        TrainingError: The environment samples in another way.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        environment: Environment,
        tasks: Sequence[Task],
        folder: str | Path,
        settings: GrpoSettings | None = None,
        *,
        engine: CheckpointEngine | None = None,
    ) -> None:
        accelerate = require("accelerate", extra="train", feature="Reinforcement learning")
        self.settings = settings = settings or GrpoSettings()
        self.accelerator = accelerate.Accelerator()
        self.model = model.to(self.accelerator.device).eval()
        self.tokenizer, self.environment, self.folder = tokenizer, environment, Path(folder)
        self.curation = Curation(tasks, settings)
        temperature = plain_temperature(environment)
        self.updater = Updater(self.model, temperature, settings, self.accelerator)
        self.step = 0
        self._restored: Path | None = None  # a checkpoint, until a step was made with it
        self._flat_steps = 0  # in a row
        self._engine = engine

    def train(self, on_step: Callable[[Metrics], None] = lambda line: None) -> Path:
        """Train until the last step is made, from the newest checkpoint on.

        Args:
            on_step: Called with each line of metrics.

        Returns:
            The folder of the last checkpoint: a model that can be loaded.

        Raises:
            RunError: The folder's run has other settings, or another process is writing it.
            TrainingError: No checkpoint of the folder is whole, all rollouts of a step broke, no
                question is between too easy and too hard, some steps in a row had no signal, or a
                loss is not finite.
        """
        with alone(self.folder) if self.accelerator.is_main_process else nullcontext():
            self._load_latest()
            asyncio.run(self._train(on_step))
        return self.folder / "checkpoints" / f"step-{self.step}"

    async def _train(self, on_step: Callable[[Metrics], None]) -> None:
        settings = self.settings
        engine = self._engine or CheckpointEngine(
            self.model, self.tokenizer, name="policy", max_batch=settings.concurrency
        )
        try:
            while self.step < settings.steps:
                if self.curation.is_due:
                    await self._refresh(engine)
                    if self.step == 0:  # the first probe is the longest
                        self._save()
                line = await self._one_step(engine)
                self._note(line)
                on_step(line)
                self._check_signal(line)
                if self.step % settings.save_every == 0 or self.step == settings.steps:
                    self._save()
        finally:
            if self._engine is None:
                await engine.aclose()

    async def _one_step(self, engine: CheckpointEngine) -> Metrics:
        number, began = self.step + 1, time.perf_counter()
        keep = self.settings.keep_rollouts_every
        kept = keep is not None and number % keep == 0
        tasks = self.curation.draw(self.settings.questions)
        folder = self.folder / "rollouts" / f"step-{number}" if kept else None
        groups = await self._roll_out(engine, tasks, f"step {number}", folder)
        rolled_out = time.perf_counter()
        share = range(self.accelerator.process_index, len(tasks), self.accelerator.num_processes)
        rows = [
            row
            for question, group in zip(share, groups, strict=True)
            for row in rows_of(group, question, self.settings)
        ]
        # A state that does not fit shows in the first step only.
        with nullcontext() if self._restored is None else restoring(self._restored):
            update = self.updater.update(rows)
        self.step, self._restored = number, None
        rewards = self._rewards(groups)
        self.curation.learn(rewards)
        facts = gathered(self.accelerator, [_facts(r) for group in groups for r in group])
        return {
            "step": number,
            **_means(facts),
            "zero_variance": sum(len(set(r)) < 2 for r in rewards.values()) / len(rewards),
            **update,
            **self.curation.counts,
            "rollout_seconds": rolled_out - began,
            "update_seconds": time.perf_counter() - rolled_out,
        }

    def _check_signal(self, line: Metrics) -> None:
        """Say when no question of a step had a signal, and stop after some such steps."""
        self._flat_steps = self._flat_steps + 1 if line["zero_variance"] == 1 else 0
        if not self._flat_steps:
            return
        flat, most = self._flat_steps, self.settings.max_flat_steps
        why = (
            f"the rewards of each question were all the same in step {self.step} (mean "
            f"{line['reward']:.3f}, {line['no_answer']:.0%} of rollouts without an answer)"
        )
        if most is not None and flat >= most and self.step < self.settings.steps:
            raise TrainingError(
                f"Nothing was learned in {flat} steps in a row: {why}. Use questions that are "
                "easier or harder for this model, or train it longer before; `max_flat_steps` "
                "sets how many such steps are allowed."
            )
        if self.accelerator.is_main_process:
            _log.warning("Nothing was learned: %s", why)

    async def _refresh(self, engine: CheckpointEngine) -> None:
        """Probe waiting questions with the present model until enough are in use."""
        left = self.curation.candidates
        while left and self.curation.missing:
            chunk, left = left[: self.settings.questions], left[self.settings.questions :]
            groups = await self._roll_out(engine, chunk, f"probe after step {self.step}", None)
            self.curation.probe(self._rewards(groups))
        self.curation.end_refresh()
        _log.info("Questions after step %d: %s", self.step, self.curation.counts)
        if not self.curation.counts["active"]:
            raise TrainingError(
                f"No question was answered right in some attempts and wrong in others: "
                f"{self.curation.counts}. Use questions that are easier or harder for this model, "
                "or more of them."
            )

    async def _roll_out(
        self, engine: CheckpointEngine, tasks: Sequence[Task], label: str, folder: Path | None
    ) -> Groups:
        """This process's share of the questions, each attempted several times at once."""
        count, main = self.settings.rollouts, self.accelerator
        mine = tasks[main.process_index :: main.num_processes]
        # Calls of one rollout count on from its seed: far apart, and the same after a resume.
        seeds = [
            random.Random(f"{self.settings.seed} {label} {task.id} {i}").getrandbits(48)  # noqa: S311
            for task in mine
            for i in range(count)
        ]
        engine.forget()  # weights have changed; and a resumed run has computed nothing before
        made = await self.environment.rollouts(
            engine,
            [task for task in mine for _ in range(count)],
            seeds=seeds,
            concurrency=self.settings.concurrency,
            folder=folder,
        )
        broken = [(r.task.id, r.problem or "") for r in made if r.reward is None]
        self._tell(label, gathered(main, broken), len(tasks) * count)
        return [made[i : i + count] for i in range(0, len(made), count)]

    def _tell(self, label: str, broken: Sequence[tuple[str, str]], total: int) -> None:
        """Count and log what is skipped."""
        if not broken:
            return
        (common, times), *_ = Counter(problem for _, problem in broken).most_common(1)
        if len(broken) == total:
            raise TrainingError(
                f"All {total} rollouts of {label} failed, {times} of them with: {common} Nothing "
                "can be learned from them. Remove the cause and start the same run again."
            )
        if not self.accelerator.is_main_process:
            return
        text = "%s: %d of %d rollouts failed and are skipped, %d of them with: %s"
        _log.warning(text, label, len(broken), total, times, common)
        lines = [{"when": label, "task": task, "problem": problem} for task, problem in broken]
        JsonLines(self.folder / "broken.jsonl").append(*lines)

    def _rewards(self, groups: Groups) -> dict[str, list[float]]:
        """Rewards of the rollouts that did not break, of all processes, by question."""
        mine = [(g[0].task.id, [r.reward for r in g if r.reward is not None]) for g in groups]
        return dict(gathered(self.accelerator, mine))

    def _note(self, line: Metrics) -> None:
        if self.accelerator.is_main_process:
            metrics_file(self.folder).append(line)

    def _save(self) -> None:
        """Write a checkpoint, whole or not at all, and drop old ones."""
        if self.accelerator.is_main_process:
            # No random states: seeds are functions of the run's seed and the step.
            state = {
                "step": self.step,
                "settings": self.settings.model_dump(mode="json"),
                "curation": self.curation.state_dict(),
            }
            path = self.folder / "checkpoints" / f"step-{self.step}"
            size = checkpoint_size(self.model, self.updater.optimizer)
            hint = f"{size} Earlier ones are whole: free some space and start the same run again."
            with whole_folder(path, hint=hint) as part:
                models.save(self.model, part, self.tokenizer)
                torch.save(self.updater.optimizer.state_dict(), part / _OPTIMIZER)
                (part / _STATE).write_text(json.dumps(state), "utf-8")
                write_sums(part)
            keep_newest(checkpoints(self.folder, _CHECKPOINTS), self.settings.keep)
        self.accelerator.wait_for_everyone()

    def _load_latest(self) -> None:
        """Put everything back as it was at the newest checkpoint, and forget what came after it."""
        self.step = 0
        if (saved := last_checkpoint(self.folder, _CHECKPOINTS)) is not None:
            with restoring(saved):
                self._restore(saved)
        keep_metrics(self.folder, self.step)
        # Rollouts that are read back would leave the others with other companions in a batch, and
        # so with other roundings.
        for rollouts in checkpoints(self.folder, "rollouts/step-*"):
            if int(rollouts.name.partition("-")[2]) > self.step:
                shutil.rmtree(rollouts)

    def _restore(self, saved: Path) -> None:
        state = read_json(saved / _STATE)
        now = self.settings.model_dump(mode="json")
        check_unchanged(f"the run in {str(self.folder)!r}", state["settings"], now, FREE)
        if saved.name != f"step-{state['step']}":
            raise ValueError(f"{_STATE} is of step {state['step']!r:.20}")
        stored = models.load_model(saved, dtype=self.model.dtype)
        self.model.load_state_dict(stored.state_dict())
        optimizer = torch.load(saved / _OPTIMIZER, weights_only=True)
        self.updater.optimizer.load_state_dict(optimizer)
        self.curation.load_state_dict(state["curation"])
        self.step, self._restored = state["step"], saved


def plain_temperature(environment: Environment) -> float:
    """The temperature of an environment whose tokens come from an uncut distribution."""
    sampling = environment.sampling
    # Else their log-probabilities could not be computed again.
    if not sampling.temperature or sampling.top_p != 1 or sampling.presence_penalty:
        raise TrainingError(
            f"The environment samples with {sampling}. Reinforcement learning needs the whole "
            "distribution: Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0), or another "
            "temperature above 0."
        )
    return sampling.temperature


def _facts(rollout: Rollout) -> Metrics:
    """What the metrics say of one rollout."""
    return {
        "broken": float(rollout.reward is None),
        "reward": 0.0 if rollout.reward is None else rollout.reward,
        "no_answer": float(not rollout.has_answer),
        "lost": float(rollout.is_lost),
        "error_turns": float(sum(isinstance(event, TurnRejected) for event in rollout.events)),
        "turns": float(len(rollout.turns)),
        "segments": float(len(rollout.segments)),
        "tokens": float(sum(len(turn.token_ids) for turn in rollout.turns)),
    }


def _means(facts: Sequence[Metrics]) -> Metrics:
    """Means over the rollouts that did not break, and the share of those that did."""
    whole = [fact for fact in facts if not fact["broken"]]
    means = {name: sum(fact[name] for fact in whole) / len(whole) for name in facts[0]}
    return means | {"broken": (len(facts) - len(whole)) / len(facts)}
