"""Recipes of the kind `sft`: what is trained, what is written, and that it goes on exactly."""

import json
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.forked import Forked
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app
from hanol.errors import CheckpointError, RecipeError, RunError
from hanol.training import FinetuneResult, SftRecipe, estimate, read_recipe, train

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DRIVER = HERE / "killed_finetune.py"
chat = SimpleNamespace(**runpy.run_path(str(HERE / "chat_model.py")))
RECIPES = sorted((ROOT / "recipes" / "sft").glob("*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and rows for it."""
    root = tmp_path_factory.mktemp("sft")
    chat.make_checkpoint(root / "model")
    rows = [*chat.conversations(12), {"messages": [{"role": "user", "content": "alone"}]}]
    chat.write_rows(root / "rows.jsonl", rows)
    return root


def recipe(folder: Path, **changes: Any) -> SftRecipe:
    values: dict[str, Any] = {
        "kind": "sft", "name": "small", "model": str(folder / "model"),
        "data": {"path": str(folder / "rows.jsonl"), "held_out": 0.2}, "epochs": 1,
        "batch_size": 4, "adamw_lr": 0.01, "warmup_steps": 0, "max_length": 200,
    }  # fmt: skip
    return SftRecipe(**{**values, **changes})


LORA = {"rank": 2, "alpha": 4}


def run(folder: Path, made: SftRecipe, **options: Any) -> FinetuneResult:
    result = train(made, folder, **options)
    assert isinstance(result, FinetuneResult)
    return result


def state(spec: Path | str) -> dict[str, torch.Tensor]:
    return models.load_model(spec).state_dict()


def test_all_weights(folder: Path, tmp_path: Path) -> None:
    lines: list[Mapping[str, Any]] = []
    made = recipe(folder, epochs=30, eval_tokens=2000)
    result = run(tmp_path / "run", made, on_step=lines.append)
    assert result.left_out == {"no_answer": 1}
    assert result.rows + result.held_out_rows == 12
    assert result.trained_parameters == result.parameters
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == result.steps, "a line for each step"
    assert losses[-1] < 0.5 < 3 < losses[0]
    assert result.eval_loss == [line["eval_loss"] for line in lines if "eval_loss" in line][-1]
    assert any(line.get("evaluated") == result.held_out_rows for line in lines)
    assert sum(line.get("tokens_per_second", 0) > 0 for line in lines) > 3
    # The checkpoint is one that everything loads, tokenizer and template included.
    loaded = models.load(result.checkpoint)
    assert loaded.tokenizer.chat_template == chat.CHATML
    prompt = loaded.tokenizer.apply_chat_template(
        chat.turns("Say 3"), add_generation_prompt=True, return_tensors="pt"
    )
    ids = loaded.model.generate(**prompt, max_new_tokens=30, do_sample=False)[0]
    said = loaded.tokenizer.decode(ids[prompt["input_ids"].shape[1] :])
    assert said.startswith("yes ")
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_an_adapter_alone_is_trained_and_written(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    made = recipe(folder, lora={**LORA, "layers": "1-2"}, epochs=20, save_dtype="bfloat16")
    result = run(tmp_path / "run", made)
    final = Path(str(result.checkpoint))
    assert sorted(file.name for file in final.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    tensors = load_file(final / "adapter_model.safetensors")
    assert sum(x.numel() for x in tensors.values()) == result.trained_parameters
    assert {x.dtype for x in tensors.values()} == {torch.bfloat16}
    assert {name.split(".layers.")[1][0] for name in tensors} == {"1", "2"}
    assert len(tensors) == 2 * 7 * 2  # halves, linear layers of a block, blocks
    config = json.loads((final / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "model")
    # Plain PEFT reads it, and what hanol merges is what PEFT merges.
    base = models.load_model(folder / "model")
    theirs = peft.PeftModel.from_pretrained(base, final).merge_and_unload().state_dict()
    ours, before = state(final), state(folder / "model")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-3)  # theirs is rounded
        changed = "layers.1." in name or "layers.2." in name
        is_matrix = name.endswith("proj.weight")
        assert torch.equal(tensor, before[name]) != (changed and is_matrix), name


def test_the_gradient_is_that_of_plain_peft(folder: Path, tmp_path: Path) -> None:
    """One step of training changes the adapter as a loop by hand does."""
    peft = pytest.importorskip("peft")
    made = recipe(
        folder, lora={**LORA, "targets": ["q_proj", "down_proj"]}, batch_size=12,
        tokens=1, epochs=None,
        clip_norm=1e9, adamw_lr=0.02, decay=0.0,
        data={"path": str(folder / "rows.jsonl"), "held_out": 0},
    )  # fmt: skip
    run(tmp_path / "run", made)
    found = load_file(tmp_path / "run" / "final" / "adapter_model.safetensors")

    model = models.load_model(folder / "model")
    config = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=["down_proj", "q_proj"], task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(model, config)
    tokenizer = models.load_tokenizer(folder / "model")
    total, count = torch.zeros(()), 0
    for row in chat.conversations(12):
        render = tokenizer.apply_chat_template
        texts = [
            render(row["messages"][:n], tokenize=False, add_generation_prompt=n == 1)
            for n in (1, 2)
        ]
        asked, whole = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
        whole = whole[:-1]  # the line break
        logits = theirs(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        for place in range(len(asked), len(whole)):
            total, count = total - logits[place - 1, whole[place]], count + 1
    optimizer = torch.optim.AdamW(
        [p for p in theirs.parameters() if p.requires_grad], lr=0.02, betas=(0.9, 0.98),
        weight_decay=0.0,
    )  # fmt: skip
    (total / count).backward()
    optimizer.step()
    expected = peft.get_peft_model_state_dict(theirs, save_embedding_layers=False)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=2e-5, msg=name)


def test_an_adapter_is_trained_further(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    first = run(tmp_path / "a", recipe(folder, lora=LORA))
    again = recipe(folder, lora=LORA, model=str(first.checkpoint), adamw_lr=1e-9)
    second = run(tmp_path / "b", again)
    config = json.loads((Path(str(second.checkpoint)) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "model")
    one, two = (
        load_file(Path(str(x.checkpoint)) / "adapter_model.safetensors") for x in (first, second)
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-6)
    wider = recipe(folder, lora={**LORA, "rank": 3}, model=str(first.checkpoint))
    with pytest.raises(RecipeError, match="`lora.rank` is 3, but the adapter .* has 2"):
        run(tmp_path / "c", wider)
    # Without `lora` it is merged, and all weights are trained.
    whole = run(tmp_path / "d", recipe(folder, model=str(first.checkpoint), adamw_lr=1e-9))
    merged = state(str(first.checkpoint))
    for name, tensor in state(str(whole.checkpoint)).items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_frozen_weights_in_bfloat16(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lines: list[Mapping[str, Any]] = []
    made = recipe(folder, lora={"rank": 4}, epochs=20, dtype="bfloat16")
    run(tmp_path / "run", made, on_step=lines.append)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    tensors = load_file(tmp_path / "run" / "final" / "adapter_model.safetensors")
    assert {x.dtype for x in tensors.values()} == {torch.float32}, "master weights"


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_weights(
    kind: str, tmp_path: Path, forked: Callable[..., Forked]
) -> None:
    if kind == "lora":
        pytest.importorskip("peft")
    program = "import runpy, sys; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    done = forked(program, DRIVER, tmp_path, kind)
    assert done.wait() == 0, done.stderr
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("whole", "killed")]
    for result in results:
        del result["folder"], result["checkpoint"]
    assert results[0] == results[1]
    name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    weights = [load_file(tmp_path / run / "final" / name) for run in ("whole", "killed")]
    assert all(torch.equal(weights[1][key], tensor) for key, tensor in weights[0].items())
    metrics = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "killed")
    ]
    for lines in metrics:
        for line in lines:
            line.pop("tokens_per_second", None)
    assert metrics[0] == metrics[1]
    assert sum("eval_loss" in line for line in metrics[0]) >= 3


def test_a_folder_belongs_to_its_recipe_and_its_rows(folder: Path, tmp_path: Path) -> None:
    rows = chat.write_rows(tmp_path / "rows.jsonl", chat.conversations(6))
    made = recipe(folder, data={"path": str(rows), "held_out": 0})
    result = run(tmp_path / "run", made)
    assert result.eval_loss is None
    with pytest.raises(RunError, match="already has a run"):
        run(tmp_path / "run", made)
    changed = made.model_copy(update={"adamw_lr": 0.5})
    with pytest.raises(RunError, match=r"`recipe.adamw_lr` \(was 0.01, now 0.5\)"):
        run(tmp_path / "run", changed, resume=True)
    (tmp_path / "run" / "result.json").unlink()
    chat.write_rows(rows, chat.conversations(7))
    with pytest.raises(RunError, match="`data.fingerprint` .* has changed"):
        run(tmp_path / "run", made, resume=True)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lora": {"targets": ["w_q"]}}, "`lora.targets` has 'w_q', but .* are down_proj, "),
        ({"lora": {"layers": "2-5"}}, "`lora.layers` has 3, but the model's blocks are 0 to 2"),
        ({"max_length": 300}, "`max_length` is 300, but the model's context is 256"),
    ],
)
def test_what_does_not_fit_the_model(
    folder: Path, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    pytest.importorskip("peft")
    with pytest.raises(RecipeError, match=text):
        run(tmp_path / "run", recipe(folder, **changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": None}, "either `epochs` or `tokens`"),
        ({"tokens": 5}, "either `epochs` or `tokens`"),
        ({"lora": {"layers": "9-"}}, "'9-' is not written as blocks are: 10-29 or 0,4,8-11"),
        ({"lora": {"rank": 0}}, "`lora.rank`"),
        ({"data": {}}, "either `path` or `dataset`"),
        ({"lora": {}, "muon_lr": 0.01}, "`muon_lr` is for whole matrices"),
    ],
)
def test_values_out_of_range(folder: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        recipe(folder, **changes)


def test_blocks_are_numbered_in_words(folder: Path) -> None:
    for layers, expected in (("1-2", (1, 2)), (2, (2,)), ("0, 2", (0, 2)), ([1], (1,))):
        made = recipe(folder, lora={"layers": layers}).lora
        assert made is not None
        assert made.layers == expected
        assert recipe(folder, lora=made.model_dump()).lora == made


def test_the_estimate_is_what_the_run_takes(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    for lora in (None, {**LORA, "layers": "2"}):
        made = recipe(folder, lora=lora, epochs=2)
        size = estimate(made)
        result = run(tmp_path / str(lora), made)
        assert (size.steps, size.tokens, size.rows) == (result.steps, result.tokens, result.rows)
        assert size.trained_parameters == result.trained_parameters
        assert size.left_out == result.left_out
    full = estimate(recipe(folder, epochs=2))
    assert size.train_flops < 0.6 * full.train_flops
    assert size.state_gib < 0.5 * full.state_gib


def test_the_command_says_what_it_does(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path = tmp_path / "recipe.yaml"
    made = recipe(folder, lora=LORA)
    path.write_text(yaml.safe_dump(json.loads(made.model_dump_json())), "utf-8")
    runner = CliRunner()
    planned = runner.invoke(app, ["train", str(path), "--dry-run"], env={"COLUMNS": "200"})
    assert planned.exit_code == 0, planned.output
    assert "rows, 1 left out (no answer)" in planned.stdout
    assert "trained)" in planned.stdout
    done = runner.invoke(app, ["train", str(path), "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "left out: 1 rows (no answer): " in done.stderr
    assert "rows.jsonl', line 13: no message in it is the assistant's" in done.stderr
    assert "left out: 1 no answer" in done.stdout
    shown = runner.invoke(app, ["inspect", str(tmp_path / "run" / "final")], env={"COLUMNS": "200"})
    assert "LORA of rank 2 on 21 layers" in shown.stdout
    whole = tmp_path / "whole"
    merged = runner.invoke(
        app, ["convert", str(tmp_path / "run" / "final"), "--output", str(whole)]
    )
    assert merged.exit_code == 0, merged.output
    expected = state(tmp_path / "run" / "final")
    assert all(torch.equal(x, expected[name]) for name, x in state(whole).items())
    refused = runner.invoke(
        app, ["merge", str(tmp_path / "run" / "final"), str(whole), "--output", str(tmp_path / "m")]
    )
    assert refused.exit_code == 1
    assert "is a LoRA adapter, and a whole checkpoint is needed" in refused.output


def test_shipped_recipes() -> None:
    assert [path.stem for path in RECIPES] == ["full", "lora"]
    for path in RECIPES:
        made = read_recipe(path, ["data.path=mine.jsonl", "model=tiny-researcher"])
        assert isinstance(made, SftRecipe)
        assert (made.lora is not None) == (path.stem == "lora")
        assert "#" in path.read_text("utf-8"), "a recipe says where its values come from"


def test_a_model_goes_on_learning_text(tmp_path: Path) -> None:
    """`--set model=NAME` trains a checkpoint further in a recipe of pre-training too."""
    made = read_recipe(
        ROOT / "recipes" / "tiny" / "pretrain.yaml",
        ["model=tiny", "data.source=jsonl", f"data.path={tmp_path / 'text.jsonl'}",
         "data.held_out=0.3", "stages=[{tokens: 256, sequence_length: 64, batch_tokens: 128}]",
         "schedule.warmup_tokens=0", "schedule.decay_tokens=0", "optim.muon_lr=1e-9",
         "optim.adamw_lr=1e-9", "threads=1"],
    )  # fmt: skip
    assert made.model.checkpoint == "tiny"
    assert made.tokenizer.vocab_size is None
    rows = [{"text": f"def f{n}():\n    return {n}\n"} for n in range(20)]
    chat.write_rows(tmp_path / "text.jsonl", rows)
    result = train(made, tmp_path / "run")
    before = state("tiny")
    for name, tensor in state(str(result.checkpoint)).items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-5)
    ids = models.load_tokenizer("tiny")("def f():").input_ids
    assert models.load_tokenizer(str(result.checkpoint))("def f():").input_ids == ids
    with pytest.raises(CheckpointError, match="neither a bundled model"):
        estimate(read_recipe(ROOT / "recipes" / "tiny" / "pretrain.yaml", ["model=teeny"]))
