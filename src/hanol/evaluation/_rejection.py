"""A model's own answers, those that a verifier accepts, and heads trained on them.

Source: arXiv 2510.26697, section 3.1. How many samples a problem and which filters the authors used
is not published: four at temperature 1, at most two kept, is our choice.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import autodeco
from hanol.autodeco import AutoDecoForCausalLM, HeadsRecipe, HeadsResult, Row, prompt_ids
from hanol.errors import DataError, require
from hanol.evaluation._sample import DecodingTask, Progress, StaticSetting, sample
from hanol.runs import ResumeGuard, can_reuse, note_sources
from hanol.scoring import PythonVerifier, Verifier, answer_of, needs_answer, parse_verifier
from hanol.training import FREE, OnStep, last_checkpoint

_ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class RejectionSamples:
    """What rejection sampling kept.

    Attributes:
        rows: Verified completions with the tokens that were sampled.
        num_solved: Problems with a verified completion.
        num_accepted: Verified ones, those above the cap included.
    """

    rows: list[Row]
    num_solved: int
    num_accepted: int


def rejection_sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Row],
    verifier: Verifier,
    n: int = 4,
    keep: int = 2,
    *,
    max_new_tokens: int = 512,
    batch_size: int = 32,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> RejectionSamples:
    """Sample a model's own answers and keep those that a verifier accepts.

    A completion counts when it ended by itself; with a verifier that cuts ("python:body") what lies
    before the cut counts. Equal completions of a problem are kept once.

    Args:
        model: The base; of a model with heads, its base.
        prompts: Problems; completions that they have are not looked at.
        n: Completions a problem, at temperature 1 without any truncation.
        keep: At most this many completions of one problem, so that easy ones do not take over.
        seed: The same seed gives the same completions; as in `sample`.
        on_progress: Called with the problems sampled and their number.

    Returns:
        The kept rows, in the order of the problems.

    Raises:
        ConfigError: A number is out of range, or a prompt leaves no room for `max_new_tokens`.
        DataError: A row lacks what the verifier compares with, or a prompt is empty.
    """
    if needs_answer(verifier):
        for row in prompts:
            answer_of(row)  # before an hour of sampling, not after it
    completions = sample(
        model.llm if isinstance(model, AutoDecoForCausalLM) else model,
        tokenizer,
        DecodingTask(
            "own answers",
            [prompt_ids(row, tokenizer) for row in prompts],
            verify=lambda *_: True,  # below: it needs the row
            max_new_tokens=max_new_tokens,
        ),
        StaticSetting(),
        n=n,
        seed=seed,
        batch_size=batch_size,
        on_progress=on_progress,
    )
    rows: list[Row] = []
    accepted = solved = 0
    for row, answers in zip(prompts, completions, strict=True):
        kept: dict[str, Row] = {}
        before = accepted
        for answer in answers:
            right = _right(row, tokenizer, answer.token_ids, answer.stopped, verifier)
            if right is None:
                continue
            accepted += 1
            if len(kept) < keep:
                kept.setdefault(right.completion, right)
        solved += accepted > before
        rows += kept.values()
    return RejectionSamples(rows=rows, num_solved=solved, num_accepted=accepted)


def _right(
    row: Row, tokenizer: PreTrainedTokenizerBase, ids: list[int], ended: bool, verifier: Verifier
) -> Row | None:
    """The row with its completion, if it has an end and is right."""
    prompt = row.prompt_text(tokenizer)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if isinstance(verifier, PythonVerifier) and verifier.body:
        part = verifier.cut(prompt, text)
        if part is None or (part == text and not ended):
            return None
        if part != text:
            text, ids = part, _tokens_of(part, ids, tokenizer)
        right = bool(ids)
    else:
        right = ended and verifier(prompt, text, row)
    return replace(row, completion=text, completion_ids=tuple(ids)) if right else None


def _tokens_of(part: str, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The longest run of leading tokens whose text does not go beyond `part`."""

    def length(count: int) -> int:
        return len(tokenizer.decode(ids[:count], skip_special_tokens=True))

    return ids[: bisect_right(range(1, len(ids) + 1), len(part), key=length)]


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
    require("matplotlib", extra="train", feature="Training")
    require("accelerate", extra="train", feature="Training")
    own = folder / _ANSWERS
    content = {"recipe": recipe.model_dump(mode="json")}
    guard = ResumeGuard(folder, content, free=FREE, made=[_ANSWERS])
    saved = last_checkpoint(folder)
    if own.exists() or saved is not None:
        guard.check(resume=resume)  # before an hour of sampling, or training on others' answers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # decides what new heads are
        model, tokenizer = autodeco.open_heads(recipe.model, recipe.base_model, new=True)
    rows = autodeco.training_rows(recipe.data.rows, recipe.data.max_rows)
    questions = None
    if recipe.data.verify is not None:
        questions = len(rows)
        sources = {"rows": sha256(repr(rows).encode()).hexdigest()}
        if not can_reuse(own, sources, in_use=saved is not None):
            answers = _right_answers(recipe, model, tokenizer, rows, on_step)
            guard.write()  # says whose answers they are
            autodeco.write_rows(answers, own)
            note_sources(own, sources)
        rows = autodeco.read_rows(own)
    turns = [turn for row in rows for turn in row.turns]
    tokens = autodeco.tokenize(turns, tokenizer, recipe.data.max_length)
    left_out = {"rows_without_completion": tokens.num_empty, "rows_too_long": tokens.num_too_long}
    on_step({"rows": len(tokens.rows), **left_out})
    return autodeco.train_heads(
        model, tokens.rows, recipe, folder, resume=resume, questions=questions, on_step=on_step
    )


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
    answers = {"right_answers": sampled.num_accepted, "answers": len(rows) * data.samples}
    on_step({**answers, "solved": sampled.num_solved, "prompts": len(rows)})
    if not sampled.rows:
        raise DataError(
            "There is no right answer to train on. Ask for more with `data.samples` or "
            "`data.max_new_tokens`, or train on given completions without `data.verify`."
        )
    return sampled.rows
