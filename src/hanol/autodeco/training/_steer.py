"""Steering by words: heads that lower or raise T and P when the prompt asks for it.

The paper reports the effect and not the loss. Here the same answer is read behind three prompts,
as it is, with a command to be certain and with one to be diverse, and the means of T over the
answer have to come out in that order (a hinge on each of the two distances; P likewise):

    relu(a + T_low - T_base) + relu(a + T_base - T_high) + (T_base - T_before)^2 + the usual loss

Margins, anchor and number of steps are our choice.

Shape suffixes: B rows (three for each answer: as it is, low, high), M positions with a label,
N positions.
Source: arXiv 2510.26697, section 3.4.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from pydantic import BaseModel, Field, field_validator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hanol.autodeco._formats import HeadPair
from hanol.autodeco._heads import predict
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._data import Row, tokenize
from hanol.autodeco.training._features import FeatureBatch, OnlineSource, digest
from hanol.autodeco.training._heads_trainer import (
    HeadsLearning,
    HeadSteps,
    HeadsTrainer,
    prepare_folder,
    trainable,
)
from hanol.autodeco.training._loss import IGNORED
from hanol.errors import DataError, RecipeError, require
from hanol.scoring import Interval, wilson
from hanol.training import MOST_STEPS, OnStep

_TEMPLATE = "{command}\n{prompt}"
_TOGETHER = 4  # prompts of a report that run through the base together


@dataclass(frozen=True)
class Commands:
    """Ways to ask for a low and for a high diversity."""

    low: tuple[str, ...]
    high: tuple[str, ...]


_TEXTS = json.loads((files("hanol.autodeco.training") / "commands.json").read_text("utf-8"))
TRAIN_COMMANDS, TEST_COMMANDS = (
    Commands(tuple(_TEXTS[name]["low"]), tuple(_TEXTS[name]["high"])) for name in ("train", "test")
)
"""What the heads learn from (twenty in English and in Korean each), and others for the report."""


class SteeringSettings(HeadsLearning):
    """How heads learn to follow commands."""

    steps: int = Field(150, ge=1, le=MOST_STEPS, description="Optimizer steps.")
    batch: int = Field(
        16, ge=1, le=100_000, description="Answers per step; each is read three times."
    )
    micro_batch: int = Field(4, ge=1, description="Answers that run through the base together.")
    temperature_margin: float = Field(0.1, ge=0, description="Least difference of the mean T.")
    top_p_margin: float = Field(0.05, ge=0, description="Least difference of the mean P.")
    loss_weight: float = Field(1.0, ge=0, description="Weight of the usual loss.")
    template: str = Field(
        _TEMPLATE,
        description="Place of a command in a plain-text prompt; in a conversation it becomes the "
        "last line of the user's last message.",
    )
    max_length: int = Field(4096, ge=2, description="Tokens of a row with command, at most.")

    @field_validator("template")
    @classmethod
    def _has_both(cls, value: str) -> str:
        for part in ("{command}", "{prompt}"):
            if value.count(part) != 1:
                raise ValueError(f"{value!r} needs {part} once")
        return value


class Steered(BaseModel):
    """What commands do to one head."""

    base: float = Field(description="Mean without a command.")
    low: float = Field(description="Mean with a command for low diversity.")
    high: float = Field(description="Mean with a command for high diversity.")
    low_moves: Interval = Field(description="Share of prompts whose mean goes down.")
    high_moves: Interval = Field(description="Share of prompts whose mean goes up.")


class SteeringReport(BaseModel):
    """What commands do to held-out prompts; None without that head."""

    prompts: int
    temperature: Steered | None
    top_p: Steered | None


def with_command(row: Row, command: str, template: str = _TEMPLATE) -> Row:
    """The row with a command in its prompt.

    Raises:
        DataError: A conversation without a message of the user.
    """
    if not row.messages:
        before, _, after = template.partition("{command}")
        text = before.replace("{prompt}", row.prompt) + command
        return replace(row, prompt=text + after.replace("{prompt}", row.prompt))
    messages = [dict(message) for message in row.messages]
    for message in reversed(messages):
        if message["role"] == "user":
            message["content"] += f"\n{command}"
            return replace(row, messages=tuple(messages))
    raise DataError(f"{row.where}: the conversation has no message of the user for a command.")


def train_steering(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    settings: SteeringSettings | None = None,
    folder: str | Path = "runs/steering",
    *,
    commands: Commands = TRAIN_COMMANDS,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
) -> Path:
    """Train heads, that were trained before, to follow commands; the base stays as it is.

    Arguments, folder and errors are those of `train_heads`, and:

    Args:
        rows: Prompts with completions; those without are left out.
        commands: Paraphrases, one drawn for each row and step; there must be some.
        resume: `model` has the heads that the run started with.

    Returns:
        The heads-only checkpoint.
    """
    require("accelerate", extra="train", feature="Training")
    settings, folder = settings or SteeringSettings(), Path(folder)
    kept = _usable(rows, tokenizer, commands, settings.template, settings.max_length)
    trainable(model, settings)
    heads = (parameter.detach().float().cpu().numpy() for parameter in model.head_parameters())
    data = {
        "rows": digest([repr(kept).encode()]),
        "commands": digest([repr(commands).encode()]),
        # The anchor is where the heads were when the run started.
        "heads": digest(values.tobytes() for values in heads),
    }
    saved = prepare_folder(folder, settings, data, resume=resume)
    before = copy.deepcopy((model.temp_head, model.top_p_head))
    tokens = [tokenize([row], tokenizer, settings.max_length).rows[0] for row in kept]
    labels_R = np.array([row.num_labels for row in tokens])

    def part_loss(trainer: HeadsTrainer, inputs: dict[str, Tensor]) -> Tensor:
        # Drawn for the whole step, whatever its parts are.
        draw = np.random.default_rng((settings.seed, int(inputs["step"]) + 1))
        drawn = [
            (str(draw.choice(commands.low)), str(draw.choice(commands.high)))
            for _ in range(settings.batch)
        ]
        answers = []
        for row, place in zip(inputs["rows"].tolist(), inputs["places"].tolist(), strict=True):
            texts = (with_command(kept[row], text, settings.template) for text in drawn[place])
            answers.append([kept[row], *texts])
        loss, values = _ranking_loss(model, tokenizer, answers, before, settings, trainer.generator)
        share = len(answers) / settings.batch
        for name, value in values.items():
            trainer.found[name] = trainer.found.get(name, 0.0) + value * share
        return loss * share

    steps = HeadSteps(labels_R, settings, by_length=False)
    HeadsTrainer(model, steps, settings, folder, on_step, part_loss).run(saved)
    return model.save_heads(folder / "heads")


def _ranking_loss(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    answers: list[list[Row]],
    before: HeadPair,
    settings: SteeringSettings,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Mean over the answers, and its parts; `before` are the heads that the run started with."""
    n, chunk = len(answers), settings.chunk
    features, row_M, at_M = _read(model, tokenizer, answers)
    heads, is_base_M = (model.temp_head, model.top_p_head), row_M < n
    now_TP = _row_means(heads, features, row_M, at_M, 3 * n, chunk)
    with torch.no_grad():
        then_TP = _row_means(before, features, row_M[is_base_M], at_M[is_base_M], n, chunk)
    rank = anchor = usual = torch.zeros((), device=model.device)
    values: dict[str, float] = {}
    for name, head, trained, margin, now_B, then_B in zip(
        ("temperature", "top_p"),
        heads,
        (settings.train_temperature, settings.train_top_p),
        (settings.temperature_margin, settings.top_p_margin),
        now_TP,
        then_TP,
        strict=True,
    ):
        if head is None or not trained:
            continue
        base_B, low_B, high_B = now_B.view(3, n)
        rank = rank + (margin + low_B - base_B).relu().mean()
        rank = rank + (margin + base_B - high_B).relu().mean()
        anchor = anchor + (base_B - then_B).square().mean()
        for kind, mean_B in (("base", base_B), ("low", low_B), ("high", high_B)):
            values[f"{name}_{kind}"] = mean_B.mean().item()
    if settings.loss_weight > 0:
        # The rows as they are come first.
        first = len(features.labels_N) // 3
        plain = FeatureBatch(*(tensor[:first] for tensor in features))
        items = int((plain.labels_N != IGNORED).sum())
        usual = settings.loss(model, plain, items, generator).loss
    loss = rank + anchor + settings.loss_weight * usual
    parts = {"loss": loss, "rank": rank, "anchor": anchor, "usual": usual}
    return loss, {name: part.item() for name, part in parts.items()} | values


