"""Asynchronous events for callers that are not: scripts, notebooks, the command line."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def stream(events: AsyncIterator[T]) -> Iterator[T]:
    """Give the events as they happen, from a loop in a thread of its own.

    A loop may already run in the caller's thread (a notebook's). Whoever stops reading cancels
    what produces the events, and waits until it has ended.
    """
    queue: SimpleQueue[tuple[str, T | BaseException | None]] = SimpleQueue()
    started = threading.Event()
    control: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def pump() -> None:
        task = asyncio.current_task()
        assert task is not None
        control.append((asyncio.get_running_loop(), task))
        started.set()
        async for event in events:
            queue.put(("event", event))

    def work() -> None:
        try:
            asyncio.run(pump())
        except BaseException as err:
            queue.put(("error", err))
        else:
            queue.put(("end", None))

    thread = threading.Thread(target=work, name="hanol-run", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if isinstance(value, BaseException) and kind == "error":
                raise value
            yield value  # type: ignore[misc]
    finally:
        started.wait()
        loop, task = control[0]
        if thread.is_alive() and not loop.is_closed():
            # It may close in between; then there is nothing left to cancel.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
