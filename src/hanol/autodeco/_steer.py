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
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from pydantic import BaseModel, Field, field_validator
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hanol.autodeco._commands import TEST_COMMANDS, TRAIN_COMMANDS, Commands
from hanol.autodeco._data import Row, TokenRow, tokenize
from hanol.autodeco._features import MicroBatch, OnlineSource
from hanol.autodeco._loss import IGNORED
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco._rescale import predict
from hanol.autodeco._run import HeadsOptions, HeadsRun, OnStep
from hanol.errors import DataError, RecipeError
from hanol.scoring import Interval, wilson


class SteeringRecipe(HeadsOptions):
    """How heads learn to follow commands."""

    steps: int = Field(150, ge=1, description="Optimizer steps.")
    batch: int = Field(16, ge=1, description="Answers of a step; each is read three times.")
    micro_batch: int = Field(4, ge=1, description="Answers that run through the base together.")
    temperature_margin: float = Field(0.1, ge=0, description="Least distance of the means of T.")
    top_p_margin: float = Field(0.05, ge=0, description="Least distance of the means of P.")
    rank_weight: float = Field(1.0, ge=0, description="Of the order.")
    anchor_weight: float = Field(1.0, ge=0, description="Of staying where the heads were.")
    loss_weight: float = Field(1.0, ge=0, description="Of the usual loss.")
    template: str = Field(
        "{command}\n{prompt}",
        description="Where a command goes in a prompt that is plain text; of a conversation it is "
        "the last line of the user's last message.",
    )
    max_length: int = Field(4096, ge=2, description="Longer rows, with command, are left out.")

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


def with_command(row: Row, command: str, template: str = "{command}\n{prompt}") -> Row:
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
    recipe: SteeringRecipe | None = None,
    folder: str | Path = "runs/steering",
    commands: Commands = TRAIN_COMMANDS,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> Path:
    """Train heads, that were trained before, to follow commands; the base stays as it is.

    Args:
        model: With trained heads; they are trained in place.
        tokenizer: The base's.
        rows: Prompts with completions; those without are left out.
        recipe: None takes the defaults.
        folder: Gets `recipe.yaml`, `metrics.jsonl`, `checkpoint-*` and the heads-only checkpoint
            `heads`.
        commands: Paraphrases, one drawn for each row and step.
        resume: Go on from the newest checkpoint in the folder, or start if there is none; `model`
            has the heads that the run began with.
        on_step: Called after each step with its number, from 1, and its metrics.

    Returns:
        The heads-only checkpoint.

    Raises:
        RecipeError: The folder holds a run that this one does not continue, there are no commands,
            or there is no head to train.
        DataError: Rows do not fit, or none is left.
        TrainingError: The loss is not finite, or the folder cannot be written.
    """
    recipe, folder = recipe or SteeringRecipe(), Path(folder)
    if not commands.low or not commands.high:
        raise RecipeError("`commands` needs at least one text for each direction.")
    kept = _usable(rows, tokenizer, commands, recipe.template, recipe.max_length)
    before = copy.deepcopy([model.temp_head, model.top_p_head])
    run = HeadsRun(model, recipe, folder)
    data = {
        "rows": _sha256(repr(kept).encode()),
        "commands": _sha256(repr(commands).encode()),
        # The anchor is where the heads were when the run began.
        "heads": _sha256(
            b"".join(p.detach().float().cpu().numpy().tobytes() for p in model.head_parameters())
        ),
    }
    saved = run.prepare(data, resume)
    if saved is not None:
        run.load(saved)

    def update(batch: Sequence[int]) -> dict[str, float]:
        draw = np.random.default_rng((recipe.seed, run.step + 1))
        answers = [
            [
                kept[i],
                with_command(kept[i], str(draw.choice(commands.low)), recipe.template),
                with_command(kept[i], str(draw.choice(commands.high)), recipe.template),
            ]
            for i in batch
        ]
        line: dict[str, float] = {}
        for begin in range(0, len(answers), recipe.micro_batch):
            part = answers[begin : begin + recipe.micro_batch]
            loss, values = _loss(model, before, tokenizer, part, recipe, run.generator)
            share = len(part) / len(answers)
            (loss * share).backward()
            for name, value in values.items():
                line[name] = line.get(name, 0.0) + value * share
        return line

    run.each_step(len(kept), update, on_step)
    return model.save_heads(folder / "heads")


