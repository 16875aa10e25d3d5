"""`hanol generate` and `show`: text from a model, streamed or coloured by its temperatures."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import new_console, say, tell, write
from hanol.cli._options import (
    BaseModelOption,
    PromptOption,
    SamplingOptions,
    SeedOption,
    SeeingOptions,
    SystemOption,
    is_checkpoint,
    open_engine,
)
from hanol.errors import ConfigError
from hanol.files import replace_text, whole_file

if TYPE_CHECKING:
    from hanol.engines import Completion, Engine, Request
    from hanol.models import CacheSize


@command
def generate(
    model: str = argument(
        "Bundled name, checkpoint folder, hub id, or http://host:port/v1#name.", "tiny"
    ),
    prompt: PromptOption = None,
    system: SystemOption = None,
    raw: bool = option(False, "Complete the prompt as plain text, without a chat template."),
    num_samples: int = option(1, "Number of completions.", "--num-samples", "-n", min=1),
    sampling: SamplingOptions = SamplingOptions(max_tokens=128),
    load: SeeingOptions = SeeingOptions(),
    as_json: JsonOption = False,
) -> Result:
    """Answer or complete a prompt with a model.

    A model with a chat template answers the prompt as a message of the user, one without completes
    it, and so does any checkpoint with --raw. Models behind an endpoint answer. With --image, a
    model that reads images answers about them. The text streams to standard output; the speed and
    the size of the cache follow on standard error.

    Example: hanol generate tiny -p "def mean(values):" --temperature 0
    """
    if raw and (system is not None or load.image):
        one, what = ("system", "system prompt") if system is not None else ("image", "image")
        raise typer.BadParameter(f"give one of --{one} and --raw: a plain text has no {what}.")
    prompt = read_prompt(prompt)
    images = load.images
    from hanol.engines import Message, Request, Sampling, TextPart
    from hanol.runs import synchronous

    sampling.over(Sampling())  # wrong usage is told before a model is loaded
    # Only a checkpoint in this process continues a plain text; other engines answer a message.
    is_local = is_checkpoint(model)
    if raw and not is_local:
        raise ConfigError(
            f"{model!r} answers messages only: --raw is for a checkpoint in this process."
        )
    # Nothing is kept between the samples: the time of each prompt is its own.
    engine = open_engine(model, **load.given, **({"cache_bytes": 0} if is_local else {}))
    samples: list[Completion] = []
    try:
        # With a system prompt a missing template is an error, which the engine words.
        has_message = images or system is not None
        completes = is_local and (raw or not (engine.has_chat_template or has_message))
        if completes:
            asked = Request(prompt_ids=engine.encode(prompt))
        else:
            said = [] if system is None else [Message("system", system)]
            text = prompt.removesuffix("\n")
            content = (*images, TextPart(text)) if images else text
            asked = Request((*said, Message("user", content)))
            engine.check(asked)
        if is_local:
            if not completes:
                engine.count_tokens(asked.messages)  # renders them, or raises
                tell(f"chat template of {model} applied; --raw completes the text instead")
            # The first pass compiles and allocates; it would be measured as a slow prompt.
            short = Sampling(temperature=0.0, max_tokens=2)
            _completed(
                engine, Request(prompt_ids=engine.encode(prompt or "a")[:64], sampling=short)
            )
        base = sampling.over(engine.default_sampling)
        for i in range(num_samples):
            request = replace(asked, sampling=replace(base, seed=sampling.seed + i))
            # The prompt appears with the first token: a refused request prints nothing.
            head = [f"\n{'-' * 40}\n"] * (i > 0) + [prompt] * completes

            def show(text: str, head: list[str] = head) -> None:
                write("".join(head) + text)
                head.clear()

            samples.append(_completed(engine, request, None if as_json else show))
    finally:
        synchronous(engine.aclose)()
    plain = {"model": model, "prompt": prompt, "samples": [_entry(sample) for sample in samples]}
    return Result(plain, lambda: _panel(plain, engine.cache_size if is_local else None))


@command
def show(
    model: str = argument(
        "Checkpoint with AutoDeco heads: bundled name, folder or hub id.", "tiny-autodeco"
    ),
    prompt: PromptOption = None,
    base_model: BaseModelOption = None,
    max_tokens: int = option(128, "Maximum number of new tokens.", min=1),
    seed: SeedOption = 0,
    greedy: bool = option(False, "Take the most likely tokens."),
    html: Path | None = option(None, "HTML page to write. Omitted: none."),
    png: Path | None = option(None, "Image to write. Omitted: none."),
) -> Result:
    """Complete a prompt and colour each token by its temperature.

    The temperatures are those that the model's AutoDeco heads choose.

    Example: hanol show tiny-autodeco -p "def mean(values):" --html trace.html
    """
    prompt = read_prompt(prompt)
    from hanol import autodeco
    from hanol.engines import CheckpointEngine, Request, Sampling
    from hanol.models import light_imports
    from hanol.runs import synchronous

    light_imports()

    wrapped = autodeco.AutoDecoForCausalLM.from_pretrained(model, base_model=base_model)
    tokenizer = autodeco.load_tokenizer(model, base_model=base_model)
    engine = CheckpointEngine(wrapped, tokenizer, name=model, cache_bytes=0)
    sampling = Sampling(temperature=0.0 if greedy else None, seed=seed, max_tokens=max_tokens)
    try:
        done = _completed(engine, Request(prompt_ids=engine.encode(prompt), sampling=sampling))
    finally:
        synchronous(engine.aclose)()
    trace = autodeco.trace(
        wrapped, tokenizer, prompt, done.ids or (), finish_reason=done.finish_reason
    )
    if html is not None:
        replace_text(html, trace.to_html())
    if png is not None:
        with whole_file(png) as part:
            trace.to_png(part)

    return Result(trace, lambda: new_console().print(trace))


def _completed(
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
    """The prompt, or what a pipe gives; a `ConfigError` if there is neither, or no UTF-8."""
    if prompt is None and sys.stdin.isatty():
        raise ConfigError("There is no prompt: pass one with `--prompt`, or pipe one in.")
    try:
        text = sys.stdin.read() if prompt is None else prompt
        text.encode()
    except UnicodeError as err:
        raise ConfigError(f"The prompt is not valid UTF-8: {err}.") from err
    return text


def _entry(sample: "Completion") -> dict[str, Any]:
    """A sample with the speeds of the prompt and of the text after its first token, if measured."""
    usage = sample.usage
    prefill, decode = usage.prompt_seconds, usage.generation_seconds
    later = max(0, usage.generated_tokens - 1)
    return {
        "text": sample.text,
        "token_ids": sample.ids,
        "finish_reason": sample.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "generated_tokens": usage.generated_tokens,
        "prefill_seconds": prefill,
        "decode_seconds": decode,
        "prefill_tokens_per_second": usage.prompt_tokens / prefill if prefill else 0.0,
        "decode_tokens_per_second": later / decode if decode else 0.0,
    }


def _panel(plain: dict[str, Any], cache: "CacheSize | None") -> None:
    from rich.table import Table

    say()
    table = Table(title=plain["model"], show_header=False)
    for name, tokens, speed in (
        ("prompt", "prompt_tokens", "prefill_tokens_per_second"),
        ("text", "generated_tokens", "decode_tokens_per_second"),
    ):
        first = plain["samples"][0]
        pace = f" at {first[speed]:,.0f} tokens/s" if first[speed] else ""
        cut = name == "text" and first["finish_reason"] == "length"
        limit = ", cut at --max-tokens" if cut else ""
        table.add_row(name, f"{first[tokens]} tokens{pace}{limit}")
    if cache is not None:
        table.add_row(
            "cache", f"{cache.bytes_per_token:,} bytes per token + {cache.fixed_bytes:,} fixed"
        )
        table.add_row("full-attention twin", f"{cache.twin_bytes_per_token:,} bytes per token")
    new_console(stderr=True).print(table)
