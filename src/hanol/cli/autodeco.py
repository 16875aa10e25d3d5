"""`hanol autodeco`: models that choose their temperature and top-p for every token."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._report import reported
from hanol.errors import ConfigError, DataError, RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hanol.decoding import AutoDecoForCausalLM, Row

_STDLIB = "stdlib"  # the functions of the standard library in the place of a file

app = typer.Typer(
    no_args_is_help=True,
    help="Models that choose temperature and top-p for every token (arXiv 2510.26697).",
)

_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Out = Annotated[Path, typer.Argument(help="Folder to write; a checkpoint there is replaced.")]
_BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", help="Base to use in the place of the one that the heads name."),
]


_Data = Annotated[
    str,
    typer.Option(
        help='JSON lines with "prompt" and "completion" or "messages", or "stdlib": the functions '
        "of the standard library."
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value that replaces a value of the recipe; repeatable."),
]


@app.command()
def merge(
    heads: Annotated[str, typer.Argument(help="Heads-only folder or hub id.")],
    base: Annotated[str, typer.Argument(help="Folder, bundled name or hub id of their base.")],
    out: _Out,
    as_json: _AsJson = False,
) -> None:
    """Put heads and their base into one checkpoint, as inference engines load it.

    Example: hanol autodeco merge my-heads tiny my-model
    """
    with reported(as_json=as_json):
        from hanol import decoding

        report = decoding.inspect(decoding.merge(heads, base, out))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    typer.echo(f"wrote {out}: {report.base_tensors + len(report.tensors)} tensors")


@app.command()
def split(
    merged: Annotated[str, typer.Argument(help="Merged checkpoint: folder or hub id.")],
    out: _Out,
    as_json: _AsJson = False,
) -> None:
    """Take the heads out of a merged checkpoint, bit for bit.

    Example: hanol autodeco split my-model my-heads
    """
    with reported(as_json=as_json):
        from hanol import decoding

        report = decoding.inspect(decoding.split(merged, out))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    typer.echo(f"wrote {out}: {len(report.tensors)} tensors, {report.num_bytes:,} bytes")


@app.command()
def inspect(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint with heads: folder or hub id.")],
    as_json: _AsJson = False,
) -> None:
    """Print which heads a checkpoint holds, without loading its weights.

    Example: hanol autodeco inspect my-heads --json
    """
    with reported(as_json=as_json):
        from hanol import decoding

        report = decoding.inspect(checkpoint)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(report.path), show_header=False)
    heads = {"temperature": report.temperature_head, "top-p": report.top_p_head}
    rows = {
        "layout": report.layout,
        "heads": ", ".join(name for name, there in heads.items() if there),
        "top-p head reads statistics": {True: "yes", False: "no", None: "-"}[report.enhanced],
        "parameters of the heads": f"{report.parameters:,} ({report.dtype})",
        "hidden width": f"{report.hidden_size:,}",
        "vocabulary": "not stated" if report.vocab_size is None else f"{report.vocab_size:,}",
        "base": f"{report.base_model or 'not named'} ({report.base_model_type or 'unknown type'})",
        "tensors of the base": f"{report.base_tensors:,}",
        "size": f"{report.num_bytes:,} bytes",
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))  # a path is no markup
    for name, shape in report.tensors.items():
        table.add_row(Text(name), " x ".join(map(str, shape)))
    Console().print(table)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Checkpoint with heads: folder or hub id.")],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; read from a pipe when left out."),
    ] = None,
    base_model: _BaseModel = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely tokens.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also write an image.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Complete a prompt and colour each token by the temperature that the model chose for it.

    Example: hanol autodeco show my-heads -p "def mean(values):" --html trace.html
    """
    with reported(as_json=as_json):
        if prompt is None:
            if sys.stdin.isatty():
                raise ConfigError("There is no prompt: pass one with `-p`, or pipe one in.")
            prompt = sys.stdin.read()
        from hanol import decoding

        wrapped = decoding.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
        tokenizer = decoding.load_tokenizer(model, base_model=base_model)
        trace = decoding.trace(
            wrapped, tokenizer, prompt, max_new_tokens=max_new_tokens, seed=seed, greedy=greedy
        )
        try:
            if html is not None:
                html.write_text(trace.to_html(), "utf-8")
            if png is not None:
                trace.to_png(png)
        except OSError as err:
            raise ConfigError(f"{err.filename!r} could not be written: {err.strerror}.") from err
    if as_json:
        typer.echo(trace.to_json())
        return
    from rich.console import Console

    Console().print(trace.to_rich())


