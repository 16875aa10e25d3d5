"""Files: written whole or not at all, checksums, opening what somebody else may have made, names.

Files and folders are written under a temporary name in the same directory, flushed to the disk and
renamed: a reader finds the old content or the new one, never a part, even if the process is killed.

What is read may come from strangers: a named pipe in place of a file would block for ever. So the
package opens files by `open_regular`, `open_inside`, `read_text` and `read_json` alone.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hanol.errors import AddressError, HanolError, WriteError

__all__ = [
    "cache_folder",
    "check_new",
    "damage",
    "is_hidden",
    "open_inside",
    "open_regular",
    "read_json",
    "read_text",
    "refuse_links",
    "refuse_other_name",
    "replace_folder",
    "replace_json",
    "replace_text",
    "safe_name",
    "sha256",
    "state_folder",
    "whole_file",
    "whole_folder",
    "without_codes",
    "write_failure",
    "write_sums",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Libraries report a full disk as text of their own exceptions.
_FULL_TEXTS = (
    "No space left",
    "Disk quota",
    "file write failed",
    "failed writing",
    "unexpected pos",
    " requested and ",  # of numpy, which tells how many bytes were written
    "disk is full",  # of SQLite
)
_OF_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers
_SUMS = "checksums.json"
_HINT = "What was there is unchanged; free some space or give another path."


# -- whole files and folders


def check_new(path: str | Path) -> None:
    """Refuse to write where something is already; an empty folder counts as new.

    Raises:
        WriteError: There is a file, or a folder that is not empty.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise WriteError(path, "it exists already", "Give a new path.")


def replace_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all, as UTF-8.

    Raises:
        WriteError: The disk is full, or the file cannot be written there.
    """
    with whole_file(path) as part:
        part.write_text(text, "utf-8")


def replace_json(path: str | Path, content: Any) -> None:
    """Write a JSON file whole or not at all: indented, letters of all scripts as they are.

    Raises:
        WriteError: The disk is full, or the file cannot be written there.
    """
    replace_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def refuse_links(folder: str | Path, *, is_named: bool = True) -> None:
    """Refuse to write into a folder in which something is a link, a pipe or a device.

    For folders that hanol fills and that somebody may send: what is written there would go where
    they want it.

    Args:
        folder: The folder, which may be missing, or be a file.
        is_named: The user named it, so its own name may be a link, but not below a `.hanol`.

    Raises:
        WriteError: There is one.
    """
    folder = Path(folder)
    parts = folder.absolute().parts
    first = parts.index(".hanol") if ".hanol" in parts else len(parts) - (not is_named)
    links = [one for one in (Path(*parts[:n]) for n in range(first + 1, len(parts) + 1))
             if one.is_symlink()]  # fmt: skip
    waiting = [] if links else [folder]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as found:
            for one in found:
                if one.is_dir(follow_symlinks=False):
                    waiting.append(Path(one.path))
                elif not one.is_file(follow_symlinks=False):
                    links.append(Path(one.path))
                    waiting.clear()
                    break
    if links:
        what = "a symbolic link" if links[0].is_symlink() else "neither a file nor a folder"
        raise WriteError(links[0], f"it is {what}", "Remove it, or use another folder.")


def refuse_other_name(file: int) -> None:
    """Refuse to write in place into an open file that has another name, in whatever folder.

    Files that are replaced need no such check: the other name keeps the old content.

    Raises:
        OSError: It is a hard link.
    """
    if os.fstat(file).st_nlink > 1:
        reason = "it is a hard link, and its other name would change too: put a copy in its place"
        raise OSError(errno.EMLINK, reason)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Context manager: write to the path that it gives; that file replaces `path` at the end.

    Args:
        path: The file; missing parents are made. An old file's permissions are kept; a symbolic
            link stays, and what it names is replaced.

    Raises:
        WriteError: The disk is full, or the file cannot be written there.

    Example:
        >>> with whole_file("prices.csv") as part:  # doctest: +SKIP
        ...     table.to_csv(part)
    """
    path = _target(path)
    with _written(path) as part:
        if path.exists():
            part.touch(mode=0o600)  # nobody reads it before it has the old permissions
        yield part
        _sync(part)
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = True, hint: str = _HINT) -> Iterator[Path]:
    """Context manager: write into the folder that it gives; it replaces `path` at the end.

    Args:
        path: The folder; missing parents are made.
        replace: Whether a folder that exists at the end is replaced. Otherwise it stays, and what
            was written is dropped: for several processes that make the same folder. An empty
            folder is always replaced.
        hint: Last sentence of the error: what the user can do.

    Raises:
        WriteError: The disk is full, or the folder cannot be written there.
    """
    path = _target(path)
    with _written(path, hint) as part:
        part.mkdir()
        yield part
        if replace:
            replace_folder(part, path)
            return
        _sync(part)
        try:
            part.rename(path)  # succeeds where nothing or an empty folder is
        except OSError:
            if not path.is_dir():
                raise


