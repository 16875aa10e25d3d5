"""Runs the model's Python code in a sandbox without network, files or secrets.

Bubblewrap with namespaces of its own: the code sees /usr and this Python read-only, a small /tmp in
memory, and nothing else of the host; it has no capabilities, is never root, is refused the system
calls of `_seccomp.py` and gets an empty session keyring. Only when the caller insists (`unsafe`), a
"plain" subprocess has limits and no isolation. Processor time is limited for each process.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from weakref import WeakKeyDictionary

from hanol.errors import SandboxError
from hanol.runs import synchronous
from hanol.tools._show import failure
from hanol.tools._tool import PYTHON_INTERPRETER, Observation, SpecifiedTool, ToolContext
from hanol.tools.sandbox._bwrap import (
    SandboxLimits,
    bwrap_command,
    environment,
    prlimit,
    run_folder,
    sandbox_problem,
)
from hanol.tools.sandbox._memory import memory_group, memory_used
from hanol.tools.sandbox._seccomp import leave_session_keyring, seccomp_file

Level = Literal["bwrap", "plain"]
Limit = Literal["wall", "cpu", "memory", "processes", "open_files", "file_size", "disk", "output"]

_LOOK_S = 0.1  # seconds between two looks at the memory of a sandbox
_CONCURRENT = 2  # runs of one tool at once; more wait
# A flood is read and thrown away up to this many times the kept output; then the code is killed.
_FLOOD = 64
_SIGNALS: dict[int, Limit] = {24: "cpu", 25: "file_size", 7: "disk"}  # XCPU, XFSZ, BUS (/dev/shm)
# What the last line of stderr says when a limit was in the way.
_SIGNS: tuple[tuple[str, Limit], ...] = (
    ("MemoryError", "memory"),
    ("[Errno 12]", "memory"),
    ("[Errno 11]", "processes"),
    ("can't start new thread", "processes"),
    ("[Errno 24]", "open_files"),
    ("[Errno 27]", "file_size"),
    ("[Errno 28]", "disk"),
)


@dataclass(frozen=True)
class PythonResult:
    """The result of running code.

    Args:
        stdout: What it printed, at most `SandboxLimits.output_bytes` of the beginning.
        stderr: The same for errors, but of the end, where the exception is.
        exit_code: 0 after success; 128 + n when signal n ended it.
        level: How the code was isolated.
        limit: The limit that ended it or cut its output; None if none did.
        seconds: Wall time.
    """

    stdout: str
    stderr: str
    exit_code: int
    level: Level
    limit: Limit | None
    seconds: float

    @property
    def text(self) -> str:
        """The text that the model reads."""
        parts = [f"stdout:\n{self.stdout}"] if self.stdout else []
        parts += [f"stderr:\n{self.stderr}"] if self.stderr else []
        if self.limit is not None:
            parts.append(f"[limit reached: {self.limit}]")
        if self.exit_code and not self.stderr:
            parts.append(f"[exit code {self.exit_code}]")
        return "\n".join(parts) or "Finished execution."


async def arun_python(
    code: str, *, limits: SandboxLimits | None = None, unsafe: bool = False
) -> PythonResult:
    """Run code in the strongest isolation that works here.

    Whatever happens, cancellation included, no process is left when this returns.

    Args:
        code: Python source; it is handed over as a file and its stdin is empty.
        limits: None takes the defaults.
        unsafe: Run the code as a plain subprocess where nothing better works.

    Raises:
        SandboxError: Nothing but a plain subprocess is possible here and `unsafe` is not set.
    """
    limits = limits or SandboxLimits()
    problem = await asyncio.to_thread(sandbox_problem)
    if problem is not None and not unsafe:
        raise SandboxError(
            f"Code cannot be run in isolation here: {problem} Install bubblewrap (Debian: apt "
            "install bubblewrap), or run code with all of your rights by --unsafe-python."
        )
    with run_folder() as folder:
        script = Path(folder) / "main.py"
        # A lone surrogate is not UTF-8: Python itself then names the line.
        script.write_bytes(code.encode("utf-8", "surrogatepass"))
        if problem is not None:
            command = [*prlimit(limits), sys.executable, "-I", "-B", str(script)]
            return await _supervise(command, folder, limits, "plain")
        group = memory_group(script.parent.name, limits.memory_bytes)
        with seccomp_file() as seccomp, group as joined:
            command = [*joined, *bwrap_command(limits, folder, ["/main.py"], seccomp)]
            return await _supervise(command, folder, limits, "bwrap", seccomp)


run_python = synchronous(arun_python)


class PythonInterpreter(SpecifiedTool, spec=PYTHON_INTERPRETER):
    """The agent's Python interpreter (arXiv 2510.24701), in a sandbox; see `arun_python`.

    Args:
        limits: Limits of each run; None takes the defaults.
        unsafe: Run without isolation where no sandbox works.
    """

    def __init__(self, limits: SandboxLimits | None = None, *, unsafe: bool = False) -> None:
        self._limits = limits
        self._unsafe = unsafe
        # A semaphore belongs to one event loop, a tool may outlive it.
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._slots = WeakKeyDictionary()

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run `arguments["code"]`; the last line of the result names the isolation."""
        code = arguments.get("code")
        if not isinstance(code, str) or not code.strip():
            return failure(
                "No code to run: write it between <code> and </code>, after the JSON object."
            )
        loop = asyncio.get_running_loop()
        try:
            async with self._slots.setdefault(loop, asyncio.Semaphore(_CONCURRENT)):
                result = await arun_python(code, limits=self._limits, unsafe=self._unsafe)
        except SandboxError as err:
            return failure(err)
        text = f"{result.text}\n[sandbox: {result.level}]"
        return Observation(text, failed=result.exit_code != 0)


