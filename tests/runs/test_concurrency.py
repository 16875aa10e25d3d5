"""A bounded gather, and synchronous versions of async functions."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar

import pytest
from tests.forked import Forked

from hanol.errors import ConfigError
from hanol.runs import gather, in_thread, synchronous


async def anumbers(count: int) -> AsyncIterator[int]:
    """Count."""
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def atwice(number: int) -> int:
    """Two times a number."""
    await asyncio.sleep(0)
    return 2 * number


numbers, twice = synchronous(anumbers), synchronous(atwice)


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_results_are_in_order_and_bounded(concurrency: int) -> None:
    running = most = 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - item % 5))
        running -= 1
        return item * item

    found = asyncio.run(gather(work, iter(range(20)), concurrency=concurrency))
    assert found == [n * n for n in range(20)]
    assert most == min(concurrency, 20)
    assert asyncio.run(gather(work, [], concurrency=concurrency)) == []


def test_the_first_error_cancels_the_rest() -> None:
    done: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise KeyError(item)
        await asyncio.sleep(10)
        done.append(item)

    with pytest.raises(KeyError, match="1"):
        asyncio.run(gather(work, range(5), concurrency=3))
    assert done == []
    with pytest.raises(ConfigError, match="`concurrency` is 0"):
        asyncio.run(gather(work, range(5), concurrency=0))


def test_synchronous_versions_work_with_and_without_a_running_loop() -> None:
    assert list(numbers(3)) == [0, 1, 2]
    assert twice(4) == 8

    async def inside() -> tuple[list[int], int]:
        return list(numbers(2)), twice(1)

    assert asyncio.run(inside()) == ([0, 1], 2)
    assert numbers.__name__ == "numbers"
    assert (numbers.__doc__ or "").startswith("Synchronous version of `anumbers`: Count.")


def test_a_caller_that_stops_reading_cancels_the_producer() -> None:
    ended: list[str] = []

    async def aforever() -> AsyncIterator[int]:
        """Never end."""
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            ended.append("cancelled")

    reading = synchronous(aforever)()
    assert next(reading) == 1
    reading.close()  # type: ignore[attr-defined]
    assert ended == ["cancelled"]


def test_errors_reach_the_caller() -> None:
    async def afail() -> int:
        """Fail."""
        raise KeyError("x")

    with pytest.raises(KeyError):
        synchronous(afail)()


def test_a_thread_gives_its_result_or_what_it_raised() -> None:
    setting: ContextVar[int] = ContextVar("setting")

    async def use() -> None:
        setting.set(5)
        assert await in_thread(setting.get) == 5
        with pytest.raises(KeyError, match="no such key"):
            await in_thread({}.__getitem__, "no such key")
        many = await asyncio.gather(*(in_thread(divmod, n, 7) for n in range(200)))
        assert many == [divmod(n, 7) for n in range(200)]

    asyncio.run(use())


def test_nobody_waits_for_a_thread_that_was_given_up() -> None:
    """Neither the loop that ends nor calls after it, however many are stuck."""
    stuck = threading.Event()

    async def give_up() -> int:
        for _ in range(40):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(in_thread(stuck.wait, 60), 0.01)
        return await in_thread(int, "7")

    start = time.monotonic()
    assert asyncio.run(give_up()) == 7
    assert time.monotonic() - start < 20
    stuck.set()


FORKS = """
import asyncio, sys
from hanol.runs import in_thread
from tests.forked import in_child

asyncio.run(in_thread(int, "7"))
sys.exit(in_child(lambda: asyncio.run(asyncio.wait_for(in_thread(int, "7"), 20))))
"""


def test_a_forked_process_has_threads_of_its_own(forked: Callable[..., Forked]) -> None:
    assert forked(FORKS).wait(50) == 0
