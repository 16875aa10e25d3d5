"""Where faults are injected: real commands in real processes, watched and judged.

A fault is a function of a `Lab` and a generator of random numbers that returns an `Outcome`. It
does something bad, runs hanol, and says what came of it:

- survived: the command did what it should;
- refused: it ended with one line, or two, that name the cause;
- crash: a traceback, a signal, the exit code of an unforeseen error, or an error without a line;
- hang: it took longer than its limit;
- lost: what was there before is gone, a finished call was repeated, a file of others was changed,
  code of a document or checkpoint was run, or a key was told.
"""

import hashlib
import json
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tests.forked import Forked, start_server

REPOSITORY = Path(__file__).parents[2]
LIMIT = 30.0  # seconds that a command may take beyond its own
KEY = "canary-key-7f3a9c51d2"  # of the environment; it may reach the endpoint that is named alone
# Taking a process apart that has imported torch takes longer than most commands.
MAIN = """
import atexit, os, sys
sys.argv[0] = "hanol"
from hanol.cli import main
code = 70
try:
    main()
except SystemExit as end:
    code = end.code
finally:
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)
"""
# Memory that a command may take: a bomb ends it and not the machine.
BOUND = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))\n"
UNFORESEEN = 70


class Outcome(NamedTuple):
    """What came of a fault."""

    verdict: str
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether hanol did not keep what it promises."""
        return self.verdict in ("crash", "hang", "lost")


class Ended(NamedTuple):
    """A command that has ended; its code is None where it had to be killed."""

    code: int | None
    out: str
    err: str
    seconds: float


Fault = Callable[["Lab", Random], Outcome]


class Kind(NamedTuple):
    """A kind of fault, and how many of it the short and the long form inject."""

    name: str
    fault: Fault
    short: int
    long: int
    is_inside: bool  # many in one process, because a process each would cost too much


KINDS: dict[str, Kind] = {}


def kind(name: str, *, short: int, long: int, inside: bool = False) -> Callable[[Fault], Fault]:
    """Make a function known as a kind of fault."""

    def register(fault: Fault) -> Fault:
        KINDS[name] = Kind(name, fault, short, long, inside)
        return fault

    return register


def generator(seed: int, name: str, number: int) -> Random:
    """The random numbers of one fault: the same, whichever others are injected."""
    return Random(f"{seed}/{name}/{number}")


class Lab:
    """A folder to work in, canaries, and a process to fork commands from.

    Args:
        root: An empty folder; everything is in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.canary = self.root / "canary"
        self.canary.mkdir(parents=True, exist_ok=True)
        self.secret = self.canary / "secret.txt"
        self.secret.write_text("canary-secret of another folder\n")
        self.ran = self.canary / "ran"  # made by code that should never run
        self._hash = self._canaries()
        for name in ("home", "tmp", "work"):
            (self.root / name).mkdir(exist_ok=True)
        self.environment = {
            "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"),
            "XDG_STATE_HOME": str(self.root / "home" / "state"),
            "XDG_CACHE_HOME": str(self.root / "home" / "cache"), "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.root / "home" / "hf"), "OPENAI_API_KEY": KEY,
            "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY), str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")]
            ),
        }  # fmt: skip
        self._server: Any = None
        self._once: dict[str, Any] = {}
        self._number = 0
        self._endpoints: list[Any] = []

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What many faults share, made when the first one needs it."""
        if name not in self._once:
            self._once[name] = make()
        return self._once[name]

    def sound(self, name: str, use: Callable[[], Outcome]) -> None:
        """Check once that what a fault does succeeds where nothing is wrong.

        Else every fault of its kind would be refused, whatever it is.

        Raises:
            RuntimeError: It does not succeed.
        """
        if (outcome := self.once(f"sound: {name}", use)).verdict != "survived":
            raise RuntimeError(f"{name} fails without a fault: {' '.join(outcome)}")

    def folder(self) -> Path:
        """A new empty folder of this fault."""
        self._number += 1
        folder = self.root / "work" / f"{self._number:05d}"
        clear(folder)
        folder.mkdir(parents=True)
        return folder

    def done(self, *, keep: bool) -> None:
        """Remove the folders of a fault."""
        if keep:
            return
        for folder in (self.root / "work").iterdir():
            clear(folder)

    def close(self) -> None:
        """End all processes and servers."""
        for server in self._endpoints:
            with server:
                pass
        if self._server is not None:
            process, asking = self._server
            asking.close()
            process.wait()

    # -- commands

    def start(self, *arguments: object, prelude: str = "", cwd: Path | None = None) -> Forked:
        """Start a command in a process of its own, with hanol imported already."""
        return self.python(f"{prelude}\n{MAIN}", *arguments, cwd=cwd)

    def python(self, code: str, *arguments: object, cwd: Path | None = None) -> Forked:
        """Start `python -c CODE ARGUMENTS`."""
        if self._server is None:
            self._server = start_server()
            self.python("pass").wait()  # its imports are done: what is timed next does not wait
        return Forked(
            self._server[1], self.root / "work", BOUND + code, *arguments,
            cwd=cwd or self.root / "tmp", **self.environment,
        )  # fmt: skip

    def run(
        self, *arguments: object, prelude: str = "", seconds: float = 0, cwd: Path | None = None
    ) -> Ended:
        """Run a command to its end, or kill it when its time is up."""
        begun = time.monotonic()
        process = self.start(*arguments, prelude=prelude, cwd=cwd)
        return self.ended(process, begun, seconds)

    def ended(self, process: Forked, begun: float, seconds: float = 0) -> Ended:
        """Wait for a process, and kill it when its time is up."""
        code: int | None
        try:
            code = process.wait(LIMIT + seconds)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
            code = None
        out, err = (text(place) for place in (process._out, process._err))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left
        return Ended(code, out, err, time.monotonic() - begun)

    def killed(self, begin: Callable[[], Forked], seconds: float) -> int | None:
        """Start a process and kill it, and what it started, after a time; its exit status."""
        process = begin()
        with suppress(TimeoutError):
            process.wait(max(seconds, 0.001))
        with suppress(ProcessLookupError):  # it has ended
            process.send_signal(signal.SIGKILL)
        return process.wait()

    # -- verdicts

    def judged(self, ended: Ended, *, lines: int = 2) -> Outcome:
        """The verdict on a command, canaries included."""
        if problem := self.problem(ended.out + ended.err):
            return Outcome("lost", problem)
        if ended.code is None:
            return Outcome("hang", f"after {ended.seconds:.0f} s: {ended.err[-200:]!r}")
        tail = ended.err.strip()[-300:]
        if "Traceback (most recent call last)" in ended.err + ended.out or "panicked" in ended.err:
            return Outcome("crash", tail)
        if ended.code < 0 or ended.code in (UNFORESEEN, 134, 139):
            return Outcome("crash", f"exit code {ended.code}: {tail}")
        if ended.code == 0:
            return Outcome("survived")
        told = [line for line in ended.err.splitlines() if line.startswith(("hanol: ", "failed: "))]
        if ended.code == 2 and "rror" in ended.err:
            return Outcome("refused", tail[-120:])
        own = [line for line in told if line.startswith("hanol: ")]
        if not told or len(own) > lines:
            return Outcome("crash", f"exit code {ended.code} without a line: {tail}")
        return Outcome("refused", told[-1])

    def problem(self, told: str = "", folder: Path | None = None) -> str | None:
        """What of the canaries is not as it should be."""
        if self._canaries() != self._hash:
            shutil.rmtree(self.canary)
            self.canary.mkdir()
            self.secret.write_text("canary-secret of another folder\n")
            return "a file of others was changed, or code was run"
        if KEY in told:
            return "a key was told"
        if "canary-secret" in told:
            return "a file of others was told"
        for file in folder.rglob("*") if folder is not None else ():
            with suppress(OSError):
                if file.is_file() and not file.is_symlink() and KEY.encode() in file.read_bytes():
                    return f"a key was written to {file.name}"
        return None

    def _canaries(self) -> str:
        files = sorted(self.canary.rglob("*"))
        data = [f"{file.relative_to(self.canary)}\n".encode() + file.read_bytes() for file in files]
        return hashlib.sha256(b"".join(data)).hexdigest()

    # -- endpoints

    def endpoint(self, reply: "Callable[[dict[str, Any]], Iterable[bytes]]") -> "Endpoint":
        """A server on loopback whose answers a function gives as raw bytes, head included.

        A context manager that ends it; else it ends with the lab.
        """
        server = Endpoint(reply)
        self._endpoints.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


class Endpoint(socketserver.ThreadingTCPServer):
    """A model endpoint on loopback; `asked` are the bodies it got."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, reply: Callable[[dict[str, Any]], Iterable[bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.asked: list[dict[str, Any]] = []

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def model(self) -> str:
        """The name of the model for the command line."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1#m"

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news."""


