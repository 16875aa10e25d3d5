"""Trainings of all kinds that are killed: they go on, and end with the same weights bit by bit."""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import yaml
from safetensors.torch import load_file
from tests.agent_training import tiny_policy
from tests.faults.kills import write_documents
from tests.faults.lab import Lab, Outcome, kind
from tests.training import chat_model as chat
from tests.training.test_run import SMALL, SMALLER


def sft(folder: Path, **more: Any) -> dict[str, Any]:
    """A recipe of a few steps; the model and its rows lie in the folder."""
    if not (folder / "model").exists():
        chat.make_checkpoint(folder / "model")
        chat.write_rows(folder / "rows.jsonl", chat.conversations(20))
    return {
        "kind": "sft", "name": "small", "model": str(folder / "model"),
        "data": {"path": str(folder / "rows.jsonl"), "held_out": 0.2}, "epochs": 3,
        "batch_size": 4, "adamw_lr": 0.01, "save_tokens": 400, "eval_tokens": 500, "threads": 1,
        "seed": 3, "max_length": 200, **more,
    }  # fmt: skip


def pretraining(folder: Path) -> dict[str, Any]:
    """A recipe of eight steps on texts in the folder."""
    write_documents(folder / "texts", Random(1), 12)
    for file in (folder / "texts").iterdir():
        file.rename(file.with_suffix(".txt"))
    return {**SMALL, "data": {"source": "folder", "path": str(folder / "texts"), "held_out": 0.2}}


def heads(folder: Path) -> dict[str, Any]:
    """A recipe of heads that learn from the model's own answers, those with an end."""
    if not (folder / "model").exists():
        chat.make_checkpoint(folder / "model")
    rows = [{"prompt": f"Say {number}", "completion": "yes", "answer": ""} for number in range(6)]
    data = {
        "rows": str(chat.write_rows(folder / "prompts.jsonl", rows)), "max_length": 250,
        "verify": "regex:()", "samples": 8, "max_new_tokens": 60,
    }  # fmt: skip
    return {
        "kind": "heads", "name": "small", "model": str(folder / "model"), "data": data, "steps": 6,
        "batch": 4, "micro_batch": 2, "min_rows": 1, "min_tokens": 1, "save_every": 2,
        "lr": 0.01, "threads": 1, "seed": 3,
    }  # fmt: skip


ASKING = {"model_calls": 3, "max_length": 2048, "concurrency": 8}
REJECT = {
    "kind": "reject",
    "attempts": 4,
    "pool": 4,
    "modes": {"react": 0.5, "markov": 0.5},
    **ASKING,
}
LEARN = {"kind": "sft", "source": "reject", "epochs": 2, "adamw_lr": 0.01, "save_tokens": 2000,
         "batch_size": 2, "max_length": 2048}  # fmt: skip
GRPO = {"kind": "grpo", "steps": 2, "questions": 2, "rollouts": 4, "adamw_lr": 0.02,
        "save_every": 1, "max_flat_steps": None, **ASKING}  # fmt: skip
RECIPES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sft": sft,
    "lora": lambda folder: sft(folder, lora={"rank": 2, "dropout": 0.2, "layers": "1-2"}),
    "pretrain": pretraining,
    "heads": heads,
    "grpo": lambda folder: tiny_policy.make_recipe(folder, GRPO),
    "reject": lambda folder: tiny_policy.make_recipe(folder, REJECT, LEARN),
}
PRESET = f"exec({SMALLER!r}); "


def trained(lab: Lab, what: str) -> tuple[Path, dict[str, str], float]:
    """Recipe, hashes of the weights of a run that nobody disturbed, and its seconds."""

    def make() -> tuple[Path, dict[str, str], float]:
        root = lab.root / f"training-{what}"
        root.mkdir()
        path = root / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPES[what](root)))
        whole = lab.run("train", path, "--output", root / "whole", prelude=PRESET, seconds=120)
        if whole.code:
            raise RuntimeError(f"{what}: {whole.err[-500:]}")
        return path, weights(root / "whole"), whole.seconds

    return lab.once(f"training {what}", make)


def weights(folder: Path) -> dict[str, str]:
    """Hashes of the tensors that a training, and each of its stages, ended with."""
    files = [
        file
        for file in folder.rglob("*.safetensors")
        if not re.search(r"/(checkpoint-|checkpoints/|\.)", f"/{file.relative_to(folder)}")
    ]
    return {
        f"{file.relative_to(folder)} {name}": hashlib.sha256(
            tensor.float().numpy().tobytes()
        ).hexdigest()
        for file in files
        for name, tensor in load_file(file).items()
    }


def kill_training(lab: Lab, rng: Random, what: str) -> Outcome:
    recipe, expected, whole = trained(lab, what)
    output = lab.folder() / "run"
    command = ["train", recipe, "--output", output, "--resume"]
    for _ in range(rng.choice([1, 2])):
        lab.killed(partial(lab.start, *command, prelude=PRESET), rng.uniform(0.1, whole))
    outcome = lab.judged(lab.run(*command, prelude=PRESET, seconds=120))
    if outcome.verdict != "survived":
        return Outcome("lost", f"it does not go on: {outcome.detail}")
    if weights(output) != expected or not expected:
        return Outcome("lost", "the weights differ from those of a run that nobody disturbed")
    return outcome


for _what, _long in (
    ("sft", 40),
    ("lora", 30),
    ("pretrain", 20),
    ("heads", 20),
    ("grpo", 20),
    ("reject", 20),
):
    kind(f"kill: training, {_what}", short=1, long=_long)(partial(kill_training, what=_what))
