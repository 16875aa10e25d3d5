"""autodeco.*: what heads that choose temperature and top-p reach, in a small world and on code.

Five claims are read off two runs. The world: a base is trained on texts of free and determined
tokens, with wrong labels on a tenth of the determined ones, so that it is too unsure of them; its
own right texts train the heads; every setting then completes the same prompts. Code: the bundled
model with its bundled heads completes functions of modules that neither has seen. The world
decides a verdict, code stands beside it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, PreTrainedModel

from hanol import autodeco, models
from hanol.autodeco import Comparison, StaticSetting, Task
from hanol.claims._claim import Claim, Measurement
from hanol.claims._small import mean_and_spread, train
from hanol.worlds import IGNORED, Brainstorm, SequenceBatch

_STEPS = 1500  # of the base, 64 sequences each
_NOISE = 0.1
_PROMPT = 3  # tokens: the mark and two free ones
_PROBLEMS = 100
_SAMPLES = 16
_FUNCTIONS = 24
_PAPER = "arXiv 2510.26697"


class World(NamedTuple):
    """Everything that one seed gave."""

    comparison: Comparison  # pass@1 and diversity of all settings, static ones on the whole grid
    free: NDArray[np.float64]  # temperatures at held-out positions before free tokens
    determined: NDArray[np.float64]  # and before determined ones
    free_top_p: NDArray[np.float64]
    determined_top_p: NDArray[np.float64]
    first_loss: float  # of the heads
    last_loss: float


@cache
def world_run(seed: int, quick: bool) -> World:
    """Train a base and heads, and compare; once a process for all claims."""
    world = Brainstorm(rounds=2, length=4, symbols=32, modulus=8)
    base = world_base(world, seed, quick)
    prompts = world.draw(4 if quick else _PROBLEMS, seed=10**9 + seed).input_ids[:, :_PROMPT]
    rows = right_rows(base, world, 64 if quick else 4096, seed)
    model = autodeco.AutoDecoForCausalLM.from_base(base)
    recipe = autodeco.HeadsRecipe(
        cached=True, steps=2 if quick else 400, seed=seed, init="official", micro_batch=32
    )
    losses: list[float] = []
    with TemporaryDirectory() as folder:
        autodeco.train_heads(
            model, rows, recipe, folder, on_step=lambda _, line: losses.append(line["loss"])
        )
    grid: dict[str, Any] = {"temperatures": (0.5, 1.0), "top_ps": (0.5, 1.0)} if quick else {}
    comparison = autodeco.compare(
        model,
        None,
        world_task(world, prompts.tolist()),
        method="grid",
        **grid,
        samples=2 if quick else _SAMPLES,
        seed=seed,
        batch_size=512,
    )
    held_out = world.draw(8 if quick else 256, seed=2 * 10**9 + seed)
    with torch.inference_mode():
        output = model(held_out.input_ids)
    inside = torch.ones_like(held_out.free)
    inside[:, -1] = False  # nothing follows
    free_BT, determined_BT = held_out.free & inside, ~held_out.free & inside
    tenth = max(1, len(losses) // 10)
    return World(
        comparison,
        free=output.temperature[free_BT].double().numpy(),
        determined=output.temperature[determined_BT].double().numpy(),
        free_top_p=output.top_p[free_BT].double().numpy(),
        determined_top_p=output.top_p[determined_BT].double().numpy(),
        first_loss=mean(losses[:tenth]),
        last_loss=mean(losses[-tenth:]),
    )


@cache
def code_run(seed: int, quick: bool) -> Comparison:
    """Compare settings of the bundled model on held-out functions; once a process."""
    model = autodeco.AutoDecoForCausalLM.from_pretrained("tiny-autodeco")
    tokenizer = autodeco.load_tokenizer("tiny-autodeco")
    rows = autodeco.function_rows(held_out=True)
    number = 3 if quick else _FUNCTIONS
    rows = [rows[i * len(rows) // number] for i in range(number)]
    task = Task.from_rows(
        "code", rows, autodeco.parse_verifier("python:body"), tokenizer,
        max_new_tokens=8 if quick else 64,
    )  # fmt: skip
    grid: dict[str, Any] = {"temperatures": (0.5, 1.0), "top_ps": (0.5, 1.0)} if quick else {}
    return autodeco.compare(
        model, tokenizer, task, samples=2 if quick else 4, seed=seed, batch_size=96, **grid
    )


def world_base(world: Brainstorm, seed: int, quick: bool) -> PreTrainedModel:
    """A Llama of 4 layers and width 128, trained on the world with noisy labels."""
    config = LlamaConfig(
        vocab_size=world.vocab_size,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=world.num_tokens,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    base = models.build(config, seed=seed)
    batches = []
    for step in range(2 if quick else _STEPS):
        drawn = world.draw(64, noise=_NOISE, seed=10**6 * seed + step)
        batches.append(
            SequenceBatch("text", drawn.input_ids, drawn.labels, vocab_size=world.vocab_size)
        )
    train(base, batches, learning_rate=2e-3, name=f"base, seed {seed}", check_every=200)
    return base.eval()


def world_task(world: Brainstorm, prompts: list[list[int]]) -> Task:
    """Complete the sequences that begin so; right when every mark and every sum is."""

    def verify(prompt: Sequence[int], completion: Sequence[int]) -> bool:
        whole = torch.tensor([[*prompt, *completion]])
        return bool(world.checks_right(whole))

    return Task("free and determined tokens", prompts, verify, world.num_tokens - _PROMPT)


def right_rows(
    base: PreTrainedModel, world: Brainstorm, samples: int, seed: int
) -> list[autodeco.TokenRow]:
    """The base's own right texts, sampled at temperature 1."""
    prompts = world.draw(samples, seed=3 * 10**9 + seed).input_ids[:, :_PROMPT].tolist()
    task = world_task(world, prompts)
    drawn = autodeco.sample(base, None, task, StaticSetting(), seed=seed, batch_size=512)
    whole = [[*prompt, *done.token_ids] for prompt, [done] in zip(prompts, drawn, strict=True)]
    right = [ids for ids in whole if bool(world.checks_right(torch.tensor([ids])))]
    # An untrained base (quick) gets nothing right.
    return [autodeco.TokenRow(ids, [IGNORED] * _PROMPT + ids[_PROMPT:]) for ids in right or whole]


