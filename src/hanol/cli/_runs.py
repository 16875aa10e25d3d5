"""`hanol research resume`, `replay`, `fork` and `export`: what can be done with a run."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hanol.cli._agent import reopened
from hanol.cli._options import (
    IndexOption,
    JsonOption,
    PrivateOption,
    SamplingSeedOption,
    UnsafeOption,
    WebOption,
)
from hanol.cli._report import reported

_Run = Annotated[Path, typer.Argument(help="Folder of a run.")]
_OtherModel = Annotated[
    str | None, typer.Option("--model", "-m", help="If not as the log says: the model.")
]


def resume(
    run: _Run,
    model: _OtherModel = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was interrupted; no finished call is made again.

    Example: hanol research resume notes/.hanol/runs/20251121-101502-keys
    """
    with reported(as_json=as_json):
        from hanol.cli._steps import follow
        from hanol.research import resume as resume_run

        with reopened(run, model, index, web, private, unsafe) as (corpus, engine, tools):
            follow(resume_run(run, engine, corpus, tools=tools), run, corpus, as_json)


def replay(run: _Run, as_json: JsonOption = False) -> None:
    """Repeat a finished run from its log, without model, documents or network.

    Example: hanol research replay notes/.hanol/runs/20251121-101502-keys
    """
    with reported(as_json=as_json):
        from hanol.cli._steps import follow
        from hanol.research import replay as replay_run

        follow(replay_run(run), run, None, as_json, write=False)


def fork(
    run: _Run,
    at: Annotated[int, typer.Option(help="First step that is made anew, from 1.")],
    seed: SamplingSeedOption = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new run; beside the old one if left out.")
    ] = None,
    model: _OtherModel = None,
    web: WebOption = None,
    private: PrivateOption = False,
    unsafe: UnsafeOption = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Begin a new run with the first steps of another one, and go on differently.

    Example: hanol research fork notes/.hanol/runs/20251121-101502-keys --at 3
    """
    with reported(as_json=as_json):
        from hanol.cli._steps import follow
        from hanol.research import fork as fork_run

        new = out or run.with_name(f"{run.resolve().name}-at{at}-seed{seed}")
        with reopened(run, model, index, web, private, unsafe) as (corpus, engine, tools):
            events = fork_run(run, at, new, engine, corpus, seed=seed, tools=tools)
            follow(events, new, corpus, as_json)


def export(
    run: _Run,
    form: Annotated[
        Literal["tongyi", "md", "html"], typer.Option("--format", help="What to print.")
    ] = "md",
    answer: Annotated[
        str, typer.Option(help="Reference answer, which tongyi's format has a place for.")
    ] = "",
) -> None:
    """Print a run as Markdown, as a page, or as a line of the official trajectory format.

    Example: hanol research export notes/.hanol/runs/20251121-101502-keys --format tongyi
    """
    with reported():
        from hanol.research import official_run, write_report
        from hanol.runs import RunFolder

        if form == "tongyi":
            text = official_run(RunFolder(run).events(), answer).to_line() + "\n"
        else:
            text = write_report(run).with_suffix(f".{form}").read_text("utf-8")
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()
