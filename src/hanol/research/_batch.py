"""Many questions at once, each in its own run folder, so that a killed batch can be resumed.

In the folder of a batch: `runs/<id>/` with the log of each run; `batch.json` with the date of its
prompts, because a batch resumed tomorrow must ask the same; `results.jsonl`, one row per question.

On a Ray cluster, workers pull one question at a time. A worker that dies is started again and its
question asked again: run folders make that harmless, because finished calls are in the log (at
least once, with the same result).
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from hanol.engines import Engine, connect_ray
from hanol.errors import DataError, RunError
from hanol.files import (
    read_json,
    replace_json,
)
from hanol.research._researcher import Researcher
from hanol.research.modes._heavy import aheavy_research
from hanol.retrieval import Index
from hanol.rows import replace_rows
from hanol.runs import Event, RunEnded, Task, alone, gather, synchronous

Row = dict[str, Any]
StrPath = str | os.PathLike[str]
Workplace = tuple[Index | None, Engine, Mapping[str, Any]]
_REWRITE_S = 1.0  # between two versions of the results


async def arun_batch(
    tasks: Sequence[Task],
    index: Index | None,
    engine: Engine,
    folder: StrPath,
    *,
    concurrency: int = 8,
    on_result: Callable[[Row], None] = lambda row: None,
    **options: Any,
) -> list[Row]:
    """Research many questions; finished runs in the folder are not repeated.

    A run that fails is a row with "error", and is tried again by the next call.

    Args:
        concurrency: Runs at once, at least 1.
        on_result: Called with each row when its run has ended or failed.
        options: Options of `Researcher`, and `heavy`: the number of rollouts.

    Returns:
        The rows of `results.jsonl`, in the order of the tasks.

    Raises:
        RunError: Another process is working on the batch in this folder.
    """
    results = _Results(folder, tasks, on_result)
    with alone(folder):
        options = fixed_date(folder, options)

        async def one(task: Task) -> None:
            results.add(await run_task(task, index, engine, folder, options))

        try:
            await gather(one, tasks, concurrency=concurrency)
        finally:
            results.write()
    return results.rows


run_batch = synchronous(arun_batch)


async def run_task(
    task: Task, index: Index | None, engine: Engine, folder: StrPath, options: Mapping[str, Any]
) -> Row:
    """One question to its row; failures are rows too."""
    place = f"runs/{task.folder_name}"
    row: Row = {"id": task.id, "question": task.question, "answer": task.answer, "run": place}
    last: Event | None = None
    settings = {**options, "run_folder": Path(folder) / place}
    heavy = settings.pop("heavy", None)
    try:
        if heavy is None:
            events = Researcher(index, engine, **settings).aask(task.question, task.files)
        else:
            settings["turn_sampling"] = settings.pop("sampling", None)
            events = aheavy_research(index, engine, task.question, task.files, n=heavy, **settings)
        async for event in events:
            last = event
    except Exception as err:
        # Whatever it was, the other questions go on; the row says what happened.
        error = {"kind": type(err).__name__, "message": str(err)}
        return row | {"prediction": None, "error": error}
    assert isinstance(last, RunEnded)
    ended = last.content()
    del ended["step"]
    return row | {"prediction": ended.pop("answer"), "error": None} | ended


def fixed_date(folder: StrPath, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the date on which the batch was started, unless they have a date."""
    path = Path(folder) / "batch.json"
    if options.get("today") is not None:
        return dict(options)
    if not path.exists():
        replace_json(path, {"today": date.today().isoformat()})
    try:
        started = date.fromisoformat(read_json(path)["today"])
    except (OSError, ValueError, LookupError, TypeError) as err:
        raise RunError(
            f'{str(path)!r} does not hold the date of the batch, as in {{"today": '
            '"2026-01-31"}: delete it to go on with the date of today.'
        ) from err
    return {**options, "today": started}


@dataclass
class _Results:
    """`results.jsonl`: rewritten whole, at most once a second, so that it is never half a file."""

    folder: StrPath
    tasks: Sequence[Task]
    on_result: Callable[[Row], None]
    _rows: dict[str, Row] = field(default_factory=dict)
    _written: float = -_REWRITE_S

    @property
    def rows(self) -> list[Row]:
        """The rows so far, in the order of the tasks."""
        return [self._rows[task.id] for task in self.tasks if task.id in self._rows]

    def add(self, row: Row) -> None:
        """Add a row; write the file if the last time was a second ago."""
        self._rows[row["id"]] = row
        if time.monotonic() - self._written >= _REWRITE_S:
            self.write()
        self.on_result(row)

    def write(self) -> None:
        """Write the file now."""
        replace_rows(Path(self.folder) / "results.jsonl", self.rows)
        self._written = time.monotonic()


class _Worker:
    """A worker process: opens index and model once and runs questions in its own event loop."""

    def __init__(
        self, folder: str, make: Callable[[], Workplace], options: Mapping[str, Any]
    ) -> None:
        index, engine, own = make()
        self._common = (index, engine, folder, {**options, **own})
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, task: Task) -> Row:
        """A question to its row."""
        return asyncio.run_coroutine_threadsafe(run_task(task, *self._common), self._loop).result()


def run_batch_on_ray(
    tasks: Sequence[Task],
    make: Callable[[], Workplace],
    folder: StrPath,
    *,
    workers: int,
    concurrency: int = 8,
    on_result: Callable[[Row], None] = lambda row: None,
    **options: Any,
) -> list[Row]:
    """Like `run_batch`, on a Ray cluster; a local one is started if there is none.

    Args:
        make: Opens index, engine and further options (tools) in a worker.
        folder: Folder of the batch, on a disk that all machines share.
        workers: Processes, at least 1.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    if workers < 1 or concurrency < 1:
        raise DataError(
            f"`workers` is {workers} and `concurrency` {concurrency}, but both must be at least 1."
        )
    folder = os.path.abspath(folder)
    with alone(folder):
        options = fixed_date(folder, options)
        ray = connect_ray("A batch over several machines", workers)
        remote = ray.remote(
            num_cpus=0,
            scheduling_strategy="SPREAD",
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=concurrency,
        )(_Worker)
        actors = [remote.remote(folder, make, options) for _ in range(workers)]
        results = _Results(folder, tasks, on_result)
        waiting = iter(tasks)
        running: dict[Any, Any] = {}

        def submit(actor: Any) -> None:
            if (task := next(waiting, None)) is not None:
                running[actor.run.remote(task)] = actor

        try:
            for actor in actors * concurrency:
                submit(actor)
            while running:
                (done, *_), _ = ray.wait(list(running))
                results.add(ray.get(done))
                submit(running.pop(done))
        finally:
            results.write()
            for actor in actors:
                ray.kill(actor)
    return results.rows
