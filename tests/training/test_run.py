"""Whole runs with real files and processes: results, kill and resume, two processes, errors."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from hanol import models
from hanol.errors import RecipeError, RunError, TrainingError, WriteError
from hanol.files import write_sums
from hanol.models import _presets  # private: presets of the tests are put there
from hanol.training import TrainingResult, read_metrics, read_recipe, train
from hanol.worlds import open_problems

ROOT = Path(__file__).parents[2]
SMALL = {
    "kind": "pretrain",
    "name": "small",
    "model": {"preset": "smaller"},
    "tokenizer": {"vocab_size": 300},
    "stages": [
        {"tokens": 512, "sequence_length": 32, "batch_tokens": 128},
        {"tokens": 1024, "sequence_length": 64, "batch_tokens": 256},
    ],
    "optim": {"muon_lr": 0.01, "adamw_lr": 0.003},
    "schedule": {"warmup_tokens": 128, "decay_tokens": 512, "polyak": True},
    "qk_clip": 0.02,  # low enough to act
    "eval_every": 4,
    "eval_bytes": 500,
    "save_every": 2,
    "log_every": 1,
    "threads": 1,
}


# A preset of the tests alone: Muon takes a second for each step of the smallest of the real ones.
SMALLER = """
from functools import partial
from hanol.models import _presets  # private: where presets are