@torch.no_grad()
def steering_report(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    commands: Commands = TEST_COMMANDS,
    template: str = "{command}\n{prompt}",
    max_length: int = 4096,
    batch: int = 4,
) -> SteeringReport:
    """How often commands move T and P of held-out prompts the right way.

    Each prompt is read with one command of each direction, in turn.

    Args:
        model: With heads.
        tokenizer: The base's.
        rows: Prompts with completions that the heads were not trained on.
        commands: Paraphrases that they were not trained on.
        template: As in the recipe.
        max_length: Longer rows, with command, are left out.
        batch: Prompts that run through the base together.

    Raises:
        DataError: Rows do not fit, or none is left.
        RecipeError: There are no commands.
    """
    if not commands.low or not commands.high:
        raise RecipeError("`commands` needs at least one text for each direction.")
    kept = _usable(rows, tokenizer, commands, template, max_length)
    answers = [
        [
            row,
            with_command(row, commands.low[i % len(commands.low)], template),
            with_command(row, commands.high[i % len(commands.high)], template),
        ]
        for i, row in enumerate(kept)
    ]
    heads = [model.temp_head, model.top_p_head]
    temperatures, top_ps = [], []
    for begin in range(0, len(answers), batch):
        part = answers[begin : begin + batch]
        features, row_M, at_M = _read(model, tokenizer, part)
        T_B, P_B = _row_means(heads, features, row_M, at_M, 3 * len(part), 256)
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


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _usable(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    commands: Commands,
    template: str,
    max_length: int,
) -> list[Row]:
    """Rows with a completion that fit with the longest command."""
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


def _loss(
    model: AutoDecoForCausalLM,
    before: Sequence[nn.Module | None],
    tokenizer: PreTrainedTokenizerBase,
    answers: list[list[Row]],
    recipe: SteeringRecipe,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Mean over the answers, with its parts."""
    n = len(answers)
    features, row_M, at_M = _read(model, tokenizer, answers)
    heads = [model.temp_head, model.top_p_head]
    now = _row_means(heads, features, row_M, at_M, 3 * n, recipe.chunk)
    is_base_M = row_M < n
    with torch.no_grad():
        then = _row_means(before, features, row_M[is_base_M], at_M[is_base_M], n, recipe.chunk)
    zero = torch.zeros((), device=model.device)
    rank = anchor = zero
    values: dict[str, float] = {}
    for name, head, trained, margin, now_B, then_B in (
        ("temperature", model.temp_head, recipe.train_temperature, recipe.temperature_margin,
         now[0], then[0]),
        ("top_p", model.top_p_head, recipe.train_top_p, recipe.top_p_margin, now[1], then[1]),
    ):  # fmt: skip
        if head is None or not trained:
            continue
        base_B, low_B, high_B = now_B.view(3, n)
        rank = rank + (margin + low_B - base_B).relu().mean()
        rank = rank + (margin + base_B - high_B).relu().mean()
        anchor = anchor + (base_B - then_B).square().mean()
        values |= {
            f"{name}_{kind}": mean_B.mean().item()
            for kind, mean_B in (("base", base_B), ("low", low_B), ("high", high_B))
        }
    usual = zero
    if recipe.loss_weight > 0:
        # The rows as they are come first.
        first = len(features.labels_N) // 3
        plain = MicroBatch(*(tensor[:first] for tensor in features))
        items = int((plain.labels_N != IGNORED).sum())
        usual = recipe.loss(model, plain, items, generator).loss
    loss = recipe.rank_weight * rank + recipe.anchor_weight * anchor + recipe.loss_weight * usual
    parts = {"loss": loss, "rank": rank, "anchor": anchor, "usual": usual}
    return loss, {name: part.item() for name, part in parts.items()} | values


def _read(
    model: AutoDecoForCausalLM, tokenizer: PreTrainedTokenizerBase, answers: list[list[Row]]
) -> tuple[MicroBatch, Tensor, Tensor]:
    """Features of all rows as they are, then of those with low, then with high; where labels are.

    Returns:
        The features, and for each position with a label its row and its place in the features.
    """
    rows: list[TokenRow] = []
    for of_kind in zip(*answers, strict=True):
        rows += tokenize(of_kind, tokenizer, max_length=1 << 60).rows
    features = OnlineSource(model, rows).micro_batch(range(len(rows)))
    at_M = (features.labels_N != IGNORED).nonzero().squeeze(-1)
    return features, at_M // (len(features.labels_N) // len(rows)), at_M


def _row_means(
    heads: Sequence[nn.Module | None],
    features: MicroBatch,
    row_M: Tensor,
    at_M: Tensor,
    num_rows: int,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Mean T and mean P of each row over its labels, [B]."""
    temp_head, top_p_head = heads
    parts = [
        predict(features.hidden_NH[at_C], features.logits_NV[at_C], temp_head, top_p_head)  # type: ignore[arg-type]
        for at_C in at_M.split(chunk)
    ]
    T_M, P_M = (torch.cat(part) for part in zip(*parts, strict=True))
    count_B = torch.zeros(num_rows, device=T_M.device).index_add(0, row_M, torch.ones_like(T_M))

    def mean(values_M: Tensor) -> Tensor:
        return torch.zeros_like(count_B).index_add(0, row_M, values_M) / count_B

    return mean(T_M), mean(P_M)
