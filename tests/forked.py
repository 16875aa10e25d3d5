"""Processes of their own that start at once: forks of one that has imported hanol before.

`in_child` forks whoever calls it, for the programs here that kill what they run. `Forked` is for
tests, which must not fork themselves: it asks a process that computes nothing for a fork of itself.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

IMPORTED = (
    "hanol.agent_training", "hanol.autodeco", "hanol.cli", "hanol.training", "matplotlib.figure",
)  # fmt: skip


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked process; its exit status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Forked:
    """`python -c CODE ARGUMENTS` in a session of its own, with the slow imports done before.

    Its output goes to files in a folder, or all that it says to the terminal `tty`. It hears Ctrl-C
    as in the foreground, and ends as any process does.
    """

    def __init__(
        self, server: socket.socket, folder: Path, code: str, *arguments: object,
        cwd: Path | None = None, tty: str | None = None, **environment: str,
    ) -> None:  # fmt: skip
        place = Path(mkdtemp(dir=folder))
        self._out, self._err = place / "out", place / "err"
        self._out.touch()
        self._err.touch()
        job = {
            "code": code,
            "argv": ["-c", *map(str, arguments)],
            "cwd": str(cwd or Path.cwd()),
            "streams": [tty] * 3 if tty else [os.devnull, str(self._out), str(self._err)],
            "env": {**os.environ, **environment},
        }
        self._connection, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(server, [b"x"], [theirs.fileno()])
        self._connection.sendall(json.dumps(job).encode() + b"\n")
        self.pid = int(_line(self._connection))
        self._code: int | None = None

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._err.read_text("utf-8")

    def wait(self, timeout: float = 100) -> int:
        """Its exit status, or minus the signal that ended it.

        Raises:
            TimeoutError: It has not ended within so many seconds.
        """
        if self._code is None:
            self._connection.settimeout(timeout)
            self._code = int(_line(self._connection))
            self._connection.close()
        return self._code

    def poll(self) -> int | None:
        """Its exit status if it has ended."""
        try:
            return self.wait(0.001)
        except TimeoutError:
            return None

    def send_signal(self, number: int) -> None:
        """Send it, and what it has started, a signal."""
        if self.poll() is None:
            os.killpg(self.pid, number)


def start_server() -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """The process to fork, and the socket that asks it; it ends when the socket is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, __file__, str(number)], pass_fds=[number], start_new_session=True
        )
    return process, ours


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := connection.recv(1)):
            raise EOFError("the process that is forked has ended")
        line += byte
    return line


def _serve(asked: socket.socket) -> str:
    """Fork for each request; the code in the process that is asked for, none at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, 1, 1)
        if not message:
            return ""
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                asked.close()
                return _begin(connection)


def _begin(connection: socket.socket) -> str:
    """Fork the process that is asked for, which returns, and wait for it, which does not."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with connection.makefile("rb") as file:
        job: dict[str, Any] = json.loads(file.readline())
    pid = os.fork()
    if pid == 0:
        _become(job)
        connection.sendall(f"{os.getpid()}\n".encode())
        return str(job["code"])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):  # who asked may be gone
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _become(job: dict[str, Any]) -> None:
    """Turn into a fresh process: streams, folder, environment, arguments, Ctrl-C."""
    os.setsid()  # so that the terminal that it opens first is its own
    for number, path in enumerate(job["streams"]):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.path[1:1] = job["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = job["argv"]
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.path[0] = ""  # as after `python -c`
    for name in IMPORTED:
        import_module(name)
    # Torch imports it at exit, where it is installed, and so Python forgets an interrupt.
    with suppress(ModuleNotFoundError):
        import_module("tabulate")
    gc.freeze()  # a collection in a fork would copy all of it
    exec(_serve(socket.socket(fileno=int(sys.argv[1]))), {"__name__": "__main__"})
