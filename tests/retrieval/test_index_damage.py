"""What else lies beside an index may be damaged, too: it is named, or made anew."""

from contextlib import suppress
from pathlib import Path

import pytest

from hanol.errors import SearchIndexError
from hanol.retrieval import Index


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("amber\n")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
    return tmp_path


@pytest.mark.parametrize("name", ["index.sum", "writer.pid"])
def test_a_folder_in_place_of_a_file_is_named(notes: Path, name: str) -> None:
    (notes / ".hanol" / name).unlink()
    (notes / ".hanol" / name).mkdir()
    with pytest.raises(SearchIndexError, match=rf"{name} is a folder in place of a file"):
        Index.open(notes)


@pytest.mark.parametrize("note", [b"\xff\xfe\x00", b"", b"1 2 3", b"a b"])
def test_a_damaged_note_of_the_checksum_is_no_traceback(notes: Path, note: bytes) -> None:
    (notes / ".hanol" / "index.sum").write_bytes(note)
    (notes / ".hanol" / "writer.pid").write_bytes(b"\xff")
    with suppress(SearchIndexError), Index.open(notes) as index:
        assert len(index.search("amber")) == 1
    with Index.open(notes, rebuild=True) as index:
        assert index.add(isolated=False).added == 1
