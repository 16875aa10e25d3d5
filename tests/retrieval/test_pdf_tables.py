"""Tables of PDF pages: drawn by lines in the ways that programs draw them, and what is none."""

from itertools import pairwise

import pytest

from hanol.retrieval import parse_document
from hanol.retrieval.documents.pdf import _ocr  # private: programs and processes

KOREAN = (
    b"<< /Type /Font /Subtype /Type0 /BaseFont /Asia /Encoding /KSC-EUC-H "
    b"/DescendantFonts [4 0 R] >>",
    b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /Asia /FontDescriptor 5 0 R /DW 1000 "
    b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Korea1) /Supplement 2 >> >>",
    b"<< /Type /FontDescriptor /FontName /Asia /Flags 4 /FontBBox [0 0 1000 1000] /StemV 80 "
    b"/ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 >>",
)
XS, TOP, HIGH = (72, 190, 290, 390, 520), 700, 24
MACHINES = [
    ["Machine", "Power in kW", "Weight in kg", "Bought in"],
    ["Lathe", "5.5", "1,800", "2012"],
    ["Drill press", "1.1", "260", "2018"],
    ["Band saw", "1.5", "310", "2020"],
]
LINES = (
    "Machine: Lathe; Power in kW: 5.5; Weight in kg: 1,800; Bought in: 2012\n"
    "Machine: Drill press; Power in kW: 1.1; Weight in kg: 260; Bought in: 2018\n"
    "Machine: Band saw; Power in kW: 1.5; Weight in kg: 310; Bought in: 2020"
)


@pytest.fixture(autouse=True)
def _without_ocr(monkeypatch) -> None:
    monkeypatch.setattr(_ocr, "languages", lambda: "")


def pages(data: bytes) -> list[str]:
    return [page.text for page in parse_document("a.pdf", data).pages]


def said(x: float, y: float, text: str) -> str:
    return f"BT /F1 10 Tf {x} {y} Td <{text.encode('euc_kr').hex()}> Tj ET"


def cells(rows: list[list[str]], xs=XS, top: float = TOP, high: float = HIGH) -> str:
    """The words of a table, a row after another; an empty text draws nothing."""
    return "\n".join(
        said(xs[x] + 4, top - (y + 1) * high + 8, text)
        for y, row in enumerate(rows)
        for x, text in enumerate(row)
        if text
    )


def box(left: float, right: float, top: float, bottom: float, style: str) -> str:
    """The sides of a cell, as programs draw them."""
    if style == "boxes":
        return f"{left} {bottom} {right - left} {top - bottom} re S"
    sides = [(left, top, right, top), (left, bottom, right, bottom)]
    sides += [(left, bottom, left, top), (right, bottom, right, top)]
    if style == "bars":  # as Word does
        return " ".join(f"{a} {b} {max(c - a, 0.5)} {max(d - b, 0.5)} re f" for a, b, c, d in sides)
    return " ".join(f"{a} {b} m {c} {d} l" for a, b, c, d in sides) + " S"


def grid(count: int, style: str = "lines", xs=XS, top: float = TOP, high: float = HIGH) -> str:
    rows = [(top - y * high, top - (y + 1) * high) for y in range(count)]
    return "\n".join(box(a, b, *row, style) for row in rows for a, b in pairwise(xs))


def pdf(samples, *contents: str, korean: bool = False) -> bytes:
    encoded = [content.encode() for content in contents]
    font, *more = KOREAN
    known = {"font": font, "more": tuple(more)} if korean else {}
    return samples.drawn_pdf(*encoded, **known)


@pytest.mark.parametrize("style", ["boxes", "lines", "bars"])
def test_rows_of_a_ruled_table_have_the_names_of_their_columns(samples, style) -> None:
    drawn = [said(72, 740, "All machines of the workshop:"), grid(4, style), cells(MACHINES)]
    drawn.append(said(72, 560, "The office keeps the keys."))
    expected = f"All machines of the workshop:\n\n{LINES}\n\nThe office keeps the keys."
    [text] = pages(pdf(samples, "\n".join(drawn)))
    assert [line for line in text.split("\n") if line] == [
        line for line in expected.split("\n") if line
    ]


def test_a_korean_table_and_a_form(samples) -> None:
    rows = [
        ["시설", "이용 시간", "요금", "담당자"],
        ["도서관", "09:00-20:00", "무료", "김민수"],
        ["체육관", "06:00-22:00", "3,000원", "이서연"],
        ["수영장", "06:00-21:00", "5,000원", "박지훈"],
    ]
    form = [["성명", "최유진", "전화", "02-555-1234"], ["주소", "서울시 중구", "직책", "과장"]]
    drawn = [grid(4), cells(rows), grid(2, top=500), cells(form, top=500)]
    [text] = pages(pdf(samples, "\n".join(drawn), korean=True))
    lines = [line for line in text.split("\n") if line]
    assert lines[1] == "시설: 체육관; 이용 시간: 06:00-22:00; 요금: 3,000원; 담당자: 이서연"
    assert lines[3:] == ["성명: 최유진; 전화: 02-555-1234", "주소: 서울시 중구; 직책: 과장"]


