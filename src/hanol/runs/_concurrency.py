"""Asynchronous work: a bounded gather, and synchronous versions for scripts and notebooks."""

import asyncio
import atexit
import functools
import inspect
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, overload
from weakref import WeakKeyDictionary

from hanol.errors import ConfigError

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
_THREADS = 32  # of `in_thread` at once, of one loop
_work: SimpleQueue[Callable[[], None]] = SimpleQueue()
_idle = threading.Semaphore(0)  # threads that wait for work: the start of one takes 0.3 ms
_running: set[Future[Any]] = set()
_free_threads: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]"
_free_threads = WeakKeyDictionary()


async def gather(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], *, concurrency: int
) -> list[R]:
    """Do work for many items, a limited number at a time.

    Args:
        work: Called with each item, in order.
        items: Read one by one, as workers become free.
        concurrency: Items at once, at least 1.

    Returns:
        The results, in the order of the items.

    Raises:
        ConfigError: `concurrency` is below 1.
        Exception: The first one that `work` raises; the other items are cancelled.
    """
    if concurrency < 1:
        raise ConfigError(f"`concurrency` is {concurrency}, but must be at least 1.")
    results: dict[int, R] = {}
    waiting = enumerate(items)

    async def worker() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [results[number] for number in sorted(results)]


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread, and leave it alone when the caller is cancelled.

    No thread can be stopped. Those of `asyncio.to_thread` are waited for by the loop and by the
    end of the process; this one is not, so that a budget of time holds.
    """
    context, loop = copy_context(), asyncio.get_running_loop()
    future: Future[R] = Future()
    future.set_running_or_notify_cancel()  # so that nobody can cancel it

    def work() -> None:
        try:
            future.set_result(context.run(function, *args, **kwargs))
        except BaseException as err:
            future.set_exception(err)

    async with _free_threads.setdefault(loop, asyncio.Semaphore(_THREADS)):
        _running.add(future)
        future.add_done_callback(_running.discard)
        if not _idle.acquire(blocking=False):
            threading.Thread(target=_serve, name="hanol-work", daemon=True).start()
        _work.put(work)
        return await asyncio.wrap_future(future)


def _serve() -> None:
    while True:
        _work.get()()
        _idle.release()


def _forked() -> None:
    while _idle.acquire(blocking=False):  # they are the parent's
        pass


os.register_at_fork(after_in_child=_forked)


def leave(code: int) -> None:
    """End the process so if `in_thread` left a thread: inside of C++, it would abort the end."""
    if _running:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@overload
def synchronous(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]: ...
@overload
def synchronous(function: Callable[P, AsyncIterator[T]]) -> Callable[P, Iterator[T]]: ...
def synchronous(function: Callable[P, Any]) -> Callable[P, Any]:
    """The synchronous version of an async function or of one that returns an async iterator.

    It works where an event loop runs already, as in a notebook.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
        result = function(*args, **kwargs)
        return _run(result) if inspect.iscoroutine(result) else _iterate(result)

    wrapped.__name__ = function.__name__.removeprefix("a")
    wrapped.__qualname__ = wrapped.__name__.join(function.__qualname__.rsplit(function.__name__, 1))
    wrapped.__doc__ = f"Synchronous version of `{function.__name__}`: {function.__doc__}"
    return wrapped


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1, thread_name_prefix="hanol-run") as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _iterate(events: AsyncIterator[T]) -> Iterator[T]:
    """Yield items as they come, from a loop in a thread of its own.

    A caller that stops reading cancels what produces the items, and waits until it has ended.
    """
    queue: SimpleQueue[T | Future[None]] = SimpleQueue()
    started: Future[tuple[asyncio.AbstractEventLoop, Any]] = Future()
    ended: Future[None] = Future()

    async def pump() -> None:
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        async for event in events:
            queue.put(event)

    def work() -> None:
        try:
            ended.set_result(asyncio.run(pump()))
        except BaseException as err:
            ended.set_exception(err)
        queue.put(ended)

    def stop() -> None:
        loop, task = started.result()
        with suppress(RuntimeError):  # the loop was closed: there is nothing left to cancel
            loop.call_soon_threadsafe(task.cancel)
        thread.join()

    thread = threading.Thread(target=work, name="hanol-run", daemon=True)
    thread.start()
    atexit.register(stop)  # for a script that ends without having read all items
    try:
        while not isinstance(event := queue.get(), Future):
            yield event
        event.result()
    finally:
        atexit.unregister(stop)
        stop()