class _Kept:
    """The beginning or the end of an output stream, up to a size."""

    def __init__(self, size: int, *, end: bool) -> None:
        self._size, self._end = size, end
        self._bytes = b""
        self._total = 0

    async def read(self, stream: asyncio.StreamReader, on_flood: Callable[[], None]) -> None:
        """Read to the end; a flood is read and thrown away once it was reported."""
        flood = self._size * _FLOOD
        while chunk := await stream.read(1 << 16):
            joined = self._bytes + chunk
            self._bytes = joined[-self._size :] if self._end else joined[: self._size]
            if self._total <= flood < self._total + len(chunk):
                on_flood()
            self._total += len(chunk)

    @property
    def is_cut(self) -> bool:
        return self._total > self._size

    @property
    def text(self) -> str:
        text = self._bytes.decode("utf-8", "replace").rstrip("\n")
        if not self.is_cut:
            return text
        note = f"[{self._total - self._size} bytes left out]"
        return f"{note}\n{text}" if self._end else f"{text}\n{note}"


@cache
def _own_loop(_: int) -> asyncio.AbstractEventLoop:
    """Loop of a thread, one a process, without the session keyring; bwrap would die with it."""
    loop = asyncio.new_event_loop()
    loop.call_soon(leave_session_keyring)
    Thread(target=loop.run_forever, name="hanol-sandbox", daemon=True).start()
    return loop


async def _supervise(*args: Any) -> PythonResult:
    """Run `_run` in the sandboxes' thread; cancelled, return when that has ended."""
    loop, stop = _own_loop(os.getpid()), asyncio.Event()
    ended = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_run(stop, *args), loop))
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        loop.call_soon_threadsafe(stop.set)
        await asyncio.wait([ended])
        raise


async def _run(
    stop: asyncio.Event,
    command: list[str],
    folder: str,
    limits: SandboxLimits,
    level: Level,
    *fds: int,
) -> PythonResult:
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(folder),
        start_new_session=True,
        pass_fds=fds,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    stdout = _Kept(limits.output_bytes, end=False)
    stderr = _Kept(limits.output_bytes, end=True)
    killed: list[Limit] = []

    def kill(limit: Limit) -> None:
        killed.append(limit)
        _kill(process, level)

    async def watch() -> None:
        while level == "bwrap":
            await asyncio.sleep(_LOOK_S)
            for first in _children(process):
                if memory_used(first) > limits.memory_bytes:
                    kill("memory")

    ends = [
        asyncio.ensure_future(stdout.read(process.stdout, partial(kill, "output"))),
        asyncio.ensure_future(stderr.read(process.stderr, partial(kill, "output"))),
        asyncio.ensure_future(process.wait()),
    ]
    done, *others = map(asyncio.ensure_future, (asyncio.wait(ends), stop.wait(), watch()))
    await asyncio.wait([done, others[0]], timeout=limits.wall_s, return_when="FIRST_COMPLETED")
    if not done.done():
        killed.append("wall")
    _kill(process, level)
    # A process that left the session of a "plain" run may hold the pipes open for ever.
    await asyncio.wait(ends, timeout=None if level == "bwrap" else 1.0)
    for task in (*ends, done, *others):
        task.cancel()
    code = process.returncode or 0
    exit_code = 128 - code if code < 0 else code
    seconds = time.perf_counter() - start
    limit = killed[0] if killed else _limit_hit(exit_code, seconds, stdout, stderr, limits)
    return PythonResult(stdout.text, stderr.text, exit_code, level, limit, seconds)


def _kill(process: asyncio.subprocess.Process, level: Level) -> None:
    """Kill the code and every process it started; does nothing if they have ended."""
    if level == "plain":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return
    if process.returncode is not None:
        return
    # Killing process 1 of the namespace ends all others, and bwrap lives to collect it: where the
    # machine's own process 1 collects no orphans, killing bwrap would leave a zombie.
    for pid in _children(process) or [process.pid]:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _children(process: asyncio.subprocess.Process) -> list[int]:
    with suppress(OSError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(pid) for pid in children.read_text("ascii").split()]
    return []


def _limit_hit(
    exit_code: int, seconds: float, stdout: _Kept, stderr: _Kept, limits: SandboxLimits
) -> Limit | None:
    if exit_code == 128 + signal.SIGKILL:
        # Not by us: the kernel, for processor time, or because of memory.
        return "cpu" if seconds >= limits.cpu_s else "memory"
    if limit := _SIGNALS.get(exit_code - 128):
        return limit
    if exit_code:
        last = stderr.text.rpartition("\n")[2]
        if hit := next((limit for sign, limit in _SIGNS if sign in last), None):
            return hit
    return "output" if stdout.is_cut or stderr.is_cut else None
