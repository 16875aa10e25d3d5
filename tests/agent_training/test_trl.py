"""TRL's GRPOTrainer in the environment: our own gradient, and none from what was read."""

import copy
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from hanol.errors import DataError, TrainingError
from hanol.rl import GrpoSettings, Rollout, SampledTurn, TrlRollouts
from hanol.rl._grpo_update import (
    Updater,
    rows_of,
)  # private: one update, against an independent computation
from hanol.runs import RunFolder, Task
from hanol.sampling import Sampling

trl = pytest.importorskip("trl")
# TRL 1.16 still asks transformers 5.23 by a name that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
tiny = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_policy.py"))))
# Long enough that no turn is cut: TRL leaves out what does not end by the end token.
SAMPLING = Sampling(temperature=1.2, top_p=1.0, presence_penalty=0.0, max_tokens=300)


@pytest.fixture(autouse=True)
def _experimental(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


class Kept(TrlRollouts):
    """Remembers what it gave to TRL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made: list[list[Rollout]] = []
        self.columns: list[dict[str, Any]] = []

    async def _roll_out(self, *args: Any) -> list[Rollout]:
        self.made.append(await super()._roll_out(*args))
        return self.made[-1]

    def __call__(self, prompts: Any, trainer: Any) -> dict[str, list[Any]]:
        self.columns.append(super().__call__(prompts, trainer))
        return self.columns[-1]


class Gradients(TrainerCallback):
    """The gradient of each optimizer step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


def trainer_of(rollouts: TrlRollouts, folder: Path, model: Any, **options: Any) -> Any:
    config = rollouts.config(
        folder / "trl", max_steps=2, per_device_train_batch_size=8, num_generations=4,
        learning_rate=0.01, max_grad_norm=0.0, use_cpu=True, bf16=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, activation_checkpointing=False,
        **options,
    )  # fmt: skip
    return trl.GRPOTrainer(
        model,
        rollouts.reward,
        args=config,
        train_dataset=rollouts.dataset(),
        processing_class=tiny.make_tokenizer(),
        rollout_func=rollouts,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Two steps of TRL's trainer on a random model, with everything that it saw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        folder = tmp_path_factory.mktemp("trl")
        model = tiny.make_model()
        start = copy.deepcopy(model)
        rollouts = Kept(
            tiny.make_environment(sampling=SAMPLING), tiny.make_tasks(), folder=folder / "logs"
        )
        trainer = trainer_of(rollouts, folder, model)
        gradients = Gradients()
        trainer.add_callback(gradients)
        seen: list[dict[str, Any]] = []
        compute, hidden = trainer._compute_loss, []

        def watched(model: Any, inputs: dict[str, Any]) -> Any:
            seen.append(inputs)
            return compute(model, inputs)

        def keep_gradient(module: Any, args: Any, output: torch.Tensor) -> None:
            if output.requires_grad:
                output.register_hook(lambda grad: hidden.append(grad.clone()))

        trainer._compute_loss = watched
        handle = model.model.norm.register_forward_hook(keep_gradient)
        trainer.train()
        handle.remove()
        yield SimpleNamespace(
            start=start, model=model, rollouts=rollouts, gradients=gradients.steps, inputs=seen,
            hidden=hidden, folder=folder, log=trainer.state.log_history,
        )  # fmt: skip


def test_two_steps_change_the_model(run: SimpleNamespace) -> None:
    before = dict(run.start.named_parameters())
    assert len(run.rollouts.made) == 2
    assert any(not torch.equal(before[n], p) for n, p in run.model.named_parameters())
    rewards = [line["rewards/reward/mean"] for line in run.log if "rewards/reward/mean" in line]
    expected = [sum(r.reward for r in made) / len(made) for made in run.rollouts.made]
    assert rewards == pytest.approx(expected)


def test_the_gradient_is_that_of_our_loss(run: SimpleNamespace) -> None:
    made = run.rollouts.made[0]
    settings = GrpoSettings(baseline="mean")
    rows = [
        row
        for question, begin in enumerate(range(0, len(made), 4))
        for row in rows_of(made[begin : begin + 4], question, settings)
    ]
    one = SimpleNamespace(num_processes=1, process_index=0)
    updater = Updater(run.start, 1.2, settings, one)
    found = updater._gradient(rows, updater._weights(rows)[0])
    assert found["deviation"] < 1e-5
    for name, parameter in run.start.named_parameters():
        assert torch.allclose(run.gradients[0][name], parameter.grad, atol=1e-6), name
    assert max(float(grad.abs().max()) for grad in run.gradients[0].values()) > 1e-3


def test_what_was_read_has_no_gradient(run: SimpleNamespace) -> None:
    assert len(run.hidden) == len(run.inputs) == 2
    for grad_BTH, inputs in zip(run.hidden, run.inputs, strict=True):
        written = inputs["tool_mask"] * inputs["completion_mask"]
        predicting = torch.nn.functional.pad(written, (inputs["prompt_ids"].shape[1] - 1, 0))
        grad_BT = grad_BTH.abs().amax(-1)[:, : predicting.shape[1]]
        assert (written == 0).any()
        assert bool((grad_BT[predicting == 0] == 0).all())
        assert bool((grad_BT[predicting == 1] > 0).any())


def test_columns_are_what_was_sampled(run: SimpleNamespace) -> None:
    for made, columns in zip(run.rollouts.made, run.rollouts.columns, strict=True):
        for i, rollout in enumerate(made):
            (segment,) = rollout.segments
            prompt, completion = columns["prompt_ids"][i], columns["completion_ids"][i]
            assert tuple(prompt + completion) == segment.input_ids
            assert tuple(prompt) == rollout.turns[0].prompt_ids
            sampled = [x for turn in rollout.turns for x in turn.logprobs]
            mask, logprobs = columns["env_mask"][i], columns["logprobs"][i]
            lost = rollout.reward == 0 and not rollout.has_answer
            written = [
                x for x, m in zip(logprobs, segment.action_mask[len(prompt) :], strict=True) if m
            ]
            assert written == sampled
            assert sum(mask) == (0 if lost else len(sampled))
    assert any(sum(mask) == 0 for columns in run.rollouts.columns for mask in columns["env_mask"])


def test_rollouts_are_logged(run: SimpleNamespace) -> None:
    logs = list((run.folder / "logs").rglob("events.jsonl"))
    assert len(logs) == 16
    assert all(RunFolder(log.parent).events()[-1].type == "run_ended" for log in logs)


def test_a_broken_rollout_is_left_out(tmp_path: Path) -> None:
    calls = [0]

    def reward(task: Task, answer: str | None) -> float:
        calls[0] += 1
        if calls[0] % 4 == 0:
            raise RuntimeError("no judge")
        return float(calls[0] % 2)

    rollouts = Kept(tiny.make_environment(reward, sampling=SAMPLING), tiny.make_tasks())
    trainer = trainer_of(rollouts, tmp_path, tiny.make_model())
    trainer.train()
    for columns in rollouts.columns:
        broken = [i for i, reward in enumerate(columns["environment_reward"]) if reward is None]
        assert len(broken) == 2
        assert all(sum(columns["env_mask"][i]) == 0 for i in broken)
    rewards = [line["reward"] for line in trainer.state.log_history if "reward" in line]
    assert rewards == pytest.approx([2 / 3, 2 / 3])  # of the six others


def test_nothing_but_broken_rollouts_ends_the_run(tmp_path: Path) -> None:
    def reward(task: Task, answer: str | None) -> float:
        raise RuntimeError("no judge")

    rollouts = TrlRollouts(tiny.make_environment(reward, sampling=SAMPLING), tiny.make_tasks())
    with pytest.raises(TrainingError, match="All 8 rollouts failed.*no judge"):
        trainer_of(rollouts, tmp_path, tiny.make_model()).train()


@pytest.mark.parametrize("mode", ["markov", "resum"])
def test_modes_of_several_sequences_are_refused(mode: str) -> None:
    with pytest.raises(TrainingError, match=f"'{mode}'.*GrpoTrainer"):
        TrlRollouts(tiny.make_environment(mode=mode, sampling=SAMPLING), tiny.make_tasks())


def test_turns_that_do_not_join_are_refused() -> None:
    """As with a template that leaves earlier thoughts out."""
    rollouts = TrlRollouts(tiny.make_environment(sampling=SAMPLING), tiny.make_tasks())
    turns = tuple(SampledTurn((i,), (2,), (-0.5,)) for i in range(2))
    with pytest.raises(TrainingError, match="2 token sequences"):
        rollouts._columns(Rollout(Task("q", "?"), (), turns, 1.0), 0)


def test_the_objective_is_that_of_the_paper(tmp_path: Path) -> None:
    rollouts = TrlRollouts(tiny.make_environment(sampling=SAMPLING), tiny.make_tasks())
    config = rollouts.config(
        tmp_path, use_cpu=True, bf16=False, activation_checkpointing=False, learning_rate=0.5
    )
    assert (config.loss_type, config.scale_rewards, config.beta) == ("dapo", "none", 0.0)
    assert (config.epsilon, config.epsilon_high, config.temperature) == (0.2, 0.28, 1.2)
    assert config.mask_truncated_completions
    assert config.learning_rate == 0.5


def test_questions_with_one_text_are_refused() -> None:
    with pytest.raises(DataError, match="2 questions with 1"):
        TrlRollouts(tiny.make_environment(sampling=SAMPLING), [Task("a", "?"), Task("b", "?")])