def test_a_merged_cell_stands_in_each_row_and_column(samples) -> None:
    xs = (72, 160, 240, 320, 400, 480)
    rows = [
        ["Region", "2023", "", "2024", ""],
        ["", "first half", "last half", "first half", "last half"],
        ["North", "10", "12", "14", "16"],
        ["South", "20", "22", "24", "26"],
    ]
    drawn = [box(72, 160, 700, 652, "lines"), grid(1, xs=xs[1::2]), grid(2, xs=xs, top=652)]
    drawn += [grid(1, xs=xs[1:], top=676), cells(rows, xs=xs)]
    [text] = pages(pdf(samples, "\n".join(drawn)))
    assert text.split("\n")[0] == (
        "Region: North; 2023 first half: 10; 2023 last half: 12; 2024 first half: 14; "
        "2024 last half: 16"
    )


def test_lines_of_a_cell_belong_together(samples) -> None:
    # Programs write the words of a row one cell after the other.
    name = [said(76, 640, "Drill press for"), said(76, 630, "holes")]
    drawn = [grid(4), cells(MACHINES[:2]), *name]
    drawn += [cells([["", *MACHINES[2][1:]], MACHINES[3]], top=TOP - 2 * HIGH)]
    [text] = pages(pdf(samples, "\n".join(drawn)))
    assert "Machine: Drill press for holes; Power in kW: 1.1; Weight in kg: 260" in text


def test_rows_that_no_line_parts(samples) -> None:
    frame = "\n".join(box(a, b, TOP, TOP - HIGH, "lines") for a, b in pairwise(XS))
    body = "\n".join(box(a, b, TOP - HIGH, TOP - 4 * HIGH, "lines") for a, b in pairwise(XS))
    assert pages(pdf(samples, "\n".join([frame, body, cells(MACHINES)]))) == [LINES]


def test_a_table_that_goes_on_over_the_page(samples) -> None:
    first = [grid(4), cells(MACHINES), said(300, 40, "- 1 -")]
    # The margins of pages on the left and on the right differ.
    xs = [x + 20 for x in XS]
    more = [["Planer", "3.0", "900", "2021"], ["Grinder", "0.7", "80", "2022"]]
    second = [said(92, 760, "Workshop"), grid(2, xs=xs), cells(more, xs=xs)]
    repeated = [said(92, 760, "Workshop"), grid(3, xs=xs), cells([MACHINES[0], *more], xs=xs)]
    for page in (second, repeated):
        texts = pages(pdf(samples, "\n".join(first), "\n".join(page)))
        assert "Machine: Planer; Power in kW: 3.0; Weight in kg: 900; Bought in: 2021" in texts[1]
        assert "Machine: Machine" not in texts[1]


def test_a_table_after_other_text_does_not_take_the_names_of_the_page_before(samples) -> None:
    first = [grid(4), cells(MACHINES)]
    words = [
        said(72, 770 - 12 * i, "Another chapter begins here, with other things.") for i in range(5)
    ]
    more = [["Planer", "3.0", "900", "2021"], ["Grinder", "0.7", "80", "2022"]]
    second = [*words, grid(2), cells(more)]
    texts = pages(pdf(samples, "\n".join(first), "\n".join(second)))
    assert "Planer | 3.0 | 900 | 2021" in texts[1]


PLAIN = [said(76, 680 - 24 * i, f"Line {i} of a page with words") for i in range(4)]


@pytest.mark.parametrize(
    "drawn",
    [
        "72 600 m 520 600 l S 72 700 m 520 700 l S",  # rules above and below
        "72 600 448 110 re S",  # a frame
        "72 600 448 110 re S 290 600 m 290 710 l S",  # a frame in two columns
        grid(4, xs=(72, 130, 520)),  # lines through words
        "\n".join(
            f"{x} 500 m {x} 750 l S {x - 300} {x} m 600 {x} l S" for x in range(350, 590, 10)
        ),
        grid(3, top=400),  # an empty table below
        "10 10 m 600 780 l S 10 780 m 600 10 l S",
    ],
)
def test_lines_that_draw_no_table_change_nothing(samples, drawn) -> None:
    without = pages(pdf(samples, "\n".join(PLAIN)))
    assert pages(pdf(samples, "\n".join([drawn, *PLAIN]))) == without


def test_a_table_whose_text_stands_in_pieces_is_left_as_it_is(samples) -> None:
    pieces = [cells(MACHINES[:2]), said(72, 500, "in between"), cells(MACHINES[2:], top=TOP - 48)]
    [text] = pages(pdf(samples, "\n".join([grid(4), *pieces])))
    assert text == pages(pdf(samples, "\n".join(pieces)))[0]


def test_a_table_on_its_side_is_left_as_it_is(samples) -> None:
    turned = "0 1 -1 0 750 0 cm\n" + "\n".join([grid(4), cells(MACHINES)])
    [text] = pages(pdf(samples, turned))
    assert ": Lathe" not in text
    assert "Lathe" in text


def test_a_page_of_very_many_lines_takes_no_time(samples) -> None:
    lines = "\n".join(
        f"{i % 600} {i % 37} m {i % 600} 700 l S 0 {i} m 600 {i} l S" for i in range(5000)
    )
    [text] = pages(pdf(samples, "\n".join([lines, *PLAIN])))
    assert "Line 3 of a page" in text


def test_tables_are_the_same_apart_and_can_be_drawn(samples) -> None:
    data = pdf(samples, "\n".join([grid(4), cells(MACHINES)]))
    [page] = parse_document("a.pdf", data, tables=True).pages
    [table] = page.tables
    assert page.text[table.start : table.end] == LINES
    assert list(table.names) == MACHINES[0]
    assert [list(row) for row in table.rows] == MACHINES[1:]
