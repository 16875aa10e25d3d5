"""`hanol eval`: scores of answers, of a model on a generated world, of sampling settings."""

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from hanol.cli._command import JsonOption, Result, argument, command, option
from hanol.cli._console import new_console
from hanol.cli._options import (
    HOPS,
    AgentSamplingOptions,
    BaseModelOption,
    ConcurrencyOption,
    ModelOptions,
    ModeOption,
    SeedOption,
    Split,
)
from hanol.cli._progress import interruptible, progress
from hanol.errors import ConfigError, DataError, EngineError

if TYPE_CHECKING:
    from hanol.agent_training import Examination
    from hanol.rl import Rollout

_TURN = 512  # tokens of a turn about real pages; those about the encyclopedia are shorter

app = typer.Typer(
    no_args_is_help=True,
    help="Score answers, models and sampling settings, with 95 % intervals.\n\n"
    "Example: hanol eval answers notes/.hanol/batches/questions",
)


@app.command()
@command
def answers(
    results: list[Path] = argument(
        "Batch folders or results.jsonl files; several count as k runs of the same questions.",
        metavar="RESULTS",
    ),
    metric: Literal["exact", "set", "numeric", "judge"] = option(
        "exact", "How answers are compared: equal text, sets or numbers, or by a judge model."
    ),
    judge: str | None = option(
        None, "Model that judges answers with --metric judge. Omitted: none."
    ),
    fail_under: float | None = option(
        None, "Exit with 3 if Avg@k is below this percentage. Omitted: never."
    ),
) -> Result:
    """Score the answers of research batches: Avg@k, Pass@k, citations and effort.

    Example: hanol eval answers run1/results.jsonl run2/results.jsonl --metric exact
    """
    from hanol import evaluation, scoring
    from hanol.engines import open_engine
    from hanol.runs import synchronous

    metrics: dict[str, Any] = {
        "exact": scoring.exact_match,
        "set": scoring.set_match,
        "numeric": scoring.numeric_match,
    }
    with ExitStack() as at_end:
        if metric == "judge":
            if judge is None:
                raise DataError("`--metric judge` needs a model: `--judge MODEL`.")
            metrics["judge"] = evaluation.Judge(open_engine(judge))
            at_end.callback(synchronous(metrics["judge"].engine.aclose))
        result, summary = evaluation.score_batches(results, metrics[metric])
    plain = {**result.to_dict(), "runs_summary": None if summary is None else summary.to_dict()}
    # Compared so that a limit of NaN is not met.
    too_low = fail_under is not None and not 100 * plain["avg_at_k"]["value"] >= fail_under
    return Result(plain, _scores(plain, result.k, result.metric), exit_code=3 if too_low else 0)


def _scores(plain: dict[str, Any], k: int, metric: str) -> Iterator[str]:
    """Scores with their 95 % intervals, then citations and effort."""
    yield f"{plain['questions']} questions, {k} runs, metric {metric}"
    yield _line(f"Avg@{k}", plain["avg_at_k"])
    yield _line(f"Pass@{k}", plain["any_of_k"])
    yield _line("best Pass@1", plain["best_pass_at_1"])
    if plain["unanswered"]:
        yield f"{'unanswered':24}{len(plain['unanswered'])}, counted as wrong"
    if plain["errors"]:
        yield f"{'no verdict':24}{len(plain['errors'])}, left out"
    if (runs := plain["runs_summary"]) is None:
        return
    for name in ("citation_precision", "citation_recall", "invented_citations"):
        yield _line(name.replace("_", " "), runs[name])
    for name, value in runs["effort"].items():
        yield f"{name.replace('_', ' ') + ' a run':24}{value:,.2f}"
    yield f"{'ended':24}{', '.join(f'{k} {v}' for k, v in runs['terminations'].items())}"


def _line(label: str, interval: dict[str, float] | None) -> str:
    if interval is None:
        return f"{label:24}-"
    value, low, high = (100 * interval[name] for name in ("value", "low", "high"))
    return f"{label:24}{value:.2f} %  [{low:.2f}, {high:.2f}]"


