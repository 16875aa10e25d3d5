"""Files to pages of text: what a reader of each kind must find again, and hostile files."""

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest

from hanol.errors import DocumentError
from hanol.retrieval import KINDS, Document, parse_document, read_document
from hanol.retrieval.documents import (  # private: limits are lowered
    _documents,
    _reader,
    _split,
)
from hanol.retrieval.documents.office import _package  # private: limits are lowered
from hanol.retrieval.documents.tables import _lines  # private: limits are lowered

DATA = Path(__file__).parents[3] / "shared" / "data" / "documents"
real_documents = pytest.mark.skipif(not DATA.exists(), reason="the real documents are not here")


def text_of(document: Document) -> str:
    return "\n".join(page.text for page in document.pages)


def parse(name: str, data: bytes | str) -> Document:
    return parse_document(name, data.encode() if isinstance(data, str) else data)


def repacked(samples, data: bytes, **changes: bytes) -> bytes:
    """An Office file with parts, named by the end of their path without suffix, replaced."""
    parts = samples.unzipped(data)
    for end, content in changes.items():
        (name,) = (name for name in parts if name.endswith(f"/{end}.xml"))
        parts[name] = content
    return samples.zipped(parts)


# --- every kind ---------------------------------------------------------------


def test_every_kind_is_read_from_a_file(samples, tmp_path) -> None:
    kinds = set()
    for name, data in samples.all_kinds().items():
        (tmp_path / name).write_bytes(data)
        document = read_document(tmp_path / name)
        kinds.add(document.kind)
        assert document.title
        assert any(page.text for page in document.pages)
    assert kinds == set(KINDS.values())


def test_titles_come_from_the_document_then_from_the_name(samples) -> None:
    titles = {n: parse(n, data).title for n, data in samples.all_kinds().items()}
    assert titles == {
        "a.txt": "a",
        "a.md": "Heading",
        "a.html": "Tides & moons",
        "a.pdf": "On tides",
        "a.docx": "Yearly report",
        "a.pptx": "Opening",
        "a.xlsx": "a",
        "a.odt": "a",
        "a.ods": "a",
        "a.odp": "A slide",
        "a.csv": "a",
        "a.ipynb": "Study of tides",
        "a.eml": "회의 일정",
        "a.xml": "a",
        "a.json": "a",
        "a.jsonl": "a",
    }
    assert parse("x.rst", "Guide\n=====\n\nText.").title == "Guide"
    assert (
        parse("x.md", "---\ntags: a\ntitle: 'Front matter'\n---\n# Other").title == "Front matter"
    )


@pytest.mark.parametrize("title", ["", "untitled", "Microsoft Word - draft 3.doc", "main.tex"])
def test_a_pdf_without_a_real_title_has_its_first_line(samples, title) -> None:
    lines = [(72, 720, "2025-11-15"), (72, 700, "Deep Research:"), (72, 680, "A Report")]
    assert parse("x.pdf", samples.pdf([lines], title=title)).title == "Deep Research: A Report"


def test_pdf_pages_are_numbered_from_one_and_empty_ones_keep_their_place(samples) -> None:
    pages = [[(72, 700, "first")], [], [(72, 700, "third")]]
    document = parse("x.pdf", samples.pdf(pages))
    assert [(page.number, page.text) for page in document.pages] == [
        (1, "first"),
        (2, ""),
        (3, "third"),
    ]


def test_columns_of_a_pdf_are_read_one_after_the_other(samples) -> None:
    left = [(50, 700 - 12 * i, f"left line {i}") for i in range(9)]
    right = [(320, 700 - 12 * i, f"right line {i}") for i in range(9)]
    text = text_of(parse("x.pdf", samples.pdf([left + right])))
    assert text.split("\n") == [line for _, _, line in left + right]


