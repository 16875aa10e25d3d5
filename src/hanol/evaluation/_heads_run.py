"""Heads trained on the model's own answers that are right, or on given ones."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hanol import autodeco
from hanol.autodeco import AutoDecoForCausalLM, HeadsRecipe, HeadsResult, Row
from hanol.errors import DataError
from hanol.evaluation._rejection import rejection_sample
from hanol.runs import ResumeGuard
from hanol.scoring import parse_verifier
from hanol.training import OnStep, last_checkpoint

_ANSWERS = "answers.jsonl"


def run_heads(
    recipe: HeadsRecipe,
    folder: Path,
    *,
    resume: bool = False,
    on_step: OnStep = lambda line: None,
    on_stage: Callable[[Any], None] = lambda result: None,
) -> HeadsResult:
    """Run a recipe of the kind `heads`; see `hanol.training.train`, which calls this.

    Own answers that are right are kept in `answers.jsonl`; a resumed run reads them back.
    """
    own = folder / _ANSWERS
    if not resume and (own.exists() or last_checkpoint(folder) is not None):
        # Said before an hour of sampling, which would replace the answers of that run.
        ResumeGuard(folder, {}).check(resume=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # decides what new heads are
        model, tokenizer = autodeco.open_heads(recipe.model, recipe.base_model, new=True)
    rows = autodeco.training_rows(recipe.data.rows, recipe.data.max_rows)
    if recipe.data.verify is not None:
        if not own.exists():
            autodeco.write_rows(_right_answers(recipe, model, tokenizer, rows, on_step), own)
        rows = autodeco.read_rows(own)
    turns = [turn for row in rows for turn in row.turns]
    tokens = autodeco.tokenize(turns, tokenizer, recipe.data.max_length)
    on_step(
        {
            "rows": len(tokens.rows),
            "rows_without_completion": tokens.num_empty,
            "rows_too_long": tokens.num_too_long,
        }
    )
    return autodeco.train_heads(model, tokens.rows, recipe, folder, resume=resume, on_step=on_step)


def _right_answers(
    recipe: HeadsRecipe,
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    on_step: OnStep,
) -> list[Row]:
    data = recipe.data
    sampled = rejection_sample(
        model,
        tokenizer,
        rows,
        parse_verifier(str(data.verify)),
        data.samples,
        keep=data.keep,
        max_new_tokens=data.max_new_tokens,
        seed=recipe.seed,
        on_progress=lambda done, total: on_step({"sampled": done, "of": total}),
    )
    on_step(
        {
            "right_answers": sampled.num_accepted,
            "answers": sampled.num_samples,
            "solved": sampled.num_solved,
            "prompts": sampled.num_prompts,
        }
    )
    if not sampled.rows:
        raise DataError(
            "There is no right answer to train on. Ask for more with `data.samples` or "
            "`data.max_new_tokens`, or train on given completions without `data.verify`."
        )
    return sampled.rows
