"""What `hanol research eval --world` does: questions about a generated world, and their table."""

import json
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from hanol.cli._options import Mode
from hanol.errors import ConfigError

if TYPE_CHECKING:
    from hanol.agent_training import Examination
    from hanol.rl import Rollout


@dataclass(frozen=True)
class Exam:
    """What is asked, and of whom.

    Args:
        model: What `open_engine` opens.
        seed: Of world and questions.
        n: Questions of each kind.
        hops: Numbers of hops, with commas.
        mode: Of the agent.
        max_calls: Turns of one run at most.
        concurrency: Runs at once.
        fillers: Sentences a page that state no fact.
        temperature: Of the turns; None takes the likeliest token each time.
        own_sampling: Instead, the model chooses temperature and top-p.
    """

    model: str
    seed: int
    n: int
    hops: str
    mode: Mode
    max_calls: int
    concurrency: int
    fillers: int
    temperature: float | None
    own_sampling: bool


def run(exam: Exam) -> "tuple[Examination, float]":
    """Ask all questions, with a bar on standard error; the result and the seconds it took."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from hanol.agent_training import examine
    from hanol.engines import open_engine
    from hanol.research import GREEDY, OWN_SAMPLING

    hops = _numbers(exam.hops)
    # Fleets and endpoints have limits of their own; a checkpoint in this process batches.
    elsewhere = exam.model.partition(":")[0] in ("http", "https", "ray", "scripted")
    engine = open_engine(exam.model, **({} if elsewhere else {"max_batch": exam.concurrency}))
    sampling = OWN_SAMPLING if exam.own_sampling else None  # or greedy
    if exam.temperature is not None:
        sampling = replace(GREEDY, temperature=exam.temperature)
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn(),
    )  # fmt: skip
    began = time.perf_counter()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("making the world", total=exam.n * (len(hops) + 1))
            ended, right = 0, 0

            def on_rollout(rollout: "Rollout") -> None:
                nonlocal ended, right
                ended, right = ended + 1, right + (rollout.reward == 1.0)
                share = f"{100 * right / ended:.0f} % right"
                progress.update(bar, completed=ended, description=share)

            result = examine(
                engine,
                seed=exam.seed,
                num_questions=exam.n,
                hops=hops,
                num_fillers=exam.fillers,
                mode=exam.mode,
                sampling=sampling,
                max_calls=exam.max_calls,
                concurrency=exam.concurrency,
                on_rollout=on_rollout,
            )
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        raise typer.Exit(130) from None
    return result, time.perf_counter() - began


def print_result(exam: Exam, result: "Examination", seconds: float, as_json: bool) -> None:
    """The accuracy with its intervals, then the skills."""
    if as_json:
        typer.echo(json.dumps(_plain(exam, result, seconds)))
        return
    typer.echo(
        f"{exam.model}: {result.questions} questions about an unseen encyclopedia, seed "
        f"{exam.seed}, {seconds:.1f} s"
    )
    typer.echo("\nright answers, with 95 % intervals")
    for kind, value in result.accuracy.items():
        low, high = result.intervals[kind]
        typer.echo(
            f"  {kind_name(kind):16}{100 * value:6.1f} %   [{100 * low:.1f}, {100 * high:.1f}]"
        )
    typer.echo("\nskills, in the order in which they are learned")
    for skill, rate in result.skills.items():
        typer.echo(f"  {skill:16}" + ("     -" if rate is None else f"{100 * rate:6.1f} %"))
    typer.echo(f"\n  {'format errors':16}{100 * result.format_errors:6.1f} % of the turns")
    typer.echo(f"  {'cited':16}{100 * result.cited:6.1f} % of the right answers")
    if result.broken:
        typer.echo(f"  {'broken':16}{result.broken:4} questions, left out")


def kind_name(kind: str) -> str:
    """A kind of question for a person: "1" is 1 hop."""
    number, _, rest = kind.partition(" ")
    if not number.isdigit():
        return kind
    return f"{number} hop{'s' * (number != '1')} {rest}".rstrip()


def _plain(exam: Exam, result: "Examination", seconds: float) -> dict[str, Any]:
    settings = {
        "world": "encyclopedia",
        "seed": exam.seed,
        "n": exam.n,
        "model": exam.model,
        "mode": exam.mode,
        "max_calls": exam.max_calls,
        "fillers": exam.fillers,
        "temperature": exam.temperature,
        "own_sampling": exam.own_sampling,
        "seconds": round(seconds, 2),
    }
    return {**result.model_dump(), "settings": settings}


def _numbers(text: str) -> list[int]:
    """The hops that an option lists.

    Raises:
        ConfigError: One of them is no number from 1 to 5, or there are none or two of one.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("1", "2", "3", "4", "5") for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--hops is {text!r}: give different numbers from 1 to 5, like 1,2,3.")
    return [int(part) for part in parts]
