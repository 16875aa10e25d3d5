"""Chat templates are programs of whoever made the checkpoint: they are rendered within limits.

Jinja keeps them from Python and bounds `range`, but neither loops in loops nor texts. Only
an exception can end them: CPython raises it in a thread that runs Python code, as templates are.
What is native goes on: products of large numbers are refused, and memory has a limit meanwhile.
"""

import ctypes
import resource
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from hanol.errors import CheckpointError

_SECONDS = 5.0  # of one rendering; a conversation of a million characters takes 0.1
_LONGEST = 20_000_000  # characters
_MEMORY = 8 << 30  # bytes more than the process has: other threads may need some meanwhile
_DIGITS = 300  # that a number is rounded to; floats have no more
_BITS = 10_000  # of a product; a power takes more than its square
_TICK = 0.25  # seconds between two looks at what is being rendered

_lock = threading.Lock()
_begun: dict[int, float] = {}  # by thread, when it is late
_watched = threading.Event()
_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


class _TooLongError(Exception):
    """Raised in a thread that renders for too long."""


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, what: str = "", **options: Any
) -> Any:
    """`tokenizer.apply_chat_template`, within limits of time and length.

    Args:
        tokenizer: With a chat template.
        messages: The conversation.
        what: The checkpoint, for the message.
        options: Those of `apply_chat_template`.

    Raises:
        CheckpointError: It takes more than 5 seconds or 2 GiB, or makes more than 20 million
            characters.
        Exception: Whatever the template raises.
    """
    _bound_numbers()
    try:
        with _limited():
            made = tokenizer.apply_chat_template(list(messages), **{"tokenize": False, **options})
    except (_TooLongError, MemoryError):
        made = None
    if made is None or (isinstance(made, str) and len(made) > _LONGEST):
        raise CheckpointError(
            f"The chat template{what and f' of {what!r}'} takes more than {_SECONDS:.0f} s, "
            f"{_LONGEST:,} characters or {_MEMORY >> 30} GiB of memory for a conversation. Use "
            "another one."
        )
    return made


@cache
def _bound_numbers() -> None:
    """Let transformers compile templates in which no number becomes too long to be computed."""
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils import chat_template_utils

    class _BoundedTemplates(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.filters["round"] = _round(self.filters["round"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if isinstance(left, int) and isinstance(right, int):
                bits = left.bit_length()
                if (bits * right if operator == "**" else bits + right.bit_length()) > _BITS:
                    raise SecurityError("a number of the template is too large")
            return super().call_binop(context, operator, left, right)

    def _round(plain: Any) -> Any:
        def bounded(value: Any, precision: int = 0, method: Any = "common") -> Any:
            return plain(value, max(-_DIGITS, min(precision, _DIGITS)), method)

        return bounded

    chat_template_utils.ImmutableSandboxedEnvironment = _BoundedTemplates


@contextmanager
def _limited() -> Iterator[None]:
    """Raise in this thread what ends it when it takes too long."""
    me = threading.get_ident()
    with _lock:
        if not _begun:
            _bound_memory()
        _begun[me] = time.monotonic() + _SECONDS
        if not _watched.is_set():
            _watched.set()
            threading.Thread(target=_watch, name="hanol-templates", daemon=True).start()
    try:
        yield
    finally:
        with _lock:
            del _begun[me]
            if not _begun:
                _free_memory()
            _raise_in(ctypes.c_ulong(me), None)  # what has not been raised yet


_before: list[tuple[int, int]] = []  # limits that hold otherwise


def _bound_memory() -> None:
    with suppress(OSError, ValueError):  # only Linux counts, and says, what a process holds
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = pages * resource.getpagesize() + _MEMORY
        if soft == resource.RLIM_INFINITY or most < soft:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
            _before.append((soft, hard))


def _free_memory() -> None:
    while _before:
        resource.setrlimit(resource.RLIMIT_DATA, _before.pop())


def _watch() -> None:
    while True:
        time.sleep(_TICK)
        with _lock:
            if not _begun:
                _watched.clear()
                return
            now = time.monotonic()
            for thread, end in _begun.items():
                if now > end:  # again and again, in case that a template catches it
                    _raise_in(ctypes.c_ulong(thread), ctypes.py_object(_TooLongError))
