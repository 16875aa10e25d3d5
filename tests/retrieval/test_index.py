"""The index: what goes in, what stays consistent, who may write."""

import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hanol.errors import AddressError, SearchIndexError
from hanol.files import open_inside
from hanol.retrieval import FileProgress, Index, Passage
from hanol.retrieval.documents import (
    _reader,  # private: its process
    _reading,  # private: limits are lowered
)
from hanol.retrieval.index import (
    _store,  # private: how often a file is hashed
    _update,  # private: the points at which the process dies
)

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor"]
WORDS += ["서울특별시의", "인구는", "東京都", "1,234"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read documents in this process, as where no processes can be started: it is faster."""

    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(_reader, "_start", refuse)


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def content(index: Index) -> list[tuple[object, ...]]:
    """Everything that two indexes of the same files must agree on."""
    found: list[tuple[object, ...]] = [
        (info.document, info.sha256, info.title, info.passages) for info in index.documents()
    ]
    for info in index.documents():
        found += [(p.document, p.page, p.start, p.end, p.text) for p in index.read(info.address)]
    if found:
        for query in [*WORDS, "서울", "amber cedar", "강"]:
            hits = index.search(query, k=1000, mode="bm25")
            found.append(
                (
                    query,
                    sorted((-round(p.score, 9), p.document, p.page or 0, p.start) for p in hits),
                )
            )
    return found


def assert_same_as_fresh(index: Index, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    with Index.open(index.folder, index_folder=place) as fresh:
        fresh.add()
        assert content(index) == content(fresh)
        assert index.version == fresh.version


def test_report_counts_each_kind_of_file(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    for name in ("a.md", "b.txt", "sub/c.txt"):
        write(folder, name, f"text of {name}")
    write(folder, "picture.raw", "x")
    write(folder, "broken.pdf", "%PDF-1.7 and nothing more")
    write(folder, ".hidden/d.txt", "hidden")
    write(folder, ".e.txt", "hidden")
    write(tmp_path, "outside.txt", "secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "linked").symlink_to(tmp_path)
    events: list[FileProgress] = []
    with Index.open(folder) as index:
        report = index.add(on_file=events.append)
        assert (report.added, report.changed, report.removed, report.unchanged) == (3, 0, 0, 0)
        assert report.ignored == 1
        reasons = {file.document: file.reason for file in report.failed}
        assert reasons.keys() == {"broken.pdf", "link.txt", "linked"}
        assert "leads out of the folder" in reasons["link.txt"]
        assert [event.done for event in events] == list(range(1, len(events) + 1))
        assert {event.status for event in events} == {"added", "failed"}

        write(folder, "a.md", "another text")
        (folder / "b.txt").unlink()
        write(folder, "sub/c.txt", "text of sub/c.txt")  # the same again, with a new time
        report = index.add()
        assert (report.added, report.changed, report.removed, report.unchanged) == (0, 1, 1, 1)
        assert report.documents == 2
        assert_same_as_fresh(index, tmp_path / "fresh")


def test_a_changed_file_that_breaks_loses_its_old_text(tmp_path: Path, in_process: None) -> None:
    document = docx.Document()
    document.add_paragraph("amber")
    document.save(str(tmp_path / "a.docx"))
    write(tmp_path, "b.txt", "birch")
    with Index.open(tmp_path) as index:
        index.add()
        assert index.search("amber")
        write(tmp_path, "a.docx", "broken")
        report = index.add()
        assert [file.document for file in report.failed] == ["a.docx"]
        assert index.search("amber") == []


def test_same_size_same_instant_changes_are_seen(tmp_path: Path, in_process: None) -> None:
    file = write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        index.add()
        stamp = file.stat().st_mtime_ns
        file.write_text("birch")
        os.utime(file, ns=(stamp, stamp))  # as within one tick of a coarse clock
        assert index.add().changed == 1
        assert index.search("birch")


def test_settled_files_are_not_opened_again(tmp_path: Path, in_process: None) -> None:
    file = write(tmp_path, "a.txt", "amber")
    os.utime(file, (1e9, 1e9))
    with Index.open(tmp_path) as index:
        index.add()
        file.chmod(0)
        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr(_reading, "read_file", lambda *_: pytest.fail("was read"))
            assert index.add().unchanged == 1


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.txt", "b.md", "sub/c.txt", "d.txt"]),
            st.one_of(st.none(), st.lists(st.sampled_from(WORDS), min_size=1, max_size=400)),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_sequence_of_changes_gives_the_index_of_the_end_state(
    tmp_path_factory: pytest.TempPathFactory,
    in_process: None,
    steps: list[tuple[str, list[str] | None, bool]],
) -> None:
    folder = tmp_path_factory.mktemp("changes")
    write(folder, "stays.txt", "amber grove")
    with Index.open(folder) as index:
        index.add()
        for name, words, index_now in steps:
            if words is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write(folder, name, " ".join(words))
            if index_now:
                index.add()
        index.add()
        assert_same_as_fresh(index, folder.with_name(f"{folder.name}-fresh"))


def test_version_depends_on_content_only(tmp_path: Path, in_process: None) -> None:
    versions = set()
    for order in (["a.txt", "b.txt"], ["b.txt", "a.txt"]):
        folder = tmp_path / order[0]
        folder.mkdir()
        with Index.open(folder) as index:
            for name in order:
                write(folder, name, f"text {name}")
                index.add()
            versions.add(index.version)
            write(folder, "a.txt", "other")
            assert index.version in versions, "nothing was indexed in between"
            index.add()
            assert index.version not in versions
    assert len(versions) == 1


KILLED = """
import os, signal, sys
from hanol.retrieval import Index
from hanol.retrieval.index import _store, _update
folder, place, where, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
_update._COMMIT_SECONDS = 0.0  # a transaction for each file
seen = 0
def maybe_die():
    global seen
    seen += 1
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)
real = _store.Store.put
def put(self, *document):
    if where == "before":
        maybe_die()
    real(self, *document)
    if where == "within":  # stored, not committed
        maybe_die()
