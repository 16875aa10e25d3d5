"""Files written whole or not at all, JSON lines after a kill, safe names."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from hanol.errors import DataError, HanolError, WriteError
from hanol.files import (
    damage,
    open_inside,
    read_json,
    read_text,
    replace_folder,
    replace_json,
    replace_text,
    safe_name,
    sha256,
    whole_file,
    whole_folder,
    write_sums,
)
from hanol.rows import JsonLines, read_rows, replace_rows
from hanol.runs import RunFolder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    replace_text(path, "하나")
    replace_text(str(path), "둘\n")
    assert path.read_text("utf-8") == "둘\n"
    replace_json(path, {"이름": [1]})
    assert path.read_text("utf-8") == '{\n  "이름": [\n    1\n  ]\n}\n'
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0"),
        SafetensorError("Error while serializing: I/O error: No space (os error 28)"),
        Exception("No space left (os error 28)"),
        OSError("262144 requested and 17 written"),
    ],
    ids=["system", "quota", "torch", "torch-end", "safetensors", "tokenizers", "numpy"],
)
def test_a_full_disk_is_named_and_the_old_content_stays(error: Exception, tmp_path: Path) -> None:
    file, folder = tmp_path / "a.txt", tmp_path / "folder"
    replace_text(file, "old")
    with whole_folder(folder) as part:
        (part / "one").write_text("old")

    def write_half(written: AbstractContextManager[Path]) -> None:
        with written as part:
            (part / "one" if part.is_dir() else part).write_text("half")
            raise error

    with pytest.raises(WriteError, match=r"a.txt' could not be written: the disk is full\. .*free"):
        write_half(whole_file(file))
    with pytest.raises(WriteError, match=r"the disk is full\. Resume it\.$"):
        write_half(whole_folder(folder, hint="Resume it."))
    assert names(tmp_path) == ["a.txt", "folder"]
    assert file.read_text() == (folder / "one").read_text() == "old"


def test_other_errors_pass_and_leave_nothing(tmp_path: Path) -> None:
    for error in (KeyError("x"), RuntimeError("other"), DataError("row 3"), KeyboardInterrupt()):
        with pytest.raises(type(error)), whole_folder(tmp_path / "folder"):
            raise error
    assert names(tmp_path) == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="could not be written: ") as caught:
        replace_text(tmp_path / "file" / "inside", "")
    assert isinstance(caught.value, HanolError)
    assert isinstance(caught.value, OSError)
    with pytest.raises(WriteError, match="could not be written: "):
        JsonLines(tmp_path).append({})
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="Is a directory"):
        replace_text(tmp_path / "folder", "")


KILLED = """
import os, pathlib, signal, sys
from hanol import files
path, at = pathlib.Path(sys.argv[1]), sys.argv[2]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if at == "between":  # after the old folder was moved, before the new one takes its place
    rename, calls = pathlib.Path.rename, []
    def renamed(self, target):
        calls.append(1)
        die() if len(calls) == 2 else rename(self, target)
    pathlib.Path.rename = renamed
with files.whole_folder(path) as part:
    (part / "new").write_text("new")
    if at == "inside":
        die()
