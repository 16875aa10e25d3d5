"""Options that several commands take, each defined once.

A command takes a set of options, such as `SamplingOptions`, as one parameter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import typer

from hanol.cli._command import option
from hanol.errors import ConfigError

Mode = Literal["react", "markov", "resum"]
Turns = Literal["auto", "constrained", "free"]
Split = Literal["train", "dev", "test"]
N = TypeVar("N", int, float)
_Settings = TypeVar("_Settings")
_OWN = "Omitted: the default of the model or the agent."
_MODE = "Context of the agent: react keeps it whole, markov as a report, resum as summaries."
_ELSEWHERE = ("http", "https", "ray", "scripted", "cached")  # engines that are no checkpoint
_INDEX = "Folder of the index. Omitted: FOLDER/.hanol."


def numbers(kind: type[N], wanted: str, known: Sequence[N] = ()) -> Callable[[str], tuple[N, ...]]:
    """A parser of numbers separated by commas; where there are known ones, each at most once."""

    def parse(text: str) -> tuple[N, ...]:
        try:
            found = tuple(kind(part) for part in text.split(","))
            if not known or (set(found) <= set(known) and len(set(found)) == len(found)):
                return found
        except ValueError:
            pass
        raise typer.BadParameter(f"{text!r}: give {wanted}.")

    return parse


DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan with its estimates and stop.")
]
SeedOption = Annotated[int, typer.Option(help="Random seed; equal seeds give equal results.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Maximum number of runs at a time.")]
ModeOption = Annotated[Mode, typer.Option(help=_MODE)]
HOPS = option(
    "1,2,3",
    "Numbers of facts that a question chains, 1 to 5, separated by commas.",
    parser=numbers(int, "different numbers from 1 to 5, like 1,2,3", range(1, 6)),
    metavar="N,N,...",
)
SystemOption = Annotated[
    str | None, typer.Option("--system", help="System prompt. Omitted: the chat template's own.")
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", "-p", help="Text to continue. Omitted: read from standard input."),
]
IMAGES = option(None, "Image that the prompt is about; repeatable. Omitted: none.", "--image", "-i")
BaseModelOption = Annotated[
    str | None,
    typer.Option(
        help="Base model of the heads: folder, bundled name or hub id. "
        "Omitted: the one that the heads name."
    ),
]
IndexOption = Annotated[Path | None, typer.Option("--index", help=_INDEX)]
SourceArgument = Annotated[
    str, typer.Argument(help="Folder of documents, or a world: encyclopedia:SEED or factbook.")
]
FolderArgument = Annotated[Path, typer.Argument(help="Folder with the documents.")]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a checkpoint is loaded."""

    panel: ClassVar = "Model"
    dtype: str | None = option(
        None,
        "Data type of the weights: float32, bfloat16 or float16; on a CPU also int8, int4, or auto "
        "for the fastest that answers alike. Omitted: float32 on a CPU, else the checkpoint's own.",
    )
    device: str | None = option(None, "Device of the model, such as cuda. Omitted: cpu.")

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        named = {"dtype": self.dtype, "device": self.device}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SeeingOptions(LoadOptions):
    """How a checkpoint is loaded, and the images that it sees."""

    image: list[Path] | None = option(
        None, "Image that the prompt is about; repeatable. Omitted: none.", "--image", "-i"
    )
    tiles: int | None = option(
        None, "Maximum number of tiles of an image. Omitted: the model's own.", min=1
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options of loading that were given, by name."""
        return super().given | ({} if self.tiles is None else {"max_tiles": self.tiles})

    @property
    def images(self) -> tuple[Any, ...]:
        """The images as parts of a message.

        Raises:
            DataError: A file is no image, or damaged.
            MissingExtraError: Pillow is not installed.
        """
        return read_images(self.image or ())


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadOptions):
    """The model that answers, and how it is loaded."""

    model: str = option(
        ...,
        "Bundled name, checkpoint folder, hub id, or http://host:port/v1#name.",
        "--model",
        "-m",
    )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn; None leaves a value to the command's own settings."""

    panel: ClassVar = "Sampling"
    temperature: float | None = option(None, f"Sampling temperature; 0 is greedy. {_OWN}", min=0)
    top_p: float | None = option(
        None, "Sample from the most likely tokens whose probabilities add up to this share. " + _OWN
    )
    top_k: int | None = option(None, f"Sample from this many most likely tokens. {_OWN}", min=1)
    max_tokens: int | None = option(None, f"Maximum number of new tokens per answer. {_OWN}", min=1)
    seed: int = option(0, "Seed for sampling; equal seeds give equal texts.")
    stop: list[str] | None = option(None, "Text that ends an answer; repeatable. Omitted: none.")

    def over(self, base: _Settings) -> _Settings:
        """A `Sampling` with the given values in place of its own; the seed is passed apart."""
        given = {
            field.name: value
            for field in fields(SamplingOptions)
            if field.name != "seed" and (value := getattr(self, field.name)) is not None
        }
        try:
            return replace(base, **given)  # type: ignore[type-var]
        except ConfigError as err:
            raise typer.BadParameter(str(err)) from err


@dataclass(frozen=True, kw_only=True)
class AgentSamplingOptions(SamplingOptions):
    """How the turns of an agent are drawn."""

    greedy: bool = option(False, "Take the most likely token, without penalties.")
    own_sampling: bool = option(
        False,
        "Leave temperature and top-p to the model: to its AutoDeco heads, or to the defaults of "
        "its server.",
    )

    def sampling(self, base: Any) -> Any:
        """The `Sampling` of the turns, over that of the agent."""
        from hanol.research import GREEDY, OWN_SAMPLING

        fixed = (self.greedy, self.own_sampling, self.temperature is not None)
        if sum(fixed) > 1:
            raise typer.BadParameter("give one of --temperature, --greedy and --own-sampling.")
        return self.over(GREEDY if self.greedy else OWN_SAMPLING if self.own_sampling else base)


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """What a run may spend."""

    panel: ClassVar = "Budget"
    max_calls: int | None = option(
        None, "Maximum number of model calls. Omitted: the mode's own limit.", min=1
    )
    max_total_tokens: int | None = option(
        None, "Maximum number of prompt and answer tokens together. Omitted: no limit."
    )
    max_seconds: float | None = option(
        None, "Maximum time in model and tool calls, in seconds. Omitted: the mode's own limit."
    )
    max_cost: float | None = option(
        None, "Spending limit, in the same currency as the prices. Omitted: no limit."
    )
    prompt_price: float = option(0.0, "Price per million prompt tokens.")
    completion_price: float = option(0.0, "Price per million generated tokens.")

    def budget(self, base: _Settings) -> _Settings:
        """A `Budget` with the given limits in place of its own."""
        limits = {
            "model_calls": self.max_calls,
            "tokens": self.max_total_tokens,
            "seconds": self.max_seconds,
            "money": self.max_cost,
        }
        given = {name: value for name, value in limits.items() if value is not None}
        prices = {"prompt_price": self.prompt_price, "completion_price": self.completion_price}
        return replace(base, **given, **prices)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """What an agent may use besides the model."""

    panel: ClassVar = "Tools"
    index: Path | None = option(None, _INDEX)
    web: str | None = option(
        None, "Web search provider: address of a SearXNG server, or serper. Omitted: no web."
    )
    web_consent: bool = option(
        False, "Allow queries written after reading the documents to reach the web search provider."
    )
    unsafe_python: bool = option(False, "Run Python code even where it cannot be isolated.")


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """How a research agent works."""

    panel: ClassVar = "Agent"
    mode: Mode | None = option(None, f"{_MODE} Omitted: react, with --heavy markov.")
    heavy: int | None = option(
        None,
        "Run N agents and combine their reports into one answer. Omitted: one agent.",
        metavar="N",
        min=1,
        max=256,
    )
    compact: bool | None = option(
        None,
        "Short tool results. Omitted: for contexts of up to 8,192 tokens, without the web.",
    )
    turns: Turns = option(
        "auto",
        "Hold each turn to a grammar of the agent's tools: constrained always, free never, auto "
        "where the model can. Turns are read leniently in any case.",
    )
    system_prompt: Path | None = option(
        None, "File with the system prompt. Omitted: the built-in prompt."
    )
    today: datetime | None = option(
        None, "Date in the system prompt. Omitted: today.", formats=["%Y-%m-%d"]
    )


@dataclass(frozen=True, kw_only=True)
class ResearchOptions(AgentSamplingOptions, BudgetOptions, ToolOptions, AgentOptions, ModelOptions):
    """Everything about a research agent: model, mode, tools, limits and sampling."""


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """The world of a source such as encyclopedia:SEED."""

    panel: ClassVar = "World"
    num_entities: int | None = option(None, "Number of pages of an encyclopedia. Omitted: 300.")
    split: Split | None = option(
        None,
        "Names of an encyclopedia, or pages that questions of the factbook start at; no two splits "
        "share any. Omitted: train.",
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def read_images(paths: Sequence[Path]) -> tuple[Any, ...]:
    """Files as parts of a message; raises as `SeeingOptions.images`."""
    if not paths:
        return ()
    from hanol.engines import ImagePart
    from hanol.files import open_regular
    from hanol.multimodal import read_image

    kinds = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".gif": "gif"}
    parts = []
    for path in paths:
        read_image(path)  # what is wrong is told by name, before a model is loaded
        with open_regular(path) as file:
            parts.append(ImagePart(file.read(), f"image/{kinds.get(path.suffix.lower(), 'png')}"))
    return tuple(parts)


def is_checkpoint(spec: str) -> bool:
    """Whether a specification names a checkpoint, which this process runs."""
    return spec.partition(":")[0] not in _ELSEWHERE


def open_engine(spec: str, **options: Any) -> Any:
    """`hanol.engines.open_engine` for a process that trains nothing: a checkpoint opens sooner."""
    from hanol.engines import open_engine
    from hanol.models import light_imports

    if is_checkpoint(spec):
        light_imports()
    return open_engine(spec, **options)
