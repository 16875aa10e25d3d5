"""The log of a run: a folder with one JSON line per event, written before the run continues.

A process that is killed loses nothing that was appended (the kernel has it); a machine that loses
power loses at most the events that were not synchronised. Either way the file ends with whole
lines, or with one torn line that is dropped.
"""

import fcntl
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from hanol.errors import RunError, WriteError
from hanol.files import open_regular, refuse_links, refuse_other_name, write_failure
from hanol.rows import drop_torn_line, whole_lines
from hanol.runs._events import Event, RunEnded, RunStarted, event_adapter
from hanol.runs._lock import lock

_SPARE_FILES = 128  # for everything else that a process opens


class RunFolder:
    """The folder of one run. Reading needs no lock; appending needs `with`, which locks the run.

    Args:
        path: The folder; created when the run is first written.

    Example:
        >>> RunFolder("runs/capital").answer  # doctest: +SKIP
        'Seoul [3].'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    @property
    def log(self) -> Path:
        """The file of events."""
        return self.path / "events.jsonl"

    @property
    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self.log.is_file() and self.log.stat().st_size > 0

    @property
    def answer(self) -> str | None:
        """The answer, if the run has ended with one."""
        events = self.events()
        last = events[-1] if events else None
        return last.answer if isinstance(last, RunEnded) else None

    def events(self) -> list[Event]:
        """Read every whole event.

        Raises:
            RunError: The log cannot be read, or a line other than a torn last one is damaged or
                missing.
        """
        try:
            with open_regular(self.log) as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as err:
            raise RunError(f"The run in {str(self.path)!r} cannot be read: {err}.") from err
        return [self._parse(line, index) for index, line in enumerate(whole_lines(data))]

    def started(self) -> RunStarted:
        """The first event.

        Raises:
            RunError: There is no run in this folder.
        """
        events = self.events()
        if not events or not isinstance(events[0], RunStarted):
            raise RunError(
                f"There is no run in {str(self.path)!r}: it has no events in `events.jsonl`."
            )
        return events[0]

    def append(self, events: Sequence[Event]) -> None:
        """Write events. They survive the end of this process; `sync` makes them survive more.

        Raises:
            WriteError: The disk is full, or the folder is gone; none of them was written.
        """
        assert self._descriptor is not None, "append needs `with folder:`"
        data = b"".join(event.model_dump_json().encode() + b"\n" for event in events)
        with self._writing():
            size = os.fstat(self._descriptor).st_size
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                os.ftruncate(self._descriptor, size)  # half an event is no event
                raise

    def sync(self) -> None:
        """Wait until everything appended is on the disk.

        Raises:
            WriteError: The disk is full, or broken.
        """
        descriptor = self._descriptor
        if descriptor is not None:
            with self._writing():
                os.fsync(descriptor)

    def __enter__(self) -> Self:
        refuse_links(self.path)
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = _open_for_append(self.log)
        try:
            with self._writing():
                refuse_other_name(descriptor)
            lock(descriptor, self.path)
            drop_torn_line(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            # Closing alone keeps the lock until a `sync` that still runs has ended.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise WriteError(self.log, str(write_failure(err))) from err

    def _parse(self, line: bytes, index: int) -> Event:
        try:
            event = event_adapter.validate_json(line)
        except ValidationError as err:
            raise self._damaged(index, f"is damaged: {err.errors()[0]['msg']}") from err
        if event.number != index:
            found = f"has event {event.number} instead of {index}"
            raise self._damaged(index, f"{found}: lines are missing or doubled")
        return event

    def _damaged(self, index: int, problem: str) -> RunError:
        return RunError(
            f"{str(self.log)!r}, line {index + 1} {problem}. To resume from the events before it, "
            "delete this line and those after it."
        )


def _open_for_append(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    # A thousand runs at once keep a thousand logs open; 1,024 is a common soft limit.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptor + _SPARE_FILES > soft and (soft < hard or hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return descriptor
