"""`hanol eval sampling`: AutoDeco's heads against static sampling settings."""

from pathlib import Path

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import new_console
from hanol.cli._options import BaseModelOption, SeedOption
from hanol.cli._progress import progress
from hanol.errors import ConfigError


@command
def sampling(
    model: str = argument("Checkpoint with AutoDeco heads: bundled name, folder or hub id."),
    task: str = option(
        ...,
        'JSON lines with "prompt" or "messages" (and "answer"); or "stdlib": functions of the '
        'standard library; or "tasks": small tasks for chat models.',
    ),
    verify: str = option(
        "python:body",
        "How an answer is checked: arithmetic, python, python:body, regex:PATTERN or "
        "module:function (of tasks: hanol.worlds:check_task).",
    ),
    base_model: BaseModelOption = None,
    max_prompts: int | None = option(
        None, "Maximum number of prompts, spread over the task. Omitted: all.", min=2
    ),
    num_samples: int = option(
        16, "Number of completions per prompt and seed.", "--num-samples", "-n", min=1
    ),
    num_seeds: int = option(1, "Number of seeds; the paper uses 8.", min=1),
    max_tokens: int = option(256, "Maximum number of new tokens per completion.", min=1),
    step: float = option(0.1, "Step of the search over temperatures and top-p.", min=0.05, max=1.0),
    grid: bool = option(False, "Search all pairs instead of one value after the other."),
    seed: SeedOption = 0,
    png: Path | None = option(None, "Image of accuracy against diversity to write. Omitted: none."),
    as_json: JsonOption = False,
) -> Result:
    """Compare AutoDeco's heads with static sampling settings on a task.

    The settings are greedy, the default, the best static one, each head alone and both. The best
    static setting is searched on one half of the prompts and scored on the other. Where the rows
    have completions, their bits per byte under each setting are printed too.

    Example: hanol eval sampling tiny-autodeco --task stdlib --max-prompts 40 -n 4
    """
    from hanol import autodeco, evaluation, scoring

    verifier = scoring.parse_verifier(verify)
    if png is not None and not png.parent.is_dir():
        raise ConfigError(f"There is no folder {str(png.parent)!r} for the image.")
    rows = autodeco.training_rows(task, max_prompts, held_out=True)
    wrapped, tokenizer = autodeco.open_heads(model, base_model)
    temperatures = [round(step * i, 2) for i in range(1, round(1.5 / step) + 1)]
    top_ps = sorted({min(1.0, round(step * i, 2)) for i in range(1, round(1 / step) + 1)} | {1})
    with progress("comparing", quiet=as_json) as report:
        comparison = evaluation.compare(
            wrapped, tokenizer,
            evaluation.DecodingTask.from_rows(
                task, rows, verifier, tokenizer, max_new_tokens=max_tokens
            ),
            method="grid" if grid else "coarse", temperatures=temperatures, top_ps=top_ps,
            samples=num_samples, seeds=num_seeds, seed=seed, rows=rows, on_progress=report,
        )  # fmt: skip
    if png is not None:
        comparison.plot(png)

    wide = new_console(width=max(120, new_console().width))
    return Result(comparison, lambda: wide.print(comparison.table()))
