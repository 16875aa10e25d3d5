"""The trainer: it learns, on-policy to rounding, skips what breaks, and survives kill -9."""

import asyncio
import json
import math
import os
import random
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hanol import models
from hanol.engines import CheckpointEngine, Completion, Request
from hanol.errors import EngineError, RunError, TrainingError
from hanol.research import replay
from hanol.rl import GrpoSettings, Rollout, SampledTurn, TokenSegment
from hanol.rl._grpo_update import (
    SegmentRow,
    Updater,
    rows_of,
)  # private: one update, against an independent computation
from hanol.runs import Budget, RunEnded, RunFolder, Task
from hanol.sampling import Sampling

DRIVER = Path(__file__).with_name("tiny_policy.py")
tiny = SimpleNamespace(**runpy.run_path(str(DRIVER)))


def train(trainer: Any) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = []
    trainer.train(lines.append)
    return lines


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# -- learning


def test_it_learns_what_is_rewarded(tmp_path: Path) -> None:
    lines = train(tiny.make_trainer(tmp_path, steps=12, questions=4, rollouts=8, adamw_lr=0.01))
    assert lines[0]["reward"] < 0.6
    assert sum(line["reward"] for line in lines[-3:]) / 3 > 0.85
    assert lines[-1]["entropy"] < lines[0]["entropy"]


@pytest.mark.parametrize("muon_lr", [None, 0.005], ids=["adamw", "muon"])
@pytest.mark.parametrize("mode", ["react", "markov", "resum"])
def test_every_mode_is_trained_on_policy(tmp_path: Path, mode: Any, muon_lr: Any) -> None:
    environment = tiny.make_environment(
        mode=mode,
        # In ReSum mode so small that conversations begin again.
        budget=Budget(model_calls=4, context_tokens=1100 if mode == "resum" else 4000),
        tools=[tiny.Look("a b " * 230)],
        sampling=Sampling(temperature=1.3, top_p=1.0, presence_penalty=0.0, max_tokens=4),
    )
    trainer = tiny.make_trainer(
        tmp_path, environment=environment, steps=3, rollouts=8, muon_lr=muon_lr, no_answer="kept"
    )
    before = weights(trainer.model)
    lines = train(trainer)
    assert all(line["deviation"] < 1e-5 for line in lines)
    assert all(line["broken"] == line["clipped"] == 0 for line in lines)
    assert any(not torch.equal(before[n], p) for n, p in trainer.model.named_parameters())
    logs = [RunFolder(path.parent) for path in tmp_path.rglob("events.jsonl")]
    assert len(logs) == 3 * 2 * 8
    if mode == "resum":
        assert any("context_restarted" in log.log.read_text() for log in logs)


@pytest.mark.parametrize("kind", ["kimi", "lfm2"])
def test_hybrids_are_trained_on_policy(tmp_path: Path, kind: str) -> None:
    """Padding goes through convolutions and recurrent states, and is seen by no real token."""
    trainer = tiny.make_trainer(tmp_path, model=tiny.make_model(kind=kind), muon_lr=0.01, steps=3)
    lines = train(trainer)
    assert all(line["deviation"] < 1e-5 for line in lines)
    assert all(line["grad_norm"] > 0 for line in lines)


def test_several_updates_of_a_batch_are_clipped(tmp_path: Path) -> None:
    lines = train(tiny.make_trainer(tmp_path, updates_per_batch=4, adamw_lr=0.05, steps=2))
    assert all(line["deviation"] < 1e-5 for line in lines)  # of the policy that was sampled
    assert any(line["clipped"] > 0 for line in lines)


def test_without_a_signal_nothing_changes(tmp_path: Path) -> None:
    trainer = tiny.make_trainer(tmp_path, environment=tiny.make_environment(lambda *_: 1.0))
    before = weights(trainer.model)
    lines = train(trainer)
    assert all(line["zero_variance"] == 1 and line["grad_norm"] == 0 for line in lines)
    assert all(torch.equal(before[n], p) for n, p in trainer.model.named_parameters())


