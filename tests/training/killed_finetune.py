"""Fine-tunes in processes that are killed and go on: the driver of tests.

    python killed_finetune.py FOLDER KIND

One run is left alone. Another dies while it writes a checkpoint, and in an evaluation; a last
process ends it. Children are forked, so that hanol is imported once.
"""

import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from hanol.training import SftRecipe, StepTrainer, train

chat = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_model.py"))))


def recipe(root: Path, kind: str) -> SftRecipe:
    values: dict[str, Any] = {
        "kind": "sft", "name": "killed", "model": str(root / "model"),
        "data": {"path": str(root / "rows.jsonl"), "held_out": 0.2}, "epochs": 3,
        "batch_size": 4, "adamw_lr": 0.01, "save_tokens": 600, "eval_tokens": 500, "threads": 1,
        "seed": 3, "max_length": 200,
    }  # fmt: skip
    if kind == "lora":
        # Dropout: the state of the generator is part of a checkpoint.
        values["lora"] = {"rank": 2, "dropout": 0.2, "layers": "1-2"}
    return SftRecipe(**values)


def run(root: Path, kind: str, name: str, dies_at: str | None = None) -> None:
    if dies_at == "checkpoint":

        def die(self: StepTrainer, checkpoint: Path) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        StepTrainer.write_more = die  # type: ignore[method-assign]

    evaluations = 0

    def on_step(line: Mapping[str, Any]) -> None:
        nonlocal evaluations
        evaluations += "evaluated" in line
        if dies_at == "evaluation" and evaluations == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    result = train(recipe(root, kind), root / name, resume=True, on_step=on_step)
    (root / f"{name}.json").write_text(result.model_dump_json(exclude={"minutes"}))


def main(root: Path, kind: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forked import in_child

    chat.make_checkpoint(root / "model")
    chat.write_rows(root / "rows.jsonl", chat.conversations(20))
    assert in_child(partial(run, root, kind, "whole")) == 0
    for dies_at in ("checkpoint", "evaluation"):
        status = in_child(partial(run, root, kind, "killed", dies_at))
        assert status == -signal.SIGKILL, (dies_at, status)
    assert list((root / "killed").glob("checkpoint-*")), "it goes on from a checkpoint"
    assert in_child(partial(run, root, kind, "killed")) == 0
    # A finished run that is started again keeps its result.
    before = json.loads((root / "killed.json").read_text())
    assert in_child(partial(run, root, kind, "killed")) == 0
    assert json.loads((root / "killed.json").read_text()) == before


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