class _Handler(socketserver.StreamRequestHandler):
    server: Endpoint

    def handle(self) -> None:
        size = 0
        while (line := self.rfile.readline(65536)) not in (b"\r\n", b"\n", b""):
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        try:
            body = json.loads(self.rfile.read(size) or b"{}")
        except ValueError:
            return
        if "messages" in body:
            self.server.asked.append(body)
        for part in self.server.reply(body):
            self.wfile.write(part)
            self.wfile.flush()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer of HTTP."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    if not any(line.lower().startswith("content-type:") for line in headers):
        head.append("Content-Type: application/json")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def completion(text: str, **more: Any) -> dict[str, Any]:
    """What an endpoint answers when all is well."""
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    return {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
        "usage": usage, **more,
    }  # fmt: skip


def text(path: Path) -> str:
    """What a process said, as far as it is needed."""
    data = path.read_bytes()
    return (data if len(data) < 4_000_000 else data[:10_000] + data[-10_000:]).decode(
        "utf-8", "replace"
    )


def clear(folder: Path) -> None:
    """Remove a folder, whatever is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # names that are too deep, rights that are missing
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", folder], check=False)


def scripted(path: Path, turns: Iterable[str | Mapping[str, Any]]) -> str:
    """A model that says these turns, for the command line."""
    rows = [turn if isinstance(turn, Mapping) else {"text": turn} for turn in turns]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return f"scripted:{path}"


def serve(module: str, name: str, seed: int, first: int, last: int, root: str) -> None:
    """Inject faults of a kind inside of this process, and say each outcome as a line of JSON."""
    lab = Lab(Path(root))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for number in range(first, last):
        print(json.dumps([number]), flush=True)
        try:
            outcome = KINDS[name].fault(lab, generator(seed, name, number))
        except Exception as err:
            outcome = Outcome("crash", f"{type(err).__name__}: {err}"[:300])
        if problem := lab.problem():
            outcome = Outcome("lost", problem)
        print(json.dumps([number, *outcome]), flush=True)
        lab.done(keep=False)
    sys.exit(0)