def examination(name: Any, example: str) -> Callable[..., None]:
    """The command that asks a model about a world, with the world as an argument or an option."""

    def world(
        model: ModelOptions,
        name: Literal["encyclopedia", "factbook", "factbook:leads", "factbook:bare"] = name,
        world_seed: int = option(12345, "Seed of the questions, and of a generated world."),
        num_questions: int = option(200, "Number of questions of each kind.", min=1),
        hops: Sequence[int] = HOPS,
        split: Split = option(
            "test", "Split of names or pages that the questions are about; no two share any."
        ),
        mode: ModeOption = "react",
        max_calls: int = option(16, "Maximum number of model calls per question.", min=1),
        concurrency: ConcurrencyOption = 64,
        num_distractors: int = option(
            1,
            "Sentences per page of the encyclopedia that state no fact; 7 make about 120 words.",
            min=0,
        ),
        sampling: AgentSamplingOptions = AgentSamplingOptions(),
    ) -> Result:
        """Score a research agent on a generated encyclopedia or the World Factbook.

        Prints the accuracy by number of hops, format errors and skills. The factbook has leads of
        Wikipedia where their package is installed; factbook:leads needs them, factbook:bare leaves
        them out. `--model expert` is a scripted agent that knows the answers.
        """
        from hanol.agent_training import EXAM_SAMPLING, examine
        from hanol.engines import open_engine
        from hanol.research import GREEDY
        from hanol.runs import synchronous
        from hanol.worlds import Factbook, open_world

        drawn = sampling.sampling(GREEDY)
        drawn = EXAM_SAMPLING if drawn == GREEDY else drawn
        is_real = name != "encyclopedia"
        if is_real and sampling.max_tokens is None:
            drawn = replace(drawn, max_tokens=_TURN)
        # Fleets and endpoints have limits of their own; a checkpoint in this process batches.
        elsewhere = model.model.partition(":")[0] in ("http", "https", "ray", "scripted")
        batched = {} if elsewhere else {"max_batch": concurrency}
        made = open_world(name, split=split) if is_real else None
        is_expert = model.model == "expert"
        engine = None if is_expert else open_engine(model.model, **model.given, **batched)
        started = time.perf_counter()
        with interruptible("nothing was kept"), progress("questions") as report, ExitStack() as end:
            if engine is not None:
                end.callback(synchronous(engine.aclose))
            ended, right, problem = 0, 0, ""

            def on_rollout(rollout: "Rollout") -> None:
                nonlocal ended, right, problem
                ended, right = ended + 1, right + (rollout.reward == 1.0)
                problem = rollout.problem or problem
                share = f"{100 * right / ended:.0f} % right"
                report(ended, num_questions * (len(hops) + (made is None)), share)

            settings: dict[str, Any] = {
                "seed": world_seed,
                "split": split,
                "sampling_seed": sampling.seed,
                "num_questions": num_questions,
                "mode": mode,
                "max_calls": max_calls,
                "num_distractors": num_distractors,
            }
            result = examine(
                engine,
                world=made,
                hops=hops,
                sampling=drawn,
                concurrency=concurrency,
                constrained=is_real,
                on_rollout=on_rollout,
                **settings,
            )
        if result.broken == result.questions:  # an accuracy of 0 would be a lie
            raise EngineError(f"None of {result.questions} questions could be asked: {problem}")
        settings |= {
            "world": name,
            "model": model.model,
            **{key: getattr(drawn, key) for key in ("temperature", "top_p", "top_k", "max_tokens")},
            "own_sampling": sampling.own_sampling,
            "seconds": round(time.perf_counter() - started, 2),
        }
        about = "an unseen encyclopedia"
        if isinstance(made, Factbook):
            del settings["num_distractors"]
            settings |= {"leads": made.num_leads}
            about = f"the factbook and {made.num_leads:,} leads of Wikipedia"
        shown = _examined(result, settings, about)
        return Result({**result.model_dump(), "settings": settings}, shown)

    world.__doc__ = f"{inspect.cleandoc(world.__doc__ or '')}\n\nExample: hanol {example}"
    return command(world)


app.command()(
    examination(
        argument("The world.", "encyclopedia", metavar="WORLD"),
        "eval world --model tiny-researcher --num-questions 200",
    )
)