def test_a_run_that_learns_nothing_says_so_and_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"environment": tiny.make_environment(lambda *_: 0.0), "steps": 9}
    trainer = tiny.make_trainer(tmp_path, **options, max_flat_steps=3)
    lines: list[Any] = []
    with pytest.raises(TrainingError, match=r"Nothing was learned in 3 steps in a row: .* 0.000"):
        trainer.train(lines.append)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert caplog.text.count("Nothing was learned: the rewards of each question") == 2
    # With more patience it goes on from where it is.
    more = tiny.make_trainer(tmp_path, **options, max_flat_steps=None)
    assert train(more)[-1]["step"] == 9


# -- from rollouts to the gradient


def ended(termination: str, answer: str | None = None) -> RunEnded:
    return RunEnded(
        number=0, time=0.0, step=1, termination=termination, answer=answer, citations=None,
        model_calls=1, tool_calls=0, prompt_tokens=1, completion_tokens=1, seconds=0.0, money=0.0,
    )  # fmt: skip


def rollout(reward: float | None, termination: str = "answer", turns: int = 1) -> Rollout:
    """Turns that do not go on with each other: each is a segment."""
    made = [SampledTurn((i, 1), (2, 3), (-0.5, -0.7)) for i in range(turns)]
    return Rollout(Task("q", "?"), (ended(termination),), tuple(made), reward)


def test_all_segments_of_a_rollout_have_its_advantage() -> None:
    rows = rows_of([rollout(1.0, turns=3), rollout(0.0), rollout(0.0)], 5, GrpoSettings())
    assert [row.advantage for row in rows] == [1.0, 1.0, 1.0, -0.5, -0.5]
    assert {row.question for row in rows} == {5}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2 / 3, 2 / 3, -2 / 3]),
        ({"no_answer": "kept"}, [2 / 3, 2 / 3, -2 / 3, -2 / 3]),
        ({"excluded_in_baseline": False}, [1 / 2, 1 / 2, -1.0]),
    ],
    ids=["excluded", "kept", "out of the baseline"],
)
def test_lost_rollouts_are_excluded_or_kept(options: dict[str, Any], expected: list[Any]) -> None:
    """Leave-one-out by hand; a broken rollout never counts."""
    group = [
        rollout(1.0),
        rollout(1.0, "max_calls"),  # right, though it was made to answer: as any other
        rollout(0.0, "max_calls"),
        rollout(None),
        rollout(0.0),
    ]
    rows = rows_of(group, 0, GrpoSettings(**options))
    assert [row.advantage for row in rows] == pytest.approx(expected)


def random_rows(seed: int) -> list[SegmentRow]:
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for i in range(7):
        length = int(torch.randint(2, 12, (), generator=rng))
        ids = torch.randint(12, (length,), generator=rng).tolist()
        mask = [False, *(torch.rand(length - 1, generator=rng) < 0.6).tolist()]
        mask[-1] = True
        old = (-2.5 + 0.4 * torch.randn(length, generator=rng, dtype=torch.float64)).tolist()
        old = [x if m else 0.0 for x, m in zip(old, mask, strict=True)]
        rows.append(
            SegmentRow(
                TokenSegment(tuple(ids), tuple(mask), tuple(old)), (-1.0) ** i / (i + 1), i // 3
            )
        )
    return rows


@pytest.mark.parametrize("max_tokens", [1, 20, 10_000])
@pytest.mark.parametrize("normalize", ["batch", "question"])
def test_gradient_of_a_batch_is_the_sum_over_its_tokens(normalize: Any, max_tokens: int) -> None:
    """Against one unpadded sequence after the other, in float64, however it is cut into batches."""
    model, rows, temperature = tiny.make_model().double(), random_rows(1), 0.8
    settings = GrpoSettings(normalize=normalize, micro_batch_tokens=max_tokens, max_deviation=None)
    updater = Updater(
        model, temperature, settings, SimpleNamespace(num_processes=1, process_index=0)
    )
    found = updater._gradient(rows, updater._weights(rows)[0])
    gradient = {name: p.grad.clone() for name, p in model.named_parameters()}

    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows:
        same = [r for r in rows if normalize == "batch" or r.question == row.question]
        total = sum(sum(r.segment.action_mask) for r in same) * (1 if normalize == "batch" else 3)
        logits = model(input_ids=torch.tensor([row.segment.input_ids])).logits[0] / temperature
        for at, token in enumerate(row.segment.input_ids):
            if not row.segment.action_mask[at]:
                continue
            logprob = logits[at - 1][token] - logits[at - 1].logsumexp(0)
            ratio = (logprob - row.segment.logprobs[at]).exp()
            plain, cut = ratio * row.advantage, ratio.clamp(0.8, 1.28) * row.advantage
            loss = loss - (plain if plain < cut else cut) / total
    loss.backward()
    assert found["loss"] == pytest.approx(float(loss.detach()), abs=1e-9)
    for name, parameter in model.named_parameters():
        assert (gradient[name] - parameter.grad).abs().max() < 1e-9
    assert found["clipped"] > 0


