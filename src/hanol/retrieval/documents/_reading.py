"""Finds the documents of a folder and reads them in two processes, a limited number ahead."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hanol.retrieval.documents import _worker

_WORKERS = 2
_AHEAD = 8  # documents read but not yet stored; bounds memory
_TIMEOUT = 400.0  # seconds per document; the reader normally gives up earlier by itself

_Job = TypeVar("_Job")


@dataclass(frozen=True)
class FoundFile:
    """A file of the folder; `reason` says why it is refused, if it is."""

    path: str
    size: int = 0
    mtime_ns: int = 0
    reason: str | None = None


def walk(
    root: Path, start: Path, *, skip: Path, kinds: Iterable[str]
) -> Iterator[FoundFile | None]:
    """The documents of a folder in a fixed order; None for each file of another kind.

    Hidden files and folders and the index are skipped silently; links that lead out of the folder
    and folders that cannot be read are refused.

    Args:
        root: Paths are relative to it, and links must stay inside of it.
        start: A folder or file in it.
        skip: Folder of the index.
        kinds: Lower-case suffixes of documents.
    """
    suffixes = frozenset(kinds)
    if start.is_file():
        yield _look(root, start, suffixes)
        return
    refused: list[OSError] = []
    for folder, folders, files in os.walk(start, onerror=refused.append):
        here = Path(folder)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and here / name != skip
        )
        for name in folders:
            if (here / name).is_symlink() and not _inside(here / name, root):
                yield FoundFile(_relative(here / name, root), reason=_LEADS_OUT)
        for name in sorted(files):
            if not name.startswith("."):
                yield _look(root, here / name, suffixes)
    for err in refused:
        yield FoundFile(
            _relative(Path(err.filename), root), reason=f"cannot be listed: {err.strerror}"
        )


_LEADS_OUT = "is a symbolic link that leads out of the folder"


def _look(root: Path, path: Path, suffixes: frozenset[str]) -> FoundFile | None:
    if path.suffix.lower() not in suffixes:
        return None
    name = _relative(path, root)
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("utf-8", "backslashreplace").decode()
        return FoundFile(shown, reason="has a name that is not Unicode; rename it")
    if path.is_symlink() and not _inside(path, root):
        return FoundFile(name, reason=_LEADS_OUT)
    try:
        status = path.stat()
    except OSError as err:
        return FoundFile(name, reason=f"cannot be read: {err.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return None
    return FoundFile(name, status.st_size, status.st_mtime_ns)


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


class _Reader:
    """One child process that reads documents; restarted after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: str, known: str | None) -> dict[str, Any]:
        if self._process is None:
            try:
                self._process = _start()
            except OSError:  # no processes here: read in this one
                return _worker.read(path, known)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        stalled = threading.Timer(_TIMEOUT, process.kill)
        stalled.start()
        try:
            process.stdin.write(json.dumps([path, known]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            stalled.cancel()
        if answer:
            return dict(json.loads(answer))
        code = process.wait()
        late = stalled.finished.is_set() and code == -9
        self.close()
        return {
            "error": f"Reading it crashed the reader (exit code {code})."
            if not late
            else f"Reading it took more than {_TIMEOUT:.0f} s, or was killed."
        }

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> "subprocess.Popen[str]":
    if not sys.executable:
        raise OSError("this Python cannot start another")
    return subprocess.Popen(
        [sys.executable, "-c", "from hanol.retrieval.documents._worker import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def read_all(
    jobs: Iterable[_Job],
    place: Callable[[_Job], tuple[str, str | None]],
    *,
    isolated: bool = True,
) -> Iterator[tuple[_Job, dict[str, Any]]]:
    """Read documents in order, a few ahead.

    Args:
        jobs: Documents to read, consumed only as fast as the results.
        place: Returns the file of a job and its last hash, or None.
        isolated: False reads in this process, one after the other.

    Yields:
        Each job with what `_worker.read` returns.
    """
    if not isolated:
        yield from ((job, _worker.read(*place(job))) for job in jobs)
        return
    local = threading.local()
    readers: list[_Reader] = []

    def read(job: _Job) -> dict[str, Any]:
        if not hasattr(local, "reader"):
            local.reader = _Reader()
            readers.append(local.reader)
        answer: dict[str, Any] = local.reader.read(*place(job))
        return answer

    pending: deque[tuple[_Job, Future[dict[str, Any]]]] = deque()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="hanol-read")
    try:
        for job in jobs:
            pending.append((job, pool.submit(read, job)))
            if len(pending) >= _AHEAD:
                first, result = pending.popleft()
                yield first, result.result()
        while pending:
            first, result = pending.popleft()
            yield first, result.result()
    finally:
        # Do not wait for a long document after an interrupt.
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()
