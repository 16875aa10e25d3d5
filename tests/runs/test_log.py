"""The log: torn and damaged files, locks, the events of a run on the disk while it runs."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.errors import RunError, WriteError
from hanol.runs import Event, ReportUpdated, RunFolder, TurnRejected, alone


def events(count: int) -> list[Event]:
    return [
        ReportUpdated(number=n, time=float(n), step=n, report=f"보고서 {n}\n줄", kept=False)
        for n in range(count)
    ]


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    assert folder.events() == []
    assert not folder.exists
    with folder:
        folder.append(events(3)[:2])
        folder.append(events(3)[2:])
        assert folder.events() == events(3)  # before any end or sync
    assert folder.exists


@given(torn=st.integers(min_value=1))
@settings(max_examples=40, deadline=None)
def test_a_torn_last_line_is_dropped_and_written_over(
    tmp_path_factory: pytest.TempPathFactory, torn: int
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    with folder:
        folder.append(events(3))
    data = folder.log.read_bytes()
    last = len(data.splitlines(keepends=True)[-1])
    folder.log.write_bytes(data[: len(data) - 1 - (torn - 1) % last])
    assert folder.events() == events(3)[:2]
    with folder:
        folder.append(events(3)[2:])
    assert folder.events() == events(3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], b'{"number": 1, "ty\n', lines[2]],
        lambda lines: [lines[0], b"\x00\xff\xfe\n", lines[2]],
        lambda lines: [lines[0], lines[2]],  # a line is missing
        lambda lines: [lines[0], lines[0], lines[2]],
        lambda lines: [lines[0], b"\n", lines[1], lines[2]],
        lambda lines: [lines[0], lines[1].replace(b'"kept":false', b'"kept":false,"new":1')],
    ],
    ids=["half a line", "bytes", "missing", "doubled", "empty", "unknown field"],
)
def test_other_damage_is_an_error_that_names_the_line(tmp_path: Path, damage) -> None:
    folder = RunFolder(tmp_path)
    with folder:
        folder.append(events(3))
    folder.log.write_bytes(b"".join(damage(folder.log.read_bytes().splitlines(keepends=True))))
    with pytest.raises(RunError, match="line 2 "):
        folder.events()


def test_a_log_that_has_another_name_is_read_and_never_written(tmp_path: Path) -> None:
    folder, copy = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "copy")
    with folder:
        folder.append(events(3))
    with folder.log.open("ab") as file:
        file.write(b"torn")
    copy.path.mkdir()
    copy.log.hardlink_to(folder.log)  # as `cp -al` and backups make them
    before = folder.log.read_bytes()
    assert copy.events() == events(3)
    with pytest.raises(WriteError, match="it is a hard link, and its other name would change too"):
        copy.__enter__()
    assert folder.log.read_bytes() == before


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from hanol.runs import RunFolder\n"
        "with RunFolder(sys.argv[1]):\n    print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="Another process is writing"), RunFolder(tmp_path):
            pass
        assert RunFolder(tmp_path).events() == []  # reading is free
        other.kill()
    with RunFolder(tmp_path) as folder:  # the lock dies with its process
        folder.append(events(1))


def test_one_process_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from hanol.runs import alone\n"
        "with alone(sys.argv[1]):\n    print('locked', flush=True); time.sleep(60)"
    )
    folder = tmp_path / "batch"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="Another process is writing"), alone(folder):
            pass
        other.kill()
    with alone(folder), alone(folder):  # the lock died with its process; blocks may be nested
        pass
    with alone(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()  # nothing was written
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file' could not be written"), alone(tmp_path / "file"):
        pass


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in"):
        RunFolder(tmp_path).started()
    assert RunFolder(tmp_path).answer is None
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError, match="cannot be read: .*Not a directory"):
        RunFolder(file).events()
    with pytest.raises(WriteError, match="events.jsonl' could not be written"), RunFolder(file):
        pass


def test_each_event_is_one_json_line(tmp_path: Path) -> None:
    rejected = TurnRejected(number=0, time=time.time(), step=1, error="no_action", text="a\nb  c")
    with RunFolder(tmp_path) as folder:
        folder.append([rejected])
    (line,) = folder.log.read_bytes().split(b"\n")[:-1]
    assert json.loads(line)["text"] == "a\nb  c"