def replace_folder(new: str | Path, path: str | Path) -> None:
    """Replace the folder `path`, which may exist, by the folder `new`, flushed to the disk.

    If that fails, the old folder is put back.
    """
    new, path = Path(new), _target(path)
    _sync(new)
    old = _aside(path)
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def write_failure(err: BaseException) -> str | None:
    """Why something could not be written, in words; None if the error has another cause."""
    if isinstance(err, HanolError):
        return err.reason if isinstance(err, WriteError) else None
    number = getattr(err, "errno", None)
    if number is None and (told := _OF_RUST.search(str(err))):
        number = int(told[1])
        if number not in (*_FULL, errno.EFBIG, errno.EROFS, errno.EIO):
            return None  # something could not be read
    if number in _FULL or any(text in str(err) for text in _FULL_TEXTS):
        return "the disk is full"
    if number == errno.EMLINK and isinstance(err, OSError):
        return str(err.strerror)  # of `refuse_other_name`
    if number is not None:
        return os.strerror(number)
    return str(err) if isinstance(err, OSError) else None


@contextmanager
def _written(path: Path, hint: str = _HINT) -> Iterator[Path]:
    """A path beside `path` that is gone afterwards, and errors that name `path`."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean(path)
        yield part
    except Exception as err:
        if (reason := write_failure(err)) is None:
            raise
        raise WriteError(path, reason, hint) from err
    finally:
        _remove(part)


def _target(path: str | Path) -> Path:
    """The path itself, or what a symbolic link names: the link stays."""
    path = Path(path)
    return path.resolve() if path.is_symlink() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _clean(path: Path) -> None:
    """Finish what a killed process left: put an old folder back, drop what was half written."""
    old = _aside(path)
    if old.exists():
        if path.exists():
            _remove(old)
        else:
            old.rename(path)
    for part in path.parent.glob(f".{escape(path.name)}.*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdecimal() and (int(owner) == os.getpid() or not _runs(int(owner))):
            _remove(part)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):  # such as a name that is too long
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _sync(path: Path) -> None:
    """Flush a file, or all files of a folder, to the disk."""
    for file in (path, *path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


# -- checksums


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sums(folder: str | Path) -> None:
    """Note the SHA-256 of all files of a folder in its `checksums.json`, for `damage`."""
    folder = Path(folder)
    (folder / _SUMS).unlink(missing_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): sha256(path) for path in files}
    (folder / _SUMS).write_text(json.dumps(sums, indent=2) + "\n", "utf-8")


def damage(folder: str | Path) -> str | None:
    """What is wrong with the files of a folder, by its `checksums.json`; None if they are whole."""
    folder = Path(folder)
    try:
        sums = read_json(folder / _SUMS)
    except FileNotFoundError:
        return f"{_SUMS} is missing"
    except (OSError, ValueError):
        sums = None
    if not isinstance(sums, dict) or not sums:
        return f"{_SUMS} is damaged"
    for name, noted in sums.items():
        try:
            if sha256(folder / name) != noted:
                return f"{name} is not as it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as err:
            return f"{name} cannot be read: {err.strerror}"
    return None


# -- files of a folder that others may write to


def is_hidden(path: str | Path) -> bool:
    """Whether any part of a path below a folder is hidden, such as keys, settings and run logs."""
    return any(part.startswith(".") for part in Path(path).parts)


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a file for reading, and nothing that may never end or never begin.

    Raises:
        OSError: It cannot be opened, or is a folder, a pipe, a socket or a device.
    """

    def opened(name: str, flags: int) -> int:
        file = os.open(name, flags | os.O_NONBLOCK)  # else a pipe that nobody writes to blocks
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            reason = "it is a folder, a pipe or a device, not a file: name a file"
            raise OSError(errno.EINVAL, reason, str(path))
        return file

    return open(path, "rb", opener=opened)


