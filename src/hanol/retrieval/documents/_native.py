"""Native parsers of untrusted files run in processes that may end at any moment.

No exception stops native code (`_deadline`), and its crash is that of the whole process.
"""

import contextlib
import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path

from hanol.errors import DocumentError
from hanol.retrieval.documents._deadline import TooLateError
from hanol.retrieval.documents._remarks import Grid, Remark, listening, told_now

STEP_SECONDS = 20.0  # for one page; an ordinary one takes 0.01
LATE_EXIT = 1  # exit code of faulthandler, when a step took longer
_SECONDS = 300.0  # for a document in a process of its own
_CHILD = "from hanol.retrieval.documents._native import answer; answer({module!r}, {name!r})"

_may_end = False
_here: ContextVar[bool] = ContextVar("_here", default=False)


def let_end() -> None:
    """Declare that this process only reads documents and is started again when it ends."""
    global _may_end
    _may_end = True


@contextlib.contextmanager
def no_processes() -> Iterator[None]:
    """Let `apart` read in this process."""
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


def apart(read: Callable[[bytes], tuple[str, list[str]]], data: bytes) -> tuple[str, list[str]]:
    """Return `read(data)`, a public function of a module, from a process of its own."""
    if _may_end or _here.get():
        return read(data)
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable or "", "-c", _CHILD.format(module=read.__module__, name=read.__name__)],
            input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except subprocess.TimeoutExpired as err:
        raise TooLateError from err
    except OSError:  # no processes here
        return read(data)
    if not done.stdout:
        raise DocumentError(failure(done.returncode))
    reply = json.loads(done.stdout)
    if reply["error"] is not None:
        raise (DocumentError if reply["known"] else ValueError)(reply["error"])
    for one in reply["remarks"]:
        told_now().add(Remark(**{**one, "pages": ()}), one["pages"])
    if (grids := told_now().grids) is not None:
        grids += (Grid(*grid) for grid in reply["grids"])
    return reply["title"], reply["pages"]


def failure(code: int) -> str:
    """What the end of a reading process means for its document."""
    if code == LATE_EXIT:
        return f"has a page that takes longer than {STEP_SECONDS:.0f} s to read: print it anew"
    return f"crashed the reader (exit code {code}): print it anew"


def answer(module: str, name: str) -> None:
    """Main function of the process: bytes in, one JSON object out."""
    let_end()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # anything a library prints must not mix with the answer
    reply: dict[str, object] = {"error": None, "known": True}
    with listening(grids=True) as told:
        try:
            title, pages = getattr(import_module(module), name)(sys.stdin.buffer.read())
            reply |= {"title": title, "pages": pages, "remarks": [*map(vars, told.remarks())]}
            reply["grids"] = [[*vars(grid).values()] for grid in told.grids or ()]
        except DocumentError as err:
            reply["error"] = str(err)
        except Exception as err:  # parsers of broken files raise whatever comes
            reply |= {"error": f"{type(err).__name__}: {err}", "known": False}
    json.dump(reply, out)
    out.close()
