"""TRL's `GRPOTrainer` on the research environment, for ReAct.

TRL takes one token sequence for each attempt, which ReAct's growing conversation is. Rounds of
Markov mode and restarts of ReSum are several sequences: those need `GrpoTrainer`.

What TRL does otherwise than `GrpoTrainer`: rewards are compared with the mean of all rollouts of a
question instead of that of the others (a factor of G / (G - 1) in the advantages), and a token's
probability when it was drawn is not compared with the one that is computed again.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hanol.engines import CheckpointEngine, Engine
from hanol.errors import DataError, TrainingError, require
from hanol.rl._grpo import plain_temperature
from hanol.rl._rollout import Environment, Rollout, TokenSegment
from hanol.runs import Task


class TrlRollouts:
    """What `trl.GRPOTrainer` needs to train in a research environment.

    Args:
        environment: In ReAct mode, sampling from the plain tempered distribution.
        tasks: The questions; each with a text of its own, which is what TRL hands on.
        concurrency: Rollouts at once.
        no_answer: "excluded" keeps rollouts that ran into a limit without a reward out of the
            loss; their reward counts in what the others are compared with.
        folder: Folder of the rollouts' logs; None keeps none.
        seed: Seed for sampling.

    Raises:
        TrainingError: The mode or the sampling cannot be expressed.
        DataError: No questions, or two with one text.

    Example:
        >>> rollouts = TrlRollouts(environment, tasks)  # doctest: +SKIP
        >>> trainer = GRPOTrainer(  # doctest: +SKIP
        ...     model,
        ...     rollouts.reward,
        ...     args=rollouts.config("runs/rl", max_steps=100),
        ...     train_dataset=rollouts.dataset(),
        ...     processing_class=tokenizer,
        ...     rollout_func=rollouts,
        ... )
    """

    def __init__(
        self,
        environment: Environment,
        tasks: Sequence[Task],
        *,
        concurrency: int = 64,
        no_answer: Literal["excluded", "kept"] = "excluded",
        folder: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if environment.mode != "react":
            raise TrainingError(
                f"The environment's mode is {environment.mode!r}, whose rollouts are several token "
                "sequences. TRL takes one for each: use GrpoTrainer, or the mode 'react'."
            )
        self._temperature = plain_temperature(environment)
        self._tasks = {task.question: task for task in tasks}
        if not tasks or len(self._tasks) < len(tasks):
            raise DataError(
                f"{len(tasks)} questions with {len(self._tasks)} different texts: TRL tells them "
                "apart by their text alone."
            )
        self._environment, self._concurrency = environment, concurrency
        self._exclude = no_answer == "excluded"
        self._folder = None if folder is None else Path(folder)
        self._seed, self._asked = seed, (-1, 0)  # step, and calls in it so far
        self._engine: CheckpointEngine | None = None

    def dataset(self) -> Any:
        """The questions as a `datasets.Dataset`."""
        datasets = require("datasets", extra="grpo", feature="Training with TRL")
        return datasets.Dataset.from_list([{"prompt": text} for text in self._tasks])

    def config(self, output_dir: str | Path, **options: Any) -> Any:
        """A `GRPOConfig` with the objective of Tongyi DeepResearch (arXiv 2510.24701, eq. 4).

        Args:
            output_dir: Folder of the run.
            options: Other options of `GRPOConfig`: steps, rates, `num_generations`.
        """
        trl = require("trl", extra="grpo", feature="Training with TRL")
        objective = {
            "loss_type": "dapo",  # over the written tokens of the whole batch
            "scale_rewards": "none",
            "beta": 0.0,
            "epsilon": 0.2,
            "epsilon_high": 0.28,
            "mask_truncated_completions": True,
            "temperature": self._temperature,
        }
        return trl.GRPOConfig(str(output_dir), **(objective | options))

    def reward(self, prompts: Sequence[str], **columns: Any) -> list[float | None]:
        """Rewards of the environment; None for a rollout that broke, which TRL leaves out."""
        return columns["environment_reward"]

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        """TRL's `rollout_func`: a rollout for each prompt, a prompt coming once a rollout.

        Returns:
            prompt_ids, completion_ids, logprobs, env_mask (1 where the policy wrote the token and
            it is in the loss) and environment_reward, a list of each rollout's.

        Raises:
            TrainingError: Every rollout broke, or one is not a single token sequence.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        try:
            made = asyncio.run(self._roll_out(self._engine_for(model, trainer), prompts, trainer))
        finally:
            model.train(was_training)
        if all(rollout.reward is None for rollout in made):
            raise TrainingError(
                f"All {len(made)} rollouts failed, the first with: {made[0].problem} Nothing can "
                "be learned from them. Remove the cause and start again."
            )
        filler = trainer.processing_class.eos_token_id
        columns = [self._columns(rollout, filler) for rollout in made]
        return {name: [column[name] for column in columns] for name in columns[0]}

    async def _roll_out(
        self, engine: Engine, prompts: Sequence[str], trainer: Any
    ) -> list[Rollout]:
        # The same after a resume: nothing is counted over steps.
        before, calls = self._asked
        step = trainer.state.global_step
        self._asked = step, calls + 1 if step == before else 1
        name = f"{step}-{self._asked[1]}-{trainer.accelerator.process_index}"
        rng = random.Random(f"{self._seed} {name}")  # noqa: S311 - no secret
        return await self._environment.rollouts(
            engine,
            [self._tasks[prompt] for prompt in prompts],
            seeds=[rng.getrandbits(48) for _ in prompts],
            concurrency=self._concurrency,
            folder=None if self._folder is None else self._folder / f"step-{name}",
        )

    def _engine_for(self, model: Any, trainer: Any) -> CheckpointEngine:
        if self._engine is None:
            self._engine = CheckpointEngine(
                model, trainer.processing_class, name="policy", max_batch=self._concurrency
            )
        self._engine.forget()
        return self._engine

    def _columns(self, rollout: Rollout, filler: int) -> dict[str, Any]:
        """One rollout as TRL reads it; one that broke as a token that is not in the loss."""
        segments = rollout.segments
        if rollout.reward is None:
            segments = (TokenSegment((filler, filler), (False, False), (0.0, 0.0)),)
        if len(segments) != 1:
            raise TrainingError(
                f"The rollout of {rollout.task.id!r} is {len(segments)} token sequences instead of "
                "one: the engine returns no token ids, or the chat template writes earlier turns "
                "otherwise than they were sampled. Use GrpoTrainer."
            )
        (segment,) = segments
        ids, mask, logprobs = segment.input_ids, segment.action_mask, segment.logprobs
        begin = mask.index(True) if any(mask) else 1
        in_loss = not (self._exclude and rollout.is_lost)
        return {
            "prompt_ids": list(ids[:begin]),
            "completion_ids": list(ids[begin:]),
            "logprobs": list(logprobs[begin:]),
            "env_mask": [int(written and in_loss) for written in mask[begin:]],
            "environment_reward": rollout.reward,
        }
