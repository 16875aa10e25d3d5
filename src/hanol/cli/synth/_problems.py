"""`hanol synth problems`: problems with one right answer, and what checks it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from hanol.cli._command import Result, argument, command, option
from hanol.cli._options import SeedOption
from hanol.rows import replace_rows

PROBLEMS = (
    "World with options (chains:level=3, countdown:numbers=3, stories:steps=2, sums:terms=3, "
    "capitals), gym:NAME, humaneval, or a file of problems."
)


@command
def problems(
    source: str = argument(PROBLEMS),
    output: Path = option(Path("problems.jsonl"), "File of the problems.", "--output"),
    num_problems: int = option(1_000, "Number of problems.", min=1),
    split: Literal["train", "test"] = option(
        "train", "Problems for training, or those that are kept for tests."
    ),
    chat: bool = option(False, "Write conversations with a right solution instead."),
    seed: SeedOption = 0,
) -> Result:
    """Write problems with exact answers, verifiers and, in worlds, solutions.

    With --chat the rows are for recipes of the kind sft.

    Example: hanol synth problems countdown:numbers=3 --output train.jsonl
    """
    from hanol.errors import DataError
    from hanol.worlds import open_problems

    found = open_problems(source, count=num_problems, seed=seed, split=split)
    if chat and not all(one.steps for one in found):
        raise DataError(f"{source!r} has no solutions to write conversations of.")
    replace_rows(output, (one.chat() if chat else one.row() for one in found))
    levels = sorted({one.level for one in found if one.level is not None})
    summary = {
        "output": str(output),
        "source": source,
        "split": split,
        "problems": len(found),
        "levels": levels,
    }
    return Result(summary, _lines(summary))


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    yield f"{summary['problems']:,} problems of the split {summary['split']}"
    if levels := summary["levels"]:
        yield f"levels: {levels[0]} to {levels[-1]}"
    yield f"problems: {summary['output']}"
