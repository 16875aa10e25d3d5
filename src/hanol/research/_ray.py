"""A batch over the machines of a Ray cluster.

Workers pull one question at a time. A worker that dies is started again and its question asked
again: run folders make that harmless, because finished calls are in the log (at least once, with
the same result). The folder of the batch must be reachable from every machine.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hanol.engines import Engine
from hanol.errors import DataError, require
from hanol.research._batch import Results, Row, fixed_date, run_task
from hanol.retrieval import Index
from hanol.runs import Task

Workplace = tuple[Index | None, Engine, Mapping[str, Any]]


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
    folder: str | os.PathLike[str],
    *,
    workers: int,
    concurrency: int = 8,
    on_result: Callable[[Row], None] = lambda row: None,
    **options: Any,
) -> list[Row]:
    """Like `run_batch`, on a Ray cluster; a local one is started if there is none.

    Args:
        tasks: See `read_tasks`.
        make: Opens index, engine and further options (tools) in a worker.
        folder: Folder of the batch, on a disk that all machines share.
        workers: Processes, at least 1.
        concurrency: Runs at once in each of them.
        on_result: Called with each row.
        options: See `run_batch`.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    if workers < 1 or concurrency < 1:
        raise DataError(
            f"`workers` is {workers} and `concurrency` {concurrency}, but both must be at least 1."
        )
    ray = require("ray", extra="ray", feature="A batch over several machines")
    folder = os.path.abspath(folder)
    options = fixed_date(folder, options)
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    remote = ray.remote(
        num_cpus=0,
        scheduling_strategy="SPREAD",
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=concurrency,
    )(_Worker)
    actors = [remote.remote(folder, make, options) for _ in range(workers)]
    results = Results(folder, tasks)
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
            row = ray.get(done)
            results.add(row)
            on_result(row)
            submit(running.pop(done))
    finally:
        results.write()
        for actor in actors:
            ray.kill(actor)
    return results.rows
