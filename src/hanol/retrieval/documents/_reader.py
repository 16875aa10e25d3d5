"""Reader processes: parsers of untrusted files run where they can be ended at any moment."""

import contextlib
import faulthandler
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hanol.process import HelperProcess, serve_requests, start_helper

STEP_SECONDS = 20.0  # for one page; an ordinary one takes 0.01
SECONDS = 300.0  # for one document; a page of a PDF takes about 0.01
MEMORY = 1280 * 2**20  # bytes of address space; the largest text that is read takes 1,030 MB
TOO_LARGE = f"needs more than {MEMORY >> 20:,} MB of memory: split it, or export it again"
_LATE_EXIT = 1  # exit code of faulthandler, when a step took longer
_KEPT = 2  # processes for single documents
_CHILD = "from hanol.retrieval.documents._reading import answer_requests; answer_requests()"

_may_end = False
_here: ContextVar[bool] = ContextVar("_here", default=False)


def is_here() -> bool:
    """Whether documents are parsed in this process: it is a reader, or is not to start any."""
    return _may_end or _here.get()


@contextlib.contextmanager
def no_processes() -> Iterator[None]:
    """Parse documents in this process."""
    token = _here.set(True)
    try:
        yield
    finally:
        _here.reset(token)


@contextlib.contextmanager
def step() -> Iterator[None]:
    """End the process, if it may, when native code inside does not come back in time."""
    if not _may_end:
        yield
        return
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(STEP_SECONDS, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


class ReaderProcess(HelperProcess):
    """One process that reads documents, one after the other; started again after it was ended."""

    def __init__(self) -> None:
        super().__init__(lambda: _start())

    def ask(
        self, call: str, *arguments: object, data: bytes = b"", seconds: float = SECONDS
    ) -> dict[str, Any]:
        """What a function of `answer_requests` returns; "error" says why it did not.

        Args:
            data: Its last argument, if there is any.
            seconds: After these the process is ended.

        Raises:
            OSError: No process can be started.
        """
        found = self.exchange(call, arguments, data, seconds)
        return {"error": _failure(found, seconds)} if isinstance(found, int) else found


def ask(
    call: str, here: Callable[..., dict[str, Any]], *arguments: object, data: bytes, seconds: float
) -> dict[str, Any]:
    """`ReaderProcess.ask` of one that is kept; waiting for it counts as time.

    Where no process is wanted, or can be started, `here` is called in this one.
    """
    if is_here():
        return here(*arguments, data)
    seconds = min(seconds, SECONDS)
    until = time.monotonic() + seconds
    busy = {"error": f"was not read within {seconds:.0f} s, because others were: try it again"}
    if not _free.acquire(timeout=max(0.0, seconds)):
        return busy
    reader = _idle.pop() if _idle else ReaderProcess()
    try:
        left = until - time.monotonic()
        return reader.ask(call, *arguments, data=data, seconds=left) if left > 0 else busy
    except OSError:
        return here(*arguments, data)
    finally:
        _idle.append(reader)
        _free.release()


_idle: list[ReaderProcess] = []
_free = threading.BoundedSemaphore(_KEPT)


def _start() -> "subprocess.Popen[bytes]":
    return start_helper(_CHILD)


def _forked() -> None:
    global _free
    _idle.clear()
    _free = threading.BoundedSemaphore(_KEPT)


os.register_at_fork(after_in_child=_forked)


def _failure(code: int, seconds: float) -> str:
    """What the end of a reading process means for its document."""
    if code == _LATE_EXIT:
        return (
            f"has a page or part that takes longer than {STEP_SECONDS:.0f} s to read: make it anew"
        )
    if code in (-signal.SIGALRM, -signal.SIGKILL):
        return f"took longer than {seconds:.0f} s to read, or was killed: split it"
    return f"crashed the reader (exit code {code}), or needs too much memory: make it anew"


def serve(calls: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Main loop of a reader: a JSON line and bytes in, JSON lines out, until the input ends."""
    global _may_end
    _may_end = True
    serve_requests(calls, memory=MEMORY, seconds=SECONDS)
