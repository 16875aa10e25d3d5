"""`hanol research resume`, `replay`, `fork` and `export`: what can be done with a run."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hanol.cli._options import JsonOption, SeedOption, ToolOptions, command
from hanol.cli.research._agent import reopened

_Run = Annotated[Path, typer.Argument(help="Folder of a run.")]
_OtherModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model to use. Omitted: the one that the run's log names."),
]


@command
def resume(
    run: _Run,
    model: _OtherModel = None,
    tools: ToolOptions = ToolOptions(),
    as_json: JsonOption = False,
) -> None:
    """Resume an interrupted run without repeating a finished call.

    Example: hanol research resume notes/.hanol/runs/20251121-101502-keys
    """
    from hanol.cli.research._steps import follow
    from hanol.research import resume as resume_run

    with reopened(run, model, tools) as (corpus, engine, found):
        follow(resume_run(run, engine, corpus, tools=found), run, corpus, as_json)


@command
def replay(run: _Run, as_json: JsonOption = False) -> None:
    """Replay a finished run from its log, without model, documents or network.

    Example: hanol research replay notes/.hanol/runs/20251121-101502-keys
    """
    from hanol.cli.research._steps import follow
    from hanol.research import replay as replay_run

    follow(replay_run(run), run, None, as_json, write=False)


@command
def fork(
    run: _Run,
    at: Annotated[
        int, typer.Option(min=1, help="First step that is made again, counted from 1. Required.")
    ],
    seed: SeedOption = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the new run. Omitted: beside the old one.")
    ] = None,
    model: _OtherModel = None,
    tools: ToolOptions = ToolOptions(),
    as_json: JsonOption = False,
) -> None:
    """Start a new run from the first steps of another one.

    Example: hanol research fork notes/.hanol/runs/20251121-101502-keys --at 3
    """
    from hanol.cli.research._steps import follow
    from hanol.research import fork as fork_run

    new = output or run.with_name(f"{run.resolve().name}-at{at}-seed{seed}")
    with reopened(run, model, tools) as (corpus, engine, found):
        events = fork_run(run, at, new, engine, corpus, seed=seed, tools=found)
        follow(events, new, corpus, as_json)


@command
def export(
    run: _Run,
    layout: Annotated[
        Literal["tongyi", "md", "html"],
        typer.Option("--format", help="Markdown, HTML page, or official trajectory line."),
    ] = "md",
    answer: Annotated[
        str | None,
        typer.Option(help="Reference answer for the tongyi format. Omitted: empty."),
    ] = None,
) -> None:
    """Print a run as Markdown, as an HTML page, or in the official trajectory format.

    Example: hanol research export notes/.hanol/runs/20251121-101502-keys --format tongyi
    """
    from hanol.research import official_run, write_report
    from hanol.runs import RunFolder

    if layout == "tongyi":
        text = official_run(RunFolder(run).events(), answer or "").to_line() + "\n"
    else:
        text = write_report(run).with_suffix(f".{layout}").read_text("utf-8")
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
