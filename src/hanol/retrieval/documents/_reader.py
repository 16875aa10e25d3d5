"""Reader processes: parsers of untrusted files run where they can be ended at any moment.

No exception stops native code, its crash is that of the whole process, and its memory
has no limit but that of the process. Plain processes, because `multiprocessing` would run the
user's main script again.
"""

import atexit
import contextlib
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

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


class ReaderProcess:
    """One process that reads documents, one after the other; started again after it was ended."""

    _process: "subprocess.Popen[bytes] | None" = None

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
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"call": call, "arguments": arguments, "size": len(data), "seconds": seconds}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        except BaseException:  # an interrupt: its answer must not become that of another request
            self.close()
            raise
        if not answer:
            code = process.wait()
            self.close()
            return {"error": _failure(code, seconds)}
        found: dict[str, Any] = json.loads(answer)
        if found.pop("worn", False):
            self.close()
        return found

    def close(self) -> None:
        """End the process, and what it has started."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)


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
_processes: "set[subprocess.Popen[bytes]]" = set()


def _start() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(  # noqa: S603
        [sys.executable or "", "-c", _CHILD],  # an empty name is an OSError
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # an interrupt is the parent's; and OCR ends with its reader
    )
    _processes.add(process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    _processes.discard(process)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@atexit.register
def _end_all() -> None:
    # Those at work, too: they would go on for as long as they may.
    for process in [*_processes]:
        _end(process)


def _forked() -> None:
    global _free
    for process in _processes:  # they are the parent's
        process.returncode = 0
    _processes.clear()
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
    asked, out = sys.stdin.buffer, os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # anything a library prints must not mix with the answers
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
    # Kept by the kernel, also while native code runs, and when the parent is killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in asked:
        request = json.loads(line)
        data = [asked.read(request["size"])] if request["size"] else []
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(SECONDS, request["seconds"])))
        answer = calls[request["call"]](*request["arguments"], *data)
        del data
        # Its memory is in pieces: the next document gets a new one.
        answer["worn"] = _resident() > MEMORY // 2
        print(json.dumps(answer, default=vars), file=out, flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    # Elsewhere the most that it held. On Linux that begins with what its parent held.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