def test_words_broken_at_a_line_end_of_a_pdf_are_whole_again(samples) -> None:
    lines = ["plain atten-", "tion and long-", "term memory,", "long-term goals, pre-", "Norm"]
    page = [(72, 700 - 12 * i, line) for i, line in enumerate(lines)]
    text = text_of(parse("x.pdf", samples.pdf([page])))
    assert "plain attention and long-term memory,\nlong-term goals, pre-\nNorm" in text


def test_word_keeps_the_order_and_loses_nothing(samples) -> None:
    text = text_of(parse("x.docx", samples.word()))
    expected = [
        "Confidential header",
        "# Harvest",
        "Before the table: 사과 수확량.",
        "fruit: apple; tons: 12",
        "fruit: pear; tons: 7 nested note",
        "After the table.",
        "Company footer",
    ]
    places = [text.index(line) for line in expected]
    assert places == sorted(places)
    assert text.count("nested note") == 1


def test_word_content_controls_insertions_notes_and_text_boxes(samples) -> None:
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'

    def p(text: str) -> str:
        return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"

    box = f"<w:txbxContent>{p('boxed one')}{p('boxed two')}</w:txbxContent>"
    body = (
        f"<w:document {w} {mc}><w:body><w:sdt><w:sdtContent>{p('in a control')}</w:sdtContent>"
        "</w:sdt><w:p><w:ins><w:r><w:t>kept</w:t></w:r></w:ins><w:del><w:r>"
        "<w:delText>struck</w:delText></w:r></w:del></w:p>"
        f"<w:p><w:r><mc:AlternateContent><mc:Choice>{box}</mc:Choice><mc:Fallback>{box}"
        "</mc:Fallback></mc:AlternateContent></w:r></w:p></w:body></w:document>"
    )
    text = text_of(parse("x.docx", repacked(samples, samples.word(), document=body.encode())))
    assert "in a control\n\nkept\n\nboxed one\nboxed two" in text
    assert text.count("boxed one") == 1
    assert "struck" not in text


def test_slides_are_pages_with_tables_groups_and_notes(samples) -> None:
    document = parse("x.pptx", samples.slides())
    assert [page.number for page in document.pages] == [1, 2]
    assert document.pages[0].text == "Opening\nBody of slide 1"
    second = document.pages[1].text
    for part in ("Results", "city: Seoul; people: 9.4 million", "inside a group"):
        assert part in second
    assert second.endswith("Notes: Say this slowly: 천천히.")


def test_sheets_are_pages_and_each_row_can_be_understood_alone(samples) -> None:
    rows = [
        ["name", "height", "born"],
        ["Ada", 1.65, None],
        ["Bo", None, "1990"],
        [None],
        ["Cy", 1.7],
    ]
    document = parse("x.xlsx", samples.workbook({"People": rows, "Empty": [], "Loose": [["a"]]}))
    assert document.pages[0].text == (
        "# People\n\nname: Ada; height: 1.65\nname: Bo; born: 1990\nname: Cy; height: 1.7"
    )
    assert [page.text for page in document.pages[1:]] == ["", "# Loose\n\na"]


def test_formula_cells_show_their_value_or_else_the_formula(samples) -> None:
    made = samples.workbook({"S": [["item", "price"], ["both", "=SUM(B3:B4)"], ["one", 5]]})
    assert "item: both; price: =SUM(B3:B4)" in text_of(parse("x.xlsx", made))
    sheet = samples.unzipped(made)["xl/worksheets/sheet1.xml"]
    assert b"<v></v>" in sheet or b"<v />" in sheet or b"<v/>" in sheet
    for empty in (b"<v></v>", b"<v />", b"<v/>"):
        sheet = sheet.replace(empty, b"<v>17</v>")
    assert "item: both; price: 17" in text_of(
        parse("x.xlsx", repacked(samples, made, sheet1=sheet))
    )