def read_text(path: str | Path, encoding: str = "utf-8", *, errors: str = "strict") -> str:
    """The text of a file, with line feeds; see `open_regular`.

    Args:
        path: The file.
        encoding: Its encoding.
        errors: As of `bytes.decode`: what becomes of bytes that are no text.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        UnicodeDecodeError: It is no text in this encoding.
    """
    with io.TextIOWrapper(open_regular(path), encoding, errors) as file:
        return file.read()


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; see `open_regular`.

    Raises:
        OSError: It cannot be opened, or is no regular file.
        ValueError: It is no JSON, no UTF-8, or nested too deeply.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def open_inside(folder: str | Path, name: str | Path) -> io.BufferedReader:
    """Open a regular file of a folder for reading; its attribute `name` is its real path.

    Links that stay in the folder are followed, but none that appears meanwhile.

    Raises:
        AddressError: It lies outside of the folder, is hidden, or is no regular file.
        OSError: It cannot be opened.
    """
    root = Path(os.path.realpath(folder))
    path = Path(os.path.realpath(root / name))  # not `Path.resolve`, which fails for circles
    if not path.is_relative_to(root) or path == root:
        raise AddressError("is a symbolic link that leads out of the folder: copy what it leads to")
    *folders, last = path.relative_to(root).parts
    if is_hidden(path.relative_to(root)) or is_hidden(name):
        raise AddressError("is hidden: hidden files are not read")

    def opened(_: str, flags: int) -> int:
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in folders:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
                os.close(place)
                place = inner
            # Without waiting: a pipe that nobody writes to would block for ever.
            file = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        finally:
            os.close(place)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise AddressError("is no regular file")
        return file

    return open(path, "rb", opener=opened)


# -- names


def cache_folder() -> Path:
    """Where pulled models lie, each in a folder of its name.

    `$HANOL_CACHE`, else `$XDG_CACHE_HOME/hanol/models`, else `~/.cache/hanol/models`.
    """
    if own := os.environ.get("HANOL_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "hanol" / "models"


def state_folder() -> Path:
    """Where hanol keeps what belongs to this user: `$XDG_STATE_HOME`, else `~/.local/state`.

    Raises:
        OSError: The user has no home.
    """
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(base).expanduser().absolute() / "hanol"
    except RuntimeError as err:
        raise FileNotFoundError(str(err)) from err


def safe_name(text: str) -> str:
    """A file name of 1 to 100 characters for any text, different for different texts.

    Long names end in a hash.
    """
    name = quote(text, safe=" ", errors="surrogatepass").replace(".", "%2E")
    if len(name) <= 100:
        return name or "%"  # a quoted text is never a bare percent sign
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{name[:80]}~{digest[:16]}"


def without_codes(text: str) -> str:
    """Text without the control characters by which it could steer a terminal.

    Line ends and tabs stay; so do the joiners of Persian, Hindi and emoji.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t\u200c\u200d" else " " for c in text)
