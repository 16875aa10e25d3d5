"""`hanol synth trajectories`: an agent at each question, its right runs as training data."""

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._options import (
    ConcurrencyOption,
    IndexOption,
    JsonOption,
    ModelOptions,
    ModeOption,
    SamplingOptions,
    SourceArgument,
    WorldOptions,
    command,
)
from hanol.cli._progress import interruptible, progress
from hanol.cli.synth._subject import Subject, opened_subject

if TYPE_CHECKING:
    from hanol.agent_training import Attempt
    from hanol.sampling import Sampling
    from hanol.synthesis import SynthQuestion
    from hanol.worlds import KnowledgeGraph


@command
def trajectories(
    source: SourceArgument,
    file: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help='JSON lines with "question" and "answer".')
    ],
    model: ModelOptions,
    num_runs: Annotated[
        int, typer.Option("--num-runs", "-n", min=1, help="Number of runs per question.")
    ] = 4,
    mode: ModeOption = "react",
    max_calls: Annotated[
        int | None,
        typer.Option(
            min=1, help="Maximum number of model calls per run. Omitted: the mode's own limit."
        ),
    ] = None,
    index: IndexOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the results. Omitted: beside QUESTIONS.")
    ] = None,
    concurrency: ConcurrencyOption = 8,
    world: WorldOptions = WorldOptions(),
    sampling: SamplingOptions = SamplingOptions(),
    as_json: JsonOption = False,
) -> None:
    """Run an agent on each question and keep what is right as training data.

    Writes trajectories.jsonl (official lines), sft.jsonl (conversations) and midtrain.jsonl
    (planning, reasoning and decision steps). In a world, the model `expert` shows how it is done.
    Repeated, the command continues where it stopped. Exits with 1 if a run failed; the others are
    done all the same.

    Example: hanol synth trajectories encyclopedia:7 questions.jsonl --model expert --num-runs 1
    """
    from hanol import synthesis
    from hanol.agent_training import write_trajectories

    found = synthesis.read_questions(file)
    place = output or file.parent / "trajectories"
    with opened_subject(source, index, place, _made_of(file, source, world)) as subject:
        synthesis.check_questions(found, _known_graph(subject, file))
        run = _Trajectories(found, subject, place, model, concurrency)
        options: dict[str, Any] = {"mode": mode, "seed": sampling.seed, "attempts": num_runs}
        options["sampling"] = _sampling(subject.world is not None, sampling)
        if subject.tools is not None:
            options["tools"] = subject.tools
        if max_calls is not None:
            options["budget"] = _budget(mode, max_calls)
        with interruptible():
            tried, reasoned = run.all(options)
        summary = write_trajectories(place, tried, reasoned)
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        _print_trajectories(summary)
    if summary["failed"]:
        raise typer.Exit(1)


class _Trajectories:
    """The steps of `trajectories`."""

    def __init__(
        self,
        questions: "list[SynthQuestion]",
        subject: Subject,
        place: Path,
        model: ModelOptions,
        concurrency: int,
    ) -> None:
        from hanol import agent_training
        from hanol.engines import open_engine

        self._questions, self._corpus, self._world = questions, subject.corpus, subject.world
        self._place, self._concurrency = place, concurrency
        if self._world is not None and model.model == "expert":
            self._engine = agent_training.world_expert(self._world, questions)
        else:
            self._engine = open_engine(model.model, **model.given)

    def is_right(self, question: "SynthQuestion", text: str) -> bool:
        """By the world where there is one: it knows other names and ways to write numbers."""
        from hanol.synthesis import world_question

        if self._world is None:
            return question.is_right(text)
        return self._world.is_right(world_question(question), text)

    def all(self, options: dict[str, Any]) -> "tuple[list[Attempt], list[dict[str, Any]]]":
        """Every run, and the reasoning rows: from the runs in worlds, else the model is asked."""
        from hanol import agent_training, synthesis

        total = len(self._questions) * options["attempts"]

        async def run() -> "tuple[list[Attempt], list[dict[str, Any]]]":
            try:
                tried = await agent_training.asynthesize_trajectories(
                    self._questions,
                    self._corpus,
                    self._engine,
                    self._place,
                    is_right=self.is_right,
                    concurrency=self._concurrency,
                    on_attempt=lambda attempt: report(None, total),
                    **options,
                )
                if self._world is not None:  # models of a world know no other instructions
                    return tried, agent_training.reasoning_rows(tried)
                log = self._place / "replies.jsonl"
                replies = synthesis.Replies(self._engine, log, concurrency=self._concurrency)
                seed = options["seed"]
                return tried, await agent_training.areason(
                    self._questions, self._corpus, replies, seed=seed
                )
            finally:
                await self._engine.aclose()

        with progress("runs") as report:
            return asyncio.run(run())


def _made_of(file: Path, source: str, world: WorldOptions) -> WorldOptions:
    """The options of the world that questions were made from, where their report has them."""
    report = file.parent / "report.json"
    if report.is_file():
        made = json.loads(report.read_text("utf-8"))
        if made.get("source") == source:
            return WorldOptions(num_entities=made["entities"], split=made["split"])
    return world


def _known_graph(subject: Subject, file: Path) -> "KnowledgeGraph | None":
    """The facts that the questions can be checked against."""
    from hanol.synthesis import world_graph
    from hanol.worlds import KnowledgeGraph

    if subject.world is not None:
        return world_graph(subject.world, subject.corpus)
    beside = file.parent / "graph.jsonl"
    return KnowledgeGraph.read(beside) if beside.is_file() else None


def _sampling(is_world: bool, given: SamplingOptions) -> "Sampling":
    from hanol.research import AGENT_SAMPLING
    from hanol.sampling import Sampling

    # Tiny models of worlds: no penalty on what they must copy.
    tiny = Sampling(temperature=0.7, top_p=1.0, max_tokens=512)
    return given.over(tiny if is_world else AGENT_SAMPLING)


def _budget(mode: str, calls: int) -> Any:
    from hanol.runs import Budget

    return Budget(model_calls=calls, **({"context_tokens": 32 * 1024} if mode == "resum" else {}))


def _print_trajectories(summary: dict[str, Any]) -> None:
    typer.echo(
        f"{summary['right']} of {summary['attempts']} runs are right, {summary['failed']} failed; "
        f"{summary['solved']} of {summary['questions']} questions are solved"
    )
    if summary["first_failure"]:
        print(f"failed: {' '.join(summary['first_failure'].split())}", file=sys.stderr)
    typer.echo(", ".join(f"{number} {kind}" for kind, number in summary["rows"].items()))
    typer.echo(f"results: {summary['folder']}")
