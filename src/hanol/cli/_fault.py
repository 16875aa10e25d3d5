"""What the command line says of an error that nobody foresaw: one line, and a log of it."""

import os
import re
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import hanol
from hanol.cli._console import escaped, one_line, say_json, tell
from hanol.files import state_folder

EXIT_CODE = 70  # EX_SOFTWARE in sysexits.h
_LONGEST = 200_000  # characters of a log
_KEPT = 20  # logs
# Keys: values of variables with such names, and what keys look like.
_SECRET_NAME = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_SECRET = re.compile(
    r"(Bearer\s+|://[^\s/@]*:)[^\s'\"@]+|\b(?:sk|hf|ghp|pypi)[-_][A-Za-z0-9_-]{8,}"
)


def report_fault(err: BaseException) -> int:
    """Say in one line what was raised and where its traceback lies; returns the exit code."""
    kind = type(err).__name__
    try:
        message = one_line(without_keys(str(err)[:1000]))[:200].rstrip(". ")
    except Exception:  # an exception that cannot even be printed
        message = ""
    if isinstance(err, MemoryError):
        message = message or "there is not enough memory"
    told = f"unexpected {kind}{': ' * bool(message)}{message}."
    if (log := _log(err)) is None:
        told += " This is a fault in hanol: please report it. Its log could not be written."
    else:
        told += f" This is a fault in hanol: please report it with the log {log}"
    if "--json" in sys.argv:
        say_json({"error": {"kind": kind, "message": told}})
    tell(f"hanol: {escaped(told)}")
    return EXIT_CODE


def without_keys(text: str) -> str:
    """The text without the keys of this environment, and without what looks like one."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _SECRET.sub(lambda found: f"{found[1] or ''}***", text)


def _log(err: BaseException) -> Path | None:
    """A file with the traceback that only this user can read; None where none can be written."""
    try:
        trace = "".join(traceback.format_exception(err))
    except BaseException:  # as the memory is full
        trace = f"{type(err).__name__}, whose traceback cannot be printed"
    about = f"hanol {hanol.__version__}, Python {sys.version}, {sys.platform}\n{sys.argv}\n\n"
    text = without_keys(about + trace[-_LONGEST:])
    for find in (lambda: state_folder() / "faults", lambda: Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder = find()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = folder / f"hanol-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            if folder.name == "faults":
                for old in sorted(folder.glob("hanol-*.log"))[:-_KEPT]:
                    old.unlink(missing_ok=True)
            return path
    return None
