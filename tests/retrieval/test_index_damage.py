"""What else lies beside an index may be damaged, too: it is named, or made anew."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.faults.damage import HOSTILE_SQL

from hanol.errors import AddressError, SearchIndexError
from hanol.retrieval import Index


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("amber\n")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
    return tmp_path


@pytest.mark.parametrize("name", ["index.sqlite", "index.sum", "writer.pid"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_named_and_made_anew(
    notes: Path, name: str, make: Callable[[Path], None]
) -> None:
    (notes / ".hanol" / name).unlink()
    make(notes / ".hanol" / name)
    with pytest.raises(SearchIndexError, match=rf"{name} is no file.*--rebuild"):
        Index.open(notes)
    with Index.open(notes, rebuild=True) as index:
        index.add(isolated=False)
        assert len(index.search("amber")) == 1


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-wal", "index.sum", "writer.pid"])
def test_a_hard_link_is_named_and_its_other_name_is_never_written_to(
    notes: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    other = tmp_path_factory.mktemp("other") / "mine"
    other.write_bytes((notes / ".hanol" / "index.sqlite").read_bytes() + b"mine")
    before = other.read_bytes()
    (notes / ".hanol" / name).unlink(missing_ok=True)
    (notes / ".hanol" / name).hardlink_to(other)
    with pytest.raises(SearchIndexError, match=rf"{name} is no file.*but a hard link.*--rebuild"):
        Index.open(notes)
    with Index.open(notes, rebuild=True) as index:
        index.add(isolated=False)
        assert len(index.search("amber")) == 1
    assert other.read_bytes() == before


def test_a_folder_that_holds_something_is_never_removed(notes: Path) -> None:
    place = notes / ".hanol" / "index.sqlite"
    place.unlink()
    place.mkdir()
    (place / "mine").touch()
    with pytest.raises(SearchIndexError, match="Move it away"):
        Index.open(notes, rebuild=True)
    assert (place / "mine").exists()


@pytest.mark.parametrize("note", [b"\xff\xfe\x00", b"", b"1 2 3", b"a b"])
def test_a_damaged_note_of_the_checksum_is_no_traceback(notes: Path, note: bytes) -> None:
    (notes / ".hanol" / "index.sum").write_bytes(note)
    (notes / ".hanol" / "writer.pid").write_bytes(b"\xff")
    with suppress(SearchIndexError), Index.open(notes) as index:
        assert len(index.search("amber")) == 1
    with Index.open(notes, rebuild=True) as index:
        assert index.add(isolated=False).added == 1


@pytest.mark.parametrize("statement", HOSTILE_SQL)
def test_a_database_of_a_stranger_is_read_or_named_with_its_cure(
    notes: Path, statement: str
) -> None:
    with closing(sqlite3.connect(notes / ".hanol" / "index.sqlite")) as db:
        db.executescript(statement)
    (notes / ".hanol" / "index.sum").unlink()
    (notes / "b.md").write_text("amber and birch\n")
    uses: list[Callable[[Index], object]] = [
        lambda index: index.search("amber"), Index.documents, Index.remarks,
        lambda index: index.read("a.md"), lambda index: index.add(isolated=False),
    ]  # fmt: skip
    for use in uses:
        with suppress(SearchIndexError, AddressError), Index.open(notes) as index:
            use(index)
    if "'embedder'" in statement:  # which has to be dropped by name
        with pytest.raises(SearchIndexError, match="hanol index --embedder none"):
            Index.open(notes, rebuild=True).add(isolated=False)
        return
    with Index.open(notes, rebuild=True) as index:
        assert index.add(isolated=False).documents == 2


def test_a_column_that_computes_is_refused(notes: Path) -> None:
    with closing(sqlite3.connect(notes / ".hanol" / "index.sqlite")) as db:
        db.execute("ALTER TABLE documents ADD COLUMN g AS (hex(zeroblob(400000000)))")
    (notes / ".hanol" / "index.sum").unlink()
    with pytest.raises(SearchIndexError, match="'documents' in it is not as hanol makes it.*--reb"):
        Index.open(notes)