@app.command()
def train(
    model: Annotated[
        str, typer.Argument(help="Bundled name, folder or hub id: a base, or heads to go on with.")
    ],
    data: _Data,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/heads"),
    base_model: _BaseModel = None,
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
        int | None, typer.Option(min=1, help="Use this many rows, spread over the data.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an own answer.")] = 512,
    max_length: Annotated[int, typer.Option(min=2, help="Longer rows are left out.")] = 4096,
    settings: _Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Train heads that choose temperature and top-p; the base stays as it is.

    Example: hanol autodeco train tiny --data stdlib --verify python:body --set cached=true
    """
    with reported(as_json=as_json):
        from hanol import decoding, training

        recipe = training.with_overrides(
            decoding.HeadsRecipe, {}, settings, "The recipe of the heads"
        )
        verifier = None if verify is None else decoding.parse_verifier(verify)
        own = out / "answers.jsonl"
        if not resume and (own.exists() or any(out.glob("checkpoint-*"))):
            # Said before an hour of sampling, which would replace the answers of that run.
            raise RecipeError(
                f"{str(out)!r} already holds a run. Go on with it by `--resume`, or give another "
                "`--out`."
            )
        rows = _spread(_rows(data, held_out=False), max_prompts)
        wrapped, tokenizer = _open(model, base_model, fresh=True)
        if verifier is not None and resume and own.exists():
            rows = decoding.read_rows(own)
        elif verifier is not None:
            with _progress("sampling", as_json) as report:
                sampled = decoding.rejection_sample(
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
            decoding.write_rows(rows, own)
        tokens = decoding.tokenize(rows, tokenizer, max_length)
        if tokens.num_empty or tokens.num_too_long:
            typer.echo(
                f"left out: {tokens.num_empty:,} rows without a completion, "
                f"{tokens.num_too_long:,} longer than {max_length:,} tokens",
                err=True,
            )
        with _progress("training", as_json) as report:
            result = decoding.train_heads(
                wrapped, tokens.rows, recipe, out, resume,
                on_step=lambda step, line: report(step, recipe.steps, f"loss {line['loss']:.3f}"),
            )  # fmt: skip
    if as_json:
        typer.echo(result.model_dump_json())
        return
    typer.echo(
        f"{result.heads}: T {result.temperature.mean:.2f} "
        f"({result.temperature.p5:.2f} to {result.temperature.p95:.2f})"
        + (
            f", P {result.top_p.mean:.2f} ({result.top_p.p5:.2f} to {result.top_p.p95:.2f})"
            if result.top_p is not None
            else ""
        )
        + f" on training rows; curves and histograms in {result.folder}"
    )


@app.command()
def compare(
    model: Annotated[str, typer.Argument(help="Folder, bundled name or hub id.")],
    task: Annotated[
        str,
        typer.Option(help='JSON lines with "prompt" or "messages" (and "answer"), or "stdlib".'),
    ],
    verify: Annotated[
        str, typer.Option(help="arithmetic, python, python:body, regex:PATTERN or module:function.")
    ] = "python:body",
    base_model: _BaseModel = None,
    max_prompts: Annotated[
        int | None, typer.Option(min=2, help="Use this many rows, spread over the task.")
    ] = None,
    num_samples: Annotated[
        int, typer.Option("-n", min=1, help="Completions of a prompt with one seed.")
    ] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="How often they are drawn; the paper's 8.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a completion.")] = 256,
    step: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="Of the search over static settings.")
    ] = 0.1,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search all pairs, not one value after the other.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same comparison.")] = 0,
    png: Annotated[Path | None, typer.Option(help="Also draw accuracy against diversity.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Compare greedy, default, the best static setting, each head alone and AutoDeco on a task.

    The best static setting is searched on one half of the prompts and scored on the other. Where
    the rows have completions, their bits per byte under each setting are printed too.

    Example: hanol autodeco compare my-heads --task stdlib --max-prompts 40 -n 4
    """
    with reported(as_json=as_json):
        from hanol import decoding

        verifier = decoding.parse_verifier(verify)
        if png is not None and not png.parent.is_dir():
            raise ConfigError(f"There is no folder {str(png.parent)!r} for the image.")
        rows = _spread(_rows(task, held_out=True), max_prompts)
        wrapped, tokenizer = _open(model, base_model, fresh=False)
        temperatures = [round(step * i, 2) for i in range(1, round(1.5 / step) + 1)]
        top_ps = sorted({min(1.0, round(step * i, 2)) for i in range(1, round(1 / step) + 1)} | {1})
        with _progress("comparing", as_json) as report:
            comparison = decoding.compare(
                wrapped, tokenizer,
                decoding.Task.from_rows(
                    task, rows, verifier, tokenizer, max_new_tokens=max_new_tokens
                ),
                method="grid" if grid else "coarse", temperatures=temperatures, top_ps=top_ps,
                samples=num_samples, seeds=seeds, seed=seed, rows=rows, on_progress=report,
            )  # fmt: skip
        if png is not None:
            comparison.plot(png)
    if as_json:
        typer.echo(comparison.model_dump_json())
        return
    from rich.console import Console

    Console(width=max(120, Console().width)).print(comparison.table())


