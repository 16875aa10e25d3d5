"""One writer a folder: a lock that the kernel drops when its process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hanol.errors import RunError, WriteError
from hanol.files import refuse_links, write_failure

_held: set[tuple[int, int]] = set()  # folders that this process has, by device and inode


@contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes a folder within the block; it is made where it is missing.

    Blocks of one process may contain each other. A folder that was made and stayed empty is removed
    at the end.

    Raises:
        RunError: Another process is writing it.
        WriteError: It cannot be made, or there is a link in it.
    """
    folder = Path(folder)
    refuse_links(folder)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as err:
        raise WriteError(folder, str(write_failure(err)), "Give another folder.") from err
    found = os.fstat(descriptor)
    place = found.st_dev, found.st_ino
    is_mine = place not in _held
    try:
        if is_mine:
            lock(descriptor, folder)
            _held.add(place)
        yield
    finally:
        if is_mine:
            _held.discard(place)
        os.close(descriptor)
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def lock(descriptor: int, folder: Path) -> None:
    """Lock an open file or folder until it is closed.

    Raises:
        RunError: Another process has locked it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(
            f"Another process is writing the run in {str(folder)!r}. Wait for it, end it, or "
            "choose another folder."
        ) from None
    except OSError:  # a file system without locks, as some of networks
        return
