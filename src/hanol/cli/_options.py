"""Options that several commands take, each defined once.

A command takes a set of options, such as `SamplingOptions`, as one parameter; `command` puts the
options of the set into the command's signature, where typer finds them.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from hanol.cli._report import reported

Mode = Literal["react", "markov", "resum"]
Split = Literal["train", "dev", "test"]
_Settings = TypeVar("_Settings")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, also when the command fails.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest checkpoint in --output.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the recipe, such as `optimizer.lr=1e-3`; repeatable. "
        "Omitted: the recipe as it is.",
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan with its estimates and stop.")
]
SeedOption = Annotated[int, typer.Option(help="Random seed; equal seeds give equal results.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Number of runs at the same time.")]
ModeOption = Annotated[
    Mode,
    typer.Option(help="How the agent keeps its context: whole, as a report, or as summaries."),
]
HopsOption = Annotated[
    str, typer.Option(help="Numbers of facts that a question chains, 1 to 5, separated by commas.")
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", "-p", help="Text to continue. Omitted: read from standard input."),
]
BaseModelOption = Annotated[
    str | None,
    typer.Option(
        help="Base model of the heads: folder, bundled name or hub id. "
        "Omitted: the one that the heads name."
    ),
]
IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index. Omitted: FOLDER/.hanol.")
]
SourceArgument = Annotated[
    str, typer.Argument(help="Folder of documents, or a generated world: encyclopedia:SEED.")
]
FolderArgument = Annotated[Path, typer.Argument(help="Folder with the documents.")]
ModelArgument = Annotated[
    str, typer.Argument(help="Bundled name, checkpoint folder or hub id of the model.")
]


def _in(panel: str, *names: str, help: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a checkpoint is loaded."""

    dtype: Annotated[
        str | None,
        _in(
            "Model",
            help="Data type of the weights: float32, bfloat16 or float16. "
            "Omitted: float32 on a CPU, else the checkpoint's own.",
        ),
    ] = None
    device: Annotated[
        str | None, _in("Model", help="Device of the model, such as cuda. Omitted: cpu.")
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        named = {"dtype": self.dtype, "device": self.device}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(LoadOptions):
    """The model that answers, and how it is loaded."""

    model: Annotated[
        str,
        _in(
            "Model",
            "--model",
            "-m",
            help="Bundled name, checkpoint folder, hub id, or http://host:port/v1#name.",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are drawn; None leaves a value to the command's own settings."""

    temperature: Annotated[
        float | None,
        _in("Sampling", min=0, help="Sampling temperature; 0 is greedy. Omitted: the default of "
            "the model or the agent."),
    ] = None  # fmt: skip
    top_p: Annotated[
        float | None,
        _in("Sampling", help="Sample from the most likely tokens that hold this share of the "
            "probability. Omitted: the default of the model or the agent."),
    ] = None  # fmt: skip
    top_k: Annotated[
        int | None,
        _in("Sampling", min=1, help="Sample from this many most likely tokens. Omitted: all."),
    ] = None
    max_tokens: Annotated[
        int | None,
        _in("Sampling", min=1, help="Maximum number of new tokens per answer. Omitted: the "
            "default of the model or the agent."),
    ] = None  # fmt: skip
    seed: Annotated[
        int, _in("Sampling", help="Seed for sampling; equal seeds give equal texts.")
    ] = 0
    stop: Annotated[
        list[str] | None,
        _in("Sampling", help="Text that ends an answer; repeatable. Omitted: none."),
    ] = None

    def over(self, base: _Settings) -> _Settings:
        """A `Sampling` with the given values in place of its own; the seed is passed apart."""
        given = {
            field.name: value
            for field in fields(SamplingOptions)
            if field.name != "seed" and (value := getattr(self, field.name)) is not None
        }
        return replace(base, **given)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class AgentSamplingOptions(SamplingOptions):
    """How the turns of an agent are drawn."""

    greedy: Annotated[
        bool, _in("Sampling", "--greedy", help="Take the most likely token, without penalties.")
    ] = False
    own_sampling: Annotated[
        bool,
        _in("Sampling", "--own-sampling", help="Leave temperature and top-p to the model: to its "
            "AutoDeco heads, or to its server's defaults."),
    ] = False  # fmt: skip

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

    max_calls: Annotated[
        int | None,
        _in("Budget", min=1, help="Maximum number of model calls. Omitted: the mode's own limit."),
    ] = None
    max_total_tokens: Annotated[
        int | None,
        _in("Budget", help="Maximum number of prompt and answer tokens together. Omitted: no "
            "limit."),
    ] = None  # fmt: skip
    max_seconds: Annotated[
        float | None,
        _in("Budget", help="Maximum time in model and tool calls, in seconds. Omitted: the mode's "
            "own limit."),
    ] = None  # fmt: skip
    max_cost: Annotated[
        float | None,
        _in("Budget", help="Spending limit, in the currency of the prices. Omitted: no limit."),
    ] = None
    prompt_price: Annotated[float, _in("Budget", help="Price per million prompt tokens.")] = 0.0
    completion_price: Annotated[
        float, _in("Budget", help="Price per million generated tokens.")
    ] = 0.0

    def over(self, base: _Settings) -> _Settings:
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

    index: Annotated[
        Path | None, _in("Tools", help="Folder of the index. Omitted: FOLDER/.hanol.")
    ] = None
    web: Annotated[
        str | None,
        _in("Tools", help="Search the web through a SearXNG address, or serper. Omitted: no web."),
    ] = None
    web_consent: Annotated[
        bool,
        _in("Tools", "--web-consent", help="Allow queries written after reading the documents to "
            "reach the web search provider."),
    ] = False  # fmt: skip
    unsafe_python: Annotated[
        bool,
        _in("Tools", "--unsafe-python", help="Run Python code even where it cannot be isolated."),
    ] = False


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """How a research agent works."""

    mode: Annotated[
        Mode | None,
        _in("Agent", help="How the agent keeps its context: whole, as a report, or as summaries. "
            "Omitted: react, with --heavy markov."),
    ] = None  # fmt: skip
    heavy: Annotated[
        int | None,
        _in("Agent", metavar="N", min=1, help="Run N agents and combine their reports into one "
            "answer. Omitted: one agent."),
    ] = None  # fmt: skip
    compact: Annotated[
        bool,
        _in("Agent", "--compact", help="Short tool results, for models with a small context."),
    ] = False
    system_prompt: Annotated[
        Path | None,
        _in("Agent", help="File with the system prompt. Omitted: the built-in prompt."),
    ] = None
    today: Annotated[
        datetime | None,
        _in("Agent", formats=["%Y-%m-%d"], help="Date in the system prompt. Omitted: today."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """The generated world of a source encyclopedia:SEED."""

    num_entities: Annotated[int, _in("World", help="Number of pages of a generated world.")] = 300
    split: Annotated[
        Split, _in("World", help="Set of names of a generated world; no name is in two sets.")
    ] = "train"


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command: option sets become options, a `HanolError` one line.

    Parameters annotated with a dataclass are option sets; a default instance gives the command's
    own defaults. Errors are JSON on standard output if the command has `as_json` and it is set.
    """
    parameters: list[inspect.Parameter] = []
    sets: dict[str, Any] = {}
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY))
            continue
        sets[name] = kind
        annotations = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            default = getattr(parameter.default, field.name, field.default)
            parameters.append(
                inspect.Parameter(
                    field.name,
                    parameter.KEYWORD_ONLY,
                    annotation=annotations[field.name],
                    default=parameter.empty if default is MISSING else default,
                )
            )

    @wraps(function)
    def run(**values: Any) -> None:
        for name, kind in sets.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        with reported(as_json=values.get("as_json", False)):
            function(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run
