"""`hanol generate`: text from a model, streamed."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
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
    from hanol.engines import Completion, Engine, Request
    from hanol.models import CacheSize


@command
def generate(
    model: ModelArgument = "tiny",
    prompt: PromptOption = None,
    num_samples: Annotated[int, typer.Option("-n", min=1, help="Number of completions.")] = 1,
    sampling: SamplingOptions = SamplingOptions(max_tokens=128),
    load: LoadOptions = LoadOptions(),
    as_json: JsonOption = False,
) -> None:
    """Complete a prompt with a model.

    The text streams to standard output; the speed and the size of the cache follow on standard
    error.

    Example: hanol generate tiny -p "def mean(values):" --temperature 0
    """
    prompt = read_prompt(prompt)
    from hanol.engines import CheckpointEngine, Request, Sampling
    from hanol.runs import synchronous

    # Nothing is kept between the samples: the time of each prompt is its own.
    engine = CheckpointEngine.load(
        model, device=load.device or "cpu", dtype=load.dtype, cache_bytes=0
    )
    ids = engine.encode(prompt)
    base = sampling.over(Sampling(max_tokens=128))
    # The first pass compiles and allocates; it would be measured as a slow prompt.
    warm = Sampling(temperature=0.0, max_tokens=2)
    completed(engine, Request(prompt_ids=ids[:64], sampling=warm))
    samples: list[Completion] = []
    for i in range(num_samples):
        request = Request(prompt_ids=ids, sampling=replace(base, seed=sampling.seed + i))
        # The prompt appears with the first token: a refused request prints nothing.
        head = [prompt] if i == 0 else [f"\n{'-' * 40}\n", prompt]

        def show(text: str, head: list[str] = head) -> None:
            sys.stdout.write("".join(head) + text)
            head.clear()
            sys.stdout.flush()

        samples.append(completed(engine, request, None if as_json else show))
    synchronous(engine.aclose)()
    if as_json:
        typer.echo(json.dumps({"model": model, "prompt": prompt, "samples": _entries(samples)}))
        return
    typer.echo()
    _panel(model, samples[0], engine.cache_size)


def completed(
    engine: "Engine", request: "Request", on_text: Callable[[str], None] | None = None
) -> "Completion":
    """The completion of one request, whose text is shown as it comes."""
    from hanol.runs import synchronous

    for piece in synchronous(engine.stream)(request):
        if on_text is not None:
            on_text(piece.text)
    assert piece.completion is not None
    return piece.completion


def read_prompt(prompt: str | None) -> str:
    """The prompt, or what a pipe gives.

    Raises:
        ConfigError: There is neither.
    """
    if prompt is None and sys.stdin.isatty():
        raise ConfigError("There is no prompt: pass one with `--prompt`, or pipe one in.")
    return sys.stdin.read() if prompt is None else prompt


def _speeds(sample: "Completion") -> tuple[float, float]:
    """Tokens a second of the prompt, and of the text after its first token."""
    usage = sample.usage
    later = max(0, usage.generated_tokens - 1)
    return (
        usage.prompt_tokens / max(usage.prompt_seconds, 1e-9),
        later / usage.generation_seconds if usage.generation_seconds else 0.0,
    )


def _entries(samples: "list[Completion]") -> list[dict[str, Any]]:
    return [
        {
            "text": sample.text,
            "token_ids": sample.ids,
            "finish_reason": sample.finish_reason,
            "prompt_tokens": sample.usage.prompt_tokens,
            "prefill_seconds": sample.usage.prompt_seconds,
            "decode_seconds": sample.usage.generation_seconds,
            "prefill_tokens_per_second": _speeds(sample)[0],
            "decode_tokens_per_second": _speeds(sample)[1],
        }
        for sample in samples
    ]


def _panel(model: str, sample: "Completion", cache: "CacheSize") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=model, show_header=False)
    usage, (prompt, text) = sample.usage, _speeds(sample)
    table.add_row("prompt", f"{usage.prompt_tokens} tokens at {prompt:,.0f} tokens/s")
    table.add_row("text", f"{usage.generated_tokens} tokens at {text:,.0f} tokens/s")
    table.add_row(
        "cache", f"{cache.bytes_per_token:,} bytes per token + {cache.fixed_bytes:,} fixed"
    )
    table.add_row("full-attention twin", f"{cache.twin_bytes_per_token:,} bytes per token")
    Console(stderr=True).print(table)