# -- what breaks is counted and skipped


def some_break(how: str) -> Any:
    """A reward that fails for every third rollout."""
    calls = [0]

    def reward(task: Task, answer: str | None) -> float:
        calls[0] += 1
        if calls[0] % 3 == 0:
            if how == "raises":
                raise RuntimeError("the judge is away")
            return math.nan
        return float(calls[0] % 2)

    return reward


@pytest.mark.parametrize("how", ["raises", "nan"])
def test_a_broken_reward_skips_its_rollout(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = tiny.make_environment(some_break(how))
    (line,) = train(
        tiny.make_trainer(tmp_path, environment=environment, steps=1, questions=3, rollouts=4)
    )
    assert line["broken"] == pytest.approx(1 / 3)
    assert line["reward"] == pytest.approx(0.5)  # of the others alone
    told = [json.loads(text) for text in (tmp_path / "broken.jsonl").read_text().splitlines()]
    assert len(told) == 4
    assert all(("judge is away" if how == "raises" else "nan") in row["problem"] for row in told)
    assert "4 of 12 rollouts failed" in caplog.text


class Failing(CheckpointEngine):
    """An engine for which some conversations are too much."""

    share = 3

    async def complete(self, request: Request) -> Completion:
        if (request.sampling.seed or 0) % self.share == 0:
            raise EngineError("The model failed with OutOfMemoryError: full")
        return await super().complete(request)


def test_a_full_memory_breaks_single_rollouts(tmp_path: Path) -> None:
    model = tiny.make_model()
    engine = Failing(model, tiny.make_tokenizer())
    (line,) = train(
        tiny.make_trainer(tmp_path, model=model, engine=engine, steps=1, questions=4, rollouts=4)
    )
    assert 0 < line["broken"] < 1
    assert "OutOfMemoryError" in (tmp_path / "broken.jsonl").read_text()
    asyncio.run(engine.aclose())


def test_a_step_without_any_whole_rollout_ends_the_run(tmp_path: Path) -> None:
    def reward(task: Task, answer: str | None) -> float:
        raise ValueError("no judge")

    trainer = tiny.make_trainer(tmp_path, environment=tiny.make_environment(reward))
    with pytest.raises(TrainingError, match="All 8 rollouts of step 1 failed.*no judge"):
        trainer.train()


def test_an_engine_with_other_weights_is_noticed(tmp_path: Path) -> None:
    engine = CheckpointEngine(tiny.make_model(seed=1), tiny.make_tokenizer())
    with pytest.raises(TrainingError, match="max_deviation"):
        tiny.make_trainer(tmp_path, engine=engine).train()
    asyncio.run(engine.aclose())


def test_weights_that_became_no_numbers_end_the_run(tmp_path: Path) -> None:
    trainer = tiny.make_trainer(tmp_path, steps=3)

    def spoil(line: dict[str, float]) -> None:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(math.nan)

    with pytest.raises(TrainingError, match="All 8 rollouts of step 2 failed.*NaN"):
        trainer.train(spoil)
    assert trainer.step == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=0.9, presence_penalty=0.0),
        Sampling(temperature=1.0, top_p=1.0, presence_penalty=1.1),
        Sampling(temperature=0.0, top_p=1.0, presence_penalty=0.0),
        Sampling(temperature=None, top_p=1.0, presence_penalty=0.0),
    ],
    ids=["top-p", "penalty", "greedy", "engine's"],
)
def test_a_cut_distribution_is_refused(tmp_path: Path, sampling: Sampling) -> None:
    with pytest.raises(TrainingError, match="whole distribution"):
        tiny.make_trainer(tmp_path, environment=tiny.make_environment(sampling=sampling))


