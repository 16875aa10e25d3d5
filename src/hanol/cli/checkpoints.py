"""`hanol inspect`, `merge` and `convert`: the commands about checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from hanol.cli._command import Result, argument, command, option
from hanol.cli._console import new_console
from hanol.cli._options import numbers
from hanol.files import check_new

if TYPE_CHECKING:
    from hanol.autodeco import HeadsReport
    from hanol.models import ModelReport, SpeedReport


@command
def inspect(
    checkpoint: str = argument(
        "Bundled or pulled name, preset, checkpoint folder, GGUF file or hub id.", "tiny"
    ),
    kernels: bool = option(
        False, "Print what computes each kind of layer on this machine, and why nothing faster."
    ),
    speed: bool = option(
        False, "Load it, and print tokens a second for each type of weights, measured once."
    ),
) -> Result:
    """Describe a checkpoint without loading its weights.

    Prints parameters, layers, cache sizes and the check of the official layout; for a checkpoint
    with AutoDeco heads or a LoRA adapter, these and their base.

    Example: hanol inspect kimi-linear-48b-a3b --json
    """
    from hanol import models

    if speed:
        model, tokenizer = models.load(checkpoint)
        measured = models.speed_report(checkpoint, model, tokenizer)
        return Result(measured, "\n".join(_speed_lines(measured)))
    report: ModelReport | HeadsReport
    if checkpoint in models.preset_names() or models.model_type(checkpoint) != "autodeco":
        report = models.inspect(checkpoint)
        if kernels:
            return Result({"kernels": report.kernels}, "\n".join(report.kernels))
        rows = _model_rows(report)
        title = f"{report.model} ({report.model_type})"
    else:
        from hanol import autodeco

        report = autodeco.inspect(checkpoint)
        rows, title = _heads_rows(report), report.path
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), show_header=False)
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))  # a path is no markup
    return Result(report, lambda: new_console().print(table))


@command
def merge(
    checkpoints: list[str] = argument(
        "Two or more checkpoints of one base model, or AutoDeco heads and their base.",
        metavar="CHECKPOINT",
    ),
    output: Path = option(..., "New folder for the merged checkpoint."),
    weights: Sequence[float] | None = option(
        None,
        "Weight of each checkpoint, separated by commas; they add up to 1. Omitted: equal weights.",
        parser=numbers(float, "numbers like 0.5,0.5"),
        metavar="W,W,...",
    ),
) -> Result:
    """Average checkpoints, or put AutoDeco heads into their base.

    Checkpoints that were trained from the same base are averaged. If the first one holds AutoDeco
    heads and the second their base, the result is one checkpoint as inference engines load it.

    Example: hanol merge runs/a/final runs/b/final --weights 0.5,0.5 --output runs/merged

    Example: hanol merge runs/heads/heads tiny --output my-model
    """
    from hanol import models

    if len(checkpoints) == 2 and models.model_type(checkpoints[0]) == "autodeco":
        if weights is not None:
            raise typer.BadParameter("--weights is for averages: heads and base have none.")
        from hanol import autodeco

        check_new(output)
        heads = autodeco.inspect(autodeco.merge(checkpoints[0], checkpoints[1], output))
        tensors = heads.base_tensors + len(heads.tensors)
        return Result(heads, f"{output}: {tensors:,} tensors, base and heads")
    from hanol import training

    merged = training.merge_checkpoints(checkpoints, weights, output)
    shares = ", ".join(f"{weight:g}" for weight in merged.weights)
    return Result(
        merged,
        f"{merged.folder}: {merged.parameters:,} parameters in {merged.tensors:,} tensors, "
        f"weights {shares}",
    )


@command
def convert(
    source: str = argument(
        "Bundled or pulled name, folder, GGUF file or hub id; a folder in Meta's layout too."
    ),
    target: Path | None = argument("New folder or GGUF file; or give --output.", None),
    to: Literal["transformers", "meta", "gguf", "heads"] | None = option(
        None,
        "Layout to write: a transformers folder (Kimi Linear with the official names), Meta's "
        "Llama files, a GGUF file, or only the AutoDeco heads of a merged checkpoint. Omitted: "
        "gguf for a name that ends in .gguf, else transformers.",
    ),
    output: Path | None = option(None, "New folder or GGUF file. Omitted: the second argument."),
    dtype: str | None = option(
        None, "Data type of the weights; GGUF takes float32 or float16. Omitted: float32."
    ),
    rope_factor: float | None = option(
        None, "RoPE scaling factor of a Meta source; 32 for Llama 3.2. Omitted: 8, for 3.1 and 3.3."
    ),
) -> Result:
    """Write a checkpoint or GGUF file in another layout.

    The heads of a merged checkpoint, and tensors whose data type stays, are copied bit for bit. A
    LoRA adapter is merged into its base.

    Example: hanol convert tiny --to gguf --output tiny.gguf

    Example: hanol convert model.gguf my-model

    Example: hanol convert my-model --to heads --output my-heads
    """
    if (target is None) == (output is None):
        raise typer.BadParameter("Name the new folder or file once: as second word or --output.")
    output = output or target
    assert output is not None
    check_new(output)
    to = to or ("gguf" if output.suffix == ".gguf" else "transformers")
    if to == "heads":
        if dtype is not None or rope_factor is not None:
            raise typer.BadParameter(
                "--dtype and --rope-factor are not for heads: they are copied."
            )
        from hanol import autodeco

        autodeco.split(source, output)
    else:
        from hanol import models

        models.convert(source, output, to=to, dtype=dtype, rope_factor=rope_factor)
    result = {"source": source, "layout": to, "output": str(output)}
    return Result(result, f"{output}: {source} in the layout {to}")


def _speed_lines(report: "SpeedReport") -> list[str]:
    if not report.speeds:
        return [f"{report.model} has no decode step of its own: float32 it stays."]
    limit = f"{report.bytes_per_second / 1e9:.1f} GB/s from memory"
    lines = [f"{report.model} on {report.machine}, {limit}"]
    for one in report.speeds:
        lines.append(
            f"{one.weights:<9}{one.tokens_per_second:8,.1f} tokens/s{one.num_bytes / 1e6:9,.0f} MB"
            f"{one.share_of_limit:7.0%} of the limit   KL from float32 {one.divergence:.4f}"
        )
    return [*lines, f"--dtype auto takes {report.taken}"]


def _model_rows(report: "ModelReport") -> dict[str, str]:
    cache = report.cache
    saved = 1 - cache.bytes_per_token / max(cache.twin_bytes_per_token, 1)
    share = report.active_parameters / report.parameters
    rows = {
        "parameters": f"{report.parameters:,}",
        "active for a token": f"{report.active_parameters:,} ({share:.1%})",
        **{f"{kind} layers": str(count) for kind, count in report.layers.items()},
        "vocabulary": f"{report.vocab_size:,}",
        "stored as": report.dtype,
        "cache per token": f"{cache.bytes_per_token:,} bytes",
        "cache, fixed part": f"{cache.fixed_bytes:,} bytes",
        "full-attention twin": f"{cache.twin_bytes_per_token:,} bytes per token "
        f"({saved:.1%} saved)",
    }
    if report.official_layout is not None:
        wrong = ", ".join((report.missing + report.unexpected)[:3])
        rows["official layout"] = "yes" if report.official_layout else f"no: {wrong} ..."
    if (adapter := report.adapter) is not None:
        rank = "of different ranks" if adapter.rank is None else f"of rank {adapter.rank}"
        rows["adapter"] = f"{adapter.kind} {rank} on {adapter.layers} layers"
        rows["parameters of the adapter"] = f"{adapter.parameters:,} ({adapter.num_bytes:,} bytes)"
        rows["base"] = adapter.base
    return rows


def _heads_rows(report: "HeadsReport") -> dict[str, str]:
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
    return rows | {name: " x ".join(map(str, shape)) for name, shape in report.tensors.items()}
