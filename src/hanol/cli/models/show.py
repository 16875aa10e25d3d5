"""`hanol show`: a text, coloured by the temperatures that the model chose."""

from pathlib import Path
from typing import Annotated

import typer

from hanol.cli._options import BaseModelOption, JsonOption, PromptOption, SeedOption, command
from hanol.cli.models.generate import completed, read_prompt
from hanol.errors import ConfigError


@command
def show(
    model: Annotated[
        str, typer.Argument(help="Checkpoint with AutoDeco heads: bundled name, folder or hub id.")
    ] = "tiny-autodeco",
    prompt: PromptOption = None,
    base_model: BaseModelOption = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of new tokens.")] = 128,
    seed: SeedOption = 0,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most likely tokens.")] = False,
    html: Annotated[Path | None, typer.Option(help="HTML page to write. Omitted: none.")] = None,
    png: Annotated[Path | None, typer.Option(help="Image to write. Omitted: none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Complete a prompt and colour each token by its temperature.

    The temperatures are those that the model's AutoDeco heads choose.

    Example: hanol show tiny-autodeco -p "def mean(values):" --html trace.html
    """
    prompt = read_prompt(prompt)
    from hanol import autodeco
    from hanol.engines import CheckpointEngine, Request, Sampling
    from hanol.runs import synchronous

    wrapped = autodeco.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
    tokenizer = autodeco.load_tokenizer(model, base_model=base_model)
    engine = CheckpointEngine(wrapped, tokenizer, name=model, cache_bytes=0)
    sampling = Sampling(temperature=0.0 if greedy else None, seed=seed, max_tokens=max_tokens)
    done = completed(engine, Request(prompt_ids=engine.encode(prompt), sampling=sampling))
    synchronous(engine.aclose)()
    trace = autodeco.trace(
        wrapped, tokenizer, prompt, done.ids or (), finish_reason=done.finish_reason
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