# -- the folder


def test_kept_rollouts_can_be_replayed(tmp_path: Path) -> None:
    trainer = tiny.make_trainer(tmp_path, steps=4, keep_rollouts_every=2)
    path = trainer.train()
    steps = sorted(folder.name for folder in (tmp_path / "rollouts").iterdir())
    assert steps == ["step-2", "step-4"]
    logs = [log.parent for log in (tmp_path / "rollouts" / "step-4").rglob("events.jsonl")]
    assert len(logs) == 8
    for log in logs:
        assert list(replay(log)) == RunFolder(log).events()
    loaded = models.load_model(path)
    assert all(torch.equal(p, weights(trainer.model)[n]) for n, p in loaded.named_parameters())


def test_metrics_say_what_happened(tmp_path: Path) -> None:
    lines = train(tiny.make_trainer(tmp_path))
    written = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == lines
    events = [
        event
        for log in (tmp_path / "rollouts" / "step-1").rglob("events.jsonl")
        for event in RunFolder(log.parent).events()
    ]
    ends = [event for event in events if isinstance(event, RunEnded)]
    assert len(ends) == 8
    assert lines[0]["tokens"] == sum(end.completion_tokens for end in ends) / 8
    assert lines[0]["no_answer"] == sum(end.termination != "answer" for end in ends) / 8
    rejected = sum(event.type == "turn_rejected" for event in events)
    assert lines[0]["error_turns"] == rejected / 8


def test_other_settings_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    tiny.make_trainer(tmp_path, steps=1).train()
    with pytest.raises(RunError, match=r"`adamw_lr` \(was 0.02, now 0.5\)"):
        tiny.make_trainer(tmp_path, steps=2, adamw_lr=0.5).train()
    lines = train(tiny.make_trainer(tmp_path, steps=3, concurrency=2))
    assert [line["step"] for line in lines] == [2, 3]


def test_only_questions_with_a_signal_are_trained_on(tmp_path: Path) -> None:
    tasks = [Task("easy", "?", "easy"), Task("hard", "a ?", "hard"), *tiny.make_tasks(4)[2:]]

    def reward(task: Task, answer: str | None) -> float:
        if task.id in ("easy", "hard"):
            return float(task.id == "easy")
        return tiny.is_yes(task, answer)

    trainer = tiny.make_trainer(
        tmp_path, environment=tiny.make_environment(reward), tasks=tasks, steps=2, rollouts=8,
        active_questions=2, adamw_lr=1e-4,
    )  # fmt: skip
    lines = train(trainer)
    assert lines[0]["mastered"] == 1
    assert {path.name for path in tmp_path.glob("rollouts/step-*/*")} <= {"q2", "q3"}


def test_questions_without_any_signal_are_an_error(tmp_path: Path) -> None:
    trainer = tiny.make_trainer(
        tmp_path, environment=tiny.make_environment(lambda *_: 0.0), active_questions=2
    )
    with pytest.raises(TrainingError, match="right in some attempts and wrong in others"):
        trainer.train()


# -- processes


def metrics_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("seconds")} for line in lines]


def drive(what: str, folder: Path, env: Mapping[str, str] | None = None) -> Any:
    command = [sys.executable, str(DRIVER), what, str(folder)]
    return subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process: Any) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