def _examined(result: "Examination", settings: dict[str, Any], about: str) -> Iterator[str]:
    """The accuracy with its intervals, then the skills."""
    from hanol.agent_training import kind_label

    yield (
        f"{settings['model']}: {result.questions} questions about {about}, seed "
        f"{settings['seed']}, {settings['seconds']:.1f} s"
    )
    yield "\nright answers, with 95 % intervals"
    for kind, value in result.accuracy.items():
        low, high = (100 * bound for bound in result.intervals[kind])
        yield f"  {kind_label(kind):16}{100 * value:6.1f} %   [{low:.1f}, {high:.1f}]"
    yield "\nskills, in the order in which they are learned"
    for skill, rate in result.skills.items():
        yield f"  {skill:16}" + ("     -" if rate is None else f"{100 * rate:6.1f} %")
    yield f"\n  {'format errors':16}{100 * result.format_errors:6.1f} % of the turns"
    yield f"  {'cited':16}{100 * result.cited:6.1f} % of the right answers"
    if result.broken:
        yield f"  {'broken':16}{result.broken:4} questions, left out"


@app.command()
@command
def sampling(
    model: str = argument("Checkpoint with AutoDeco heads: bundled name, folder or hub id."),
    task: str = option(
        ...,
        'JSON lines with "prompt" or "messages" (and "answer"); or "stdlib": functions of the '
        'standard library; or "tasks": small tasks for chat models.',
    ),
    verify: str = option(
        "python:body",
        "How an answer is checked: arithmetic, python, python:body, regex:PATTERN or "
        "module:function (of tasks: hanol.worlds:check_task).",
    ),
    base_model: BaseModelOption = None,
    max_prompts: int | None = option(
        None, "Maximum number of prompts, spread over the task. Omitted: all.", min=2
    ),
    num_samples: int = option(
        16, "Number of completions per prompt and seed.", "--num-samples", "-n", min=1
    ),
    num_seeds: int = option(1, "Number of seeds; the paper uses 8.", min=1),
    max_tokens: int = option(256, "Maximum number of new tokens per completion.", min=1),
    step: float = option(0.1, "Step of the search over temperatures and top-p.", min=0.05, max=1.0),
    grid: bool = option(False, "Search all pairs instead of one value after the other."),
    seed: SeedOption = 0,
    png: Path | None = option(None, "Image of accuracy against diversity to write. Omitted: none."),
    as_json: JsonOption = False,
) -> Result:
    """Compare AutoDeco's heads with static sampling settings on a task.

    The settings are greedy, the default, the best static one, each head alone and both. The best
    static setting is searched on one half of the prompts and scored on the other. Where the rows
    have completions, their bits per byte under each setting are printed too.

    Example: hanol eval sampling tiny-autodeco --task stdlib --max-prompts 40 -n 4
    """
    from hanol import autodeco, evaluation, scoring

    verifier = scoring.parse_verifier(verify)
    if png is not None and not png.parent.is_dir():
        raise ConfigError(f"There is no folder {str(png.parent)!r} for the image.")
    rows = autodeco.training_rows(task, max_prompts, held_out=True)
    wrapped, tokenizer = autodeco.open_heads(model, base_model)
    temperatures = [round(step * i, 2) for i in range(1, round(1.5 / step) + 1)]
    top_ps = sorted({min(1.0, round(step * i, 2)) for i in range(1, round(1 / step) + 1)} | {1})
    with progress("comparing", quiet=as_json) as report:
        comparison = evaluation.compare(
            wrapped, tokenizer,
            evaluation.DecodingTask.from_rows(
                task, rows, verifier, tokenizer, max_new_tokens=max_tokens
            ),
            method="grid" if grid else "coarse", temperatures=temperatures, top_ps=top_ps,
            samples=num_samples, seeds=num_seeds, seed=seed, rows=rows, on_progress=report,
        )  # fmt: skip
    if png is not None:
        comparison.plot(png)

    wide = new_console(width=max(120, new_console().width))
    return Result(comparison, lambda: wide.print(comparison.table()))
