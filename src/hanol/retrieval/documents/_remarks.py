"""What a reader could not read, guessed or repaired in a file that it did read."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_taken: ContextVar[dict[str, None] | None] = ContextVar("_taken", default=None)


def remark(text: str) -> None:
    """Note for the user of the document that is being read; the same words count once."""
    if (taken := _taken.get()) is not None:
        taken[text] = None


@contextmanager
def remarks_taken() -> Iterator[dict[str, None]]:
    """Collect the remarks of the readers called inside, in order, as keys."""
    taken: dict[str, None] = {}
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)
