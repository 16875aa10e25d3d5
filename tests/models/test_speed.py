"""How fast a model decodes with each type of weights, and which one `auto` takes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training import chat_model as chat
from transformers import LlamaConfig
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app
from hanol.engines import CheckpointEngine, open_engine
from hanol.models import _speed  # private: how often it measures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANOL_CACHE", str(tmp_path / "cache"))
    tokenizer = chat.make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    models.save(models.build(config, seed=1), tmp_path / "model", tokenizer=tokenizer)
    return tmp_path / "model"


def test_inspect_measures_once_and_auto_takes_what_it_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = _speed._measured

    def counted(name: str, *more: Any) -> models.SpeedReport:
        measured.append(name)
        report = measure(name, *more)
        return report.model_copy(update={"taken": "int8"})

    monkeypatch.setattr(_speed, "_measured", counted)
    done = CliRunner().invoke(app, ["inspect", str(folder), "--speed", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert [one["weights"] for one in report["speeds"]] == ["float32", "bfloat16", "int8", "int4"]
    sizes = [one["num_bytes"] for one in report["speeds"]]
    assert sizes == sorted(sizes, reverse=True)
    assert report["speeds"][0]["divergence"] < 1e-6
    assert all(one["tokens_per_second"] > 0 for one in report["speeds"])
    shown = CliRunner().invoke(app, ["inspect", str(folder), "--speed"]).stdout
    assert "--dtype auto takes int8" in shown
    engine = open_engine(str(folder), dtype="auto")
    assert isinstance(engine, CheckpointEngine)
    assert "int8" in repr(engine._worker._model)
    assert measured == [str(folder)]
    for file in (folder.parent / "cache" / "speed").iterdir():
        file.write_text("{}")  # of another version, or damaged
    assert models.speed_report("again", *models.load(folder)).taken == "int8"
    assert measured == [str(folder), "again"]


def test_a_type_that_changes_answers_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_speed, "MOST_DIVERGENCE", -1e-12)

    def worse(model: Any, kind: str) -> None:
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter)

    monkeypatch.setattr("hanol.attention.pack", worse)
    monkeypatch.setattr(_speed, "MOST_DIVERGENCE", 1e-9)
    assert models.speed_report("m", *models.load(folder)).taken == "float32"


def test_a_model_without_a_step_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanol.attention.decode_step", lambda model: None)
    report = models.speed_report("tiny", *models.load("tiny"))
    assert (report.taken, report.speeds) == ("float32", [])