@pytest.mark.parametrize("name", ["x.csv", "x.xlsx"])
def test_a_large_table_begins_with_true_counts_and_has_every_row(samples, name) -> None:
    rows: list[list[object]] = [["id", "city", "note"]]
    rows += [[i, ["Seoul", "Busan"][i % 2], "" if i % 3 else "x"] for i in range(9000)]
    if name == "x.csv":
        data = "\n".join(",".join(map(str, row)) for row in rows).encode()
    else:
        data = samples.workbook({"S": rows})
    text = text_of(parse(name, data))
    assert "9000 rows and 3 columns." in text
    assert "id: 9000 filled; 9000 numbers from 0 to 8999" in text
    assert "city: 9000 filled; for example Seoul, Busan" in text
    assert "note: 3000 filled" in text
    assert "id: 0; city: Seoul; note: x\nid: 1; city: Busan\n" in text
    assert text.endswith("id: 8999; city: Busan")


def test_a_table_that_is_cut_says_so(monkeypatch) -> None:
    monkeypatch.setattr(_lines, "_COUNTED_CELLS", 30_000)
    document = parse("x.csv", "id,city\n" + "7,Seoul\n" * 20_000)
    text = text_of(document)
    assert "of which the first 15001 are read" in document.remarks[0].reason
    assert "more than 15001 rows and 2 columns; only its first 15001 rows are written out" in text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_line_breaks_in_csv(delimiter) -> None:
    said = f'"said{delimiter}""well""\nthen left"'
    rows = [["name", "remark", "n"], ["Kim", said, "1,5"], ["Lee", "plain", "2,5"]]
    if delimiter == ",":
        rows[1][2] = rows[2][2] = '"1,5"'
    data = "\r\n".join(delimiter.join(row) for row in rows)
    first, second = text_of(parse("x.tsv", data)).split("\n")
    shown = delimiter.replace("\t", " ")
    assert first == f'name: Kim; remark: said{shown}"well" then left; n: 1,5'
    assert second.startswith("name: Lee; remark: plain; n: ")


def test_a_row_of_a_csv_that_is_too_long_takes_no_names_from_the_others() -> None:
    rows = ["Ort;Land;Wert", "Wien;Austria;9", "Rom;Italy;3;5", "Oslo;Norway;7"]
    document = parse("x.csv", "\n".join(rows))
    lines = text_of(document).splitlines()
    assert lines[0] == "Ort: Wien; Land: Austria; Wert: 9"
    assert lines[1] == "Ort: Rom; Land: Italy; Wert: 3; 5"
    assert lines[2] == "Ort: Oslo; Land: Norway; Wert: 7"
    [remark] = document.remarks
    assert remark.place == "line 3"
    assert remark.status == "doubtful"
    assert "more cells than columns" in remark.reason
    # R leaves out the name of the first column: every name would be that of the one before.
    document = parse("x.csv", "name,age\na,Kim,3\nb,Lee,4\nc,Bo,7\n")
    assert text_of(document) == "name | age\na | Kim | 3\nb | Lee | 4\nc | Bo | 7"
    assert not document.remarks


def test_a_csv_without_names_stays_rows() -> None:
    assert text_of(parse("x.csv", "1,2\n3,4\n")) == "1 | 2\n3 | 4"
    assert text_of(parse("x.csv", "just one column\nof prose\n")) == "just one column\nof prose"


def test_notebooks_show_prose_code_and_outputs_but_no_pictures(samples) -> None:
    text = text_of(parse("x.ipynb", samples.notebook()))
    for part in ("# Study of tides", "x = 6 * 7", "42", "printed", "ZeroDivisionError: by zero"):
        assert part in text
    assert "iVBORw" not in text
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["old()"], "outputs": []}]}]}
    assert "old()" in text_of(parse("x.ipynb", json.dumps(old)))


