"""What was not read or is doubtful: named where it is, kept in the index, shown with hits."""

import json
import os
import sqlite3
from pathlib import Path

import openpyxl
import pytest

from hanol.retrieval import Index, Remark, parse_document
from hanol.retrieval.documents import _reader  # private: no processes
from hanol.retrieval.documents.pdf import _ocr  # private: without the program
from hanol.retrieval.documents.tables import _lines  # private: limits are lowered
from hanol.retrieval.index import _update  # private: without the program


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(_reader, "_start", refuse)


def test_places_are_written_as_people_do() -> None:
    assert Remark("is", pages=(3,)).place == "page 3"
    assert Remark("is", pages=(1, 2, 3, 9)).place == "pages 1-3, 9"
    assert str(Remark("is cut", "split it", (2,), "plan.zip")) == (
        "page 2, plan.zip: is cut; split it"
    )


def test_a_cut_table_is_named_at_its_sheet(monkeypatch: pytest.MonkeyPatch, samples) -> None:
    monkeypatch.setattr(_lines, "_OVERVIEW_CELLS", 10)
    monkeypatch.setattr(_lines, "_COUNTED_CELLS", 20)
    book = openpyxl.Workbook()
    book.active.append(["one", "two"])
    sheet = book.create_sheet()
    for number in range(30):
        sheet.append([f"name {number}", number])
    (remark,) = parse_document("a.xlsx", samples.saved(book)).remarks
    assert (remark.pages, remark.status) == ((2,), "skipped")
    assert "of which the first" in remark.reason


def test_each_mail_of_a_box_has_its_own_remarks() -> None:
    def mail(attachment: bytes) -> bytes:
        return (
            b"From a@b Mon Jan  1 00:00:00 2024\nSubject: s\nMIME-Version: 1.0\nContent-Type: "
            b"multipart/mixed; boundary=x\n\n--x\nContent-Type: text/plain\n\nwords\n--x\n"
            b'Content-Type: application/zip\nContent-Disposition: attachment; filename="'
            + attachment
            + b'"\n\nAAAA\n--x--\n\n'
        )

    document = parse_document("a.mbox", mail(b"one.zip") + mail(b"two.zip"))
    assert [(one.pages, one.part) for one in document.remarks] == [
        ((1,), "one.zip"),
        ((2,), "two.zip"),
    ]
    alone = parse_document("a.mbox", mail(b"one.zip"))
    assert [one.pages for one in alone.remarks] == [()]


def test_tables_of_a_page_stand_where_their_lines_do(samples) -> None:
    book = openpyxl.Workbook()
    for row in (["Item", "Price"], ["Pen", 2], ["Book", 12], [], ["Name", "Age"], ["Ann", 3]):
        book.active.append(row)
    (page,) = parse_document("a.xlsx", samples.saved(book), tables=True).pages
    first, second = page.tables
    assert first.names == ("Item", "Price")
    assert first.rows == (("Pen", "2"), ("Book", "12"))
    assert page.text[first.start : first.end] == "Item: Pen; Price: 2\nItem: Book; Price: 12"
    assert page.text[second.start : second.end].endswith("Age: 3")
    assert parse_document("a.xlsx", samples.saved(book)).pages[0].tables == ()


def filled(folder: Path) -> Path:
    (folder / "sound.txt").write_text("amber stones")
    (folder / "guess.txt").write_bytes("Smørrebrød amber".encode("latin-1"))
    (folder / "empty.txt").touch()
    (folder / "odd.dat").write_bytes(b"%PDF-1.7")
    for number in range(30):
        (folder / f"song{number:02}.mp3").write_bytes(b"ID3")
    os.mkfifo(folder / "pipe.wav")
    return folder


def test_the_index_keeps_what_was_not_read(tmp_path: Path) -> None:
    with Index.open(filled(tmp_path)) as index:
        index.add()
    with Index.open(tmp_path) as index:  # without another `add`
        found = index.remarks()
        hits = {hit.document: hit.doubt for hit in index.search("amber")}
        assert index.read("guess.txt")[0].doubt == hits["guess.txt"]
    assert "sound.txt" not in found
    assert found["empty.txt"] == (
        Remark("is empty", "remove it, or fetch it again", status="failed"),
    )
    assert found["odd.dat"][0].advice == "rename it to .pdf"
    assert found["song00.mp3"][0].part == "and 29 more *.mp3"
    assert found["pipe.wav"][0].reason == "is no regular file"
    assert found["guess.txt"][0].status == "doubtful"
    assert len(found) == 5
    assert hits["sound.txt"] == ""
    assert hits["guess.txt"].startswith("does not name its encoding")


def test_remarks_go_when_the_file_is_mended(tmp_path: Path) -> None:
    with Index.open(filled(tmp_path)) as index:
        index.add()
        (tmp_path / "guess.txt").write_text("Smørrebrød amber", "utf-8")
        (tmp_path / "empty.txt").write_text("no more")
        (tmp_path / "odd.dat").unlink()
        index.add()
        assert set(index.remarks()) == {"song00.mp3", "pipe.wav"}


def test_an_index_of_before_the_remarks_is_read_again(tmp_path: Path) -> None:
    with Index.open(filled(tmp_path)) as index:
        index.add()
        before = index.version
    with sqlite3.connect(tmp_path / ".hanol" / "index.sqlite") as db:
        db.execute("ALTER TABLE documents DROP COLUMN remarks")
        db.execute("DROP TABLE unread")
        db.execute("UPDATE meta SET value = '2' WHERE key = 'version'")
    db.close()
    (tmp_path / ".hanol" / "index.sum").unlink()
    with Index.open(tmp_path) as index:
        assert len(index.search("amber")) == 2, "it can be searched as it is"
        assert index.remarks() == {}
        report = index.add()
        assert (report.changed, report.added, report.unchanged) == (2, 0, 0)
        assert index.version == before
        assert "guess.txt" in index.remarks()
        assert index.add().changed == 0


def test_pages_that_ocr_may_read_by_now_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples
) -> None:
    monkeypatch.setattr(_update, "languages", lambda: "")
    monkeypatch.setattr(_ocr, "languages", lambda: "")
    drawn = b"0 0 m 100 100 l S"
    words = b"BT /F1 12 Tf 72 700 Td (amber stones) Tj ET"
    (tmp_path / "half.pdf").write_bytes(samples.drawn_pdf(words, drawn))
    (tmp_path / "whole.pdf").write_bytes(samples.drawn_pdf(words))
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        assert index.remarks()["half.pdf"][0].pages == (2,)
        for module in (_ocr, _update):
            monkeypatch.setattr(module, "languages", lambda: "eng")
        monkeypatch.setattr(_ocr, "read_picture", lambda page: _ocr.PictureText("a scan", False))
        assert index.add(isolated=False).changed == 1
        assert index.search("scan")[0].doubt.startswith("read by OCR")
        assert index.add(isolated=False).changed == 0


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("amber")
    (tmp_path / "secret.txt").chmod(0)
    (tmp_path / "locked").mkdir(mode=0)
    with Index.open(tmp_path) as index:
        index.add()
        found = index.remarks()
    assert found.keys() == {"secret.txt", "locked"}
    for (remark,) in found.values():
        assert remark.status == "failed"
        assert "Permission denied" in remark.reason
        assert "right" in remark.advice


def test_remarks_are_plain_data(tmp_path: Path) -> None:
    with Index.open(filled(tmp_path)) as index:
        index.add()
        for remarks in index.remarks().values():
            assert json.loads(json.dumps([vars(one) for one in remarks]))