small = partial(
    _presets.kimi_config, hidden_size=48, num_layers=4, num_heads=3, head_dim=16,
    intermediate_size=64, kv_lora_rank=16,
)
_presets._PRESETS["smaller"] = (300, small)
"""
REAL = {"preset": "kimi-linear-3m"}


@pytest.fixture(autouse=True, scope="module")
def _smaller() -> Iterator[None]:
    exec(SMALLER, {})
    yield
    del _presets._PRESETS["smaller"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for i in range(30):
        (folder / f"{i}.py").write_text(f"def f{i}(x):\n    return [x, {i}] * {i % 7}\n" * 3)
    return folder


def write(folder: Path, texts: Path, **changes: object) -> Path:
    path = folder / "small.yaml"
    data = {"source": "folder", "path": str(texts), "held_out": 0.2}
    path.write_text(yaml.safe_dump({**SMALL, "data": data, **changes}))
    return path


def losses(folder: Path) -> dict[int, float]:
    return {int(line["step"]): line["loss"] for line in read_metrics(folder) if "loss" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> tuple[Path, TrainingResult]:
    """A whole run, which nothing disturbed, and its result."""
    place = tmp_path_factory.mktemp("whole")
    return place / "run", train(read_recipe(write(place, texts)), place / "run")


def test_a_run_leaves_everything_behind(tmp_path, texts, whole) -> None:
    folder, result = whole
    assert result.steps == 8
    assert result.tokens == 1536
    found = losses(folder)
    assert list(found) == list(range(1, 9))
    assert found[8] < found[1]
    bits = [m["eval_bits_per_byte"] for m in read_metrics(folder) if "eval_bits_per_byte" in m]
    assert len(bits) == 2
    assert 0 < result.bits_per_byte < 10
    resolved = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert resolved["recipe"]["optim"]["clip_norm"] == 1.0
    assert {"torch", "transformers"} <= set(resolved["versions"])
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "result.json").read_text())["steps"] == 8
    model, tokenizer = models.load(folder / "final")
    assert models.inspect(folder / "final").official_layout
    ids = tokenizer("def f", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4).shape[1] <= ids.shape[1] + 4
    with pytest.raises(RunError, match="already has a run"):
        train(read_recipe(write(tmp_path, texts)), folder)
    again = train(read_recipe(write(tmp_path, texts)), folder, resume=True)
    assert again == result, "a finished run is not run again"
    changed = read_recipe(write(tmp_path, texts), ["seed=5"])
    with pytest.raises(RunError, match="`recipe.seed`"):
        train(changed, folder, resume=True)


def test_evaluations_are_bounded_and_show_how_far_they_are(tmp_path, texts) -> None:
    texts = shutil.copytree(texts, tmp_path / "more")
    for name in "abcdefgh":  # some of them are held out
        (texts / f"large-{name}.txt").write_text("many words " * 9_000)
    stages = [{"tokens": 512, "sequence_length": 32, "batch_tokens": 128}]
    schedule = {"warmup_tokens": 128, "decay_tokens": 256}
    options = {"stages": stages, "schedule": schedule, "final_eval_bytes": 300, "eval_every": 2}
    lines: list = []
    recipe = read_recipe(write(tmp_path, texts, **options))
    result = train(recipe, tmp_path / "run", on_step=lines.append)
    assert 0 < result.held_out_bytes <= 300
    told = [(line["evaluated"], line["of"]) for line in lines if "evaluated" in line]
    assert told[0][0] == 0
    assert all(done < of for done, of in told)
    # Where each document is larger, the smallest is scored.
    least = read_recipe(write(tmp_path, texts, **{**options, "final_eval_bytes": 1}))
    assert 1 < train(least, tmp_path / "least").held_out_bytes < 500


def test_a_file_in_the_place_of_the_folder(tmp_path, texts) -> None:
    recipe = write(tmp_path, texts)
    with pytest.raises(WriteError, match="it is a file"):
        train(read_recipe(recipe), recipe)


def test_the_same_seed_gives_the_same_run(tmp_path, texts) -> None:
    stages = [{"tokens": 512, "sequence_length": 32, "batch_tokens": 128}]
    schedule = {"warmup_tokens": 128, "decay_tokens": 256}
    recipe = read_recipe(write(tmp_path, texts, stages=stages, schedule=schedule))
    for name in ("a", "b"):
        train(recipe, tmp_path / name)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    train(recipe.model_copy(update={"seed": 1}), tmp_path / "c")
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


def test_killed_in_the_middle_of_a_step_it_goes_on_as_the_same_run(
    tmp_path, texts, whole, forked
) -> None:
    recipe = write(tmp_path, texts)
    killed = tmp_path / "killed"
    program = f"{SMALLER}from hanol.cli import main; main()"
    process = forked(program, "train", recipe, "--output", killed, "--json")
    deadline = time.monotonic() + 120
    while not (killed / "checkpoint-4").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr[-2000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "final").exists()
    resumed = forked(program, "train", recipe, "--output", killed, "--json", "--resume")
    assert resumed.wait() == 0, resumed.stderr[-2000:]
    assert losses(killed) == losses(whole[0])
    assert json.loads(resumed.stdout)["bits_per_byte"] == whole[1].bits_per_byte
    assert not (killed / ".writing").exists() or not any((killed / ".writing").iterdir())


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one(tmp_path, texts) -> None:
    recipe = write(tmp_path, texts, model=REAL)
    train(read_recipe(recipe), tmp_path / "one")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "hanol", "train", str(recipe), "--output", str(tmp_path / "two"), "--json",
        ],
        capture_output=True,
        env=environment,
        timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4


@pytest.mark.slow
def test_sharded_by_fsdp2_it_follows_the_curve_of_one_process(tmp_path, texts) -> None:
    recipe = write(tmp_path, texts, model=REAL)
    train(read_recipe(recipe), tmp_path / "one")
    config = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp2.yaml").read_text())
    config |= {"use_cpu": True, "mixed_precision": "no", "num_processes": 2}
    (tmp_path / "fsdp2.yaml").write_text(yaml.safe_dump(config))

    def launch(*more: str) -> None:
        done = subprocess.run(
            [
                sys.executable, "-m", "accelerate.commands.launch",
                "--config_file", str(tmp_path / "fsdp2.yaml"),
                str(Path(__file__).with_name("fsdp2_on_cpu.py")),
                "train", str(recipe), "--output", str(tmp_path / "two"), "--json", *more,
            ],
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=400,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        assert done.stderr.count(b"sharded") >= 2
        assert len(done.stdout.splitlines()) == 1

    launch()
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4
    # The last steps again, from a checkpoint with a running mean, and the same final model.
    [saved, *_] = sorted((tmp_path / "two").glob("checkpoint-*"))
    for path in (tmp_path / "two" / "final", *sorted((tmp_path / "two").glob("checkpoint-*"))[1:]):
        shutil.rmtree(path)
    assert (saved / "average.pt").exists()
    launch("--resume")
    again = losses(tmp_path / "two")
    assert again == pytest.approx(two, abs=1e-6)
    finals = [models.load_model(tmp_path / name / "final").state_dict() for name in ("one", "two")]
    for name, tensor in finals[0].items():
        torch.testing.assert_close(finals[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, texts, monkeypatch) -> None:
    recipe = read_recipe(write(tmp_path, texts))
    from hanol.training.pretraining import (  # private: the points at which writing fails
        _pretrain,  # the class between the steps of which it goes wrong
    )

    after_update = _pretrain.PretrainTrainer.after_update

    def poison(self):
        if self.state.global_step == 4:
            next(iter(self.model.parameters())).data.fill_(float("nan"))
        return after_update(self)

    monkeypatch.setattr(_pretrain.PretrainTrainer, "after_update", poison)
    with pytest.raises(
        TrainingError, match=r"The loss is nan at step \d.*resume from .*checkpoint-4"
    ):
        train(recipe, tmp_path / "run")


def test_a_full_disk_leaves_whole_checkpoints_only(tmp_path, texts, monkeypatch) -> None:
    recipe = read_recipe(write(tmp_path, texts))
    save, calls = torch.save, []

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match="could not be written: the disk is full"):
        train(recipe, tmp_path / "run")
    left = sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*"))
    assert left
    assert all((tmp_path / "run" / name / "trainer_state.json").exists() for name in left)
    assert not (tmp_path / "run" / ".writing").exists()


def test_what_cannot_be_written_is_one_line_and_the_run_goes_on_with_room(
    tmp_path, texts, whole, forked
) -> None:
    """By a limit for files, which every writer meets; safetensors is the first one here."""
    recipe, folder = write(tmp_path, texts), tmp_path / "run"
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, -1))\n"
        f"{SMALLER}from hanol.cli import main; main()"
    )
    process = forked(program, "train", recipe, "--output", folder)
    assert process.wait() == 1, process.stderr[-2000:]
    *_, last = process.stderr.strip().splitlines()
    assert "checkpoint-2' could not be written: File too large. A checkpoint needs about " in last
    assert {path.name for path in folder.rglob(".*")} == set()
    train(read_recipe(recipe), folder, resume=True)
    assert losses(folder) == losses(whole[0])
    ends = [(place / "final" / "model.safetensors").read_bytes() for place in (folder, whole[0])]
    assert ends[0] == ends[1]


def test_data_of_an_earlier_start_are_used_only_if_they_are_the_recipes(
    tmp_path, texts, caplog
) -> None:
    """A start that broke off after its data were prepared, then another recipe in its folder."""
    others = tmp_path / "others"
    others.mkdir()
    for i in range(30):
        (others / f"{i}.txt").write_text(f"zebra {i} quagga okapi " * 9)
    folder = tmp_path / "run"
    long = [{"tokens": 16384, "sequence_length": 16384, "batch_tokens": 16384}]
    with pytest.raises(RecipeError, match="the model's context"):
        train(read_recipe(write(tmp_path, texts, stages=long)), folder)
    assert (folder / "tokens").exists()
    stages = [{"tokens": 256, "sequence_length": 32, "batch_tokens": 128}]
    schedule = {"warmup_tokens": 128, "decay_tokens": 128}
    recipe = read_recipe(write(tmp_path, others, stages=stages, schedule=schedule))
    train(recipe, folder)
    assert "tokens is made anew: its source" in caplog.text
    tokenizer = models.load_tokenizer(folder / "final")
    tokens = np.load(folder / "tokens" / "train" / "tokens.npy")
    learned = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
    assert "zebra" in learned
    assert "def f" not in learned
    # The same data again: used as they are. Others, once the run has learned: refused.
    caplog.clear()
    shutil.rmtree(folder / "final")
    made = (folder / "tokens").stat().st_mtime_ns
    train(recipe, folder, resume=True)
    assert (folder / "tokens").stat().st_mtime_ns == made
    assert "made anew" not in caplog.text
    shutil.rmtree(folder / "final")
    (others / "7.txt").write_text("another text")
    with pytest.raises(RunError, match=r"whose data are in .*: `data` \(was .* has changed"):
        train(recipe, folder, resume=True)


def test_one_training_a_folder(tmp_path, texts, forked) -> None:
    folder = tmp_path / "run"
    other = forked(
        "import sys, time; from hanol.runs import alone\n"
        "with alone(sys.argv[1]):\n    print('in', flush=True); time.sleep(60)",
        folder,
    )
    while "in" not in other.stdout:
        assert other.poll() is None, other.stderr
        time.sleep(0.01)
    with pytest.raises(RunError, match="Another process is writing the run in"):
        train(read_recipe(write(tmp_path, texts)), folder)
    assert not any(folder.iterdir())
    other.send_signal(signal.SIGKILL)


DAMAGE = {
    "weights": ("model.safetensors", "flip"),
    "optimizer": ("optimizer.pt", "flip"),
    "no-optimizer": ("optimizer.pt", "remove"),
    "no-average": ("average.pt", "remove"),
    "random-state": ("rng_state.pth", "cut"),
    "state": ("trainer_state.json", "empty"),
    "sums": ("checksums.json", "empty"),
}


def harm(file: Path, how: str) -> None:
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes(data if how == "flip" else data[: len(data) // 2 if how == "cut" else 0])
    if how == "remove":
        file.unlink()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """The folder of a run that was stopped when it had two checkpoints."""
    place = tmp_path_factory.mktemp("saved")
    recipe = read_recipe(write(place, texts, keep=2))

    def stop(line: object) -> None:
        if (place / "run" / "checkpoint-8").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, place / "run", on_step=stop)
    assert {path.name for path in (place / "run").glob("checkpoint-*")} == {
        "checkpoint-6", "checkpoint-8"
    }  # fmt: skip
    return place / "run"


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one_that_is_whole(
    name: str, tmp_path, texts, whole, saved, caplog
) -> None:
    folder = shutil.copytree(saved, tmp_path / "run")
    file, how = DAMAGE[name]
    harm(folder / "checkpoint-8" / file, how)
    (folder / "checkpoint-abc").mkdir()  # a folder of somebody else
    recipe = read_recipe(write(tmp_path, texts, keep=2))
    train(recipe, folder, resume=True)
    assert f"checkpoint-8 is damaged ({file} is " in caplog.text
    assert "checkpoint-6" in caplog.text
    assert (folder / "checkpoint-8.damaged").exists()
    assert losses(folder) == losses(whole[0])
    ends = [models.load_model(place / "final").state_dict() for place in (folder, whole[0])]
    assert all(torch.equal(tensor, ends[1][key]) for key, tensor in ends[0].items())


def test_without_a_whole_checkpoint_nothing_is_trained(tmp_path, texts, saved) -> None:
    folder = shutil.copytree(saved, tmp_path / "run")
    for number in (6, 8):
        harm(folder / f"checkpoint-{number}" / "optimizer.pt", "remove")
    before = read_metrics(folder)
    with pytest.raises(TrainingError, match=r"Cannot resume from .*checkpoint-8': optimizer.pt is"):
        train(read_recipe(write(tmp_path, texts, keep=2)), folder, resume=True)
    assert read_metrics(folder) == before


class Ran:
    """Pickled, it makes a folder where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def state(**changes: object) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def other_shapes(file: Path) -> None:
    stored = torch.load(file, weights_only=True)
    for values in stored["state"].values():
        values |= {name: torch.zeros(1, 2, 3) for name, x in values.items() if x.dim()}
    torch.save(stored, file)


