import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from hanol.cli._app import app
from hanol.decoding import AutoDecoForCausalLM
from hanol.models import build, load_model, save

runner = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` with a tokenizer, and `heads` for it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    path = tmp_path_factory.mktemp("autodeco")
    save(build("llama-3m", vocab_size=260), path / "base", tokenizer)
    AutoDecoForCausalLM.from_base(load_model(path / "base")).save_heads(path / "heads")
    return path


def test_merge_inspect_split(folder: Path, tmp_path: Path) -> None:
    heads, base = str(folder / "heads"), str(folder / "base")
    merged, back = str(tmp_path / "my model"), str(tmp_path / "back")
    done = runner.invoke(app, ["autodeco", "merge", heads, base, merged])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"wrote {merged}: ")
    described = json.loads(runner.invoke(app, ["autodeco", "inspect", merged, "--json"]).stdout)
    assert described["layout"] == "merged"
    assert described["base_tensors"] > 0
    done = runner.invoke(app, ["autodeco", "split", merged, back, "--json"])
    assert json.loads(done.stdout)["layout"] == "heads"
    first, second = (Path(f, "model.safetensors").read_bytes() for f in (heads, back))
    assert first[-1000:] == second[-1000:]


def test_inspect_as_a_table(folder: Path) -> None:
    result = runner.invoke(
        app, ["autodeco", "inspect", str(folder / "heads")], env={"COLUMNS": "140"}
    )
    assert result.exit_code == 0
    for text in ("temperature, top-p", "(F32)", "temp_head.mlp.0.weight", "llama", "vocabulary"):
        assert text in result.stdout


def test_show_prints_the_text_with_its_bars(folder: Path) -> None:
    arguments = ["autodeco", "show", str(folder / "heads"), "-p", "def f", "--max-new-tokens", "9"]
    first, second = (runner.invoke(app, arguments, env={"COLUMNS": "80"}) for _ in range(2))
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    assert first.stdout.startswith("def f")
    assert "9 tokens: mean temperature" in first.stdout
    assert set("▁▂▃▄▅▆▇█") & set(first.stdout.splitlines()[1])


def test_show_as_json_page_and_image(folder: Path, tmp_path: Path) -> None:
    page, image = tmp_path / "t.html", tmp_path / "t.png"
    result = runner.invoke(
        app,
        ["autodeco", "show", str(folder / "heads"), "--json", "--max-new-tokens", "5", "--greedy",
         "--base-model", str(folder / "base"), "--html", str(page), "--png", str(image)],
        input="piped",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    trace = json.loads(result.stdout)
    assert trace["prompt"] == "piped"
    assert len(trace["tokens"]) <= 5
    assert all(0 < token["temperature"] < 2 for token in trace["tokens"])
    assert page.read_text("utf-8").startswith("<!doctype html>")
    assert image.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "{base}", "-p", "a"], "without heads"),
        (["inspect", "{base}"], "not of AutoDeco"),
        (["inspect", "./nowhere"], "no folder"),
        (["merge", "{base}", "{base}", "{out}"], "not AutoDeco heads"),
        (["merge", "{heads}", "{base}", "{base}"], "is the input folder"),
        (["split", "{base}", "{out}"], "no AutoDeco heads"),
        (["show", "{heads}", "-p", "a", "--max-new-tokens", "2", "--html", "{base}"],
         "could not be written"),
    ],
)  # fmt: skip
def test_failure_is_one_line_and_one_object(
    arguments: list[str], text: str, folder: Path, tmp_path: Path
) -> None:
    places = {"base": folder / "base", "heads": folder / "heads", "out": tmp_path / "out"}
    filled = [argument.format(**places) for argument in arguments]
    result = runner.invoke(app, ["autodeco", *filled, "--json"])
    assert result.exit_code == 1
    assert text in json.loads(result.stdout)["error"]["message"]
    assert result.stderr.count("\n") == 1
