"""Recipes: what is accepted, what is refused and how, and that every shipped one is valid."""

import math
from pathlib import Path

import pytest
import yaml
from pydantic import Field

from hanol.errors import ConfigError, RecipeError
from hanol.training import (
    ScheduleSection,
    Section,
    estimate,
    read_recipe,
    register_kind,
    train,
    with_overrides,
)

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
# Recipes of other kinds have tests of their own; SmolLM2 has to be pulled.
OTHERS = ("accelerate", "journey", "preference", "prm", "researcher", "rlvr", "sft")
SHIPPED = [path for path in RECIPES if path.parent.name not in OTHERS and path.stem != "smollm2"]


def write(folder: Path, **changes: object) -> Path:
    content = {
        "kind": "pretrain",
        "name": "test",
        "model": {"preset": "kimi-linear-3m"},
        "tokenizer": {"vocab_size": 300},
        "data": {"source": "stdlib"},
        "stages": [{"tokens": 1000, "sequence_length": 10, "batch_tokens": 100}],
        "optim": {"adamw_lr": 0.001},
        "schedule": {"warmup_tokens": 100, "decay_tokens": 200},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_all_recipes_were_found() -> None:
    assert len(SHIPPED) >= 8


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT / "recipes")))
def test_shipped_recipe_is_valid_and_can_be_sized_up(path: Path) -> None:
    recipe = read_recipe(path)
    size = estimate(recipe)
    assert size.parameters > 250_000
    assert size.steps == recipe.steps
    text = path.read_text()
    assert "#" in text, "a recipe says where its values come from"


def test_official_shape_has_its_parameter_count() -> None:
    size = estimate(read_recipe(ROOT / "recipes/kimi-linear/48b-a3b.yaml"))
    assert size.parameters == 49_122_675_072
    assert size.hours > 0


def test_a_new_kind_is_one_class_and_one_function(tmp_path) -> None:
    register_kind("echo", "echo_kind:EchoRecipe", "echo_kind:echo")
    (tmp_path / "echo_kind.py").write_text(
        "from typing import Literal\n"
        "from hanol.training import Estimate, Recipe, TrainingResult\n"
        "class EchoRecipe(Recipe):\n"
        "    kind: Literal['echo']\n"
        "    text: str = ''\n"
        "    def estimate(self):\n"
        "        return Estimate(parameters=1, active_parameters=1, steps=2, tokens=3,\n"
        "                        train_flops=4, state_gib=5)\n"
        "def echo(recipe, folder, *, resume, on_step, on_stage):\n"
        "    on_step({'step': 1, 'text': recipe.text})\n"
        "    return TrainingResult(folder=str(folder), checkpoint=None)\n"
    )
    path = tmp_path / "echo.yaml"
    path.write_text("kind: echo\nname: a\n")
    lines: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        recipe = read_recipe(path, ["text=hello"])
        result = train(recipe, tmp_path / "run", on_step=lines.append)
        assert estimate(recipe).tokens == 3
        with pytest.raises(RecipeError, match="unknown key `txt`, did you mean 'text'"):
            read_recipe(path, ["txt=1"])
    assert lines == [{"step": 1, "text": "hello"}]
    assert result.summary() == str(tmp_path / "run")


def test_kinds_of_other_packages_are_found_by_their_entry_points(tmp_path) -> None:
    (tmp_path / "far_kind.py").write_text(
        "from hanol.training import register_kind\n"
        "register_kind('far', 'hanol.training:PretrainRecipe', 'hanol.training:pretrain')\n"
    )
    (tmp_path / "far-1.dist-info").mkdir()
    (tmp_path / "far-1.dist-info" / "METADATA").write_text("Name: far\nVersion: 1\n")
    points = "[hanol.recipe_kinds]\nfar = far_kind\n"
    (tmp_path / "far-1.dist-info" / "entry_points.txt").write_text(points)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        with pytest.raises(RecipeError, match="`kind`: Input should be 'pretrain'"):
            read_recipe(write(tmp_path, kind="far"))


