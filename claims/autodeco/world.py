"""autodeco.*: what heads that choose temperature and top-p reach, in a small world and on code.

Five claims are read off two runs. The world: a base is trained on texts of free and determined
tokens, with wrong labels on a tenth of the determined ones, so that it is too unsure of them; its
own right texts train the heads; every setting then completes the same prompts. Code: the bundled
model with its bundled heads completes functions of modules that neither has seen. The world
decides a verdict, code stands beside it.
"""

from collections.abc import Sequence
from functools import cache, partial
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, PreTrainedModel

from claims.autodeco.brainstorm import Brainstorm
from claims.figures import Figures
from claims.small import train
from hanol import autodeco, evaluation, models
from hanol.claims import Claim
from hanol.evaluation import Comparison, DecodingTask, StaticSetting
from hanol.scoring import parse_verifier
from hanol.worlds import IGNORED, SequenceBatch

_STEPS = 1500  # of the base, 64 sequences each
_NOISE = 0.1
_PROMPT = 3  # tokens: the mark and two free ones
_PROBLEMS = 100
_SAMPLES = 16
_FUNCTIONS = 24
PAPER = "arXiv 2510.26697"


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
    recipe = autodeco.HeadsSettings(
        cached=True, steps=2 if quick else 400, seed=seed, init="official", micro_batch=32,
        min_tokens=1 if quick else 2000,
    )  # fmt: skip
    losses: list[float] = []
    with TemporaryDirectory() as folder:
        autodeco.train_heads(
            model, rows, recipe, folder, on_step=lambda line: losses.append(line["loss"])
        )
    grid: dict[str, Any] = {"temperatures": (0.5, 1.0), "top_ps": (0.5, 1.0)} if quick else {}
    comparison = evaluation.compare(
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
    task = DecodingTask.from_rows(
        "code", rows, parse_verifier("python:body"), tokenizer,
        max_new_tokens=8 if quick else 64,
    )  # fmt: skip
    grid: dict[str, Any] = {"temperatures": (0.5, 1.0), "top_ps": (0.5, 1.0)} if quick else {}
    return evaluation.compare(
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
        batches.append(SequenceBatch(drawn.input_ids, drawn.labels, vocab_size=world.vocab_size))
    train(base, batches, learning_rate=2e-3, name=f"base, seed {seed}", check_every=200)
    return base.eval()


def world_task(world: Brainstorm, prompts: list[list[int]]) -> DecodingTask:
    """Complete the sequences that begin so; right when every mark and every sum is."""

    def verify(prompt: Sequence[int], completion: Sequence[int]) -> bool:
        whole = torch.tensor([[*prompt, *completion]])
        return bool(world.checks_right(whole))

    return DecodingTask("free and determined tokens", prompts, verify, world.num_tokens - _PROMPT)


def right_rows(
    base: PreTrainedModel, world: Brainstorm, samples: int, seed: int
) -> list[autodeco.TokenRow]:
    """The base's own right texts, sampled at temperature 1."""
    prompts = world.draw(samples, seed=3 * 10**9 + seed).input_ids[:, :_PROMPT].tolist()
    task = world_task(world, prompts)
    drawn = evaluation.sample(base, None, task, StaticSetting(), seed=seed, batch_size=512)
    whole = [[*prompt, *done.token_ids] for prompt, [done] in zip(prompts, drawn, strict=True)]
    right = [ids for ids in whole if bool(world.checks_right(torch.tensor([ids])))]
    # An untrained base (quick) gets nothing right.
    return [autodeco.TokenRow(ids, [IGNORED] * _PROMPT + ids[_PROMPT:]) for ids in right or whole]


def auc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Chance that a value of `high` is above one of `low`, ties counted half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean()) / (2 * len(low))


def add_settings(
    figures: Figures, comparison: Comparison, names: Sequence[str], where: str = ""
) -> None:
    """Add pass@1 and distinct bigrams of some settings."""
    for name in names:
        result = comparison.result(name)
        figures.add(f"{where}{name} pass@1", result.pass_at[1].value)
        figures.add(f"{where}{name} distinct-2", result.distinct[2].value)


def share_of(means: dict[str, float], where: str, name: str) -> str:
    """Pass@1 of a setting in percent, as text."""
    return pc(means[f"{where}{name} pass@1"])


def pc(share: float) -> str:
    """A share in percent, as text."""
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
LARGER = (
    "`hanol train` with a recipe of the kind heads on DeepMath-103K and `verify: arithmetic`, then "
    "`hanol eval sampling` on AIME, for R1-Distill-Qwen-7B."
)


# A claim that is read off the runs of this module.
world_claim = partial(Claim, scale=_SCALE, larger=LARGER)