class Slow(tiny.Look):
    """A tool that takes another time at each call, so that requests come in other orders."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def run(self, arguments: Mapping[str, Any], context: Any) -> Any:
        await asyncio.sleep(self._random.choice((0, 0.001, 0.004)))
        return await super().run(arguments, context)


def test_seed_and_settings_decide_every_bit(tmp_path: Path) -> None:
    """Whatever the order in which rollouts come back from their tools; stopped in a step or not."""
    options = {"steps": 4, "rollouts": 6, "concurrency": 7, "active_questions": 3, "save_every": 2}

    def run(name: str, seed: int, stop_after: int | None = None) -> dict[str, bytes]:
        judged = 0

        def reward(task: Task, answer: str | None) -> float:
            nonlocal judged
            judged += 1
            if judged == stop_after:
                raise KeyboardInterrupt
            return tiny.is_yes(task, answer)

        environment = tiny.make_environment(reward, tools=[Slow(seed)])
        tasks = tiny.make_tasks(5)
        trainer = tiny.make_trainer(
            tmp_path / name, environment=environment, tasks=tasks, **options
        )
        if stop_after is None:
            trainer.train()
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        last = tmp_path / name / "checkpoints" / "step-4"
        kept = ("model.safetensors", "optimizer.pt", "run.json")
        return {file: (last / file).read_bytes() for file in kept if last.exists()}

    whole = run("whole", 1)
    assert run("again", 2) == whole
    assert run("stopped", 3, stop_after=50) == {}
    assert (tmp_path / "stopped" / "checkpoints" / "step-2").exists()
    assert run("stopped", 4, stop_after=9) == {}
    assert run("stopped", 5) == whole
    assert [untimed(line) for line in metrics_of(tmp_path / "stopped")] == [
        untimed(line) for line in metrics_of(tmp_path / "whole")
    ]


def test_the_others_do_not_wait_for_a_tool_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs until others have answered: if they waited for it, that would be for ever."""
    from hanol.engines.checkpoint import _worker  # private: how long the others wait

    judged, answered = [], asyncio.Event()

    class Hanging(tiny.Look):
        calls = 0

        async def run(self, arguments: Mapping[str, Any], context: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                await answered.wait()
            return await super().run(arguments, context)

    def reward(task: Task, answer: str | None) -> float:
        judged.append(answer)
        if len(judged) == 60:
            answered.set()
        return tiny.is_yes(task, answer)

    monkeypatch.setattr(_worker, "_PATIENCE", 0.1)
    tool = Hanging()
    environment = tiny.make_environment(reward, tools=[tool])
    options = {"steps": 1, "questions": 4, "rollouts": 16}
    [line] = train(tiny.make_trainer(tmp_path, environment=environment, **options))
    assert tool.calls
    assert line["broken"] == 0


def untimed(line: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in line.items() if "seconds" not in key}


@pytest.mark.parametrize("name", ["optimizer.pt", "run.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_passed_over(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = train(tiny.make_trainer(tmp_path, steps=3))
    file = tmp_path / "checkpoints" / "step-3" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    (tmp_path / "rollouts" / "step-x").mkdir()
    (tmp_path / "checkpoints" / "step-x").mkdir()
    again = train(tiny.make_trainer(tmp_path, steps=3))
    assert f"step-3 is damaged ({name} is not as it was written): resuming from" in caplog.text
    assert [untimed(line) for line in again] == [untimed(lines[2])]
    for saved in (tmp_path / "checkpoints").glob("step-[0-9]"):
        (saved / "optimizer.pt").unlink()
    with pytest.raises(
        TrainingError, match="Cannot resume from .*step-3': optimizer.pt is missing"
    ):
        tiny.make_trainer(tmp_path, steps=3).train()


@pytest.mark.slow
def test_a_killed_trainer_goes_on_exactly(tmp_path: Path) -> None:
    """Killed while it samples, updates, writes metrics, weights and optimizer, and renames."""
    finished(drive("killed", tmp_path))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert metrics_of(killed) == metrics_of(whole)
    assert len(metrics_of(whole)) == 5
    for name in ("model.safetensors", "run.json"):
        end = f"checkpoints/step-5/{name}"
        assert (killed / end).read_bytes() == (whole / end).read_bytes()
    logs = {
        str(log.relative_to(folder))
        for folder in (whole, killed)
        for log in folder.rglob("*.jsonl")
    }
    for folder in (whole, killed):
        for log in logs:
            assert (folder / log).exists()
        assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_two_processes_make_the_same_updates_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    processes = [
        drive("parallel", two, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    for process in processes:
        finished(process)
    finished(drive("parallel", one))
    for a, b in zip(metrics_of(one), metrics_of(two), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    first, second, alone = (
        json.loads(path.read_text())
        for path in (two / "rank-0.json", two / "rank-1.json", one / "rank-0.json")
    )
    assert first == second
    for name, values in alone.items():
        assert torch.allclose(torch.tensor(first[name]), torch.tensor(values), atol=1e-4)
