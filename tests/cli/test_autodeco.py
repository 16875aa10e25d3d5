import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from tests.autodeco.conftest import build as build_base
from tests.autodeco.conftest import byte_tokenizer as byte_tokenizer
from tests.autodeco.conftest import wrap
from tests.forked import Forked
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from hanol.autodeco import AutoDecoForCausalLM, read_rows
from hanol.cli import app
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
    done = runner.invoke(app, ["merge", heads, base, "--output", merged])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{merged}: ")
    described = json.loads(runner.invoke(app, ["inspect", merged, "--json"]).stdout)
    assert described["layout"] == "merged"
    assert described["base_tensors"] > 0
    done = runner.invoke(app, ["convert", merged, "--to", "heads", "--output", back, "--json"])
    assert json.loads(done.stdout)["layout"] == "heads"
    first, second = (Path(f, "model.safetensors").read_bytes() for f in (heads, back))
    assert first[-1000:] == second[-1000:]


def test_inspect_as_a_table(folder: Path) -> None:
    result = runner.invoke(app, ["inspect", str(folder / "heads")], env={"COLUMNS": "140"})
    assert result.exit_code == 0
    for text in ("temperature, top-p", "(F32)", "temp_head.mlp.0.weight", "llama", "vocabulary"):
        assert text in result.stdout


def test_show_prints_the_text_with_its_bars(folder: Path) -> None:
    arguments = ["show", str(folder / "heads"), "-p", "def f", "--max-tokens", "9"]
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
        ["show", str(folder / "heads"), "--json", "--max-tokens", "5", "--greedy",
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
        (["show", "{base}", "-p", "a"], "without AutoDeco heads"),
        (["inspect", "./nowhere"], "no folder"),
        (["merge", "{heads}", "{heads}", "--output", "{out}"], "is not a base"),
        (["merge", "{heads}", "{base}", "--output", "{base}"], "exists already"),
        (["convert", "{base}", "--to", "heads", "--output", "{out}"], "no AutoDeco heads"),
        (["convert", "{base}", "--output", "{base}"], "exists already"),
        (["show", "{heads}", "-p", "a", "--max-tokens", "2", "--html", "{base}"],
         "could not be written"),
    ],
)  # fmt: skip
def test_failure_is_one_line_and_one_object(
    arguments: list[str], text: str, folder: Path, tmp_path: Path
) -> None:
    places = {"base": folder / "base", "heads": folder / "heads", "out": tmp_path / "out"}
    filled = [argument.format(**places) for argument in arguments]
    result = runner.invoke(app, [*filled, "--json"])
    assert result.exit_code == 1
    assert text in json.loads(result.stdout)["error"]["message"]
    assert result.stderr.count("\n") == 1


# -- train, compare and steer: on a base whose answers are short, for half of its tokens end them


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """`base`, trained-looking `heads` for it, `rows.jsonl`, and a verifier `judge:accept`."""
    path = tmp_path_factory.mktemp("commands")
    base = build_base("llama", max_position_embeddings=2048)
    base.generation_config.eos_token_id = list(range(100, 260))
    save(base, path / "base", byte_tokenizer)
    wrapped = wrap(load_model(path / "base"), path / "made")
    wrapped.config.base_model_name_or_path = str(path / "base")
    wrapped.save_heads(path / "heads")
    rows = [{"prompt": f"def f{i}():\n", "completion": f"    return {i}\n"} for i in range(8)]
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (path / "judge.py").write_text("def accept(prompt, completion, row):\n    return True\n")
    return path


@pytest.fixture
def judge(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(place))
    return "judge:accept"


def compare(*arguments: Any, **kwargs: Any) -> Result:
    return runner.invoke(app, ["eval", "sampling", *map(str, arguments)], **kwargs)


def train(recipe: dict[str, Any], out: Path, *more: Any, **kwargs: Any) -> Result:
    """`hanol train` with a recipe, which is written beside the run."""
    file = out.with_name(f"{out.name}.yaml")
    file.write_text(yaml.safe_dump({"name": out.name, **recipe}), "utf-8")
    arguments = ["train", file, "--output", out, *more]
    return runner.invoke(app, list(map(str, arguments)), **kwargs)


def heads_recipe(place: Path, **data: Any) -> dict[str, Any]:
    rows = {"rows": str(place / "rows.jsonl"), **data}
    short = {"steps": 4, "batch": 2, "save_every": 2, "min_rows": 1, "min_tokens": 1}
    return {"kind": "heads", "model": str(place / "base"), "data": rows, **short}