@torch.no_grad()
def steering_report(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    commands: Commands = TEST_COMMANDS,
    template: str = _TEMPLATE,
    max_length: int = 4096,
) -> SteeringReport:
    """How often commands move T and P of held-out prompts the right way.

    Each prompt is read with one command of each direction, in turn. Rows and commands are such
    that the heads were not trained on; the other arguments are those of `SteeringSettings`.

    Raises:
        DataError: Rows do not fit, or none is left.
        RecipeError: There are no commands.
    """
    kept = _usable(rows, tokenizer, commands, template, max_length)
    answers = [
        [
            row,
            with_command(row, commands.low[i % len(commands.low)], template),
            with_command(row, commands.high[i % len(commands.high)], template),
        ]
        for i, row in enumerate(kept)
    ]
    heads = (model.temp_head, model.top_p_head)
    temperatures, top_ps = [], []
    for begin in range(0, len(answers), _TOGETHER):
        part = answers[begin : begin + _TOGETHER]
        T_B, P_B = _row_means(heads, *_read(model, tokenizer, part), 3 * len(part), 256)
        temperatures += T_B.view(3, -1).T.tolist()
        top_ps += P_B.view(3, -1).T.tolist()
    return SteeringReport(
        prompts=len(kept),
        temperature=None if model.temp_head is None else _steered(temperatures),
        top_p=None if model.top_p_head is None else _steered(top_ps),
    )


