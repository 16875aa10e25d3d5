"""`hanol index --report`, `hanol documents show`, and doubts beside hits."""

import json
from pathlib import Path

import openpyxl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from hanol.cli import app

WAYS_OUT = ("\x1b", "\x9b", "\x07")  # by which a text could steer a terminal


def hanol(*args: str | Path, columns: int = 100) -> Result:
    done = CliRunner().invoke(app, [*map(str, args)], env={"COLUMNS": str(columns)})
    assert not any(sign in done.stdout + done.stderr for sign in WAYS_OUT)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "sound.md").write_text("# Keys\n\nKeys are rotated every 90 days.")
    (folder / "guess.txt").write_bytes("Smørrebrød costs 12 kroner.".encode("latin-1"))
    (folder / "wrong.xml").write_text("<a><b>zebra</c></a>")
    (folder / "empty.txt").touch()
    (folder / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "\x1b[31mred.pdf").write_bytes(b"%PDF-1.7 nothing")
    (folder / "mail.eml").write_bytes(
        b"Subject: plan\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n"
        b"--x\nContent-Type: text/plain\n\nSee \x1b[2J there \xc2\x9b31m.\n--x\n"
        b'Content-Type: application/zip\nContent-Disposition: attachment; filename="\x1b[1mp.zip"\n'
        b"\nAAAA\n--x--\n"
    )
    done = hanol("index", folder)
    assert done.exit_code == 0, done.stderr
    assert "4 remarks on what is unread or doubtful: see --report." in done.stdout
    return folder


def test_the_report_says_where_what_why_and_what_to_do(folder: Path) -> None:
    done = hanol("index", folder, "--report")
    assert done.exit_code == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "4 unchanged" in lines[0]
    assert "empty.txt: failed: is empty. To do: remove it, or fetch it again." in lines
    told = {line.partition(":")[0]: line for line in lines[2:]}
    assert "failed: " in told["\\x1b[31mred.pdf"]
    assert "skipped: is an Office file of before 2007" in told["old.doc"]
    assert "doubtful: does not name its encoding" in told["guess.txt"]
    assert "what could be read was read. To do: mend it" in told["wrong.xml"]
    assert "skipped" in told["mail.eml, \\x1b[1mp.zip"]
    assert len(told) == 6


def test_the_report_in_json(folder: Path) -> None:
    report = json.loads(hanol("index", folder, "--report", "--json").stdout)
    assert report["unchanged"] == 4
    by_name = {one["document"]: one for one in report["remarks"]}
    assert by_name["empty.txt"] == {
        "document": "empty.txt",
        "place": "",
        "reason": "is empty",
        "advice": "remove it, or fetch it again",
        "pages": [],
        "part": "",
        "status": "failed",
    }
    assert by_name["wrong.xml"]["status"] == "doubtful"
    assert len(report["remarks"]) == 6
    assert "remarks" not in json.loads(hanol("index", folder, "--json").stdout)


def test_hits_of_doubtful_pages_carry_the_mark(folder: Path) -> None:
    first, *_ = hanol("search", folder, "kroner").stdout.splitlines()
    assert "doubtful: does not name its encoding" in first
    assert "doubtful" not in hanol("search", folder, "keys rotated").stdout
    (hit,) = json.loads(hanol("search", folder, "kroner", "--json").stdout)["hits"]
    assert hit["doubt"].startswith("does not name its encoding")
    shown = hanol("ask", folder, "What does Smørrebrød cost?").stdout
    assert "guess.txt (doubtful: does not name its encoding" in shown
    answer = json.loads(hanol("ask", folder, "What does Smørrebrød cost?", "--json").stdout)
    (place,) = answer["sentences"][0]["citations"]
    assert place["doubt"].startswith("does not name its encoding")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    book.active.title = "Prices"
    for row in (["Item", "Price"], ["Pen", 2], ["Ink [red]", 12]):
        book.active.append(row)
    book.create_sheet("Nothing")
    wide = book.create_sheet("Wide")
    wide.append([f"c{i}" for i in range(20)])
    wide.append(list(range(100, 120)))
    book.save(tmp_path / "book.xlsx")
    return tmp_path / "book.xlsx"


