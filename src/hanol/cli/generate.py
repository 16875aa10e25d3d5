"""`hanol generate`: text from a model, streamed."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import (
    JsonOption,
    LoadOptions,
    ModelArgument,
    PromptOption,
    SamplingOptions,
    command,
)
from hanol.errors import ConfigError

if TYPE_CHECKING:
    from hanol.models import CacheSize, Generation, Loaded


@command
def generate(
    model: ModelArgument = "tiny",
    prompt: PromptOption = None,
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Number of completions.")] = 1,
    sampling: SamplingOptions = SamplingOptions(temperature=1.0, top_p=1.0, max_tokens=128),
    load: LoadOptions = LoadOptions(),
    as_json: JsonOption = False,
) -> None:
    """Complete a prompt with a model.

    The text streams to standard output; the speed and the size of the cache follow on standard
    error.

    Example: hanol generate tiny -p "def mean(values):" --temperature 0
    """
    prompt = read_prompt(prompt)
    from hanol import models

    loaded = _load(model, load)

    def show(text: str) -> None:
        # The prompt appears with the first token: a refused request prints nothing.
        sys.stdout.write("".join(head) + text)
        head.clear()
        sys.stdout.flush()

    # The first pass compiles and allocates; it would be measured as a slow prompt.
    models.generate(*loaded, prompt[:64], max_new_tokens=2, temperature=0)
    samples: list[Generation] = []
    for i in range(num_samples):
        head = [prompt] if i == 0 else [f"\n{'-' * 40}\n", prompt]
        samples += models.generate(
            *loaded,
            prompt,
            max_new_tokens=sampling.max_tokens or 128,
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            top_k=sampling.top_k,
            stop=sampling.stop or (),
            seed=sampling.seed + i,
            on_text=None if as_json else show,
        )
        if not as_json:
            show("")
    if as_json:
        typer.echo(json.dumps({"model": model, "prompt": prompt, "samples": _entries(samples)}))
        return
    typer.echo()
    base = getattr(loaded.model, "llm", loaded.model)  # of a model with heads
    _panel(model, samples[0], models.cache_size(base.config, base.dtype.itemsize))


def read_prompt(prompt: str | None) -> str:
    """The prompt, or what a pipe gives.

    Raises:
        ConfigError: There is neither.
    """
    if prompt is None and sys.stdin.isatty():
        raise ConfigError("There is no prompt: pass one with `--prompt`, or pipe one in.")
    return sys.stdin.read() if prompt is None else prompt


def _load(spec: str, load: LoadOptions) -> "Loaded":
    """A model with its tokenizer; one with AutoDeco's heads chooses temperature and top-p."""
    from hanol import models

    options: dict[str, Any] = {"device": load.device or "cpu"}
    if load.dtype is not None:
        options["dtype"] = models.dtype_named(load.dtype)
    if models.model_type(spec) != "autodeco":
        return models.load(spec, **options)
    from hanol import autodeco

    model = autodeco.AutoDecoForCausalLM.from_pretrained(spec, **options)
    return models.Loaded(model, autodeco.load_tokenizer(spec))


def _entries(samples: "list[Generation]") -> list[dict[str, Any]]:
    return [
        {
            **sample.model_dump(),
            "prefill_tokens_per_second": sample.prefill_rate,
            "decode_tokens_per_second": sample.decode_rate,
        }
        for sample in samples
    ]


def _panel(model: str, sample: "Generation", cache: "CacheSize") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=model, show_header=False)
    table.add_row("prompt", f"{sample.prompt_tokens} tokens at {sample.prefill_rate:,.0f} tokens/s")
    table.add_row("text", f"{len(sample.token_ids)} tokens at {sample.decode_rate:,.0f} tokens/s")
    table.add_row(
        "cache", f"{cache.bytes_per_token:,} bytes per token + {cache.fixed_bytes:,} fixed"
    )
    table.add_row("full-attention twin", f"{cache.twin_bytes_per_token:,} bytes per token")
    Console(stderr=True).print(table)
