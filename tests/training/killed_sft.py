"""Trains in processes of its own: the driver of tests.

    python killed_sft.py FOLDER
    torchrun killed_sft.py shared FOLDER

The first kills the training at bad moments and goes on with it: one run is left alone. Another dies
while it trains, while it writes a checkpoint, and with half a line of its metrics written; a last
process ends it. Children are forked, so that hanol is imported once. All leave their weights and
result in "done.json".
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from hanol import models
from hanol.attention import ConvAttentionConfig
from hanol.training import SftRow, SftSettings, StepTrainer, train_sft

ROWS, STEPS, VOCABULARY = 20, 14, 90


def make_rows(count: int, vocabulary: int, seed: int = 0) -> list[SftRow]:
    rng = Random(seed)
    rows = []
    for _ in range(count):
        length = rng.randint(4, 24)
        ids = tuple(rng.randrange(3, vocabulary) for _ in range(length))
        rows.append(SftRow(ids, (False, True, *(rng.random() < 0.5 for _ in range(length - 2)))))
    return rows


def make_config(vocabulary: int, **changes: Any) -> ConvAttentionConfig:
    values: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64, "tie_word_embeddings": True, "initializer_range": 0.1,
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
    }  # fmt: skip
    return ConvAttentionConfig(**{**values, **changes})


def train(folder: Path, dies_at: str | None = None) -> None:
    torch.set_num_threads(1)
    model = models.build(make_config(VOCABULARY), seed=0)
    rows = make_rows(ROWS, VOCABULARY)
    tokens = sum(len(row.input_ids) for row in rows) * STEPS * 4 // ROWS
    settings = SftSettings(
        tokens=tokens, batch_size=4, warmup_steps=3, save_tokens=150, eval_tokens=100
    )
    evaluations = 0

    def on_eval(seen: int) -> Mapping[str, Any]:
        nonlocal evaluations
        evaluations += 1
        if dies_at == f"metrics {evaluations}":
            with (folder / "metrics.jsonl").open("a") as file:
                file.write('{"step": 1')
            die()
        return {"norm": sum(p.norm().item() for p in model.parameters())}

    if dies_at is not None and dies_at.startswith("checkpoint"):
        kill_in_checkpoint(int(dies_at.split()[1]))
    result = train_sft(model, rows, settings, folder, resume=True, on_eval=on_eval)
    done = {
        "result": result._asdict(),
        "weights": {name: p.tolist() for name, p in model.named_parameters()},
    }
    (folder / f"done{os.environ.get('RANK', '')}.json").write_text(json.dumps(done))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_checkpoint(number: int) -> None:
    """Let this process die before the n-th checkpoint gets its name."""
    seen = 0

    def write_more(self: StepTrainer, checkpoint: Path) -> None:
        nonlocal seen
        seen += 1
        assert (checkpoint / "trainer_state.json").exists()
        if seen == number:
            die()

    StepTrainer.write_more = write_more  # type: ignore[method-assign]


def main(root: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forked import in_child

    for name in ("whole", "killed"):
        (root / name).mkdir()
    assert in_child(partial(train, root / "whole")) == 0
    # The first has nothing to go on from; the others go on from where a checkpoint was whole.
    for dies_at in ("checkpoint 1", "metrics 3", "checkpoint 2"):
        status = in_child(partial(train, root / "killed", dies_at))
        assert status == -signal.SIGKILL, (dies_at, status)
    assert in_child(partial(train, root / "killed")) == 0


if __name__ == "__main__":
    if sys.argv[1] == "shared":
        train(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
