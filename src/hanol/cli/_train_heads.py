"""`hanol autodeco train`: heads on a frozen base."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._heads import open_heads, rows_of, spread
from hanol.cli._options import (
    BaseModelOption,
    JsonOption,
    ResumeOption,
    SettingsOption,
)
from hanol.cli._progress import progress
from hanol.cli._report import reported
from hanol.errors import DataError, RecipeError


def train(
    model: Annotated[
        str, typer.Argument(help="Bundled name, folder or hub id: a base, or heads to go on with.")
    ],
    data: Annotated[str, typer.Option(help='JSON lines, or "stdlib". Required.')],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/heads"),
    base_model: BaseModelOption = None,
    verify: Annotated[
        str | None,
        typer.Option(
            help="Train on the model's own answers that pass: arithmetic, python, python:body, "
            "regex:PATTERN or module:function. Without it, on the completions given."
        ),
    ] = None,
    num_samples: Annotated[
        int, typer.Option("-n", min=1, help="Own answers sampled for each prompt.")
    ] = 4,
    keep: Annotated[int, typer.Option(min=1, help="Right answers kept of each prompt.")] = 2,
    max_prompts: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of rows, spread over the data. Omitted: all."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an own answer.")] = 512,
    max_length: Annotated[int, typer.Option(min=2, help="Longer rows are left out.")] = 4096,
    settings: SettingsOption = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train heads that choose temperature and top-p; the base stays as it is.

    Example: hanol autodeco train tiny --data stdlib --verify python:body --set cached=true
    """
    with reported(as_json=as_json):
        from hanol import autodeco, evaluation, scoring, training

        recipe = training.with_overrides(
            autodeco.HeadsSettings, {}, settings, "The recipe of the heads"
        )
        verifier = None if verify is None else scoring.parse_verifier(verify)
        own = out / "answers.jsonl"
        if not resume and (own.exists() or any(out.glob("checkpoint-*"))):
            # Said before an hour of sampling, which would replace the answers of that run.
            raise RecipeError(
                f"{str(out)!r} already holds a run. Go on with it by `--resume`, or give another "
                "`--out`."
            )
        rows = spread(rows_of(data, held_out=False), max_prompts)
        wrapped, tokenizer = open_heads(model, base_model, fresh=True)
        if verifier is not None and resume and own.exists():
            rows = autodeco.read_rows(own)
        elif verifier is not None:
            with progress("sampling", quiet=as_json) as report:
                sampled = evaluation.rejection_sample(
                    wrapped, tokenizer, rows, verifier, num_samples, keep=keep,
                    max_new_tokens=max_new_tokens, seed=recipe.seed, on_progress=report,
                )  # fmt: skip
            typer.echo(
                f"{sampled.num_accepted:,} of {sampled.num_samples:,} answers are right, "
                f"{sampled.num_solved:,} of {sampled.num_prompts:,} prompts have one; "
                f"{len(sampled.rows):,} are kept",
                err=True,
            )
            rows = sampled.rows
            if not rows:
                raise DataError(
                    "There is no right answer to train on. Ask for more with `-n` or "
                    "`--max-new-tokens`, or train on given completions without `--verify`."
                )
            autodeco.write_rows(rows, own)
        turns = [turn for row in rows for turn in row.turns]
        tokens = autodeco.tokenize(turns, tokenizer, max_length)
        if tokens.num_empty or tokens.num_too_long:
            typer.echo(
                f"left out: {tokens.num_empty:,} rows without a completion, "
                f"{tokens.num_too_long:,} longer than {max_length:,} tokens",
                err=True,
            )
        with progress("training", quiet=as_json) as report:
            result = autodeco.train_heads(
                wrapped, tokens.rows, recipe, out, resume=resume,
                on_step=lambda line: report(line["step"], recipe.steps, f"loss {line['loss']:.3f}"),
            )  # fmt: skip
    if as_json:
        typer.echo(result.model_dump_json())
        return
    typer.echo(
        f"{result.checkpoint}: T {result.temperature.mean:.2f} "
        f"({result.temperature.p5:.2f} to {result.temperature.p95:.2f})"
        + (
            f", P {result.top_p.mean:.2f} ({result.top_p.p5:.2f} to {result.top_p.p95:.2f})"
            if result.top_p is not None
            else ""
        )
        + f" on training rows; curves and histograms in {result.folder}"
    )
