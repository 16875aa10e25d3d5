"""Helper processes: what may hang, crash or fill the memory runs where it can be ended.

No exception stops native code, its crash is that of the whole process, and its memory has no limit
but that of the process. Plain processes, because `multiprocessing` would run the user's main script
again; and no signals in this one, because they reach the main thread alone.
"""

import atexit
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["HelperProcess", "end_helper", "serve_requests", "start_helper"]


class HelperProcess:
    """One process that answers requests, one after the other; started again after it was ended.

    Args:
        start: Starts it, as `start_helper` does.
    """

    def __init__(self, start: "Callable[[], subprocess.Popen[bytes]]") -> None:
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None

    def exchange(
        self, call: str, arguments: tuple[object, ...], data: bytes, seconds: float
    ) -> dict[str, Any] | int:
        """What a function of `serve_requests` returns; an exit code if the process ended instead.

        Args:
            call: Name of the function.
            arguments: Of it, as JSON has them.
            data: Its last argument, if there is any.
            seconds: After these the process is ended.

        Raises:
            OSError: No process can be started.
        """
        process = self._process = self._process or self._start()
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
            return code
        found: dict[str, Any] = json.loads(answer)
        if found.pop("worn", False):
            self.close()
        return found

    def close(self) -> None:
        """End the process, and what it has started."""
        process, self._process = self._process, None
        if process is not None:
            end_helper(process)


_processes: "set[subprocess.Popen[bytes]]" = set()


def start_helper(code: str) -> "subprocess.Popen[bytes]":
    """Start a process that runs some Python, which must call `serve_requests`.

    Raises:
        OSError: No process can be started.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable or "", "-c", code],  # an empty name is an OSError
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # an interrupt is the parent's; and what it starts ends with it
    )
    _processes.add(process)
    return process


def end_helper(process: "subprocess.Popen[bytes]") -> None:
    """End a process that `start_helper` gave, and what it has started."""
    _processes.discard(process)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@atexit.register
def _end_all() -> None:
    # Those at work, too: they would go on for as long as they may.
    for process in [*_processes]:
        end_helper(process)


def _forked() -> None:
    for process in _processes:  # they are the parent's
        process.returncode = 0
    _processes.clear()


os.register_at_fork(after_in_child=_forked)


def serve_requests(
    calls: Mapping[str, Callable[..., dict[str, Any]]], *, memory: int, seconds: float
) -> None:
    """Main loop of a helper: a JSON line and bytes in, JSON lines out, until the input ends.

    Args:
        calls: Functions by name.
        memory: Bytes of address space.
        seconds: That one request may take at most; SIGALRM ends the process then.
    """
    asked, out = sys.stdin.buffer, os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # anything a library prints must not mix with the answers
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    # Kept by the kernel, also while native code runs, and when the parent is killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for line in asked:
        request = json.loads(line)
        data = [asked.read(request["size"])] if request["size"] else []
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(seconds, request["seconds"])))
        answer = calls[request["call"]](*request["arguments"], *data)
        del data
        # Its memory is in pieces: the next request gets a new one.
        answer["worn"] = _resident() > memory // 2
        print(json.dumps(answer, default=vars), file=out, flush=True)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _resident() -> int:
    """Bytes of memory that this process holds."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    # Elsewhere the most that it held. On Linux that begins with what its parent held.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
