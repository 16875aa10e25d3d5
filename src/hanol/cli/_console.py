"""The one way to the terminal: whatever is printed cannot steer it.

Names of files, errors of servers, ids, templates and configurations come from strangers. In text
that is shown, terminal codes, carriage returns and marks that turn the direction of writing are
replaced by spaces; `escaped` writes them out where they tell names apart.
"""

import json
import logging
import re
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import typer

from hanol.files import without_codes

if TYPE_CHECKING:
    from rich.console import Console

# What JSON leaves as it is and a terminal may obey: C1 codes, directions, tags, half characters.
_RAW = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def escaped(name: str) -> str:
    """A file name as it may be printed: line breaks and terminal codes are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def one_line(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())


def say(text: str = "", *, end: str = "\n") -> None:
    """Print a part of the result, on standard output."""
    sys.stdout.write(without_codes(text) + end)
    sys.stdout.flush()


def tell(text: str, *, end: str = "\n") -> None:
    """Print a note, a warning or an error, on standard error."""
    sys.stderr.write(without_codes(text) + end)
    sys.stderr.flush()


def say_json(plain: Any) -> None:
    """Print a pydantic model or an object as one line of JSON, on standard output."""
    model = hasattr(plain, "model_dump_json")
    text = plain.model_dump_json() if model else json.dumps(plain, ensure_ascii=False)
    sys.stdout.write(_RAW.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")
    sys.stdout.flush()


def write(text: str) -> None:
    """Write what a model wrote, without a line end: as it is to a pipe, safe to a terminal."""
    sys.stdout.write(without_codes(text.expandtabs(4)) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def confirm(question: str) -> None:
    """Ask on standard error, and leave unless the answer is yes."""
    typer.confirm(without_codes(question), abort=True, err=True)


def new_console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """A rich console for tables and colours; brackets are no markup."""
    return _safe_console()(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


@cache
def _safe_console() -> "type[Console]":
    from rich import console as rich  # not at every start

    class SafeConsole(rich.Console):
        def render(
            self, renderable: Any, options: rich.ConsoleOptions | None = None
        ) -> "Any":  # an iterable of rich's segments
            for segment in super().render(renderable, options):
                yield (
                    segment
                    if segment.control
                    else segment._replace(text=without_codes(segment.text))
                )

    return SafeConsole


def tame_libraries() -> None:
    """Make what other libraries log or warn of safe too: it names files and configurations."""
    logging.setLogRecordFactory(_Record)
    shown = warnings.formatwarning

    def formatted(*about: Any, **more: Any) -> str:
        return without_codes(shown(*about, **more))

    warnings.formatwarning = formatted
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal of another encoding shows what it can
            stream.reconfigure(errors="backslashreplace")


class _Record(logging.LogRecord):
    def getMessage(self) -> str:
        return without_codes(super().getMessage())