def test_mail_headers_body_and_attachments(samples) -> None:
    text = text_of(parse("x.eml", samples.mail()))
    for part in (
        "From: Kim <kim@example.org>",
        "To: lee@example.org",
        "Date: Mon, 03 Nov 2025",
        "Subject: 회의 일정",
        "Attachment: plan.png",
        "Attachment: numbers.csv",
        "a: 1; b: 2",
    ):
        assert part in text
    assert text.count("We meet on Tuesday.") == 1  # not again from the HTML alternative
    html_only = "Subject: s\nContent-Type: text/html; charset=euc-kr\n\n<p>안녕하세요 여러분</p>"
    assert "안녕하세요 여러분" in text_of(parse("x.eml", html_only.encode("cp949")))
    bare = "From: 김 <k@example.org>\nSubject: =?euc-kr?B?yLjAxw==?= 일정\n\nx"
    assert text_of(parse("x.eml", bare)).startswith(
        "From: 김 <k@example.org>\nSubject: 회의 일정\n"
    )
    unknown = b"Subject: s\nContent-Type: text/plain; charset=no-such\n\ncaf\xc3\xa9"
    assert "café" in text_of(parse("x.eml", unknown))


def test_xml_and_json_are_text_with_their_characters(samples) -> None:
    xml = "<a x='1'><b n:k='v' xmlns:n='u'>one</b>tail<!-- no --></a>"
    assert text_of(parse("x.xml", xml)) == "x: 1\nk: v one\ntail"
    assert '"하나"' in text_of(parse("x.json", r'{"k": "\ud558\ub098"}'))
    assert text_of(parse("x.json", "{not json}")) == "{not json}"
    assert text_of(parse("x.jsonl", '{"a": "\\u00e9"}\nbad line\n')) == '{"a": "é"}\nbad line'


# --- web pages ----------------------------------------------------------------


def test_the_article_of_a_page_without_its_menu(samples) -> None:
    text = text_of(parse("x.html", samples.PAGE))
    assert "The tide follows the moon" in text
    assert "달의 인력이 바닷물을" in text
    assert "9.27" in text
    assert "About us" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    "page",
    [
        "<p>word",
        "<table><tr><td>word</td></tr></table>",
        "<nav><a href='/'>word</a></nav>",
        "<body><footer>word</footer><script>x</script>",
        "word",
        "<select><option>word</select>",
        "<p>\x01wo\x02rd&#3;<p>&#4;",
        "<div>" * 5000 + "word" + "</div>" * 5000,
    ],
)
def test_a_page_is_never_silently_empty(page) -> None:
    assert "word" in text_of(parse("x.html", page))


def test_a_page_that_says_where_its_article_is_not_loses_no_prose() -> None:
    prose = "\n".join(f"<div class='comment'>Opinion {i} of the reader.</div>" for i in range(200))
    text = text_of(parse("x.html", f"<html><body><article><p>Hi.</p></article>{prose}</body>"))
    assert "Opinion 0 of" in text
    assert "Opinion 199 of" in text


@pytest.mark.parametrize(
    ("codec", "declared"),
    [("cp949", "euc-kr"), ("cp932", "Shift_JIS"), ("gb18030", "gb2312"), ("utf-8", "latin-1")],
)
def test_declared_and_misdeclared_charsets_of_pages(codec, declared) -> None:
    words = {"cp949": "한국어 문장입니다", "cp932": "日本語の文です"}.get(codec, "这是中文的句子")
    page = f"<html><head><meta charset='{declared}'></head><body><p>{words}</p></body></html>"
    if codec == "utf-8":  # wrong names are found out only where they contradict the bytes
        page = page.replace("latin-1", "euc-jp")
    assert words in text_of(parse("x.html", page.encode(codec)))


# --- encodings ----------------------------------------------------------------

KOREAN = "한올은 여러 논문의 기법을 한데 모아 둔 도구입니다. 값은 3.5 GB이다."