FORGED: list[tuple[str, Callable[[Path], object]]] = [
    ("optimizer.pt", lambda file: file.write_bytes(pickle.dumps(Ran()))),
    ("optimizer.pt", lambda file: torch.save([1], file)),
    ("optimizer.pt", other_shapes),
    ("rng_state.pth", lambda file: file.write_bytes(pickle.dumps(Ran()))),
    ("rng_state.pth", lambda file: torch.save({"python": 1}, file)),
    ("trainer_state.json", lambda file: file.write_text("[" * 100_000)),
    ("trainer_state.json", state(global_step="x")),
    ("trainer_state.json", state(global_step=10**12)),
    ("trainer_state.json", state(global_step=-5)),
    ("trainer_state.json", state(nothing_known=1)),
    ("trainer_state.json", state(stateful_callbacks={"os.system": {"args": {}}})),
]


@pytest.mark.parametrize(("name", "forge"), FORGED)
def test_files_that_somebody_changed_with_their_checksums_are_refused_in_a_line(
    name: str, forge: Callable[[Path], object], tmp_path, texts, saved, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(saved, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint-8")
    forge(folder / "checkpoint-6" / name)
    write_sums(folder / "checkpoint-6")
    with pytest.raises(
        TrainingError, match=r"Cannot resume from .*checkpoint-6': its files"
    ) as told:
        train(read_recipe(write(tmp_path, texts, keep=2)), folder, resume=True)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "ran").exists()
    assert not (folder / "final").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", None),  # a torn last line
        ("metrics.jsonl", b'{"loss": 1.0}\n{"step": "x"}\n'),  # behind the others
        ("result.json", b""),
        ("result.json", b"[]"),
    ],
)
def test_what_is_torn_or_odd_beside_the_checkpoints_is_passed_over(
    name: str, content: bytes | None, tmp_path, texts, whole, saved
) -> None:
    folder = shutil.copytree(saved, tmp_path / "run")
    shutil.copytree(whole[0] / "final", folder / "final")
    if name == "metrics.jsonl":
        old = (folder / name).read_bytes()
        content = old + content if content else old[:-20]
        shutil.rmtree(folder / "checkpoint-8")  # its step is made again
    (folder / name).write_bytes(content or b"")
    train(read_recipe(write(tmp_path, texts, keep=2)), folder, resume=True)
    assert losses(folder) == losses(whole[0])
    assert json.loads((folder / "result.json").read_text())["steps"] == 8