def test_show_draws_tables_page_by_page(book: Path) -> None:
    done = hanol("documents", "show", book)
    assert done.exit_code == 0
    first, second, third = done.stdout.split("\npage ")[1:]
    assert done.stdout.startswith("book.xlsx: book (xlsx, 3 pages)\n")
    assert "# Prices" in first
    assert "│ Ink [red] │ 12    │" in first
    assert "Item: Pen" not in first
    assert "(no text)" in second
    assert "c0: 100; c1: 101; c2: 102" in third, "too wide to be drawn"


def test_show_one_page(book: Path) -> None:
    shown = hanol("documents", "show", book, "--page", "1").stdout
    assert "Pen" in shown
    assert "c0" not in shown
    done = hanol("documents", "show", book, "--page", "4")
    assert done.exit_code == 1
    assert done.stderr == "hanol: book.xlsx has 3 pages: choose --page from 1 to 3.\n"


def test_show_in_json(book: Path) -> None:
    found = json.loads(hanol("documents", "show", book, "--json").stdout)
    assert (found["title"], found["kind"], found["remarks"]) == ("book", "xlsx", [])
    first, second, _ = found["pages"]
    assert first["number"] == 1
    (table,) = first["tables"]
    assert table["names"] == ["Item", "Price"]
    assert table["rows"] == [["Pen", "2"], ["Ink [red]", "12"]]
    assert first["text"][table["start"] :] == "Item: Pen; Price: 2\nItem: Ink [red]; Price: 12"
    assert second == {"number": 2, "text": "", "tables": [], "remarks": []}


def test_show_draws_merged_cells_as_they_are_indexed(tmp_path: Path) -> None:
    rows = (
        "<th rowspan=2>Region<th colspan=2>2023<th rowspan=2>Note", "<th>H1<th>H2",
        "<td rowspan=2>North<td>1<td>2<td>new", "<td colspan=2>closed<td>flood",
        "<td colspan=4>Abroad", "<td>South<td>5<td colspan=2>6",
    )  # fmt: skip
    page = f"<p>Rates.<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    (tmp_path / "rates.html").write_text(page)
    found = json.loads(hanol("documents", "show", tmp_path / "rates.html", "--json").stdout)
    [only] = found["pages"]
    [table] = only["tables"]
    lines = only["text"][table["start"] : table["end"]].split("\n")
    assert "Region: North; 2023 H1: closed; 2023 H2: closed; Note: flood" in lines
    group, expected = "", []
    for row in table["rows"]:
        named = zip(table["names"], row, strict=True)
        drawn = "; ".join(f"{name}: {cell}" for name, cell in named if cell)
        if row[0] == "Abroad":  # the heading of a group, which is in its rows
            group = "Abroad; "
        else:
            expected.append(group + drawn)
    assert lines == expected


def test_show_names_what_is_doubtful(folder: Path) -> None:
    shown = hanol("documents", "show", folder / "wrong.xml").stdout
    assert "! doubtful: is not well-formed XML" in shown
    found = json.loads(hanol("documents", "show", folder / "wrong.xml", "--json").stdout)
    assert found["remarks"][0]["status"] == "doubtful"


def test_show_never_steers_the_terminal(folder: Path) -> None:
    shown = hanol("documents", "show", folder / "mail.eml").stdout
    assert "See" in shown
    assert "there" in shown
    assert "\\u009b31m" in hanol("documents", "show", folder / "mail.eml", "--json").stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.txt", "is empty: remove it"),
        ("old.doc", "save it as docx"),
        ("nowhere.pdf", "does not exist: name a file"),
        (".", "is not a file: name a file"),
        ("\x1b[31mred.pdf", "is broken"),
    ],
)
def test_show_says_in_a_line_what_cannot_be_read(folder: Path, name: str, said: str) -> None:
    done = hanol("documents", "show", folder / name)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("hanol: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    error = json.loads(hanol("documents", "show", folder / name, "--json").stdout)["error"]
    assert error["kind"] == "DocumentError"
