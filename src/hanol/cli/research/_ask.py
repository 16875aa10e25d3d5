"""`hanol research FOLDER QUESTION`: one question, or the plan of what answering it takes."""

import json
import re
from dataclasses import asdict
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
    from hanol.engines import Engine
    from hanol.retrieval import Index
    from hanol.runs import Budget


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
            _print_plan(corpus, engine, options, question, agent.heavy, as_json)
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
    corpus: "Index | None",
    engine: "Engine",
    options: dict[str, Any],
    question: str,
    heavy: int | None,
    as_json: bool,
) -> None:
    from hanol.engines import Message
    from hanol.research import Researcher

    researcher = Researcher(corpus, engine, **options)
    prompt = [Message("system", researcher.system), Message("user", question)]
    budget: Budget = options["budget"]
    times = heavy or 1
    most = researcher.settings.sampling.max_tokens or budget.context_tokens
    plan = {
        "model": engine.name,
        "context_window": engine.context_window,
        "mode": options["mode"],
        "heavy": heavy,
        "tools": [tool.name for tool in options["tools"]],
        "documents": 0 if corpus is None else len(corpus.documents()),
        "prompt_tokens": engine.count_tokens(prompt),
        "budget": asdict(budget),
        "cost_at_most": times * _most(budget, most),
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    plan["tools"] = ", ".join(plan["tools"])
    shown = {name: value for name, value in asdict(budget).items() if value is not None}
    plan["budget"] = ", ".join(f"{name} {value:,}" for name, value in shown.items())
    if times > 1:
        plan["budget"] = f"per rollout: {plan['budget']}"
    if not (budget.prompt_price or budget.completion_price):
        plan["cost_at_most"] = "unknown without --prompt-price and --completion-price"
    for name, value in plan.items():
        typer.echo(f"{name.replace('_', ' '):16}{'-' if value is None else value}")
    typer.echo("Dry run: no call was made.")


def _most(budget: "Budget", max_tokens: int) -> float:
    """Upper bound on the price of a run by its limits."""
    calls = budget.model_calls + 1
    bounds = [budget.cost(calls * budget.context_tokens, calls * max_tokens)]
    if budget.tokens is not None:
        price = max(budget.prompt_price, budget.completion_price)
        bounds.append(budget.tokens * price / 1_000_000)
    if budget.money is not None:
        bounds.append(budget.money)
    return min(bounds)