def metrics(out: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text("utf-8").splitlines())
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def test_train_makes_heads_that_load_with_their_base(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "a run"
    before = (place / "base" / "model.safetensors").read_bytes()
    done = train(heads_recipe(place), out, "--set", "lr=5e-3", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)  # one object and nothing else
    assert done.stdout.count("\n") == 1
    assert (result["steps"], result["folder"]) == (4, str(out))
    assert result["top_p"]["p5"] <= result["top_p"]["p95"]
    assert [line["step"] for line in metrics(out)] == [1, 2, 3, 4]
    assert metrics(out)[0]["learning_rate"] == 5e-3
    assert (out / "temperature_top_p.png").exists()
    model = AutoDecoForCausalLM.from_pretrained(result["checkpoint"])  # finds its base by itself
    assert model.llm.config.model_type == "llama"
    assert (place / "base" / "model.safetensors").read_bytes() == before
    further = {**heads_recipe(place), "model": result["checkpoint"], "steps": 1}
    on = train(further, tmp_path / "on")
    assert on.exit_code == 0, on.output
    assert on.stdout.startswith(f"{tmp_path / 'on' / 'heads'}: T ")
    assert ", P " in on.stdout
    # It went on from the heads that were there, which are not those of a new start.
    assert metrics(tmp_path / "on")[0]["temperature"] == pytest.approx(
        metrics(out)[-1]["temperature"], abs=0.2
    )


def test_training_on_own_answers_is_resumed_with_them(
    place: Path, tmp_path: Path, judge: str
) -> None:
    out = tmp_path / "run"
    recipe = heads_recipe(
        place, verify=judge, max_rows=4, samples=3, keep=1, max_new_tokens=40
    )  # fmt: skip
    whole = train(recipe, out)
    assert whole.exit_code == 0, whole.output
    assert "answers are right, 4 of 4 prompts have one" in whole.stderr
    assert whole.stdout.count("\n") == 1
    kept = (out / "answers.jsonl").read_bytes()
    rows = read_rows(out / "answers.jsonl")
    assert [row.prompt for row in rows] == [f"def f{i}():\n" for i in (0, 2, 4, 6)]
    assert all(row.completion_ids for row in rows)

    heads = (out / "heads" / "model.safetensors").read_bytes()
    lines = metrics(out)
    shutil.rmtree(out / "checkpoint-4")  # as if it had been stopped after the second step
    shutil.rmtree(out / "heads")
    again = train(recipe, out)
    assert again.exit_code == 1
    assert "already has a run" in again.stderr
    assert "--resume" in again.stderr
    assert (out / "answers.jsonl").read_bytes() == kept
    on = train(recipe, out, "--resume")
    assert on.exit_code == 0, on.output
    assert "answers are right" not in on.stderr  # not sampled again
    assert (out / "heads" / "model.safetensors").read_bytes() == heads
    assert metrics(out) == lines
    assert on.stdout == whole.stdout
    # A finished run has nothing left to do.
    assert train(recipe, out, "--resume").stdout == whole.stdout

    for checkpoint in out.glob("checkpoint-*"):  # as if it had been stopped after the sampling
        shutil.rmtree(checkpoint)
    said_in_one_line(train({**recipe, "seed": 5}, out, "--json"), "already has a run")
    said_in_one_line(
        train({**recipe, "seed": 5}, out, "--resume", "--json"), "`recipe.seed` (was 0, now 5)"
    )
    more = {**recipe, "data": {**recipe["data"], "keep": 2}, "keep": 5}
    said = train(more, out, "--resume", "--json")
    said_in_one_line(said, "`recipe.data.keep` (was 1, now 2) has changed")


def test_too_few_right_answers_are_kept_until_that_is_wanted(
    place: Path, tmp_path: Path, judge: str
) -> None:
    out = tmp_path / "run"
    recipe = heads_recipe(
        place, verify=judge, max_rows=4, samples=3, keep=1, max_new_tokens=40
    )  # fmt: skip
    said = train({**recipe, "min_rows": 64}, out, "--json")
    said_in_one_line(said, "The right answers to 4 questions are 4 rows")
    said_in_one_line(said, "at least 64 rows and 1 tokens are needed. Ask for about 71 questions")
    kept = (out / "answers.jsonl").read_bytes()
    done = train({**recipe, "min_rows": 4}, out, "--resume", "--json")
    assert done.exit_code == 0, done.output
    assert (out / "answers.jsonl").read_bytes() == kept


@pytest.mark.parametrize("options", [[], ["--resume"]], ids=["new", "resumed"])
def test_answers_of_nobody_knows_which_recipe_are_refused(
    place: Path, tmp_path: Path, judge: str, options: list[str]
) -> None:
    (tmp_path / "answers.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = heads_recipe(place, verify=judge, max_rows=4)
    done = train(recipe, tmp_path, *options, "--json")
    said_in_one_line(done, f"{str(tmp_path / 'answers.jsonl')!r} has no 'recipe.yaml' beside it")


def test_a_missing_package_is_said_before_the_answers_are_sampled(
    place: Path, tmp_path: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    recipe = heads_recipe(place, verify=judge, max_rows=4, samples=1, max_new_tokens=40)
    said_in_one_line(train(recipe, tmp_path, "--json"), "needs accelerate")
    assert not (tmp_path / "answers.jsonl").exists()


def test_rows_that_are_left_out_are_told(place: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n'
        f'{{"prompt": "d", "completion": "{"e" * 50}"}}\n'
    )
    recipe = {**heads_recipe(place, rows=str(data), max_length=20), "steps": 1}
    done = train(recipe, tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert "1 rows without a completion, 1 that are too long" in done.stderr
    none = train(heads_recipe(place, rows=str(data), max_length=2), tmp_path / "none")
    assert none.exit_code == 1
    assert "2 that are too long" in none.stderr
    assert "no rows to train on" in none.stderr.splitlines()[-1]
    assert none.stdout == ""


COMPARING = ("--step", 1.0, "-n", 2, "--max-tokens", 4)


def test_compare_as_json_and_as_a_table(place: Path, tmp_path: Path, judge: str) -> None:
    image = tmp_path / "c.png"
    arguments = [
        place / "heads", "--task", place / "rows.jsonl", "--verify", judge,
        "--max-prompts", 4, *COMPARING,
    ]  # fmt: skip
    done = compare(*arguments, "--json", "--png", image)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    comparison = json.loads(done.stdout)
    assert (comparison["problems"], comparison["samples"]) == (4, 2)
    results = {result["name"]: result for result in comparison["results"]}
    assert list(results) == [
        "greedy", "default", "best static", "oracle static", "temperature head", "top-p head",
        "AutoDeco",
    ]  # fmt: skip
    assert all(result["pass_at"]["1"]["value"] == 1 for result in results.values())
    assert results["greedy"]["bits_per_byte"] is None
    assert results["AutoDeco"]["bits_per_byte"] > 1
    tried = {(p["temperature"], p["top_p"]) for p in comparison["search"]["points"]}
    assert tried == {(1.0, 1.0), (2.0, 1.0)}
    assert image.read_bytes().startswith(b"\x89PNG")

    table = compare(*arguments)
    assert table.exit_code == 0, table.output
    assert max(map(len, table.stdout.splitlines())) <= 120
    for name, result in results.items():
        [line] = [line for line in table.stdout.splitlines() if line.strip().startswith(f"{name} ")]
        if result["bits_per_byte"] is not None:
            assert f" {result['bits_per_byte']:.2f} " in line


def test_compare_on_held_out_functions_of_the_standard_library(place: Path) -> None:
    done = compare(place / "heads", "--task", "stdlib", "--max-prompts", 3, *COMPARING, "--json")
    assert done.exit_code == 0, done.output
    comparison = json.loads(done.stdout)
    assert (comparison["task"], comparison["problems"]) == ("stdlib", 3)
    assert comparison["results"][-1]["bits_per_byte"] > 1


def steering_recipe(place: Path, **more: Any) -> dict[str, Any]:
    data = {"rows": str(place / "rows.jsonl")}
    sizes = {"held_out": 3, "steps": 2, "batch": 2}
    return {"kind": "steering", "model": str(place / "heads"), "data": data, **sizes, **more}


def test_steering_reports_what_held_out_words_do(place: Path, tmp_path: Path) -> None:
    done = train(steering_recipe(place), tmp_path / "a", "--json")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    report = result["report"]
    assert report["prompts"] == 3
    assert result["checkpoint"] == str(tmp_path / "a" / "heads")
    for head in ("temperature", "top_p"):
        assert {*report[head]["low_moves"]} == {"value", "low", "high"}
    assert [line["step"] for line in metrics(tmp_path / "a")] == [1, 2]
    again = train(steering_recipe(place), tmp_path / "a")
    assert again.exit_code == 1
    assert "already has a run" in again.stderr

    shown = train(steering_recipe(place), tmp_path / "b")
    assert shown.exit_code == 0, shown.output
    assert "3 held-out prompts, held-out words" in shown.stdout
    assert f"{report['temperature']['base']:.2f}" in shown.stdout


def test_steering_on_the_standard_library(place: Path, tmp_path: Path) -> None:
    data = {"rows": "stdlib", "max_rows": 3}
    recipe = steering_recipe(place, data=data, held_out=2, steps=1)
    done = train(recipe, tmp_path / "run", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["report"]["prompts"] == 2


def test_progress_goes_to_standard_error(place: Path, tmp_path: Path) -> None:
    terminal = {"FORCE_COLOR": "1", "COLUMNS": "100"}  # a bar is for terminals
    done = train(heads_recipe(place), tmp_path / "a", env=terminal)
    assert done.exit_code == 0, done.output
    assert "training" in done.stderr
    assert "loss" in done.stderr
    assert done.stdout.count("\n") == 1
    quiet = train(heads_recipe(place), tmp_path / "b", "--json", env=terminal)
    assert quiet.exit_code == 0
    assert quiet.stderr == ""
    json.loads(quiet.stdout)


def test_a_real_process_prints_one_object(
    place: Path, tmp_path: Path, forked: Callable[..., Forked]
) -> None:
    recipe = heads_recipe(place, verify="judge:accept", samples=1)
    (tmp_path / "heads.yaml").write_text(yaml.safe_dump({"name": "heads", **recipe}), "utf-8")
    done = forked(
        "import runpy; runpy.run_module('hanol', run_name='__main__')",
        "train", "heads.yaml", "--json",
        cwd=tmp_path, PYTHONPATH=str(place), TERM="dumb",
    )  # fmt: skip
    assert done.wait() == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    assert "answers are right" in done.stderr


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("stpes=3", "did you mean 'steps'"),
        ("steps", "the form key=value"),
        ("lr=[1", "is no value"),
        ("seed=2020-13-45", "is no value"),
        ("steps=0", "`steps`"),
        ("data.verify=arithmetics", "No verifier is named 'arithmetics'"),
        ("data.verify=nowhere_at:all", "cannot be imported"),
        ("data.verify=arithmetic", 'compares with "answer"'),
        ("data.verify=python:body data.samples=1 data.max_new_tokens=1", "no right"),
        ("data.rows={base}/no.jsonl", "could not be read"),
        ("data.rows={base}/config.json", "holds no JSON list"),
        ("model=./nowhere", "nowhere"),
        ("kind=steering", "without AutoDeco heads"),
        ("kind=steering model={heads} held_out=8", "none is left to train on"),
        ("kind=steering model={heads} template=x", "needs {{command}} once"),
        ("kind=steering model={heads} bach=3", "did you mean 'batch'"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(
    settings: str, text: str, place: Path, tmp_path: Path, judge: str
) -> None:
    filled = settings.format(base=place / "base", heads=place / "heads").split()
    recipe = heads_recipe(place)
    if filled[0] == "kind=steering":
        recipe, filled = steering_recipe(place, model=str(place / "base")), filled[1:]
    more = [word for setting in filled for word in ("--set", setting)]
    said_in_one_line(train(recipe, tmp_path / "out", *more, "--json"), text)
    assert not (tmp_path / "out" / "answers.jsonl").exists()


@pytest.mark.parametrize("data", [{}, {"verify": "judge:accept", "samples": 1}])
def test_a_run_in_the_place_of_a_file(
    data: dict[str, Any], place: Path, tmp_path: Path, judge: str
) -> None:
    (tmp_path / "file").write_text("")
    done = train(heads_recipe(place, **data), tmp_path / "file", "--json")
    said_in_one_line(done, "be written")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{base} --task {rows}", "without AutoDeco heads"),
        ("{heads} --task {base}/no.jsonl", "could not be read"),
        ("{heads} --task {rows} --verify pithon", "No verifier is named"),
        ("{heads} --task {rows} --png {base}/no/c.png", "no folder"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(
    arguments: str, text: str, place: Path
) -> None:
    places = {name: place / name for name in ("base", "heads")} | {"rows": place / "rows.jsonl"}
    filled = [word.format(**places) for word in arguments.split()]
    said_in_one_line(compare(*filled, "--json"), text)


def said_in_one_line(result: Result, text: str) -> None:
    assert result.exit_code == 1, result.output
    assert text.format() in json.loads(result.stdout)["error"]["message"]
    # What was read or sampled before may be told above it.
    assert [line.startswith("hanol: ") for line in result.stderr.splitlines()].count(True) == 1
    assert "Traceback" not in result.stderr


def test_generate_takes_a_checkpoint_with_heads(folder: Path, tmp_path: Path) -> None:
    merged = str(tmp_path / "merged")
    assert (
        runner.invoke(
            app, ["merge", str(folder / "heads"), str(folder / "base"), "--output", merged]
        ).exit_code
        == 0
    )
    texts = []
    for model in (str(folder / "heads"), merged):
        arguments = ["generate", model, "-p", "def f", "--max-tokens", "6", "--json"]
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, done.output
        texts.append(json.loads(done.stdout)["samples"][0]["text"])
    assert texts[0] == texts[1]