_store.Store.put = put
def on_file(event):
    print(event.document, flush=True)
    if where == "after":
        maybe_die()
Index.open(folder, index_folder=place).add(on_file=on_file)
"""


@pytest.mark.parametrize("where", ["before", "within", "after"])
@pytest.mark.parametrize("count", [1, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_while_indexing(tmp_path: Path, where: str, count: int) -> None:
    folder, place = tmp_path / "documents", tmp_path / "index"
    names = [f"{i}.txt" for i in range(8)]
    for i, name in enumerate(names):
        write(folder, name, f"{WORDS[i % len(WORDS)]} amber " * (20 + 50 * i))
    run = subprocess.run(
        [sys.executable, "-c", KILLED, folder, place, where, str(count)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    finished = run.stdout.split()
    assert len(finished) == (count if where == "after" else count - 1)
    with sqlite3.connect(place / "index.sqlite") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    db.close()
    with Index.open(folder, index_folder=place) as index:
        assert [info.document for info in index.documents()] == finished
        events: list[FileProgress] = []
        index.add(on_file=events.append)
        status = {event.document: event.status for event in events}
        assert status == {name: "unchanged" if name in finished else "added" for name in names}
        assert_same_as_fresh(index, tmp_path / "fresh")


@pytest.mark.slow
def test_killed_at_any_time(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    for i in range(300):
        write(folder, f"{i}.txt", f"{WORDS[i % len(WORDS)]} amber " * 200)
    command = [sys.executable, "-m", "hanol", "index", str(folder)]
    for delay in (0.05, 0.7, 0.9, 1.1, 1.3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
    with Index.open(folder) as index:
        report = index.add()
        assert report.added + report.unchanged == 300
        assert_same_as_fresh(index, tmp_path / "fresh")


@pytest.fixture
def indexing(tmp_path: Path) -> Iterator[Path]:
    """A folder that another thread is in the middle of indexing, one document in."""
    write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        index.add()
    for name, text in (("b.txt", "birch"), ("c.txt", "cedar")):
        write(tmp_path, name, text)
    halfway, go_on = threading.Event(), threading.Event()

    def on_file(event: FileProgress) -> None:
        halfway.set()
        go_on.wait(30)

    def work() -> None:
        with Index.open(tmp_path) as index:
            index.add(on_file=on_file)

    thread = threading.Thread(target=work)
    thread.start()
    assert halfway.wait(30)
    yield tmp_path
    go_on.set()
    thread.join()


def test_readers_go_on_and_writers_are_refused(indexing: Path) -> None:
    with Index.open(indexing) as index:
        assert index.search("amber")[0].document == "a.txt"
        with pytest.raises(SearchIndexError, match=f"Process {os.getpid()} is indexing"):
            index.add()
        assert index.search("amber")


CRASHING = """
import os, time
import hanol.retrieval.documents._reader as reader, hanol.retrieval.documents._reading as reading
real = reading.read_file
def read(root, path, known):
    name = os.path.basename(path)
    if "crash" in name:
        os._exit(11)
    if "stall" in name:
        time.sleep(600)
    print("noise of a library")
    return real(root, path, known)