def _steered(means: list[list[float]]) -> Steered:
    base, low, high = zip(*means, strict=True)
    return Steered(
        base=fmean(base),
        low=fmean(low),
        high=fmean(high),
        low_moves=wilson(sum(b < a for a, b in zip(base, low, strict=True)), len(base)),
        high_moves=wilson(sum(b > a for a, b in zip(base, high, strict=True)), len(base)),
    )


def _usable(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    commands: Commands,
    template: str,
    max_length: int,
) -> list[Row]:
    """Rows with a completion that fit with the longest command."""
    if not commands.low or not commands.high:
        raise RecipeError("`commands` needs at least one text for each direction.")
    longest = max((*commands.low, *commands.high), key=lambda text: len(text.encode()))
    kept = [
        row
        for row in rows
        if tokenize([with_command(row, longest, template)], tokenizer, max_length).rows
    ]
    if not kept:
        raise DataError(
            f"None of {len(rows)} rows has a completion and, with a command, at most {max_length} "
            "tokens."
        )
    return kept


def _read(
    model: AutoDecoForCausalLM, tokenizer: PreTrainedTokenizerBase, answers: list[list[Row]]
) -> tuple[FeatureBatch, Tensor, Tensor]:
    """Features of the rows as they are, with low, with high; row and place of each label."""
    by_kind = [row for of_kind in zip(*answers, strict=True) for row in of_kind]
    rows = tokenize(by_kind, tokenizer, max_length=1 << 60).rows
    features = OnlineSource(model, rows).micro_batch(range(len(rows)))
    at_M = (features.labels_N != IGNORED).nonzero().squeeze(-1)
    return features, at_M // (len(features.labels_N) // len(rows)), at_M


def _row_means(
    heads: HeadPair, features: FeatureBatch, row_M: Tensor, at_M: Tensor, num_rows: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Mean T and mean P of each row over its labels, [B]."""
    parts = [
        predict(features.hidden_NH[at_C], features.logits_NV[at_C], *heads)
        for at_C in at_M.split(chunk)
    ]
    T_M, P_M = (torch.cat(part) for part in zip(*parts, strict=True))
    count_B = torch.zeros(num_rows, device=T_M.device).index_add(0, row_M, torch.ones_like(T_M))

    def mean(values_M: Tensor) -> Tensor:
        return torch.zeros_like(count_B).index_add(0, row_M, values_M) / count_B

    return mean(T_M), mean(P_M)