# -- one measurement a claim


def _beats_default(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = _Figures()
    sure = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        for name in ("greedy", "default", "AutoDeco"):
            result = comparison.result(name)
            figures.add(f"{name} pass@1", result.pass_at[1].value)
            figures.add(f"{name} distinct-2", result.distinct[2].value)
            on_code = code_run(seed, quick).result(name)
            figures.add(f"code: {name} pass@1", on_code.pass_at[1].value)
            figures.add(f"code: {name} distinct-2", on_code.distinct[2].value)
        on_code_gain = code_run(seed, quick).difference("AutoDeco", "default").pass_at[1]
        figures.add("code: gain over default", on_code_gain.value)
        figures.add("code: gain over default, low", on_code_gain.low)
        gain = comparison.difference("AutoDeco", "default").pass_at[1]
        figures.add("gain over default", gain.value)
        figures.add("gain over default, low", gain.low)
        sure = sure and gain.low > 0
    v = figures.means
    joint = v["AutoDeco distinct-2"] > v["greedy distinct-2"]
    return figures.measurement(
        sure and v["gain over default"] >= 0.03 and joint,
        f"Right texts: greedy {_pc(v['greedy pass@1'])}, default {_pc(v['default pass@1'])}, "
        f"AutoDeco {_pc(v['AutoDeco pass@1'])}; distinct bigrams "
        f"{v['greedy distinct-2']:.2f}, {v['default distinct-2']:.2f}, "
        f"{v['AutoDeco distinct-2']:.2f}. Code that parses: {_of(v, 'code: ', 'greedy')}, "
        f"{_of(v, 'code: ', 'default')}, {_of(v, 'code: ', 'AutoDeco')}.",
    )


def _matches_oracle(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = _Figures()
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        ours, oracle = comparison.result("AutoDeco"), comparison.result("oracle static")
        figures.add("AutoDeco pass@1", ours.pass_at[1].value)
        figures.add("AutoDeco distinct-2", ours.distinct[2].value)
        figures.add("oracle static pass@1", oracle.pass_at[1].value)
        figures.add("oracle static distinct-2", oracle.distinct[2].value)
        figures.add("best static (split) pass@1", comparison.result("best static").pass_at[1].value)
        for name in ("AutoDeco", "oracle static", "best static"):
            on_code = code_run(seed, quick).result(name)
            figures.add(f"code: {name} pass@1", on_code.pass_at[1].value)
            figures.add(f"code: {name} distinct-2", on_code.distinct[2].value)
        assert comparison.search is not None
        figures.add(
            "static settings that dominate",
            sum(
                point.pass_at_1 >= ours.pass_at[1].value
                and point.distinct_2 >= ours.distinct[2].value
                for point in comparison.search.points
            ),
        )
    v = figures.means
    near = v["AutoDeco pass@1"] >= v["oracle static pass@1"] - 0.01
    diverse = v["AutoDeco distinct-2"] >= v["oracle static distinct-2"] - 0.005
    return figures.measurement(
        near and diverse,
        f"Right texts: AutoDeco {_pc(v['AutoDeco pass@1'])}, the best static pair of the grid "
        f"{_pc(v['oracle static pass@1'])} on the samples that it was picked on; distinct bigrams "
        f"{v['AutoDeco distinct-2']:.3f} and {v['oracle static distinct-2']:.3f}; of 150 static "
        f"pairs {v['static settings that dominate']:.0f} are at least as good in both. Code that "
        f"parses: {_of(v, 'code: ', 'AutoDeco')} and {_of(v, 'code: ', 'oracle static')}, a pair "
        f"picked on other functions {_of(v, 'code: ', 'best static')}.",
    )


def _single_heads(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = _Figures()
    names = ("default", "temperature head", "top-p head", "AutoDeco")
    gains = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        for name in names:
            figures.add(f"{name} pass@1", comparison.result(name).pass_at[1].value)
            on_code = code_run(seed, quick).result(name)
            figures.add(f"code: {name} pass@1", on_code.pass_at[1].value)
        for name in names[1:]:
            gain = comparison.difference(name, "default").pass_at[1]
            figures.add(f"{name} gain, low", gain.low)
            gains = gains and gain.low > 0
        for name in names[1:3]:
            behind = comparison.difference(name, "AutoDeco").pass_at[1]
            figures.add(f"{name} over both, low", behind.low)
    v = figures.means
    tied = all(v[f"{name} over both, low"] <= 0 for name in names[1:3])
    return figures.measurement(
        gains and tied,
        "Right texts: "
        + ", ".join(f"{name} {_of(v, '', name)}" for name in names)
        + ". Code that parses: "
        + ", ".join(_of(v, "code: ", name) for name in names)
        + ".",
    )


def _pass_at_k(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = _Figures()
    kept = True
    for seed in seeds:
        comparison = world_run(seed, quick).comparison
        last = max(comparison.result("default").pass_at)
        for name in ("default", "AutoDeco"):
            for k, value in comparison.result(name).pass_at.items():
                figures.add(f"{name} pass@{k}", value.value)
            for k, value in code_run(seed, quick).result(name).pass_at.items():
                figures.add(f"code: {name} pass@{k}", value.value)
        change = comparison.difference("AutoDeco", "default").pass_at[last]
        figures.add(f"gain at {last}", change.value)
        kept = kept and change.high >= 0
    v = figures.means
    return figures.measurement(
        kept and v["AutoDeco pass@1"] > v["default pass@1"],
        f"pass@1 {_pc(v['default pass@1'])} to {_pc(v['AutoDeco pass@1'])}, "
        f"pass@{last} {_pc(v[f'default pass@{last}'])} to {_pc(v[f'AutoDeco pass@{last}'])}.",
    )


def _token_adaptive(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = _Figures()
    for seed in seeds:
        run = world_run(seed, quick)
        figures.add("temperature before free tokens", run.free.mean())
        figures.add("temperature before determined tokens", run.determined.mean())
        figures.add("top-p before free tokens", run.free_top_p.mean())
        figures.add("top-p before determined tokens", run.determined_top_p.mean())
        figures.add("AUC of temperature", auc(run.free, run.determined))
        figures.add("AUC of top-p", auc(run.free_top_p, run.determined_top_p))
        figures.add("loss, first steps", run.first_loss)
        figures.add("loss, last steps", run.last_loss)
    v = figures.means
    return figures.measurement(
        v["AUC of temperature"] >= 0.9 and v["AUC of top-p"] >= 0.9,
        f"Temperature {v['temperature before free tokens']:.2f} before free and "
        f"{v['temperature before determined tokens']:.2f} before determined tokens, AUC "
        f"{v['AUC of temperature']:.3f}; top-p {v['top-p before free tokens']:.2f} and "
        f"{v['top-p before determined tokens']:.2f}, AUC {v['AUC of top-p']:.3f}.",
    )


def auc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Chance that a value of `high` is above one of `low`, ties counted half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean()) / (2 * len(low))


class _Figures:
    """Values by name, one a seed."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        self._values.setdefault(name, []).append(float(value))

    @property
    def means(self) -> dict[str, float]:
        return {name: mean(values) for name, values in self._values.items()}

    def measurement(self, shown: bool, summary: str) -> Measurement:
        pairs = {name: mean_and_spread(values) for name, values in self._values.items()}
        return Measurement(
            verdict="shown" if shown else "not shown",
            summary=summary,
            figures={name: pair[0] for name, pair in pairs.items()},
            spread={name: pair[1] for name, pair in pairs.items()},
        )


def _of(means: dict[str, float], where: str, name: str) -> str:
    return _pc(means[f"{where}{name} pass@1"])


def _pc(share: float) -> str:
    return f"{100 * share:.1f} %"


_SCALE = (
    "A world of 42 tokens in which a text is two rounds of 4 free symbols and their 4 running "
    "sums modulo 8; a Llama of 4 layers and width 128 trained on it for 1,500 steps with a tenth "
    "of the sums' labels wrong; heads trained for 400 steps on its own right texts of 4,096 "
    "sampled at temperature 1. 100 prompts, 16 texts each, all 150 static pairs in steps of 0.1; "
    "intervals from resampling prompts. Code: `tiny` with its bundled heads on 24 functions of "
    "the standard library's held-out modules, 4 bodies of up to 64 tokens each; right is what "
    "`ast.parse` accepts; the static pair by the paper's search, temperature first."
)
_LARGER = (
    "`hanol autodeco train` on DeepMath-103K with `--verify arithmetic`, then `hanol autodeco "
    "compare` on AIME, for R1-Distill-Qwen-7B."
)


def _claim(
    name: str,
    title: str,
    paper: str,
    expectation: str,
    experiment: Callable[[Sequence[int], bool], Measurement],
) -> Claim:
    return Claim(
        id=f"autodeco.{name}",
        title=title,
        paper=paper,
        scale=_SCALE,
        expectation=expectation,
        larger=_LARGER,
        experiment=experiment,
    )


WORLD_CLAIMS = (
    _claim(
        "beats-default",
        "Learned temperature and top-p beat default sampling and greedy decoding.",
        f"Mathematics, pass@1 of Llama-Nemotron-8B: greedy 42.50, default 42.59, AutoDeco 46.05 "
        f"({_PAPER}, table 1).",
        "Shown if AutoDeco gets at least 3 points more texts right than T = 1, P = 1, with an "
        "interval above 0 in every seed, and its texts differ more (distinct bigrams) than "
        "greedy's. Greedy decoding is expected to be right most often: here the most likely sum "
        "is the right one.",
        _beats_default,
    ),
    _claim(
        "matches-oracle",
        "AutoDeco comes within a point of the static pair that was tuned on the test itself.",
        f"Within 1 point of expert-guided tuning on all models and tasks shown ({_PAPER}, "
        "section 4.2).",
        "Shown if AutoDeco gets at most 1 point fewer texts right than the best of the grid, with "
        "distinct bigrams at most 0.005 below.",
        _matches_oracle,
    ),
    _claim(
        "single-heads",
        "Each head alone helps, and both together are best or tied.",
        f"AIME, R1-Distill-Qwen-7B: either head alone about +3 to +3.5 points ({_PAPER}, "
        "ablation; exact bars not verified).",
        "Shown if each head alone and both gain over T = 1, P = 1 with intervals above 0 in every "
        "seed, and neither alone is better than both beyond its interval.",
        _single_heads,
    ),
    _claim(
        "pass-at-k",
        "The gain at one sample does not cost pass@k.",
        f"Llama-Nemotron-8B, k = 64: 87.35 to 89.75 ({_PAPER}; columns of that table repeat, "
        "treat with care).",
        "Shown if pass@1 rises and pass@16 does not fall beyond its interval in any seed.",
        _pass_at_k,
    ),
    _claim(
        "token-adaptive",
        "Temperature and top-p are low where the next token is determined, high where it is free.",
        f"Shown by example ({_PAPER}, figure 4).",
        "Shown if the area under the curve that separates free from determined positions by "
        "temperature, and by top-p, is at least 0.9.",
        _token_adaptive,
    ),
)
