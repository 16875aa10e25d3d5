"""`hanol generate`: text from a model, streamed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.cli._options import JsonOption
from hanol.cli._report import reported
from hanol.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from hanol.models import CacheSize, Generation, Loaded


def generate(
    model: Annotated[
        str, typer.Argument(help="Bundled name, checkpoint folder or hub id.")
    ] = "tiny",
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; read from a pipe when left out."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Stop after this many tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Share of probability to sample from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Number of completions.")] = 1,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the weights, such as bfloat16; float32 on CPU.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Complete a prompt with a model; text streams to standard output, speeds to standard error.

    Example: hanol generate tiny -p "def mean(values):" --temperature 0
    """
    with reported(as_json=as_json):
        if prompt is None:
            if sys.stdin.isatty():
                raise ConfigError("There is no prompt: pass one with `-p`, or pipe one in.")
            prompt = sys.stdin.read()
        from hanol import models

        loaded = _load(model, None if dtype is None else models.dtype_named(dtype))

        def show(text: str) -> None:
            sys.stdout.write(text)
            sys.stdout.flush()

        def show_first(text: str) -> None:
            # The prompt appears with the first token: a refused request prints nothing.
            while head:
                show(head.pop())
            show(text)

        # The first pass compiles and allocates; it would be measured as a slow prompt.
        models.generate(*loaded, prompt[:64], max_new_tokens=2, temperature=0)
        samples: list[Generation] = []
        for i in range(num_samples):
            head = [prompt] if i == 0 else [prompt, f"\n{'-' * 40}\n"]
            samples += models.generate(
                *loaded,
                prompt,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed + i,
                on_text=None if as_json else show_first,
            )
            if not as_json:
                show_first("")
        base = getattr(loaded.model, "llm", loaded.model)  # of a model with heads
        cache = models.cache_size(base.config, base.dtype.itemsize)
    if as_json:
        entries = [
            {
                **sample.model_dump(),
                "prefill_tokens_per_second": sample.prefill_rate,
                "decode_tokens_per_second": sample.decode_rate,
            }
            for sample in samples
        ]
        typer.echo(json.dumps({"model": model, "prompt": prompt, "samples": entries}))
        return
    typer.echo()
    _panel(model, samples[0], cache)


def _load(spec: str, dtype: "torch.dtype | None") -> "Loaded":
    """A model with its tokenizer; one with AutoDeco's heads chooses temperature and top-p."""
    from hanol import models

    config = Path(models.resolve(spec)) / "config.json"
    # Looked at first: importing what heads need takes a second.
    if config.exists() and json.loads(config.read_text("utf-8")).get("model_type") != "autodeco":
        return models.load(spec, dtype=dtype)
    from hanol import autodeco

    if models.load_config(spec).model_type != autodeco.AutoDecoConfig.model_type:
        return models.load(spec, dtype=dtype)
    model = autodeco.AutoDecoForCausalLM.from_pretrained(spec, dtype=dtype)
    return models.Loaded(model, autodeco.load_tokenizer(spec))


def _panel(model: str, sample: "Generation", cache: "CacheSize") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=model, show_header=False)
    table.add_row("prompt", f"{sample.prompt_tokens} tokens at {sample.prefill_rate:,.0f} tokens/s")
    table.add_row("text", f"{len(sample.token_ids)} tokens at {sample.decode_rate:,.0f} tokens/s")
    twin = cache.twin_bytes_per_token
    table.add_row(
        "cache", f"{cache.bytes_per_token:,} bytes per token + {cache.fixed_bytes:,} fixed"
    )
    table.add_row("full-attention twin", f"{twin:,} bytes per token")
    Console(stderr=True).print(table)