@pytest.mark.parametrize("codec", ["utf-8", "cp949"])
def test_one_broken_byte_does_not_change_the_encoding(codec) -> None:
    text = KOREAN * 20
    data = bytearray(text.encode(codec))
    data[len(data) // 2] = 0xFF
    read = text_of(parse("x.txt", bytes(data)))
    assert read.startswith(KOREAN * 9)
    assert read.endswith(KOREAN * 9)


def test_text_is_normalised() -> None:
    decomposed = unicodedata.normalize("NFD", KOREAN)
    assert decomposed != KOREAN
    assert text_of(parse("x.txt", decomposed)) == KOREAN
    assert text_of(parse("x.txt", b"a\r\nb\rc\n\x00d\x07")) == "a\nb\nc\nd"
    assert text_of(parse("x.txt", "é \ud800 é".encode("utf-8", "surrogatepass"))) == "é \ufffd é"
    assert text_of(parse("x.json", r'["\ud83d\ude00 \ud800"]')) == '[\n "😀 \ufffd"\n]'


def test_endless_combining_marks_take_no_quadratic_time() -> None:
    text = text_of(parse("x.txt", "a" + "\u0316\u0301" * 300_000 + " end"))
    assert text.endswith(" end")
    assert len(text) < 100


# --- what cannot be read, and what the message says ---------------------------


def refused(name: str, data: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        parse_document(name, data)
    message = str(caught.value)
    assert message.startswith(name)
    return message


def test_the_message_names_reason_and_cure(samples) -> None:
    plain = samples.pdf([[(72, 700, "secret")]])
    cases = {
        "locked.pdf": (samples.encrypted_pdf(plain, "pass", "owner"), "encrypted.*password"),
        "scan.pdf": (samples.pdf([[], []]), "no text on its 2 pages.*OCR"),
        "none.pdf": (samples.pdf([]), "without pages"),
        "cut.pdf": (plain[:40], "broken"),
        "empty.txt": (b"", "is empty"),
        "zeros.md": (b"\0" * 99, "is empty"),
        "blank.html": (b"<html><body> </body></html>", "no text"),
        "blank.xlsx": (samples.workbook({"S": []}), "no text"),
        "cut.docx": (samples.word()[:2000], "broken"),
        "fake.docx": (b"just words", "not a docx file.*name"),
        "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "before 2007.*password"),
        "pack.docx": (samples.zipped({"a.txt": b"x"}), "zip archive.*unpack"),
        "scan.txt": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "picture.*OCR"),
        "noise.txt": (bytes(range(256)) * 40, "not text in any known encoding"),
        "list.ipynb": (b"[1, 2]", "broken"),
        "a.mp3": (b"ID3 words", "suffix.*\\.docx"),
    }
    for name, (data, reason) in cases.items():
        message = refused(name, data)
        assert re.search(reason, message), message


def test_a_pdf_that_only_restricts_printing_is_read(samples) -> None:
    data = samples.encrypted_pdf(samples.pdf([[(72, 700, "open text")]]), "", "owner")
    assert text_of(parse("x.pdf", data)) == "open text"


def test_paths_that_are_no_files(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")  # opening it would wait for ever
    for path in (tmp_path, tmp_path / "absent.txt", tmp_path / "pipe.txt", Path("a\0b.txt")):
        with pytest.raises(DocumentError, match="file"):
            read_document(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.txt").chmod(0)
    with pytest.raises(DocumentError, match="Permission"):
        read_document(tmp_path / "x.txt")


@pytest.mark.parametrize("name", ["x.txt", "x.md", "x.docx", "x", "x.bin"])
def test_content_goes_before_a_lying_suffix(samples, name) -> None:
    everything = samples.all_kinds()
    for kind in ("pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp"):
        assert parse(name, everything[f"a.{kind}"]).kind == kind


def test_a_web_page_saved_as_pdf_is_a_web_page(samples) -> None:
    assert parse("x.pdf", samples.PAGE).kind == "html"
    assert parse("x.md", "A PDF begins with %PDF-1.4.").kind == "md"


# --- bombs --------------------------------------------------------------------


def test_large_files_are_refused_with_the_limit(monkeypatch, tmp_path, samples) -> None:
    monkeypatch.setattr(_documents, "MAX_TEXT", 1000)
    assert "split" in refused("x.txt", b"word " * 201)
    monkeypatch.setattr(_documents, "MAX_BYTES", 500)
    (tmp_path / "x.pdf").write_bytes(samples.pdf([[(72, 700, "x")]]))
    with pytest.raises(DocumentError, match="larger than"):
        read_document(tmp_path / "x.pdf")


@pytest.mark.parametrize("kind", ["docx", "pptx", "xlsx", "odt", "ods", "odp"])
def test_zip_bombs_are_refused_before_they_are_held(samples, kind, monkeypatch) -> None:
    monkeypatch.setattr(_package, "_INFLATED", 10**7)
    intact = samples.all_kinds()[f"a.{kind}"]
    parts = samples.unzipped(intact)
    bomb = samples.zipped(parts | {"media/picture.png": bytes(10**7)})
    assert len(bomb) < 10**5
    assert "unpacks to more than" in refused(f"x.{kind}", bomb)
    many = samples.zipped(parts | {f"media/{i}": b"" for i in range(_package._PARTS)})
    assert "unpacks to more than" in refused(f"x.{kind}", many)


def test_a_zip_bomb_that_declares_a_small_size(samples) -> None:
    bomb = bytearray(repacked(samples, samples.word(), document=b"<a>" + b" " * 10**7))
    place = bomb.rindex(b"word/document.xml") - 46  # its entry in the table of contents
    assert bomb[place : place + 4] == b"PK\x01\x02"
    bomb[place + 24 : place + 28] = (100).to_bytes(4, "little")
    assert "broken" in refused("x.docx", bytes(bomb))


LAUGHS = (
    "<!DOCTYPE l [<!ENTITY a 'ha'>"
    + "".join(
        f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]><l>&j;</l>"
)


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_entity_bombs(samples, codec) -> None:
    declaration = f"<?xml version='1.0' encoding='{codec}'?>"
    bomb = (declaration + LAUGHS).encode(codec)
    assert "entities" in refused("x.xml", bomb)
    everything = samples.all_kinds()
    for kind, part in (
        ("docx", "document"),
        ("pptx", "presentation"),
        ("xlsx", "workbook"),
    ):
        refused(f"x.{kind}", repacked(samples, everything[f"a.{kind}"], **{part: bomb}))
    assert len(text_of(parse("x.html", "<p>word</p>" + LAUGHS))) < 10_000


def test_files_are_no_way_to_other_files(tmp_path, samples) -> None:
    (tmp_path / "secret.txt").write_text("hidden words")
    external = (
        f"<!DOCTYPE a SYSTEM '{(tmp_path / 'secret.txt').as_uri()}' "
        f"[<!ENTITY x SYSTEM '{(tmp_path / 'secret.txt').as_uri()}'>]><a>&x;</a>"
    )
    refused("x.xml", external.encode())
    refused("x.docx", repacked(samples, samples.word(), document=external.encode()))


@pytest.mark.parametrize("depth", [300, 100_000])
def test_deep_nesting(samples, depth) -> None:
    assert "no text" not in refused("x.xml", b"<a>" * depth + b"x" + b"</a>" * depth)
    assert parse("x.json", "[" * depth + "]" * depth).kind == "json"
    refused("x.ipynb", b"[" * depth + b"]" * depth)
    deep = "".join(
        f"Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n" for i in range(min(depth, 3000))
    )
    with contextlib.suppress(DocumentError):
        parse("x.eml", deep + "\nword")
    start = b"<w:document xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'>"
    nested = start + b"<w:body>" * depth + b"</w:body>" * depth + b"</w:document>"
    refused("x.docx", repacked(samples, samples.word(), document=nested))


def test_a_row_number_without_end_does_not_hang(samples) -> None:
    made = samples.workbook({"S": [["before"], ["after"]]})
    sheet = samples.unzipped(made)["xl/worksheets/sheet1.xml"]
    sheet = sheet.replace(b'<row r="2"', b'<row r="99999999999999"').replace(b'r="A2"', b"")
    assert "before" in text_of(parse("x.xlsx", repacked(samples, made, sheet1=sheet)))


def test_native_code_is_ended_apart_and_the_next_document_is_read() -> None:
    attributes = " ".join(f"a{i}=1" for i in range(40_000))  # about 20 s within libxml2
    with pytest.raises(DocumentError, match=r"^x.html took longer than 1 s to read.*: split it"):
        parse_document("x.html", f"<p {attributes}>x</p>".encode(), seconds=1.0)
    assert text_of(parse_document("y.html", b"<p>hello</p>")) == "hello"
    with pytest.raises(DocumentError, match="because others were"):
        parse_document("y.html", b"<p>hello</p>", seconds=0.0)


@pytest.mark.parametrize("kind", ["csv", "html", "xml", "docx"])
def test_memory_is_bounded_apart_and_the_next_document_is_read(samples, monkeypatch, kind) -> None:
    code = (
        "from hanol.retrieval.documents import _reader, _reading; _reader.MEMORY = 320 * 2**20; "
        "_reading.answer_requests()"
    )
    monkeypatch.setattr(_reader, "_CHILD", code)
    monkeypatch.setattr(_reader, "_idle", [])
    markup = b"<p>a<b>b</b></p>" * 500_000
    data = {
        "csv": b'a,"b\n' + b'"' * 8_000_000 + b"x," * 1_000_000,
        "html": b"<html>" + markup,
        "xml": b"<a>" + markup + b"</a>",
        "docx": repacked(samples, samples.word(), document=b"<document>" + markup + b"</document>"),
    }[kind]
    with pytest.raises(DocumentError, match="memory"):
        parse_document(f"x.{kind}", data, passages=True)
    assert text_of(parse_document("y.html", b"<p>hello</p>")) == "hello"


def test_what_is_parsed_apart_is_what_is_parsed_here(samples) -> None:
    page = b"<title>T</title><a href=/b>to b</a><table><tr><th>A<th>B<tr><td>1<td>2</table>"
    for name, data in {"x.html": page, "y.md": b"# H\n\nText.", "z.csv": b"a,b\n1,2"}.items():
        options = {"tables": True, "passages": True, "address": "https://a.example/"}
        apart = parse_document(name, data, **options)
        with _reader.no_processes():
            assert apart == parse_document(name, data, **options)
        assert apart.pages[0].passages
    with pytest.raises(DocumentError, match="unsupported suffix"):
        parse_document("x.exe", b"MZ")


FORKING = """
import os
from hanol.retrieval import parse_document

def read(word):
    assert parse_document("y.html", f"<p>{word}</p>".encode()).pages[0].text == word

read("before")
if (child := os.fork()) == 0:
    read("child")
    os._exit(0)
read("parent")
assert os.waitpid(child, 0)[1] == 0
read("after")
"""


def test_a_forked_process_parses_apart_by_itself() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=60)


def test_nested_lists_take_no_quadratic_time() -> None:
    page = ("<ul id='a'><li>word" * 100 + "</ul>" * 100) * 300  # minutes in trafilatura
    assert text_of(parse("x.html", page)).split() == ["word"] * 30_000


def test_nothing_reaches_the_log_or_the_warnings(samples, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    level = logging.getLogger("pypdf").level
    data = samples.pdf([[(72, 700, "x")]])
    broken = data.replace(b"startxref\n", b"startxref\n9")
    assert text_of(parse("x.pdf", broken)) == "x"  # pypdf repairs it, and says so in the log
    refused("x.pdf", data[:60])
    parse("x.html", "<p>word")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parse("x.xlsx", samples.workbook({"S": [["a"]]}))
    assert not caught
    assert not [r for r in caplog.records if r.name.split(".")[0] in _documents._LOUD]
    assert logging.getLogger("pypdf").level == level


# --- real documents -----------------------------------------------------------


PHRASES = {
    "kimi-linear-report.pdf": {
        "a drop-in replacement for full attention architectures with superior performance": 1,
        "historically underperformed softmax attention": 2,  # broken at the line's end
        "alongside predominantly faster linear layers": 2,
        "introducing a fine-grained diagonalized gate Diag(αt)": 4,
        "Table 1: Ablation study on the h": 8,
        "CRUXEval-I-cot 51.6 56.0 56.6": 11,
        "Listing 1: Pseudo PyTorch-style code snippet for KDA chunked form": 27,
        "HMMT 2025 (Avg@32) 44.5": 28,
    },
    "tongyi-deepresearch-report.pdf": {
        "combines agentic mid-training and agentic post-training": 1,  # "agen-", "tic"
        "2 Design Principle Agent Training Pipeline.": 3,
        "Figure 5: An overview of our agentic reinforcement learning framework.": 9,
        "Our RL algorithm is a tailored adaptation of GRPO": 10,
        "3.4.4 Model Merging": 11,
        "Table 1: Performance comparison on various benchmarks.": 12,
        "We acknowledge several limitations in our current work": 16,
        "The above constitutes the system prompt of our ReAct rollout.": 22,
    },
}
TITLES = {
    "kimi-linear-report.pdf": "KIMI LINEAR: AN EXPRESSIVE, EFFICIENT ATTENTION ARCHITECTURE",
    "tongyi-deepresearch-report.pdf": "Tongyi DeepResearch Technical Report",
}


@real_documents
@pytest.mark.parametrize("name", PHRASES)
def test_phrases_of_real_reports_are_on_their_page(name) -> None:
    document = read_document(DATA / name)
    assert document.title == TITLES[name]
    # the number printed at the foot of each page; one of the two has none on its first
    printed = [page.text.rpartition("\n")[2].strip() for page in document.pages]
    assert printed[1:] == [str(page.number) for page in document.pages][1:]
    for phrase, number in PHRASES[name].items():
        pages = [p.number for p in document.pages if phrase in " ".join(p.text.split())]
        assert pages == [number], phrase


@real_documents
@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext is the reference")
@pytest.mark.parametrize("name", PHRASES)
def test_pages_of_real_reports_have_the_words_that_poppler_finds(name) -> None:
    reference = subprocess.run(
        ["pdftotext", "-enc", "UTF-8", DATA / name, "-"], capture_output=True, check=True
    )
    theirs = reference.stdout.decode().split("\f")
    for page, other in zip(read_document(DATA / name).pages, theirs, strict=False):
        wanted = re.findall(r"(?<![-\w])[a-z]{4,}(?![-\w])", other)
        found = set(re.findall(r"[a-z]{4,}", page.text))
        missing = [word for word in wanted if word not in found]
        assert len(missing) <= 0.02 * len(wanted) + 1, (page.number, missing)


@real_documents
def test_real_korean_newsletters() -> None:
    for path in sorted((DATA / "ko").glob("*.txt")):
        raw = path.read_text(encoding="utf-8")
        text = text_of(read_document(path))
        assert text == unicodedata.normalize("NFC", raw.replace("\r\n", "\n")).strip()
        for codec in ("utf-16", "utf-8-sig"):
            assert text_of(parse(path.name, raw.encode(codec))) == text
        # what Korean Windows can write at all
        narrow = raw.encode("cp949", "ignore")
        assert text_of(parse(path.name, narrow)) == narrow.decode("cp949").strip()
        spans = _split.split_passages(text)
        assert all(30 < len(text[a:b]) < 2000 for a, b in spans)


def test_a_reader_apart_is_kept_by_a_program_that_holds_much_memory() -> None:
    # What its parent held counts as the most that a process held.
    held = b"x" * (700 << 20)
    found = []
    for _ in range(2):
        parse_document("a.txt", b"Some words.")
        found.append({one._process.pid for one in _reader._idle if one._process})
    assert held
    assert found[0] == found[1] != set()
