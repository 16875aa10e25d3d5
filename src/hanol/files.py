"""Files: written whole or not at all, and rows of data files with the line each stands in."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hanol.errors import DataError


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
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
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


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{str(path)!r}, line {reader.line_num}: the row has another number of cells "
                    f"than the heading ({len(reader.fieldnames or [])})."
                )
            yield reader.line_num, row
    except csv.Error as err:
        # `DictReader.line_num` is that of the row before.
        raise DataError(f"{str(path)!r}, line {reader.reader.line_num}: {err}.") from err


def _load(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(f"{str(path)!r}, line {number}: no JSON ({err}).") from err


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    row = _load(path, number, line)
    if not isinstance(row, dict):
        raise DataError(f"{str(path)!r}, line {number}: {row!r:.80} is no object.")
    return row
