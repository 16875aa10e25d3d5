import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.forked import Forked
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from hanol.cli import app
from hanol.models import build, save

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    path: Path = save(
        build("kimi-linear-3m", vocab_size=260), tmp_path_factory.mktemp("cli") / "m", tokenizer
    )
    return str(path)


def test_streams_to_stdout_and_reports_on_stderr(folder: str) -> None:
    result = runner.invoke(
        app, ["generate", folder, "-p", "hello", "--max-tokens", "5", "--temperature", "0"]
    )
    assert result.exit_code == 0
    assert result.stdout.startswith("hello")
    assert "tokens/s" not in result.stdout
    assert "5 tokens at" in result.stderr
    assert "768 bytes per token" in result.stderr
    assert "2,304 bytes per token" in result.stderr


def test_prompt_from_a_pipe_as_json(folder: str) -> None:
    arguments = ["generate", folder, "--json", "--max-tokens", "3", "-n", "2", "--seed", "7"]
    first, second = (runner.invoke(app, arguments, input="piped") for _ in range(2))
    assert first.exit_code == 0
    answer = json.loads(first.stdout)
    assert answer["prompt"] == "piped"
    assert len(answer["samples"]) == 2
    for sample in answer["samples"]:
        assert len(sample["token_ids"]) <= 3
        assert sample["prefill_tokens_per_second"] > 0
    ids = [[s["token_ids"] for s in json.loads(r.stdout)["samples"]] for r in (first, second)]
    assert ids[0] == ids[1]


def test_dtype(folder: str) -> None:
    arguments = ["generate", folder, "-p", "a", "--max-tokens", "2", "--dtype"]
    assert runner.invoke(app, [*arguments, "bfloat16"]).exit_code == 0
    wrong = runner.invoke(app, [*arguments, "bfloat"])
    assert wrong.exit_code == 1
    assert "Did you mean 'bfloat16'?" in wrong.stderr


def test_failure_is_one_line_and_one_object() -> None:
    result = runner.invoke(app, ["generate", "./nowhere", "-p", "a", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == "CheckpointError"
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "option",
    [["--top-p", "2"], ["--top-p", "nan"], ["--temperature", "-1"], ["-n", "0"]],
)
def test_impossible_values(folder: str, option: list[str]) -> None:
    result = runner.invoke(app, ["generate", folder, "-p", "a", *option])
    assert result.exit_code == 2
    assert result.stderr
    assert result.stdout == ""


def test_every_engine_generates(tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text('{"text": "fine"}\n')
    model = f"scripted:{tmp_path / 'turns.jsonl'}"
    result = runner.invoke(app, ["generate", model, "-p", "How are you?", "-n", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"fine\n{'-' * 40}\nfine\n"
    assert "full-attention twin" not in result.stderr


@pytest.mark.parametrize("given", [{"input": b"\xff"}, {"args": ["-p", "\udcff"]}])
def test_a_prompt_that_is_not_utf_8(given: dict[str, Any]) -> None:
    result = runner.invoke(app, ["generate", "tiny", *given.pop("args", [])], **given)
    assert result.exit_code == 1
    assert "not valid UTF-8" in result.stderr


def test_ctrl_c_ends_the_engine_first(forked: Callable[..., Forked]) -> None:
    code = "from hanol.cli import main; main()"
    process = forked(code, "generate", "-p", "hi", "--max-tokens", 4000)
    while len(process.stdout) < 3:
        assert process.poll() is None, process.stderr
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert (process.wait(60), process.stderr) == (130, "")
