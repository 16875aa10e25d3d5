"""Chat templates are programs of whoever made the checkpoint: they are rendered within limits.

Jinja keeps them from Python and bounds `range`, but neither loops in loops nor texts. Only
an exception can end them: CPython raises it in a thread that runs Python code, as templates are.
"""

import ctypes
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hanol.errors import CheckpointError

_SECONDS = 5.0  # of one rendering; a conversation of a million characters takes 0.1
_LONGEST = 20_000_000  # characters
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
        CheckpointError: It takes more than 5 seconds, or makes more than 20 million characters.
        Exception: Whatever the template raises.
    """
    try:
        with _limited():
            made = tokenizer.apply_chat_template(list(messages), **{"tokenize": False, **options})
    except _TooLongError:
        made = None
    if made is None or (isinstance(made, str) and len(made) > _LONGEST):
        raise CheckpointError(
            f"The chat template{what and f' of {what!r}'} takes more than {_SECONDS:.0f} s or "
            f"{_LONGEST:,} characters for a conversation. Use another one."
        )
    return made


@contextmanager
def _limited() -> Iterator[None]:
    """Raise in this thread what ends it when it takes too long."""
    me = threading.get_ident()
    with _lock:
        _begun[me] = time.monotonic() + _SECONDS
        if not _watched.is_set():
            _watched.set()
            threading.Thread(target=_watch, name="hanol-templates", daemon=True).start()
    try:
        yield
    finally:
        with _lock:
            del _begun[me]
            _raise_in(ctypes.c_ulong(me), None)  # what has not been raised yet


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
