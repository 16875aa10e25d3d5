"""`hanol eval world`: a model answers questions about a world that it has never seen."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hanol.cli._options import (
    AgentSamplingOptions,
    ConcurrencyOption,
    HopsOption,
    JsonOption,
    ModelOptions,
    ModeOption,
    command,
)
from hanol.cli._progress import interruptible, progress
from hanol.errors import ConfigError

if TYPE_CHECKING:
    from hanol.agent_training import Examination
    from hanol.rl import Rollout


@command
def world(
    model: ModelOptions,
    name: Annotated[
        Literal["encyclopedia"], typer.Argument(metavar="WORLD", help="Kind of world.")
    ] = "encyclopedia",
    world_seed: Annotated[int, typer.Option(help="Seed of the world and its questions.")] = 12345,
    num_questions: Annotated[
        int, typer.Option("--num-questions", "-n", min=1, help="Number of questions of each kind.")
    ] = 200,
    hops: HopsOption = "1,2,3",
    mode: ModeOption = "react",
    max_calls: Annotated[
        int, typer.Option(min=1, help="Maximum number of model calls per question.")
    ] = 16,
    concurrency: ConcurrencyOption = 64,
    num_distractors: Annotated[
        int,
        typer.Option(min=0, help="Sentences per page that state no fact; 7 make about 120 words."),
    ] = 1,
    sampling: AgentSamplingOptions = AgentSamplingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Score a research agent on a generated world.

    Prints the accuracy by number of hops, format errors and skills.

    Example: hanol eval world --model tiny-researcher --num-questions 200
    """
    from hanol.agent_training import examine
    from hanol.engines import open_engine
    from hanol.research import GREEDY

    numbers = _numbers(hops)
    drawn = sampling.sampling(GREEDY)
    # Fleets and endpoints have limits of their own; a checkpoint in this process batches.
    elsewhere = model.model.partition(":")[0] in ("http", "https", "ray", "scripted")
    batched = {} if elsewhere else {"max_batch": concurrency}
    engine = open_engine(model.model, **model.given, **batched)
    started = time.perf_counter()
    with interruptible("nothing was kept"), progress("questions") as report:
        ended, right = 0, 0

        def on_rollout(rollout: "Rollout") -> None:
            nonlocal ended, right
            ended, right = ended + 1, right + (rollout.reward == 1.0)
            share = f"{100 * right / ended:.0f} % right"
            report(ended, num_questions * (len(numbers) + 1), share)

        result = examine(
            engine,
            seed=world_seed,
            num_questions=num_questions,
            hops=numbers,
            num_distractors=num_distractors,
            mode=mode,
            sampling=None if drawn == GREEDY else drawn,
            max_calls=max_calls,
            concurrency=concurrency,
            on_rollout=on_rollout,
        )
    settings = {
        "world": name,
        "seed": world_seed,
        "num_questions": num_questions,
        "model": model.model,
        "mode": mode,
        "max_calls": max_calls,
        "num_distractors": num_distractors,
        "temperature": sampling.temperature,
        "own_sampling": sampling.own_sampling,
        "seconds": round(time.perf_counter() - started, 2),
    }
    if as_json:
        typer.echo(json.dumps({**result.model_dump(), "settings": settings}))
    else:
        _print_result(result, settings)


def _print_result(result: "Examination", settings: dict[str, Any]) -> None:
    """The accuracy with its intervals, then the skills."""
    from hanol.agent_training import kind_label

    typer.echo(
        f"{settings['model']}: {result.questions} questions about an unseen encyclopedia, seed "
        f"{settings['seed']}, {settings['seconds']:.1f} s"
    )
    typer.echo("\nright answers, with 95 % intervals")
    for kind, value in result.accuracy.items():
        low, high = result.intervals[kind]
        typer.echo(
            f"  {kind_label(kind):16}{100 * value:6.1f} %   [{100 * low:.1f}, {100 * high:.1f}]"
        )
    typer.echo("\nskills, in the order in which they are learned")
    for skill, rate in result.skills.items():
        typer.echo(f"  {skill:16}" + ("     -" if rate is None else f"{100 * rate:6.1f} %"))
    typer.echo(f"\n  {'format errors':16}{100 * result.format_errors:6.1f} % of the turns")
    typer.echo(f"  {'cited':16}{100 * result.cited:6.1f} % of the right answers")
    if result.broken:
        typer.echo(f"  {'broken':16}{result.broken:4} questions, left out")


def _numbers(text: str) -> list[int]:
    """The numbers of hops that an option lists.

    Raises:
        ConfigError: One is not a number from 1 to 5, or stands twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part in ("1", "2", "3", "4", "5") for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError(f"--hops is {text!r}: give different numbers from 1 to 5, like 1,2,3.")
    return [int(part) for part in parts]