"""


@pytest.mark.parametrize("at", ["inside", "between"])
def test_a_killed_process_leaves_the_old_folder_or_it_is_put_back(at: str, tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with whole_folder(path) as part:
        (part / "old").write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), at])
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2  # what the kill left
    with suppress(KeyError), whole_folder(path):
        assert names(path) == ["old"]
        raise KeyError
    assert names(tmp_path) == ["folder"]
    with whole_folder(path) as part:
        (part / "new").touch()
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_a_living_process_keeps_its_part(tmp_path: Path) -> None:
    other = tmp_path / f".folder.{os.getppid()}.part"
    other.mkdir()
    with whole_folder(tmp_path / "folder"):
        pass
    assert other.is_dir()


def test_a_folder_that_another_process_made_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()  # an empty one is no result
    with whole_folder(path, replace=False) as part:
        (part / "mine").touch()
    with whole_folder(path, replace=False) as part:
        (part / "later").touch()
    assert names(path) == ["mine"]
    assert names(tmp_path) == ["folder"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match="Not a directory"),
        whole_folder(tmp_path / "file", replace=False),
    ):
        pass


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", tmp_path / "old")
    assert names(tmp_path) == ["old"]


def test_a_symbolic_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with whole_folder(tmp_path / "link") as part:
        replace_text(part / "new", "1")
    replace_text(tmp_path / "file", "old")
    (tmp_path / "other").symlink_to("file")
    replace_text(tmp_path / "other", "new")
    assert (tmp_path / "link").readlink() == Path("real")
    assert (tmp_path / "other").readlink() == Path("file")
    assert (tmp_path / "real" / "new").read_text() == "1"
    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file", "link", "other", "real"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    replace_text(path, "old")
    path.chmod(0o600)
    replace_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_damage_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.bin").write_bytes(bytes(5000))
    (tmp_path / "b.json").write_text("{}")
    write_sums(tmp_path)
    write_sums(tmp_path)  # over the first
    assert damage(tmp_path) is None
    for byte in (0, 2500, 4999):
        data = bytearray(5000)
        data[byte] = 1
        (tmp_path / "in" / "a.bin").write_bytes(data)
        assert damage(tmp_path) == "in/a.bin is not as it was written"
    (tmp_path / "in" / "a.bin").unlink()
    assert damage(tmp_path) == "in/a.bin is missing"
    for content, told in (("", "damaged"), ("3", "damaged"), ('{"b.json": 3}', "b.json is not")):
        (tmp_path / "checksums.json").write_text(content)
        assert told in str(damage(tmp_path))
    (tmp_path / "checksums.json").unlink()
    assert damage(tmp_path) == "checksums.json is missing"


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="name too long"):
        replace_text(tmp_path / ("a" * 250), "")


# -- JSON lines

ROWS = [{"step": 1, "text": "줄\u2028\n"}, {"step": 2, "half": "\ud800"}, {"step": 3}]


def test_rows_are_read_back(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "new" / "metrics.jsonl")
    assert lines.read() == []
    lines.append(ROWS[0], ROWS[1])
    lines.append(ROWS[2], sync=True)
    assert lines.read() == ROWS
    assert "줄" in lines.path.read_text("utf-8")
    lines.keep(lambda row: row["step"] <= 2)
    assert lines.read() == ROWS[:2]
    replace_rows(lines.path, ROWS)
    assert lines.read() == ROWS
    JsonLines(tmp_path / "none").keep(bool)
    assert not (tmp_path / "none").exists()


@given(cut=st.integers(1, 60), long=st.booleans())
def test_a_torn_last_line_is_dropped_and_written_over(
    tmp_path_factory: pytest.TempPathFactory, cut: int, long: bool
) -> None:
    lines = JsonLines(tmp_path_factory.mktemp("lines") / "a.jsonl")
    rows = [{"n": n, "text": "x" * (100_000 if long else 60)} for n in range(3)]
    lines.append(*rows)
    data = lines.path.read_bytes()
    lines.path.write_bytes(data[:-cut])
    assert lines.read() == rows[:2]
    lines.append(rows[2])
    assert lines.path.read_bytes() == data


def test_half_a_row_is_taken_back_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = JsonLines(tmp_path / "a.jsonl")
    lines.append({"n": 1})
    before = lines.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="the disk is full"):
        lines.append({"n": 2}, sync=True)
    assert lines.path.read_bytes() == before


def test_rows_are_never_appended_to_a_file_that_has_another_name(tmp_path: Path) -> None:
    other = tmp_path / "mine"
    other.write_text("torn")
    lines = JsonLines(tmp_path / "rows.jsonl")
    lines.path.hardlink_to(other)
    with pytest.raises(WriteError, match=r"rows.jsonl' could not be written: it is a hard link"):
        lines.append({"n": 1})
    assert other.read_text() == "torn"
    replace_rows(lines.path, [{"n": 0}])  # a file that is replaced is a new one
    lines.append({"n": 1})
    assert other.read_text() == "torn"


@pytest.mark.parametrize("line", [b"{", b"\xff", b"[1]", b""])
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl', line 2"):
        JsonLines(path).read()


# -- rows of data files


def test_a_heading_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,id\n1,a,2\n")
    with pytest.raises(DataError, match=r"a\.csv', line 1: the heading has 'id' twice"):
        list(read_rows(tmp_path / "a.csv"))


# -- names


@given(st.text(max_size=300), st.text(max_size=300))
def test_names_are_safe_and_differ(one: str, other: str) -> None:
    for name in (safe_name(one), safe_name(other)):
        assert len(name) <= 100
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")
    assert (safe_name(one) == safe_name(other)) == (one == other)
    assert json.dumps(safe_name(one)).isascii()


def test_the_empty_text_has_a_name() -> None:
    assert safe_name("") not in {"", safe_name("%"), safe_name("\0")}


def _document(path: Path) -> None:
    from hanol.retrieval import read_document

    read_document(path)


def _script(path: Path) -> None:
    from hanol.engines import ScriptedEngine

    ScriptedEngine.from_file(path)


def _recipe(path: Path) -> None:
    from hanol.training import read_recipe

    read_recipe(path)


READERS = {
    "rows.jsonl": lambda path: list(read_rows(path)),
    "rows.csv": lambda path: list(read_rows(path)),
    "page.txt": _document,
    "script.jsonl": _script,
    "recipe.yaml": _recipe,
    "text": read_text,
}


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
@pytest.mark.parametrize("name", READERS)
def test_nothing_but_files_is_read(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
    with pytest.raises((HanolError, OSError)) as failed:
        READERS[name](path)
    assert name in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    "read",
    [sha256, read_json, lambda pipe: open_inside(pipe.parent, pipe.name),
     lambda pipe: RunFolder(pipe.parent).events(), lambda pipe: JsonLines(pipe).read(),
     lambda pipe: list(read_rows(pipe))],
)  # fmt: skip
def test_a_named_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "events.jsonl")
    with pytest.raises((HanolError, OSError), match="pipe|no regular file"):
        read(tmp_path / "events.jsonl")
