"""`hanol autodeco show`: a text, coloured by the temperatures that the model chose."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import BaseModelOption, HeadsArgument, JsonOption
from hanol.cli._report import reported
from hanol.errors import ConfigError


def show(
    model: HeadsArgument,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; read from a pipe when left out."),
    ] = None,
    base_model: BaseModelOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")] = 128,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely tokens.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also write an image.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Complete a prompt and colour each token by the temperature that the model chose for it.

    Example: hanol autodeco show my-heads -p "def mean(values):" --html trace.html
    """
    with reported(as_json=as_json):
        if prompt is None:
            if sys.stdin.isatty():
                raise ConfigError("There is no prompt: pass one with `-p`, or pipe one in.")
            prompt = sys.stdin.read()
        from hanol import autodeco

        wrapped = autodeco.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
        tokenizer = autodeco.load_tokenizer(model, base_model=base_model)
        trace = autodeco.trace(
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