@app.command()
def steer(
    model: Annotated[str, typer.Argument(help="Checkpoint with trained heads: folder or hub id.")],
    data: _Data,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/steering"),
    base_model: _BaseModel = None,
    max_prompts: Annotated[
        int | None, typer.Option(min=1, help="Use this many rows, spread over the data.")
    ] = None,
    num_held_out: Annotated[
        int, typer.Option("--held-out", min=1, help="Rows of the report, not trained on.")
    ] = 100,
    settings: _Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Train heads to follow words such as "be more diverse", in English and Korean, and report.

    Example: hanol autodeco steer my-heads --data stdlib --set 'template="# {command}\\n{prompt}"'
    """
    with reported(as_json=as_json):
        from hanol import decoding, training

        recipe = training.with_overrides(
            decoding.SteeringRecipe, {}, settings, "The recipe of the steering"
        )
        rows = _spread(_rows(data, held_out=False), max_prompts)
        if data == _STDLIB:
            test = _spread(_rows(data, held_out=True), num_held_out)
        else:
            if len(rows) <= num_held_out:
                raise DataError(
                    f"{data!r} has {len(rows)} rows, of which {num_held_out} are held out: none is "
                    "left to train on. Lower `--held-out`."
                )
            rows, test = rows[:-num_held_out], rows[-num_held_out:]
        wrapped, tokenizer = _open(model, base_model, fresh=False)
        with _progress("training", as_json) as report:
            heads = decoding.train_steering(
                wrapped, tokenizer, rows, recipe, out, resume=resume,
                on_step=lambda step, line: report(step, recipe.steps, f"loss {line['loss']:.3f}"),
            )  # fmt: skip
        found = decoding.steering_report(
            wrapped, tokenizer, test, template=recipe.template, max_length=recipe.max_length
        )
    if as_json:
        typer.echo(json.dumps({"heads": str(heads), **found.model_dump(mode="json")}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found.prompts} held-out prompts, held-out words")
    columns = ("", "no words", "less diverse", "moves down", "more diverse", "moves up")
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right")
    for name, moved in (("temperature", found.temperature), ("top-p", found.top_p)):
        if moved is not None:
            shares = [
                f"{s.share:.0%} ({s.low:.0%} to {s.high:.0%})"
                for s in (moved.low_moves, moved.high_moves)
            ]
            values = [f"{v:.2f}" for v in (moved.base, moved.low, moved.high)]
            table.add_row(name, values[0], values[1], shares[0], values[2], shares[1])
    Console().print(table)
    typer.echo(f"heads: {heads}")


def _rows(source: str, *, held_out: bool) -> "list[Row]":
    """Rows of a file, or functions of the standard library."""
    from hanol import decoding

    if source == _STDLIB:
        return decoding.function_rows(held_out=held_out)
    return decoding.read_rows(source)


def _spread(rows: "list[Row]", number: int | None) -> "list[Row]":
    """So many rows at equal distances."""
    if number is None or number >= len(rows):
        return rows
    return [rows[i * len(rows) // number] for i in range(number)]


def _open(
    model: str, base_model: str | None, *, fresh: bool
) -> "tuple[AutoDecoForCausalLM, PreTrainedTokenizerBase]":
    """Heads with their base; with `fresh` also a base without heads, which gets new ones."""
    from hanol import decoding, models

    if fresh and models.load_config(model).model_type != decoding.AutoDecoConfig.model_type:
        loaded = models.load(model)
        return decoding.AutoDecoForCausalLM.from_base(
            loaded.model, base_name=model
        ), loaded.tokenizer
    wrapped = decoding.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
    return wrapped, decoding.load_tokenizer(model, base_model=base_model)


@contextmanager
def _progress(title: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar on standard error with the time left; called with what is done, the total, a note."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} % {task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    )
    with bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)
