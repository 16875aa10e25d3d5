"""Progress of a download that reports none: how much of it lies in its folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

Progress = Callable[[str, int, int], None]
"""Takes what is being done, the bytes that are there, and the bytes at the end."""

_PAUSE_S = 0.3


@contextmanager
def watched(
    folder: Path, step: str, num_bytes: int, on_progress: Progress | None
) -> Iterator[None]:
    """Report how a folder grows while the block runs."""
    if on_progress is None:
        yield
        return
    report, done = on_progress, Event()

    def look() -> None:
        while not done.wait(_PAUSE_S):
            size = 0
            for file in folder.rglob("*"):
                with suppress(OSError):  # renamed meanwhile
                    size += file.stat().st_size if file.is_file() else 0
            report(step, min(size, num_bytes), num_bytes)

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