def test_a_kind_that_is_not_known(tmp_path) -> None:
    with pytest.raises(RecipeError, match="unknown kind 'pretain', did you mean 'pretrain'"):
        read_recipe(write(tmp_path, kind="pretain"))
    with pytest.raises(RecipeError, match="unknown kind '7', known: .*researcher"):
        read_recipe(write(tmp_path, kind=7))
    with pytest.raises(RecipeError, match=r"unknown kind \"\['heads'\]\""):
        read_recipe(write(tmp_path, kind=["heads"]))
    with pytest.raises(RecipeError, match="has no `kind`: give one of .*heads, .*pretrain"):
        read_recipe(write(tmp_path, kind=None))


def test_overrides_replace_values(tmp_path) -> None:
    path = write(tmp_path)
    recipe = read_recipe(path, ["seed=7", "stages.0.tokens=2000", "schedule.decay=cosine"])
    assert recipe.seed == 7
    assert recipe.stages[0].tokens == 2000
    assert recipe.schedule.decay == "cosine"
    assert recipe.steps == 20


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sead": 1}, "unknown key `sead`, did you mean 'seed'"),
        ({"seed": 2**32}, "`seed`.*less than 4294967296"),
        ({"name": "../../evil"}, "`name`.*leave out slashes"),
        ({"name": ".."}, "`name`.*leave out slashes"),
        ({"optim": {"adam_lr": 1, "adamw_lr": 1}}, "`optim.adam_lr`, did you mean 'adamw_lr'"),
        (
            {"stages": [{"tokens": 9, "sequence_len": 3, "batch_tokens": 3}]},
            "`stages.0.sequence_len`, did you mean 'sequence_length'",
        ),
        ({"optim": {"adamw_lr": -1}}, "`optim.adamw_lr`.*greater than 0"),
        ({"model": {}}, "either `preset` or `checkpoint`"),
        ({"data": {"source": "folder"}}, "needs a `path`"),
        ({"data": {"source": "web"}}, "`data.source`"),
        (
            {"stages": [{"tokens": 9, "sequence_length": 3, "batch_tokens": 4}]},
            r"`batch_tokens` \(4\) is not a multiple",
        ),
        ({"schedule": {"warmup_tokens": 900, "decay_tokens": 200}}, "take 1100 tokens"),
    ],
)
def test_wrong_values_are_explained(tmp_path, changes: dict, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        read_recipe(write(tmp_path, **changes))


def test_files_that_cannot_be_read(tmp_path) -> None:
    present = write(tmp_path)
    with pytest.raises(RecipeError, match=f"There is no recipe .*Beside it: {present}"):
        read_recipe(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match="could not be read"):
        read_recipe(tmp_path / "broken.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(RecipeError, match="holds no keys"):
        read_recipe(tmp_path / "empty.yaml")
    for override, text in (
        ("seed", "key=value"),
        ("stages.5.tokens=1", "no index"),
        ("name.x=1", "section"),
        ("seed=[1", r"'seed': '\[1' is no value"),
        ("seed=2020-13-45", "'seed': '2020-13-45' is no value: month"),
        ("=3", "key=value"),
        ("stages.².tokens=1", "no index"),
        ("seed=" + "[" * 5000, "is no value"),
    ):
        with pytest.raises(RecipeError, match=text) as raised:
            read_recipe(present, [override])
        assert "\n" not in str(raised.value)
    (tmp_path / "date.yaml").write_text("a: 2020-13-45")
    with pytest.raises(RecipeError, match="could not be read: month"):
        read_recipe(tmp_path / "date.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(RecipeError, match="could not be read: 'utf-8'"):
        read_recipe(tmp_path / "latin.yaml")


ODD_OVERRIDES = [
    "threads=100000",  # aborts the process
    "stages.0.tokens=" + "9" * 30,
    "stages.0.tokens=1000000000000",  # a list of steps that fills the memory
    "tokenizer.vocab_size=1000000000000",
    "optim.betas=[0.9, 1.5]",
    "optim.betas=[-1, 0.9]",
    "optim.adamw_lr=.nan",
    "optim.clip_norm=1e400",
    "eval_bytes=1" + "0" * 40,
    'name="a\\0b"',
    "name=2026-01-01",
    "stages=&a [*a]",
    "data=!!python/object:os.system x",
]


@pytest.mark.parametrize("override", ODD_OVERRIDES)
def test_odd_values_are_refused_before_anything_is_made(tmp_path, override: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0].split(".")[-1]) as raised:
        read_recipe(write(tmp_path), [override])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        (
            "autodeco/tiny",
            ["steps=1000000000000", "batch=1000000000000", "seed=-1", "data.samples=1000000000000",
             "data.max_rows=1000000000000"],
        ),
        ("autodeco/steering", ["steps=1000000000000", "held_out=1000000000000"]),
        (
            "researcher/tiny",
            ["stages.0.seed=-1", "stages.0.batch_size=1000000000000", "world.seed=4294967296",
             "eval.questions=1000000000000", "model.num_layers=1000000000000",
             "stages=[{kind: grpo, concurrency: 1000000000000}]",
             "stages=[{kind: reject, pool: 1000000000000}]"],
        ),
        (
            "sft/lora",
            ["epochs=1e300", "lora.rank=1000000000000", "seed=-1", "betas=[2, 2]"],
        ),
    ],
)  # fmt: skip
def test_values_that_fill_the_memory_are_refused(name: str, overrides: list[str]) -> None:
    for override in overrides:
        with pytest.raises(RecipeError, match="is not valid: .*(less|greater) than"):
            read_recipe(ROOT / "recipes" / f"{name}.yaml", [override])