def test_model_and_data_that_do_not_fit(tmp_path, texts) -> None:
    long = [{"tokens": 16384, "sequence_length": 16384, "batch_tokens": 16384}]
    with pytest.raises(RecipeError, match="`sequence_length` is 16384, but the model's context"):
        train(read_recipe(write(tmp_path, texts, stages=long)), tmp_path / "a")
    base = models.build("kimi-linear-3m", vocab_size=280)
    models.save(base, tmp_path / "base")
    foreign = write(tmp_path, texts, model={"checkpoint": str(tmp_path / "base")})
    with pytest.raises(RecipeError, match=r"The tokenizer has \d+ tokens.*was made for another"):
        train(read_recipe(foreign), tmp_path / "b")
    without = write(tmp_path, texts, tokenizer={})
    with pytest.raises(RecipeError, match="needs `tokenizer"):
        train(read_recipe(without), tmp_path / "c")


def test_a_model_of_problems_answers_messages(tmp_path, texts) -> None:
    data = {"source": "problems", "path": "sums", "num_problems": 60, "held_out": 0.2}
    made = train(read_recipe(write(tmp_path, texts, data=data)), tmp_path / "out")
    tokenizer = models.load_tokenizer(made.checkpoint)
    asked = {"role": "user", "content": "What is 1 + 2?"}
    said = {"role": "assistant", "content": "1 + 2 = 3\nThe answer is 3."}
    prompt = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([asked, said], tokenize=False)
    assert prompt == "<|bos|>What is 1 + 2?\n"
    assert whole == f"{prompt}{said['content']}<|eos|>"
    corpus = tmp_path / "out" / "tokens" / "train" / "tokens.npy"
    read = tokenizer.decode(np.load(corpus).tolist())
    # What is learned looks as a conversation does, and nothing of the split "test" is in it.
    problems = open_problems("sums", count=60)
    texts_ = [f"<|bos|>{one.problem}\n{one.solution}<|eos|>" for one in problems]
    assert read == "".join(text for text in texts_ if text in read)
    with pytest.raises(RecipeError, match="num_problems"):
        read_recipe(write(tmp_path, texts, data={"source": "problems", "path": "sums"}))
