"""Rows of files: JSON lines that grow and survive a kill, and data files of several kinds."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hanol.errors import DataError, WriteError
from hanol.files import (
    open_regular,
    read_text,
    refuse_other_name,
    whole_file,
    write_failure,
)

__all__ = ["JsonLines", "drop_torn_line", "read_rows", "replace_rows", "whole_lines"]


def replace_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a file of JSON lines whole or not at all.

    Raises:
        WriteError: The disk is full, or the file cannot be written there.
    """
    with whole_file(path) as part, part.open("wb") as file:
        file.writelines(map(_line, rows))


class JsonLines:
    """A file of JSON objects, one per line, that grows while a command runs: metrics, replies.

    A killed process leaves whole lines and at most one torn last line, which is dropped.

    Args:
        path: The file; made when the first row is appended.

    Example:
        >>> metrics = JsonLines("run/metrics.jsonl")  # doctest: +SKIP
        >>> metrics.append({"step": 1, "loss": 5.5})  # doctest: +SKIP
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """Every whole row; none where there is no file.

        Raises:
            DataError: The file cannot be read, or a line is damaged; the message names it.
        """
        try:
            with open_regular(self.path) as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as err:
            raise DataError(f"{str(self.path)!r} could not be read: {err}") from err
        return [_object(self.path, n, line) for n, line in enumerate(whole_lines(data), start=1)]

    def append(self, *rows: Any, sync: bool = False) -> None:
        """Write rows. They survive the end of this process; with `sync`, a loss of power too.

        Raises:
            WriteError: The disk is full, or the file cannot be written.
        """
        data = b"".join(map(_line, rows))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A link may lead out of a folder that somebody sent.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(self.path, flags, 0o644), "r+b", buffering=0) as file:
                refuse_other_name(file.fileno())
                size = drop_torn_line(file.fileno())
                try:
                    while data:
                        data = data[file.write(data) :]
                    if sync:
                        os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), size)  # half a row is no row
                    raise
        except OSError as err:
            raise WriteError(self.path, str(write_failure(err))) from err

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the rows that are not wanted: those of steps that a resumed run makes again."""
        if self.path.exists():
            replace_rows(self.path, filter(wanted, self.read()))


def _line(row: Any) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, from a model or a web page
        return json.dumps(row).encode() + b"\n"


def whole_lines(data: bytes) -> list[bytes]:
    """The lines of a file that grows, without a torn last one."""
    return data.split(b"\n")[:-1]


def drop_torn_line(descriptor: int) -> int:
    """Cut what follows the last line end of an open file; returns the size that is left."""
    size = os.fstat(descriptor).st_size
    end = size
    while end:
        begin = max(0, end - (1 << 16))
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a JSONL, JSON (one list), CSV or TSV file, by its suffix.

    Yields:
        Line (of a JSON list: item) from 1, and the row.

    Raises:
        DataError: The file cannot be read, is of another kind, or a row is not an object; the
            message names file and line.
    """
    path = Path(path)
    try:
        text = read_text(path, "utf-8-sig")
    except (OSError, ValueError) as err:  # no UTF-8, or a name with a zero byte
        raise DataError(f"{str(path)!r} could not be read: {err}") from err
    match path.suffix.casefold():
        case ".jsonl":
            # Only "\n" ends a row: `splitlines` would cut texts at U+2028.
            numbered = enumerate(text.split("\n"), start=1)
            yield from ((n, _object(path, n, line)) for n, line in numbered if line.strip())
        case ".json":
            items = _load(path, 1, text)
            if not isinstance(items, list):
                raise DataError(f"{str(path)!r} holds no JSON list; one object a line is .jsonl.")
            for number, item in enumerate(items, start=1):
                if not isinstance(item, dict):
                    raise DataError(f"{str(path)!r}, item {number}: {item!r:.80} is no object.")
                yield number, item
        case ".csv" | ".tsv" as suffix:
            yield from _table(path, text, "\t" if suffix == ".tsv" else ",")
        case suffix:
            raise DataError(f"{str(path)!r}: {suffix!r} is none of .jsonl, .json, .csv, .tsv.")


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        heading = reader.fieldnames or []
        if twice := sorted({name for name in heading if heading.count(name) > 1}):
            raise DataError(f"{str(path)!r}, line 1: the heading has {twice[0]!r} twice.")
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{str(path)!r}, line {reader.line_num}: the row has another number of cells "
                    f"than the heading ({len(heading)})."
                )
            yield reader.line_num, row
    except csv.Error as err:
        # `DictReader.line_num` is that of the row before.
        raise DataError(f"{str(path)!r}, line {reader.reader.line_num}: {err}.") from err


def _load(path: Path, number: int, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{str(path)!r}, line {number}: no JSON ({err}).") from err


def _object(path: Path, number: int, line: str | bytes) -> dict[str, Any]:
    row = _load(path, number, line)
    if not isinstance(row, dict):
        raise DataError(f"{str(path)!r}, line {number}: {row!r:.80} is no object.")
    return row
