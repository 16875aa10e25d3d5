"""A time limit for parsers of untrusted files."""

import _thread
import ctypes
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class TooLateError(BaseException):
    """Time is up. Not an `Exception`, because parsers catch those and continue."""


def within(seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return `call(*args)`, or raise `TooLateError` in it when it takes longer; may be nested.

    Size limits do not bound time: a PDF can draw a picture of pictures of pictures. Parsers run in
    the caller's thread, so this cannot be an alarm signal; the interpreter raises the exception in
    that thread as soon as Python code runs again.
    """
    thread, late = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(TooLateError)
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    running, raised = True, False
    started, stop = _thread.allocate_lock(), _thread.allocate_lock()
    started.acquire()
    stop.acquire()

    def watch() -> None:
        nonlocal raised
        wait = seconds
        started.release()
        while not stop.acquire(timeout=wait):
            if running:  # the interpreter changes threads neither here ...
                raised = True
                raise_in(thread, late)
            wait = 1.0  # again, in case a bare `except` took it

    # No context manager and no Event: they are Python code, and the exception could arrive in
    # the middle of it.
    try:
        _thread.start_new_thread(watch, ())
        started.acquire(timeout=1.0)  # until then it has the id of this thread
        return call(*args, **kwargs)
    finally:
        running = False  # ... nor here, so nothing is raised from now on
        if raised:
            # The exception may not have arrived yet. Taking it back would leave the interpreter
            # checking for it for ever: slow, and a trace function (of a debugger, of coverage)
            # would hang in 3.11. So wait for it here.
            try:
                raise_in(thread, late)
                while True:
                    pass
            except TooLateError:
                pass
        stop.release()
