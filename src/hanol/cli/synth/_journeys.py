"""`hanol synth journeys`: reasoning trees, and the long thoughts walked through them."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hanol.cli._command import Result, argument, command, option
from hanol.cli._console import one_line, tell
from hanol.cli._options import ConcurrencyOption, ModelOptions, SeedOption
from hanol.cli._progress import interruptible, progress
from hanol.cli.synth._problems import PROBLEMS
from hanol.files import refuse_links, replace_json

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.synthesis import JourneyReport, StepJudge

_MOST_TRIED = 20  # problems for each tree that is wanted, where a source has no end


@dataclass(frozen=True, kw_only=True)
class TreeOptions:
    """How trees are grown."""

    panel: ClassVar = "Trees"
    width: int = option(3, "Steps that are tried behind each step.", min=1)
    depth: int = option(10, "Maximum number of steps of a path.", min=1)
    keep: int = option(3, "Steps of a level that are followed, at most.", min=1)
    follow: int = option(2, "Steps by which a wrong step is followed, at most.", min=0)
    temperature: float = option(0.7, "Sampling temperature of the steps.", min=0)
    top_p: float = option(0.95, "Sample from the most likely tokens with this share.")
    step_tokens: int = option(64, "Maximum number of tokens per step.", min=1)
    system: str = option("", "System message for the model. Omitted: none.")


@command
def journeys(
    model: ModelOptions,
    source: str = argument(PROBLEMS),
    output: Path = option(Path("runs/journeys"), "Folder of the results.", "--output"),
    num_trees: int = option(327, "Number of trees that become rows.", min=1),
    num_problems: int | None = option(
        None, f"Problems to try, at most. Omitted: {_MOST_TRIED} per tree; of a file all.", min=1
    ),
    judge: str = option(
        "verifier",
        "What judges the steps: verifier, prm:CHECKPOINT (a process reward model), or a model.",
    ),
    rewriter: str | None = option(
        None, "Model that rewrites the journeys; what loses a step is refused. Omitted: none."
    ),
    plain: bool = option(False, "Use one wording for reflection and return, for small models."),
    seed: SeedOption = 0,
    concurrency: ConcurrencyOption = 8,
    tree: TreeOptions = TreeOptions(),
) -> Result:
    """Grow reasoning trees and walk them into journeys and their shortcuts.

    Writes trees.jsonl, the paired rows shortcuts.jsonl and journeys.jsonl, the controls
    token-matched.jsonl, shuffled.jsonl and wrong-answers.jsonl, preferences.jsonl and report.json.
    Run again after an interruption, it repeats no model call.

    Example: hanol synth journeys countdown:numbers=3 -m runs/small --num-trees 100
    """
    import asyncio

    from hanol import synthesis
    from hanol.engines import open_engine
    from hanol.evaluation import MeteredEngine
    from hanol.worlds import open_problems

    refuse_links(output)
    is_file = Path(source).suffix != "" and Path(source).exists()
    number = num_problems or (None if is_file else _MOST_TRIED * num_trees)
    found = open_problems(source, count=number, seed=seed)
    engine = MeteredEngine(open_engine(model.model, **model.given))
    others: list[Engine] = []
    judging = _judge(judge, others)
    writer = None
    if rewriter is not None:
        writer = open_engine(rewriter)
        others.append(writer)

    async def made() -> "JourneyReport":
        try:
            with progress("trees") as on_tree:
                return await synthesis.asynthesize_journeys(
                    found, engine, output, num_trees=num_trees, judge=judging, rewriter=writer,
                    settings=synthesis.TreeSettings(**asdict(tree)), varied=not plain, seed=seed,
                    concurrency=concurrency, on_tree=lambda kept: on_tree(kept, num_trees),
                )  # fmt: skip
        finally:
            for one in (engine, *others):
                await one.aclose()

    with interruptible():
        report = asyncio.run(made())
    summary = {**asdict(report), "source": source, "spent": engine.spent.to_dict()}
    replace_json(output / "report.json", summary)
    return Result(summary, _lines(summary, num_trees))


def _judge(spec: str, opened: "list[Engine]") -> "StepJudge":
    """The judge of a spec; an engine that it needs is among those to close."""
    from hanol import synthesis
    from hanol.engines import open_engine

    if spec == "verifier":
        return synthesis.VerifierJudge()
    if spec.startswith("prm:"):
        from hanol.test_time import ProcessRewardModel

        scorer = ProcessRewardModel.from_pretrained(spec.removeprefix("prm:"))
        return synthesis.ScorerJudge(scorer, name=spec)
    engine = open_engine(spec)
    opened.append(engine)
    return synthesis.ModelJudge(engine)


def _lines(summary: dict[str, Any], wanted: int) -> Iterator[str]:
    yield (
        f"{summary['trees']:,} trees with {summary['nodes']:,} steps of {summary['problems']:,} "
        f"problems, {summary['backtracks']:,} wrong turns"
    )
    for reason, number in summary["dropped"].items():
        yield f"dropped: {number:,} {reason.replace('_', ' ')}"
    if summary["first_failure"]:
        tell(f"judge failed: {one_line(summary['first_failure'])}")
    kept, refused = summary["rewritten"]
    if kept or refused:
        yield f"rewritten: {kept:,} journeys; {refused:,} lost something and stayed drafts"
    for arm, number in summary["rows"].items():
        tokens = summary["tokens"].get(arm)
        yield f"{arm}: {number:,} rows" + (f", {tokens:,} tokens" if tokens is not None else "")
    if summary["trees"] < wanted:
        tell(f"{wanted} trees were wanted, but no more were made.")
    yield f"results: {summary['folder']}"