class Inner(Section):
    rate: float = Field(1.0, gt=0)


class Other(Section):
    """A recipe of another room."""

    steps: int = 10
    text: str = ""
    inner: Inner = Inner()
    many: list[int] = Field(default=[], max_length=2)


def test_overrides_of_any_section() -> None:
    made = with_overrides(
        Other, {"many": [1, 2]},
        ["steps=3", "inner.rate=5e-6", 'text="a\\nb"', "many.1=7"], "It",
    )  # fmt: skip
    assert made == Other(steps=3, inner=Inner(rate=5e-6), text="a\nb", many=[1, 7])
    assert with_overrides(Other, {}, None, "It") == Other()
    # The first of two is replaced, and what follows an equals sign is part of the value.
    assert with_overrides(Other, {}, ["text=a", "text=b=c"], "It").text == "b=c"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("stpes=1", "It is not valid: unknown key `stpes`, did you mean 'steps'"),
        ("zzz=1", "unknown key `zzz`, known: inner, many, steps, text"),
        ("inner.rat=1", "unknown key `inner.rat`, did you mean 'rate'"),
        ("inner.rate=0", "`inner.rate`: .*greater than 0"),
        ("steps=many", "`steps`: .*integer"),
        ("steps=", "`steps`: .*integer"),
        ("many=[1, 2, 3]", "`many`"),
        ("many.0=1", "no index of a list of 0"),
        ("text.x=1", "section"),
        ("inner=[1", "is no value"),
        ("steps", "form key=value"),
    ],
)
def test_overrides_that_do_not_fit_a_section(override: str, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        with_overrides(Other, {"text": "", "many": []}, [override], "It")


def test_sections_built_directly() -> None:
    for values, text in (
        ({"rate": -1}, "do not fit Inner: `rate`: Input should be greater than 0, not -1"),
        ({"rate": math.inf}, "`rate`: Input should be a finite number, not inf"),
        ({"rat": 1}, "unknown key `rat`, did you mean 'rate'"),
    ):
        with pytest.raises(ConfigError, match=text):
            Inner(**values)
    with pytest.raises(ConfigError, match=r"do not fit Other: `inner.rate`: .*, not 0"):
        Other(inner={"rate": 0}, many=[])


def test_schedule_warms_up_stays_and_decays() -> None:
    plan = ScheduleSection(warmup_tokens=10, decay_tokens=20, decay="cosine", final=0.1)
    rates = [plan.rate(n, 100) for n in range(101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10:81] == [1.0] * 71
    assert rates[90] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[80:] == sorted(rates[80:], reverse=True)
