"""`hanol synth trajectories`: an agent at each question, its right runs as training data."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanol.cli._command import Result, argument, command, option
from hanol.cli._console import one_line, tell
from hanol.cli._options import (
    ConcurrencyOption,
    IndexOption,
    ModelOptions,
    ModeOption,
    SamplingOptions,
    SourceArgument,
    WorldOptions,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.synth._questions import Subject, opened_subject
from hanol.files import refuse_links

if TYPE_CHECKING:
    from hanol.agent_training import Attempt
    from hanol.engines import Engine
    from hanol.sampling import Sampling
    from hanol.worlds import GraphQuestion, KnowledgeGraph


@command
def trajectories(
    source: SourceArgument,
    model: ModelOptions,
    file: Path = argument('JSON lines with "question" and "answer".', metavar="QUESTIONS"),
    num_questions: int | None = option(None, "Number of questions. Omitted: all.", min=1),
    num_runs: int = option(4, "Number of runs per question.", min=1),
    mode: ModeOption = "react",
    max_calls: int | None = option(
        None, "Maximum number of model calls per run. Omitted: the mode's own limit.", min=1
    ),
    index: IndexOption = None,
    output: Path | None = option(None, "Folder of the results. Omitted: beside QUESTIONS."),
    concurrency: ConcurrencyOption = 8,
    world: WorldOptions = WorldOptions(),
    sampling: SamplingOptions = SamplingOptions(),
) -> Result:
    """Run an agent on each question and keep the right runs as training data.

    Writes trajectories.jsonl (official format), sft.jsonl (conversations) and midtrain.jsonl
    (planning, reasoning and decision steps). `--model expert` is a scripted agent that knows the
    answers: of a world, whose size and split are in report.json beside QUESTIONS; in a folder by
    "document" beside each answer, a sentence of that document, which it quotes. Run again after
    an interruption, it continues. Exits with 1 if a run failed; the others are still completed.

    Example: hanol synth trajectories encyclopedia:7 questions.jsonl --model expert --num-runs 1
    """
    import asyncio

    from hanol import synthesis
    from hanol.agent_training import QuotingExpert, expert_of, write_trajectories
    from hanol.engines import Engine, open_engine
    from hanol.evaluation import MeteredEngine
    from hanol.runs import Budget
    from hanol.tools import compact_tools

    found = synthesis.read_questions(file)
    place = output or file.parent / "trajectories"
    refuse_links(place, is_named=output is not None)
    beside = file.parent / "report.json"
    known = {} if len(world.given) == 2 else synthesis.reported_world(beside, source)
    with opened_subject(source, index, place, known | world.given) as subject:
        synthesis.check_questions(found, _known_graph(subject, file))
        options: dict[str, Any] = {"mode": mode, "seed": sampling.seed, "attempts": num_runs}
        options |= {"concurrency": concurrency, "sampling": _sampling(subject, sampling)}
        if subject.tools is not None:
            options["tools"] = subject.tools
        if max_calls is not None:
            window = {"context_tokens": 32 * 1024} if mode == "resum" else {}
            options["budget"] = Budget(model_calls=max_calls, **window)
        # A world knows other names and ways to write numbers.
        options["is_right"] = None if subject.world is None else subject.world.is_right
        if model.model != "expert":
            engine: Engine = open_engine(model.model, **model.given)
        elif subject.world is not None:
            engine = expert_of(subject.world, found)
        else:
            engine = quoting = QuotingExpert(subject.corpus, found, seed=sampling.seed)
            found, options["is_right"] = quoting.questions, quoting.is_right
            options["tools"] = compact_tools(subject.corpus)
        metered = MeteredEngine(engine)
        with interruptible():
            tried, reasoned = asyncio.run(
                _tried(found[:num_questions], subject, metered, place, options)
            )
        summary = write_trajectories(place, tried, reasoned)
        summary["spent"] = metered.spent.to_dict()
    return Result(summary, _lines(summary), exit_code=1 if summary["failed"] else 0)


async def _tried(
    questions: "list[GraphQuestion]",
    subject: Subject,
    engine: "Engine",
    place: Path,
    options: dict[str, Any],
) -> "tuple[list[Attempt], list[dict[str, Any]]]":
    """Every run, and the reasoning rows: from the runs in worlds, else the model is asked."""
    from hanol import agent_training, synthesis

    total = len(questions) * options["attempts"]
    try:
        with progress("runs") as report:
            tried = await agent_training.asynthesize_trajectories(
                questions, subject.corpus, engine, place,
                on_attempt=lambda attempt: report(None, total), **options,
            )  # fmt: skip
        if options["is_right"] is not None:  # a world or an expert, which know no other questions
            return tried, agent_training.reasoning_rows(tried)
        replies = synthesis.Replies(
            engine, place / "replies.jsonl", concurrency=options["concurrency"]
        )
        reasoned = agent_training.areason(questions, subject.corpus, replies, seed=options["seed"])
        return tried, await reasoned
    finally:
        await engine.aclose()


def _known_graph(subject: Subject, file: Path) -> "KnowledgeGraph | None":
    """The facts that the questions can be checked against."""
    from hanol.synthesis import world_graph
    from hanol.worlds import KnowledgeGraph

    if subject.world is not None:
        return world_graph(subject.world, subject.corpus)
    beside = file.parent / "graph.jsonl"
    return KnowledgeGraph.read(beside) if beside.is_file() else None


def _sampling(subject: Subject, given: SamplingOptions) -> "Sampling":
    from hanol.research import AGENT_SAMPLING
    from hanol.sampling import Sampling

    # Tiny models of worlds: no penalty on what they must copy.
    tiny = Sampling(temperature=0.7, top_p=1.0, max_tokens=512)
    return given.over(AGENT_SAMPLING if subject.world is None else tiny)


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    yield (
        "{right} of {attempts} runs are right, {failed} failed; {solved} of {questions} questions "
        "are solved".format_map(summary)
    )
    if summary["first_failure"]:
        tell(f"failed: {one_line(summary['first_failure'])}")
    yield ", ".join(f"{number} {kind}" for kind, number in summary["rows"].items())
    yield f"results: {summary['folder']}"
