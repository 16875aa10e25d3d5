"""Real stages, small: every kind of data, a model after each stage, killed and gone on with."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.agent_training import tiny_policy

from hanol import models
from hanol.agent_training import ResearcherRecipe, encyclopedia_tokenizer
from hanol.agent_training.stages._rows import (
    chat_rows,
    stage_rows,
)  # private: the rows that a stage learns from, without training
from hanol.agent_training.stages._stages import StageRun  # private: stages without their training
from hanol.engines import Message
from hanol.errors import DataError, RecipeError, RunError
from hanol.training import train, with_overrides

RECIPE = {
    "kind": "researcher",
    "name": "small",
    "model": {
        "config": "kimi-linear", "hidden_size": 32, "num_layers": 2, "num_heads": 2,
        "intermediate_size": 48, "kv_lora_rank": 16,
    },
    "world": {"entities": 60, "worlds": 2, "hops": [1, 2], "detours": 0.5},
    "stages": [
        {
            "kind": "midtrain", "tokens": 4000, "save_tokens": 1000, "warmup_steps": 2,
            "data": {"planning": 0.2, "reasoning": 0.3, "decisions": 0.3, "text": 0.2},
        },
        {
            "kind": "sft", "tokens": 6000, "save_tokens": 1000,
            "modes": {"react": 0.5, "markov": 0.5},
        },
        {"kind": "sft", "name": "other", "start": "midtrain", "tokens": 4000, "seed": 1},
        {"kind": "merge", "of": ["sft", "other"], "weights": [0.25, 0.75]},
    ],
    "eval": {"every": 2000, "questions": 2, "glance": 1, "entities": 60, "model_calls": 2},
    "threads": 1,
}  # fmt: skip

CHILD = """
import json, os, signal, sys
from hanol.training import read_recipe, train
left = int(sys.argv[3])
def on_step(line):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
result = train(
    read_recipe(sys.argv[1]), sys.argv[2], resume=True, on_step=on_step
)
"""


def recipe(*overrides: str) -> ResearcherRecipe:
    content = json.loads(json.dumps(RECIPE))
    return with_overrides(ResearcherRecipe, content, list(overrides), "The recipe")


def run_of(found: ResearcherRecipe, number: int, folder: Path) -> StageRun:
    folder.mkdir(exist_ok=True)
    return StageRun(found, found.stages[number], folder, None, {}, is_resumed=False)


@pytest.fixture(scope="module")
def tokenizer():
    return encyclopedia_tokenizer()


def test_rows_are_conversations_of_the_agent_with_its_turns_marked(tmp_path, tokenizer) -> None:
    rows = stage_rows(run_of(recipe(), 1, tmp_path), tokenizer)
    total = sum(len(row.input_ids) for row in rows)
    assert 6000 <= total < 6000 + max(len(row.input_ids) for row in rows)
    for row in rows:
        assert len(row.input_ids) == len(row.action_mask)
        assert not row.action_mask[0]
        assert row.action_mask[-1]
        assert row.input_ids[-1] == tokenizer.eos_token_id
        written = tokenizer.decode(
            [i for i, acts in zip(row.input_ids, row.action_mask, strict=True) if acts]
        )
        heard = tokenizer.decode(
            [i for i, acts in zip(row.input_ids, row.action_mask, strict=True) if not acts]
        )
        assert "<tool_response>" not in written
        assert "<answer>" not in heard
    in_rounds = ["# Report so far" in tokenizer.decode(row.input_ids) for row in rows]
    assert any(in_rounds)
    assert not all(in_rounds)
    assert any("<answer>" in tokenizer.decode(row.input_ids) for row in rows)


def test_training_worlds_take_lengths_of_pages_in_turn(tmp_path, tokenizer) -> None:
    found = recipe(
        "world.num_distractors=[0, 12]", "stages.0.data={text: 1.0}", "stages.0.max_length=4096"
    )
    rows = stage_rows(run_of(found, 0, tmp_path), tokenizer)
    lengths = [len(row.input_ids) for row in rows]
    num_pages = RECIPE["world"]["entities"]
    short, long = lengths[:num_pages], lengths[num_pages:]
    assert long
    assert max(short) < min(long)


def test_mistakes_made_on_purpose_are_read_but_not_learned(tmp_path, tokenizer) -> None:
    rows = stage_rows(run_of(recipe("stages.1.modes={react: 1.0}"), 1, tmp_path), tokenizer)
    read = []
    for row in rows:
        heard = zip(row.input_ids, row.action_mask, strict=True)
        read.append("<think>" in tokenizer.decode([i for i, acts in heard if not acts]))
    assert 0.2 < sum(read) / len(read) < 0.8  # half of the expert's runs begin with one


def test_shares_are_kept_and_rows_are_made_once(tmp_path, tokenizer) -> None:
    run = run_of(recipe(), 0, tmp_path)
    rows = stage_rows(run, tokenizer)
    assert all(all(row.action_mask) for row in rows)  # mid-training learns every token
    texts = [tokenizer.decode(row.input_ids) for row in rows]
    pages = sum(
        len(row.input_ids)
        for row, text in zip(rows, texts, strict=True)
        if "<|im_start|>" not in text
    )
    total = sum(len(row.input_ids) for row in rows)
    assert pages / total == pytest.approx(0.2, abs=0.05)
    kept = (tmp_path / "rows.jsonl").read_bytes()
    assert stage_rows(run, tokenizer) == rows
    assert (tmp_path / "rows.jsonl").read_bytes() == kept


def test_rows_are_made_anew_when_their_file_has_changed(tmp_path, tokenizer, caplog) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(json.dumps({"text": "One page about rain. " * 9}) + "\n")
    found = recipe("stages.0.data={text: 1.0}", f"stages.0.files={{text: {file}}}")
    run = run_of(found, 0, tmp_path / "stage")
    first = stage_rows(run, tokenizer)
    file.write_text(json.dumps({"text": "Another page about snow. " * 4}) + "\n")
    second = stage_rows(run, tokenizer)
    assert second != first
    assert "rows.jsonl is made anew" in caplog.text
    file.write_text(json.dumps({"text": "Never learned. " * 9}) + "\n")
    (run.folder / "checkpoint-1").mkdir()  # it has learned from the second
    with pytest.raises(RunError, match="`files.text` .* has changed"):
        stage_rows(run, tokenizer)
    (run.folder / "checkpoint-1").rmdir()
    stage_rows(run, tokenizer)
    (run.folder / "rows.jsonl").write_text("[[1, 2], [0,")
    with pytest.raises(DataError, match="rows.jsonl' is damaged .*delete it and resume"):
        stage_rows(run, tokenizer)


def test_rows_of_files(tmp_path, tokenizer) -> None:
    dialogue = [
        {"role": "user", "content": "What is the mayor of Babin?"},
        {"role": "assistant", "content": "<think> need mayor </think>"},
    ]
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": dialogue}) + "\n")
    found = recipe(f"stages.1.files.trajectories={file}")
    [row] = stage_rows(run_of(found, 1, tmp_path / "a"), tokenizer)
    wanted = chat_rows([Message(m["role"], m["content"]) for m in dialogue], tokenizer)
    assert [row] == wanted
    with pytest.raises(RecipeError, match="wants 'tools', which is not generated here"):
        stage_rows(run_of(recipe("stages.1.data={tools: 1.0}"), 1, tmp_path / "b"), tokenizer)


@pytest.mark.slow
def test_killed_in_stages_it_ends_with_the_same_models(tmp_path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(RECIPE))

    def child(folder: Path, events: int) -> int:
        command = [sys.executable, "-c", CHILD, str(path), str(folder), str(events)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    assert child(tmp_path / "whole", 10**6) == 0
    kills = 0
    while child(tmp_path / "killed", kills + 1) != 0:
        kills += 1
    assert kills >= 3
    for name in ("1-midtrain", "2-sft", "3-other", "4-merge"):
        a, b = (
            models.load_model(tmp_path / run / name / "checkpoint").state_dict()
            for run in ("whole", "killed")
        )
        assert all(torch.equal(a[key], b[key]) for key in a), name
    first, second = (
        json.loads((tmp_path / run / "summary.json").read_text())["stages"]
        for run in ("whole", "killed")
    )
    for one, other in zip(first, second, strict=True):
        assert one["facts"] == other["facts"]
        assert one["accuracy"] == other["accuracy"]
    assert (tmp_path / "killed" / "accuracy.png").exists()


def test_attempts_that_were_broken_off_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    """Which attempts are computed together decides their roundings: a part is made again."""
    reject = {
        "kind": "reject", "attempts": 4, "pool": 4, "concurrency": 3, "model_calls": 3,
        "max_length": 2048,
    }  # fmt: skip
    learn = {"kind": "sft", "source": "reject", "tokens": 100, "max_length": 2048}
    content = tiny_policy.make_recipe(tmp_path, reject, learn)
    found = with_overrides(ResearcherRecipe, content, [], "The recipe")
    train(found, tmp_path / "whole")

    def stop(line: Mapping[str, Any]) -> None:
        if line.get("attempts") == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(found, tmp_path / "parts", on_step=stop)
    train(found, tmp_path / "parts", resume=True)
    drawn = [
        {
            str(file.relative_to(folder)): file.read_text()
            for file in folder.glob("1-reject/attempts/**/turns.jsonl")
        }
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert len(drawn[0]) == 16
    assert drawn[0] == drawn[1]
