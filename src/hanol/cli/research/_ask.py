"""`hanol research FOLDER QUESTION`: one question, or the plan of what answering it takes."""

import json
import re
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import (
    AgentOptions,
    AgentSamplingOptions,
    BudgetOptions,
    DryRunOption,
    FolderArgument,
    JsonOption,
    ModelOptions,
    ToolOptions,
    command,
)
from hanol.cli.research._agent import new_workshop, opened, researcher_options

if TYPE_CHECKING:
    from hanol.cli.research._agent import Workplace


@command
def ask(
    folder: FolderArgument,
    question: Annotated[str, typer.Argument(help="Question, in plain words.")],
    model: ModelOptions,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. Omitted: a new one beside the index."),
    ] = None,
    dry_run: DryRunOption = False,
    agent: AgentOptions = AgentOptions(),
    tools: ToolOptions = ToolOptions(),
    budget: BudgetOptions = BudgetOptions(),
    sampling: AgentSamplingOptions = AgentSamplingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a folder of documents, with checked citations.

    The steps go to standard error, the answer to standard output, and everything to a folder with
    `report.html`.

    Example: hanol research notes "How are keys rotated?" --model http://localhost:8000/v1#qwen3
    """
    with opened(new_workshop(folder, model, tools, agent.compact)) as workplace:
        corpus, engine, _ = workplace
        options = researcher_options(workplace, agent, budget, sampling)
        options["today"] = options["today"] or date.today()
        if dry_run:
            _print_plan(workplace, options, question, agent.heavy, as_json)
            return
        from hanol.cli.research._steps import follow, show_rollout
        from hanol.research import Researcher, heavy_research

        run = output or _new_run(folder, tools.index, question)
        if agent.heavy is None:
            events = Researcher(corpus, engine, run_folder=run, **options).ask(question)
        else:
            events = heavy_research(
                corpus,
                engine,
                question,
                n=agent.heavy,
                run_folder=run,
                on_rollout=None if as_json else show_rollout,
                **options,
            )
        follow(events, run, corpus, as_json)


def _new_run(folder: Path, index: Path | None, question: str) -> Path:
    """Beside the index, which is never indexed itself."""
    words = "-".join(re.findall(r"\w+", question.lower())[:6])[:60]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{words}".rstrip("-")
    return (index or folder / ".hanol") / "runs" / name


def _print_plan(
    workplace: "Workplace", options: dict[str, Any], question: str, heavy: int | None, as_json: bool
) -> None:
    from hanol.research import Researcher

    plan = Researcher(*workplace[:2], **options).plan(question) | {"heavy": heavy}
    plan["cost_at_most"] *= heavy or 1
    if as_json:
        typer.echo(json.dumps(plan))
        return
    plan["tools"] = ", ".join(plan["tools"])
    limits = {name: value for name, value in plan["budget"].items() if value is not None}
    plan["budget"] = ", ".join(f"{name} {value:,}" for name, value in limits.items())
    if heavy:
        plan["budget"] = f"per rollout: {plan['budget']}"
    if not (limits["prompt_price"] or limits["completion_price"]):
        plan["cost_at_most"] = "unknown without --prompt-price and --completion-price"
    for name, value in plan.items():
        typer.echo(f"{name.replace('_', ' '):16}{'-' if value is None else value}")
    typer.echo("Dry run: no call was made.")
