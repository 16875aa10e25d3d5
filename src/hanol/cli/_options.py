"""The options that several commands take, each said once."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

Mode = Literal["react", "markov", "resum"]
Split = Literal["train", "dev", "test"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index, if not FOLDER/.hanol.")
]

# Of trainings.
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value that replaces a value of the recipe; repeatable."),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")]

# Of `hanol autodeco`.
HeadsArgument = Annotated[str, typer.Argument(help="Checkpoint with heads: folder or hub id.")]
HeadsOutArgument = Annotated[
    Path, typer.Argument(help="Folder to write; a checkpoint there is replaced.")
]
BaseModelOption = Annotated[
    str | None,
    typer.Option("--base-model", help="Base to use in the place of the one that the heads name."),
]
RowsOption = Annotated[
    str,
    typer.Option(
        help='JSON lines with "prompt" and "completion" or "messages", or "stdlib": the functions '
        "of the standard library."
    ),
]
MaxRowsOption = Annotated[
    int | None, typer.Option(min=1, help="Use this many rows, spread over the data.")
]

# Of `hanol research`.
FolderArgument = Annotated[Path, typer.Argument(help="Folder with the documents.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Checkpoint (name, folder, hub id) or http://host:port/v1#name."
    ),
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(help="How the context is kept; react when left out, markov with --heavy."),
]
HeavyOption = Annotated[
    int | None, typer.Option(help="Make N rollouts and a synthesis over their reports.")
]
CallsOption = Annotated[int | None, typer.Option(help="Most calls of the model.")]
TokensOption = Annotated[
    int | None, typer.Option(help="Most tokens, prompts and answers together.")
]
SecondsOption = Annotated[float | None, typer.Option(help="Most seconds in calls.")]
MoneyOption = Annotated[
    float | None, typer.Option(help="Most money, in the currency of the prices.")
]
PromptPriceOption = Annotated[float, typer.Option(help="Price of a million prompt tokens.")]
CompletionPriceOption = Annotated[float, typer.Option(help="Price of a million written tokens.")]
SystemPromptOption = Annotated[
    Path | None, typer.Option(help="File with the system prompt, in the place of ours.")
]
WebOption = Annotated[
    str | None,
    typer.Option("--web", help="Turn the web on: address of a SearXNG instance, or serper."),
]
PrivateOption = Annotated[
    bool,
    typer.Option(
        "--web-consent",
        help="Agree that queries worded after reading the documents go to the web's provider.",
    ),
]
UnsafeOption = Annotated[
    bool, typer.Option("--unsafe-python", help="Run Python even where it cannot be isolated.")
]
CompactOption = Annotated[
    bool,
    typer.Option("--compact", help="Results in few words, for models with a small window."),
]
GreedyOption = Annotated[
    bool, typer.Option("--greedy", help="The likeliest token each time, without a penalty.")
]
OwnSamplingOption = Annotated[
    bool,
    typer.Option(
        "--own-sampling",
        help="Temperature and top-p are the model's: its AutoDeco heads choose for each token, or "
        "its server's defaults hold.",
    ),
]
SamplingSeedOption = Annotated[int, typer.Option(help="Of the sampling.")]
TodayOption = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Date in the system prompt.")
]

# Of `hanol synth`.
SourceArgument = Annotated[
    str, typer.Argument(help="Folder of documents, or encyclopedia:SEED, a generated world.")
]
EntitiesOption = Annotated[int, typer.Option(help="Of a world: its pages.")]
SplitOption = Annotated[Split, typer.Option(help="Of a world: whose names to use.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Requests or runs at once.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same result.")]