reading.read_file = read
reader.SECONDS = 5.0
reading.answer_requests()
"""


def test_a_document_that_crashes_or_stalls_its_reader_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> "subprocess.Popen[str]":
        return real([*command[:2], CRASHING], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(_reader.subprocess, "Popen", popen)
    monkeypatch.setattr(_reading, "_WORKERS", 2)
    names = ["a.txt", "b-crash.txt", "c.txt", "d-stall.txt", "e-crash.txt", "f.txt"]
    for name in names:
        write(tmp_path, name, name)
    with Index.open(tmp_path) as index:
        report = index.add()
    reasons = {file.document: file.reason for file in report.failed}
    assert reasons.keys() == {"b-crash.txt", "d-stall.txt", "e-crash.txt"}
    assert "crashed the reader (exit code 11)" in reasons["b-crash.txt"]
    assert "took longer than" in reasons["d-stall.txt"]
    assert report.added == 3


def test_reading_in_this_process_starts_none_and_gives_the_same_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        for number in range(20):
            text = f"# Page {number}\n\nThe mayor of place {number} is number {number * 7}.\n"
            (tmp_path / name / f"page-{number}.md").write_text(text, "utf-8")
        (tmp_path / name / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    with Index.open(tmp_path / "one") as isolated:
        report = isolated.add()
        expected = isolated.version, isolated.search("mayor place 7", 30)
    started: list[object] = []
    monkeypatch.setattr(_reader.subprocess, "Popen", lambda *a, **k: started.append(a))
    with Index.open(tmp_path / "other") as index:
        again = index.add(isolated=False)
        assert (index.version, index.search("mayor place 7", 30)) == expected
    assert not started
    assert again.model_copy(update={"seconds": report.seconds}) == report
    assert (report.added, len(report.failed)) == (20, 1)


def test_an_error_nobody_foresaw_is_a_failed_file(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.txt", "amber")
    monkeypatch.setattr(_reading, "parse_document", lambda *_, **__: {}["pages"])
    with Index.open(tmp_path) as index:
        report = index.add()
    assert report.failed[0].reason.startswith("The reader failed (KeyError 'pages'): ")


def test_documents_are_read_only_as_fast_as_they_are_stored(
    tmp_path: Path, in_process: None
) -> None:
    file = write(tmp_path, "a.txt", "amber " * 1000)
    taken = 0

    def files() -> Iterator[_reading.FoundFile]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield _reading.FoundFile(file.name)

    for done, _ in enumerate(_reading.read_all(tmp_path, files()), start=1):
        assert taken - done < _reading._AHEAD
    assert taken == 100


def test_no_index_yet(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        with pytest.raises(SearchIndexError, match=f"Run `hanol index {tmp_path}`"):
            index.search("amber")
        assert index.documents() == []
        assert not (tmp_path / ".hanol").exists(), "opening and searching write nothing"
        with Index.open(tmp_path) as other:
            other.add()
        assert index.search("amber"), "an index made meanwhile is found"


def test_empty_folder(tmp_path: Path) -> None:
    with Index.open(tmp_path) as index:
        assert index.add().documents == 0
        with pytest.raises(SearchIndexError, match="Run `hanol index"):
            index.search("amber")
    with pytest.raises(SearchIndexError, match="There is no folder"):
        Index.open(tmp_path / "missing")


def test_index_of_another_version_and_broken_index(tmp_path: Path, in_process: None) -> None:
    write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        index.add()
    file = tmp_path / ".hanol" / "index.sqlite"
    with sqlite3.connect(file) as db:
        db.execute("UPDATE meta SET value = '999' WHERE key = 'version'")
    db.close()
    with pytest.raises(SearchIndexError, match=r"another version of hanol \(format 999"):
        Index.open(tmp_path)
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(SearchIndexError, match="is damaged .* `hanol index --rebuild`"):
        Index.open(tmp_path)
    gc.collect()  # Python 3.13 warns of connections that were left open


def test_index_elsewhere(tmp_path: Path, in_process: None) -> None:
    folder, place = tmp_path / "documents", tmp_path / "index"
    write(folder, "a.txt", "amber")
    with Index.open(folder, index_folder=place) as index:
        index.add()
        assert index.search("amber")
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt"]
    (tmp_path / "other").mkdir()
    with pytest.raises(SearchIndexError, match="belongs to"):
        Index.open(tmp_path / "other", index_folder=place)
    with pytest.raises(SearchIndexError, match="Name another one"):
        Index.open(folder, index_folder=folder)
    # Inside of the folder and not hidden: the index is no document.
    with Index.open(folder, index_folder=folder / "idx") as index:
        assert index.add().documents == 1
        write(folder, "idx/b.txt", "birch")
        assert index.add().documents == 1


def test_read_only_index(tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        index.add()
    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Index.open(tmp_path) as index:
        assert index.search("amber")
        with pytest.raises(SearchIndexError, match="cannot be written"):
            index.add()


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path, in_process: None) -> None:
    write(tmp_path, "a.txt", "amber")
    with Index.open(tmp_path) as index:
        index.add()
        before = content(index)
        pages = index._db.execute("PRAGMA page_count").fetchone()[0]
        index._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        write(tmp_path, "b.txt", " ".join(f"birch{i}" for i in range(50_000)))
        with pytest.raises(SearchIndexError, match="disk is full.*Make room"):
            index.add()
        assert content(index) == before
        index._db.execute("PRAGMA max_page_count = 1000000")
        assert index.add().added == 1
        assert_same_as_fresh(index, tmp_path.with_name("fresh"))


HOSTILE = [
    "with space.txt",
    "per%20cent.txt",
    "hash#p3.txt",
    "question?.txt",
    "line\nbreak.txt",
    "\x1b[31mred.txt",
    "quote'\".txt",
    "한글 파일.txt",
    "-rf.txt",
    "a" * 200 + ".txt",
]


def test_hostile_file_names(tmp_path: Path, in_process: None) -> None:
    for name in HOSTILE:
        write(tmp_path, name, "amber")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.txt"))).write_text("amber")
    with Index.open(tmp_path) as index:
        report = index.add()
        assert [(file.document, "not Unicode" in file.reason) for file in report.failed] == [
            ("bad\\udcff.txt", True)
        ]
        hits = index.search("amber", k=100)
        assert {hit.document for hit in hits} == set(HOSTILE)
        for hit in hits:
            assert hit.address.isascii()
            assert [p.document for p in index.read(hit.address)] == [hit.document]


def pages(index: Index) -> list[Passage]:
    return index.read(index.documents()[0].address)


def test_read(tmp_path: Path, in_process: None) -> None:
    write(tmp_path, "a.txt", "\n\n".join(f"Paragraph {i} " + "amber " * 150 for i in range(6)))
    write(tmp_path, "b.txt", "birch")
    with Index.open(tmp_path) as index:
        index.add()
        whole = pages(index)
        assert len(whole) >= 5
        text = (tmp_path / "a.txt").read_text()
        assert all(text[p.start : p.end] == p.text for p in whole)
        address = whole[0].address
        with pytest.raises(AddressError, match="has no pages"):
            index.read(f"{address}#p1")
        for wrong in ("/etc/passwd", "../a.txt", "./a.txt", "a.txt#p1", "", "\ud800.txt", "%ff"):
            with pytest.raises(AddressError, match="is not the address"):
                index.read(wrong)
        with pytest.raises(SearchIndexError, match="no document"):
            index.read("doc://00000000/../../etc/passwd")
        write(tmp_path, "a.txt", "changed " * 50)
        index.add()
        with pytest.raises(SearchIndexError, match="has changed since"):
            index.read(address)


def test_documents_are_read_by_path_as_links_write_it(tmp_path: Path, in_process: None) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.txt", "more/b c.txt", "50%25 off.txt", "50% off.txt"):
        write(tmp_path, name, f"amber {name}")
    with Index.open(tmp_path) as index:
        index.add()
        for path, text in [
            ("a.txt", "amber a.txt"),
            ("more/b c.txt", "amber more/b c.txt"),
            ("more/b%20c.txt", "amber more/b c.txt"),
            ("50%25 off.txt", "amber 50%25 off.txt"),  # a name as it is comes first
            ("50%25%20off.txt", "amber 50% off.txt"),
            ("50%2525%20off.txt", "amber 50%25 off.txt"),
        ]:
            [passage] = index.read(path)
            assert passage.text == text
        # An address keeps to its content, a path does not.
        [old] = index.read("a.txt")
        write(tmp_path, "a.txt", "birch")
        index.add()
        assert index.read("a.txt")[0].text == "birch"
        with pytest.raises(SearchIndexError, match="has changed since"):
            index.read(old.address)


def test_an_address_keeps_to_its_page(tmp_path: Path, in_process: None) -> None:
    from pptx import Presentation

    deck = Presentation()
    for text in ("amber slide", "birch slide"):
        slide = deck.slides.add_slide(deck.slide_layouts[5])
        slide.shapes.title.text = text
    deck.save(str(tmp_path / "deck.pptx"))
    with Index.open(tmp_path) as index:
        index.add()
        hit = index.search("birch")[0]
        assert hit.page == 2
        assert hit.address.endswith("/deck.pptx#p2")
        assert [p.text for p in index.read(hit.address)] == [hit.text]
        with pytest.raises(AddressError, match="no text on page 9"):
            index.read(hit.address.replace("#p2", "#p9"))


def test_many_threads_share_an_index(tmp_path: Path, in_process: None) -> None:
    for i, word in enumerate(WORDS[:8]):
        write(tmp_path, f"{i}.txt", word)
    wrong: list[object] = []
    with Index.open(tmp_path) as index:
        index.add()

        def search(word: str, name: str) -> None:
            for _ in range(50):
                found = [hit.document for hit in index.search(word)]
                if found != [name]:
                    wrong.append(found)

        threads = [
            threading.Thread(target=search, args=(word, f"{i}.txt"))
            for i, word in enumerate(WORDS[:8])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_batch_is_committed_in_time(tmp_path: Path, in_process: None) -> None:
    """What was reported as added is committed: another connection sees it at once."""
    for i in range(4):
        write(tmp_path, f"{i}.txt", "amber")
    seen: list[tuple[str, bool]] = []

    def on_file(event: FileProgress) -> None:
        with Index.open(tmp_path) as other:
            documents = {info.document for info in other.documents()}
            seen.append((event.status, event.document in documents))

    assert _update._COMMIT_SECONDS <= 1
    with Index.open(tmp_path) as index:
        index.add(on_file=on_file)
    assert seen == [("added", True)] * 4


@pytest.mark.parametrize("name", ["", "index.sqlite", "writer.pid", "writer.lock", "runs"])
def test_links_that_a_folder_brings_are_not_followed(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "sent"
    write(folder, "a.txt", "amber")
    if name in ("", "runs"):
        outside.mkdir()
    else:
        outside.write_bytes(b"" if name == "index.sqlite" else b"precious")
    before = outside.stat().st_mtime_ns
    link = folder / ".hanol" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(SearchIndexError, match="is a symbolic link to .*outside.*: remove it"):
        Index.open(folder).add(isolated=False)
    assert outside.stat().st_mtime_ns == before


def test_the_database_of_another_program_is_not_written_to(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "amber")
    write(tmp_path, ".hanol/x", "")
    file = tmp_path / ".hanol" / "index.sqlite"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE meta (key, value)")  # as browsers have, too
        db.execute("INSERT INTO meta VALUES ('version', '2')")
    db.close()
    before = file.read_bytes()
    with pytest.raises(SearchIndexError, match="another program's database"):
        Index.open(tmp_path).add(isolated=False)
    assert file.read_bytes() == before
    gc.collect()


def test_a_named_pipe_in_the_index_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "amber")
    (tmp_path / ".hanol").mkdir()
    os.mkfifo(tmp_path / ".hanol" / "pipe")
    with pytest.raises(SearchIndexError, match="neither a file nor a folder"):
        Index.open(tmp_path).add(isolated=False)


def test_circular_links_and_long_paths_are_named_and_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "amber")
    (tmp_path / "self.md").symlink_to("self.md")
    (tmp_path / "one.md").symlink_to("two.md")
    (tmp_path / "two.md").symlink_to("one.md")
    (tmp_path / "ring").symlink_to("ring")
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("y" * 200, dir_fd=place)
        inner = os.open("y" * 200, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("e.md", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)
    with Index.open(tmp_path) as index:
        report = index.add(isolated=False)
        assert [hit.document for hit in index.search("amber")] == ["a.txt"]
    reasons = {one.document[:8]: one.reason for one in report.failed}
    assert sorted(reasons) == ["one.md", "self.md", "two.md", "yyyyyyyy"]
    assert reasons["one.md"].endswith(": remove the link")
    assert reasons["yyyyyyyy"].endswith(": shorten the names of its path")


def damage(folder: Path, old: bytes, new: bytes) -> None:
    file = folder / ".hanol" / "index.sqlite"
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new))


def test_a_damaged_index_is_named_and_made_anew(tmp_path: Path, in_process: None) -> None:
    write(tmp_path, "a.txt", "amber rotates every 90 days")
    with Index.open(tmp_path) as index:
        index.add()
    # The tables stay sound: without a checksum this would be another answer.
    damage(tmp_path, b"every 90 days", b"every 10 days")
    for _ in range(2):
        with pytest.raises(SearchIndexError, match=r"is damaged .*`hanol index --rebuild`"):
            Index.open(tmp_path)
    with Index.open(tmp_path, rebuild=True) as index:
        assert index.documents() == []
        assert index.add().added == 1
        assert index.search("amber")[0].text.endswith("90 days")
        assert_same_as_fresh(index, tmp_path / "fresh")


@pytest.mark.parametrize("step", [1, 2, 3])
def test_damaged_pages_are_no_traceback(tmp_path: Path, in_process: None, step: int) -> None:
    for i in range(20):
        write(tmp_path, f"{i}.txt", f"amber {i} " + " ".join(map(str, range(300))))
    with Index.open(tmp_path) as index:
        index.add()
    file = tmp_path / ".hanol" / "index.sqlite"
    data = bytearray(file.read_bytes())
    for start in range(4096 * step, len(data), 4096 * step):
        data[start : start + 200] = b"\xff" * 200
    file.write_bytes(data)
    (tmp_path / ".hanol" / "index.sum").unlink()  # as after a writer that was killed
    uses = [Index.documents, Index.remarks, Index.add, lambda index: index.search("amber")]
    uses += [lambda index: index.passage_counts(["amber"]), lambda index: index.read("1.txt")]
    refused = 0
    for use in uses:
        try:
            with Index.open(tmp_path) as index:
                use(index)
        except SearchIndexError as err:
            refused += "is damaged" in str(err)
    assert refused
    with Index.open(tmp_path, rebuild=True) as index:
        assert index.add().added == 20
    gc.collect()


def test_a_copied_index_is_checked_once(
    tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.txt", "amber")
    place = tmp_path / "index"
    with Index.open(tmp_path, index_folder=place) as index:
        index.add()
    os.utime(place / "index.sqlite", ns=(5, 5))
    hashed: list[Path] = []
    sha256 = _store.sha256
    monkeypatch.setattr(_store, "sha256", lambda file: hashed.append(file) or sha256(file))
    for _ in range(2):
        with Index.open(tmp_path, index_folder=place) as index:
            assert index.search("amber")
    assert len(hashed) == 1


def test_rebuilding_spares_the_database_of_another_program(tmp_path: Path) -> None:
    write(tmp_path, ".hanol/x", "")
    file = tmp_path / ".hanol" / "index.sqlite"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE places (url)")
    db.close()
    with pytest.raises(SearchIndexError, match="another program's database"):
        Index.open(tmp_path, rebuild=True)
    assert file.exists()


@pytest.mark.parametrize("swapped", ["b.txt", "sub/c.txt", "sub", "pipe"])
def test_a_file_that_is_swapped_before_it_is_read_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "notes"
    write(outside, "c.txt", "secret")
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        write(folder, name, "amber")

    def swap(*arguments: object, **options: object) -> Iterator[object]:
        if swapped == "pipe":
            (folder / "b.txt").unlink()
            os.mkfifo(folder / "b.txt")
        elif swapped == "sub":
            shutil.rmtree(folder / "sub")
            (folder / "sub").symlink_to(outside)
        else:
            (folder / swapped).unlink()
            (folder / swapped).symlink_to(outside / "c.txt")
        return _reading.read_all(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_update, "read_all", swap)
    with Index.open(folder) as index:
        report = index.add(isolated=False)
        assert report.added == 2
        (failed,) = report.failed
        why = "is no regular file" if swapped == "pipe" else "a symbolic link that leads out"
        assert why in failed.reason
        assert index.search("secret") == []


def test_a_link_that_appears_while_a_file_is_opened_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = write(tmp_path, "outside/c.txt", "secret")
    file = write(tmp_path, "notes/c.txt", "amber")
    real = os.path.realpath

    def slow(path: str) -> str:
        found = real(path)
        if Path(path) == file:
            file.unlink()
            file.symlink_to(outside)
        return found

    monkeypatch.setattr(os.path, "realpath", slow)
    with pytest.raises(OSError, match="symbolic links"):
        open_inside(tmp_path / "notes", "c.txt")
