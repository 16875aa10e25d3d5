"""Tables of every format: each value with the names of its row and column, and no wrong pair."""

import io

import docx
import openpyxl
import pptx
import pytest
from pptx.util import Inches

from hanol.retrieval import Index, join_pages, parse_document
from hanol.retrieval.documents.tables._cells import Cell  # private: rows without a file
from hanol.retrieval.documents.tables._lines import table_text  # private: format around them

FORMATS = ("csv", "docx", "odt", "pptx", "xlsx")
MERGING = FORMATS[1:]


def read(samples, kind: str, rows, merged=()) -> str:
    """Text of a table in a file; `merged` are (top, left, bottom, right) from 0."""
    out = io.BytesIO()
    width = max(map(len, rows))
    if kind == "csv":
        lines = (",".join(f'"{cell}"' for cell in row) for row in rows)
        out.write("\n".join(lines).encode())
    elif kind == "odt":
        hidden, spans = set(), {}
        for top, left, bottom, right in merged:
            hidden |= {(i, j) for i in range(top, bottom + 1) for j in range(left, right + 1)}
            spans[top, left] = (
                f' table:number-rows-spanned="{bottom - top + 1}"'
                f' table:number-columns-spanned="{right - left + 1}"'
            )
        xml = ""
        for i, row in enumerate(rows):
            xml += "<table:table-row>"
            for j, cell in enumerate(row):
                if (i, j) in hidden and (i, j) not in spans:
                    xml += "<table:covered-table-cell/>"
                else:
                    xml += f"<table:table-cell{spans.get((i, j), '')}><text:p>{cell}</text:p>"
                    xml += "</table:table-cell>"
            xml += "</table:table-row>"
        out.write(samples.opendocument("text", f"<table:table>{xml}</table:table>"))
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append([cell or None for cell in row])
        for top, left, bottom, right in merged:
            book.active.merge_cells(None, top + 1, left + 1, bottom + 1, right + 1)
        book.save(out)
    else:
        made = docx.Document() if kind == "docx" else pptx.Presentation()
        if kind == "docx":
            table = made.add_table(len(rows), width)
        else:
            slide = made.slides.add_slide(made.slide_layouts[6])
            table = slide.shapes.add_table(len(rows), width, 0, 0, Inches(4), Inches(1)).table
        for i, row in enumerate(rows):
            for j, cell in enumerate(row):
                table.cell(i, j).text = cell
        for top, left, bottom, right in merged:
            text = rows[top][left]
            table.cell(top, left).merge(table.cell(bottom, right))
            table.cell(top, left).text = text
        made.save(out)
    return "\n".join(page.text for page in parse_document(f"a.{kind}", out.getvalue()).pages)


FORMS = [
    [("Name", "Jane Miller"), ("Date of birth", "1 March 1990"), ("Department", "Finance")],
    [("Applicant", "Kim"), ("Phone", "010-1234-5678"), ("E-mail", "kim@a.com"), ("Notes", "none")],
    [("Invoice", "A-77"), ("Customer", "Blue Tomato"), ("Terms", "30 days")],
    [("Product:", "Lamp"), ("Colour:", "green"), ("Made in:", "Korea")],
    [("Model", "X200"), ("Weight", "1.2 kg"), ("Battery", "10 hours"), ("Price", "$999")],
    [("성명", "홍길동"), ("생년월일", "1990년 3월 1일"), ("부서", "총무팀")],
    [("계약자", "이영희"), ("계약일", "2024년 1월 5일"), ("보증금", "1,000만원")],
    [("姓名", "王小明"), ("出生日期", "1990年3月1日"), ("部门", "财务部")],
    [("氏名", "山田太郎"), ("生年月日", "1990年3月1日"), ("部署", "総務部")],
    [("Vorname", "Anna"), ("Nachname", "Schmidt"), ("Geburtsdatum", "01.03.1990")],
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", FORMS, ids=lambda rows: rows[0][0])
def test_a_form_is_labels_with_values(samples, kind, rows) -> None:
    lines = read(samples, kind, rows).splitlines()
    assert lines[-len(rows) :] == [f"{label.rstrip(':')}: {value}" for label, value in rows]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_form_may_have_two_pairs_in_a_row(samples, kind) -> None:
    rows = [("성명", "홍길동", "생년월일", "1990-03-01"), ("부서", "총무팀", "직위", "과장")]
    assert "부서: 총무팀; 직위: 과장" in read(samples, kind, rows)
    rows = [("Name", "Kim", "Phone", "555-1234"), ("Team", "Red", "Role", "Lead")]
    assert "Team: Red; Role: Lead" in read(samples, kind, rows)


RECORDS = [
    [("City", "Country", "People"), ("Seoul", "Korea", "9,400,000"), ("Paris", "France", "2,1")],
    [("이름", "부서", "직위"), ("김민수", "총무팀", "과장"), ("이영희", "개발팀", "부장")],
    [("Date", "Event"), ("2024-03-05", "Start"), ("2024-04-01", "End")],
    [("fruit", "tons"), ("apple", "12"), ("pear", "7")],
    [("Country", "Capital"), ("France", "Paris"), ("Japan", "Tokyo")],
    [("Test", "Result"), ("Blood", "negative"), ("Urine", "negative")],
    [("Item", "2022", "2023"), ("Rent", "5", "6"), ("Food", "8", "9")],
    [("항목", "1월", "2월"), ("임대료", "100", "110"), ("전기", "20", "19")],
    [("ID", "Name", "Team", "Role"), ("1", "Kim", "Red", "Lead"), ("2", "Lee", "Blue", "Dev")],
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rows", RECORDS, ids=lambda rows: rows[0][0])
def test_a_table_with_names_is_names_with_values(samples, kind, rows) -> None:
    lines = read(samples, kind, rows).splitlines()
    assert lines[1 - len(rows) :] == [
        "; ".join(f"{name}: {cell}" for name, cell in zip(rows[0], row, strict=True))
        for row in rows[1:]
    ]


@pytest.mark.parametrize("kind", MERGING)
def test_headings_and_empty_fields_between_the_fields_of_a_form(samples, kind) -> None:
    rows = [("Buyer", ""), ("Name", "Kim"), ("Phone", "555-1234"), ("Seller", "")]
    rows += [("Name", "Blue Tomato"), ("Phone", "")]
    text = read(samples, kind, rows, [(0, 0, 0, 1), (3, 0, 3, 1)])
    lines = ["Buyer; Name: Kim", "Buyer; Phone: 555-1234", "Seller; Name: Blue Tomato"]
    assert text.splitlines()[-4:] == [*lines, "Seller; Phone"]
    # One heading is a title.
    text = read(samples, kind, rows[:3], [(0, 0, 0, 1)])
    assert text.splitlines()[-3:] == ["Buyer", "Name: Kim", "Phone: 555-1234"]


def test_values_of_several_units_are_no_column() -> None:
    rows = [["Gast", "Herr Weber"], ["Zimmer", "12"], ["Ankunft", "3. Mai"]]
    assert table_text(rows) == "Gast | Herr Weber\nZimmer | 12\nAnkunft | 3. Mai"
    rows = [["Mieter", "Schmidt"], ["Wohnfläche", "80 m²"], ["Miete", "900 €"]]
    assert table_text(rows) == "Mieter: Schmidt\nWohnfläche: 80 m²\nMiete: 900 €"


def test_empty_columns_are_no_columns(samples) -> None:
    rows = [("", "Name", "", "Kim"), ("", "Phone", "", "555-1234")]
    assert read(samples, "xlsx", rows).endswith("Name: Kim\nPhone: 555-1234")
    rows = [("", "City", "Pop"), ("", "Seoul", "9"), ("", "Busan", "3")]
    assert read(samples, "xlsx", rows).endswith("City: Seoul; Pop: 9\nCity: Busan; Pop: 3")


@pytest.mark.parametrize("kind", MERGING)
@pytest.mark.parametrize(
    ("rows", "merged", "lines"),
    [
        (  # groups of fields: merged cells before the labels, two parties with the same fields
            [("갑", "상호", "한빛전자"), ("", "대표", "최유리"),
             ("을", "상호", "푸른상사"), ("", "대표", "박민수")],
            [(0, 0, 1, 0), (2, 0, 3, 0)],
            ["갑 상호: 한빛전자", "갑 대표: 최유리", "을 상호: 푸른상사", "을 대표: 박민수"],
        ),
        (  # a form and two tables, with a heading over the whole row before each table
            [("성명", "이영희", "생년월일", "1992.3.4"), ("학력", "", "", ""),
             ("기간", "학교", "전공", "졸업"), ("2011-2015", "한국대학교", "경영학", "2015.2"),
             ("경력", "", "", ""), ("기간", "회사", "직위", "업무"),
             ("2015-2020", "한빛", "대리", "회계")],
            [(1, 0, 1, 3), (4, 0, 4, 3)],
            ["성명: 이영희; 생년월일: 1992.3.4", "학력",
             "기간: 2011-2015; 학교: 한국대학교; 전공: 경영학; 졸업: 2015.2", "경력",
             "기간: 2015-2020; 회사: 한빛; 직위: 대리; 업무: 회계"],
        ),
        (  # two levels of names that look like numbers together
            [("분류", "2023년", "", "2024년", ""), ("", "목표", "실적", "목표", "실적"),
             ("서울", "100", "90", "110", "115")],
            [(0, 0, 1, 0), (0, 1, 0, 2), (0, 3, 0, 4)],
            ["분류: 서울; 2023년 목표: 100; 2023년 실적: 90; "
             "2024년 목표: 110; 2024년 실적: 115"],
        ),
        (  # years are names, though not all values below them are numbers
            [("Item", "2021", "2022", "2023", "2024"), ("Sales", "no data", "", "", "77"),
             ("Cost", "1", "2", "see note", "")],
            [(1, 1, 1, 3), (2, 3, 2, 4)],
            ["Item: Sales; 2021: no data; 2022: no data; 2023: no data; 2024: 77",
             "Item: Cost; 2021: 1; 2022: 2; 2023: see note; 2024: see note"],
        ),
        (  # an empty corner over names of rows
            [("", "Basic", "Pro"), ("Price", "free", "$9"), ("Support", "forum", "phone")],
            [],
            ["Price; Basic: free; Pro: $9", "Support; Basic: forum; Pro: phone"],
        ),
    ],
    ids=["groups", "sections", "levels", "years", "corner"],
)  # fmt: skip
def test_what_merged_and_empty_cells_tell(samples, kind, rows, merged, lines) -> None:
    assert read(samples, kind, rows, merged).splitlines()[-len(lines) :] == lines


def test_names_reach_over_an_empty_row_to_their_own_columns(samples) -> None:
    rows = [
        ("City", "Mayor", "Pop"),
        ("Seoul", "Oh", "9"),
        (),
        ("Busan", "", "3"),
        (),
        ("Note: in millions",),
    ]
    text = read(samples, "xlsx", rows)
    assert text.endswith("Mayor: Oh; Pop: 9\nCity: Busan; Pop: 3\nNote: in millions")


def test_headings_over_a_web_table_name_no_column() -> None:
    head = "<tr><th colspan=2>Eiffel Tower</th></tr><tr><td colspan=2>Paris</td></tr>"
    row = "<tr><th>Type</th><td>Tower</td></tr><tr><th>Height</th><td>330 m</td></tr>"
    page = f"<p>Words.</p><table>{head}{row}</table>"
    text = parse_document("a.html", page.encode()).pages[0].text
    assert text.endswith("Eiffel Tower\nParis\nType: Tower\nHeight: 330 m")
    page = "<table><tr><th></th><th>Mon</th></tr><tr><th>1</th><td>art</td></tr></table>"
    assert parse_document("a.html", page.encode()).pages[0].text == "1; Mon: art"


@pytest.mark.parametrize(
    "labels",
    ["Họ và tên, Ngày sinh", "Nome, Luogo di nascita", "الاسم, تاريخ الميلاد", "नाम, जन्म तिथि",
     "Imię, Data urodzenia", "Nama, Tempat lahir", "Фамилия, Дата рождения", "Mieter, Kaltmiete"],
)  # fmt: skip
def test_forms_of_many_languages(labels) -> None:
    one, two = labels.split(", ")
    assert table_text([[one, "Xyz"], [two, "5 abc"]]) == f"{one}: Xyz\n{two}: 5 abc"


def test_one_label_among_other_words_names_no_columns() -> None:
    rows = [["Mieter", "Familie Vogel"], ["Gegenstand", "Hauptstr. 5"], ["Preis dafür", "850 Euro"]]
    assert table_text(rows) == "\n".join(map(" | ".join, rows))
    rows = [["Bill to Blue Tomato", "Ship to Warehouse 9"]]
    assert table_text(rows) == "Bill to Blue Tomato | Ship to Warehouse 9"


@pytest.mark.parametrize("kind", FORMATS)
def test_where_neither_is_certain_cells_stay_side_by_side(samples, kind) -> None:
    rows = [("Blue sky", "Green hill"), ("Red brick", "Grey stone")]
    assert "Blue sky | Green hill\nRed brick | Grey stone" in read(samples, kind, rows)
    rows = [("Name", "Kim", "Lee"), ("Age", "30", "40"), ("City", "Seoul", "Busan")]
    assert "Name | Kim | Lee\nAge | 30 | 40\nCity | Seoul | Busan" in read(samples, kind, rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_name_of_a_column_without_values_is_kept(samples, kind) -> None:
    text = read(samples, kind, [("Task", "Owner", "Signed by the board"), ("Write", "Kim", "")])
    assert "Task | Owner | Signed by the board\nTask: Write; Owner: Kim" in text
    text = read(samples, kind, [("Top left", "Top right"), ("Bottom left", "")])
    assert "Top left | Top right\nBottom left" in text


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (
            [("Who", "Age", ""), ("Kim", "31", "left"), ("Lee", "45", "new")],
            ["Who: Kim; Age: 31; left", "Who: Lee; Age: 45; new"],
        ),
        (
            [("Name", "City", ""), ("Kim", "Oslo", "left"), ("Lee", "Rome", "new")],
            ["Name: Kim; City: Oslo; left", "Name: Lee; City: Rome; new"],
        ),
        (  # the second row may be that of the names
            [("Year", "2024", ""), ("Item", "Qty", "Cost"), ("Pen", "1", "2"), ("Ink", "2", "3")],
            ["Year | 2024", "Item | Qty | Cost", "Pen | 1 | 2", "Ink | 2 | 3"],
        ),
    ],
)
def test_the_last_column_may_have_no_name(samples, kind, rows, lines) -> None:
    assert read(samples, kind, rows).splitlines()[-len(lines) :] == lines


def test_a_csv_whose_rows_are_longer_than_its_first_one_has_no_names() -> None:
    data = b"height,weight\n1,170,60\n2,180,70\n"  # as R writes it: the first column has no name
    lines = parse_document("a.csv", data).pages[0].text.splitlines()
    assert lines == ["height | weight", "1 | 170 | 60", "2 | 180 | 70"]


@pytest.mark.parametrize("kind", MERGING)
def test_a_cell_over_two_columns_shifts_none(samples, kind) -> None:
    rows = [("Item", "Jan", "Feb", "Mar"), ("Rent", "see note", "", "500")]
    text = read(samples, kind, rows, [(1, 1, 1, 2)])
    assert "Item: Rent; Jan: see note; Feb: see note; Mar: 500" in text
    rows = [("성명", "홍길동", "직위", "과장"), ("주소", "서울시 중구", "", "")]
    text = read(samples, kind, rows, [(1, 1, 1, 3)])
    assert "성명: 홍길동; 직위: 과장\n주소: 서울시 중구" in text


@pytest.mark.parametrize("kind", MERGING)
def test_a_cell_over_two_rows_belongs_to_both(samples, kind) -> None:
    rows = [
        ("Dept", "Team", "Member"),
        ("Sales", "Red", "Kim"),
        ("", "", "Lee"),
        ("", "Blue", "Bo"),
    ]
    text = read(samples, kind, rows, [(1, 0, 3, 0), (1, 1, 2, 1)])
    assert "Dept: Sales; Team: Red; Member: Lee\nDept: Sales; Team: Blue; Member: Bo" in text


@pytest.mark.parametrize("kind", MERGING)
def test_groups_of_columns_and_titles_over_a_table(samples, kind) -> None:
    rows = [
        ("Yearly report", "", "", "", ""),
        ("Region", "2023", "", "2024", ""),
        ("", "Q1", "Q2", "Q1", "Q2"),
        ("North", "1", "2", "3", "4"),
    ]
    merged = [(0, 0, 0, 4), (1, 0, 2, 0), (1, 1, 1, 2), (1, 3, 1, 4)]
    text = read(samples, kind, rows, merged)
    assert "Yearly report\nRegion: North; 2023 Q1: 1; 2023 Q2: 2; 2024 Q1: 3; 2024 Q2: 4" in text


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        (
            "<tr><th>Ticket<th>Adult</tr><tr><th colspan=2>Zoo</tr><tr><td>Day<td>20</tr>"
            "<tr><th colspan=2>Pool</tr><tr><td>Day<td>6</tr>",
            ["Zoo; Ticket: Day; Adult: 20", "Pool; Ticket: Day; Adult: 6"],
        ),
        (
            "<tr><th>City<th>Rain</tr><tr><td>Oslo<td>70</tr>"
            "<tr><th>Lake<th>Depth</tr><tr><td>Mjosa<td>450</tr>",
            ["City: Oslo; Rain: 70", "Lake: Mjosa; Depth: 450"],
        ),
        (  # a sum in bold is no header
            "<tr><th>Item<th>Cost</tr><tr><td>Pen<td>2</tr>"
            "<tr><td><b>Subtotal</b><td><b>2</b></tr><tr><td>Ink<td>5</tr>",
            ["Item: Pen; Cost: 2", "Item: Subtotal; Cost: 2", "Item: Ink; Cost: 5"],
        ),
        (  # rowspan=0 reaches down to the end
            "<tr><th>Line<th>Stop<th>Time</tr><tr><td rowspan=0>7<td>Fort<td>9:40</tr>"
            "<tr><td>Quay<td>9:44</tr><tr><td>Mill<td>9:51</tr>",
            [
                "Line: 7; Stop: Fort; Time: 9:40",
                "Line: 7; Stop: Quay; Time: 9:44",
                "Line: 7; Stop: Mill; Time: 9:51",
            ],
        ),
    ],
)
def test_headings_and_names_inside_of_a_table(table: str, lines: list[str]) -> None:
    text = parse_document("a.html", f"<table>{table}</table>".encode()).pages[0].text
    assert text.splitlines() == lines


GROUPED = [
    ("Country", "Capital", "People"), ("Europe", "", ""), ("Norway", "Oslo", "5"),
    ("Total", "", "5"), ("Asia", "", ""), ("Korea", "Seoul", "51"), ("Japan", "Tokyo", "120"),
    ("Total", "", "171"),
]  # fmt: skip
IN_GROUPS = [
    "Europe; Country: Norway; Capital: Oslo; People: 5",
    "Europe; Country: Total; People: 5",
    "Asia; Country: Korea; Capital: Seoul; People: 51",
    "Asia; Country: Japan; Capital: Tokyo; People: 120",
    "Asia; Country: Total; People: 171",
]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("merged", [(), [(1, 0, 1, 2), (4, 0, 4, 2)]], ids=["plain", "merged"])
def test_rows_carry_the_name_of_their_group(samples, kind, merged) -> None:
    if merged and kind == "csv":
        pytest.skip("nothing is merged in a csv")
    assert read(samples, kind, GROUPED, merged).splitlines()[-5:] == IN_GROUPS
    # One sum below all groups is that of all.
    lines = read(samples, kind, [*GROUPED[:3], *GROUPED[4:]], [m for m in merged if m[0] < 2])
    assert lines.splitlines()[-1] == "Country: Total; People: 171"


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_without_names_of_columns_carry_the_name_of_their_group(samples, kind) -> None:
    rows = [("Fruit", "", ""), ("Blue sky", "Green hill", "3"), ("Red brick", "Grey stone", "4"),
            ("Roots", "", ""), ("White cloud", "Brown field", "7")]  # fmt: skip
    lines = ["Fruit; Blue sky | Green hill | 3", "Fruit; Red brick | Grey stone | 4",
             "Roots; White cloud | Brown field | 7"]  # fmt: skip
    assert read(samples, kind, rows).splitlines()[-3:] == lines
    rows = [
        ("Fruit", ""),
        ("Apple", "3"),
        ("Pear", "4"),
        ("Roots", ""),
        ("Leek", "7"),
        ("Yam", "5"),
    ]
    text = read(samples, kind, rows)
    assert text.splitlines()[-2:] == ["Roots; Leek: 7", "Roots; Yam: 5"]
    rows = [("Size", ""), ("Width", "3"), ("Depth", "4"), ("Height", ""), ("Weight", "7")]
    assert read(samples, kind, rows).endswith("Height\nWeight: 7")  # one was not filled in
    if kind in MERGING:  # what reaches over the whole row is a heading, whatever stands below
        rows = [("Fruit", ""), ("Blue sky", "Green hill"), ("Roots", ""), ("Red brick", "")]
        text = read(samples, kind, rows, [(0, 0, 0, 1), (2, 0, 2, 1)])
        assert text.splitlines()[-2:] == ["Fruit; Blue sky | Green hill", "Roots; Red brick"]


def test_headings_of_groups_in_bold_and_with_names_below_each() -> None:
    def bold(*cells: str) -> list[Cell]:
        return [Cell(cell, strong=True) for cell in cells]

    rows = [bold("Task", "Owner"), ["Plan", "Kim"], bold("Spring", ""), ["Write", "Lee"], ["Print"]]
    lines = ["Task: Plan; Owner: Kim", "Spring; Task: Write; Owner: Lee", "Spring; Task: Print"]
    assert table_text(rows).splitlines() == lines
    names = bold("Country", "Capital")
    rows = [["Europe", None], names, ["Italy", "Rome"], ["Asia", None], names, ["Korea", "Seoul"]]
    lines = table_text(rows).splitlines()
    assert lines[1::2] == ["Europe; Country: Italy; Capital: Rome",
                           "Asia; Country: Korea; Capital: Seoul"]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (  # rows without values are no headings
            [["Name", "Phone"], ["Kim", "555-1234"], ["Lee"], ["Bo", "555-9999"]],
            ["Name: Kim; Phone: 555-1234", "Name: Lee", "Name: Bo; Phone: 555-9999"],
        ),
        (
            [["Name", "Age"], ["Kim"], ["Lee", "33"], ["Bo", "31"]],
            ["Name: Kim", "Name: Lee; Age: 33", "Name: Bo; Age: 31"],
        ),
        (
            [["Name", "Age", "City"], ["Kim", "31", "Oslo"], ["Lee"], ["Bo", "", "Rome"]],
            ["Name: Kim; Age: 31; City: Oslo", "Name: Lee", "Name: Bo; City: Rome"],
        ),
        (  # whether the rows before it have another group is not said
            [["Item", "Qty", "Price"], ["Pen", "1", "2"], ["Office"], ["Desk", "7", "8"]],
            ["Item: Pen; Qty: 1; Price: 2", "Office", "Item: Desk; Qty: 7; Price: 8"],
        ),
        (
            [["Item", "Qty", "Price"], ["Pen", "1", "2"], ["Source: all shops"]],
            ["Item: Pen; Qty: 1; Price: 2", "Source: all shops"],
        ),
    ],
)
def test_what_stands_alone_in_a_row_and_heads_no_group(rows, lines) -> None:
    assert table_text(rows).splitlines() == lines


def test_marks_of_the_file_decide() -> None:
    names = [Cell(text, strong=True) for text in ("Quux", "Plugh")]
    assert table_text([names, ["a", "b"]]) == "Quux: a; Plugh: b"
    labels = [[Cell("Quux", strong=True), "a"], [Cell("Plugh", strong=True), "b"]]
    assert table_text(labels) == "Quux: a\nPlugh: b"
    assert table_text([["Quux", "7"], ["a", "8"]], heads=1) == "Quux: a; 7: 8"


def test_tables_of_a_sheet_with_empty_rows_between_them(samples) -> None:
    rows = [("Region", "Sales"), ("North", "3"), ("", ""), ("South", "5"), ("", "")]
    rows += [("Customer", "Blue Tomato"), ("Invoice", "A-77"), ("Terms", "30 days"), ("", "")]
    rows += [("Product", "Price"), ("Lamp", "30"), ("Chair", "45")]
    assert read(samples, "xlsx", rows).splitlines()[2:] == [
        "Region: North; Sales: 3",
        "Region: South; Sales: 5",
        "Customer: Blue Tomato",
        "Invoice: A-77",
        "Terms: 30 days",
        "Product: Lamp; Price: 30",
        "Product: Chair; Price: 45",
    ]


SIDE_BY_SIDE = {
    "numbers": (
        [("Name", "Age", "", "Product", "Price"), ("Kim", "31", "", "Pen", "2"),
         ("Lee", "45", "", "Ink", "5"), ("Bo", "22", "", "", "")],
        ["Name: Kim; Age: 31", "Name: Lee; Age: 45", "Name: Bo; Age: 22", "Product: Pen; Price: 2",
         "Product: Ink; Price: 5"],
    ),
    "titles and words": (
        [("Places", "", "", "Animals", ""), ("Country", "Capital", "", "Animal", "Food"),
         ("France", "Paris", "", "Cat", "Fish"), ("Japan", "Tokyo", "", "Cow", "Grass")],
        ["Places", "Country: France; Capital: Paris", "Country: Japan; Capital: Tokyo", "Animals",
         "Animal: Cat; Food: Fish", "Animal: Cow; Food: Grass"],
    ),
    "the same names": (
        [("Name", "Score", "", "Name", "Score"), ("Kim", "3", "", "Ann", "7"),
         ("Lee", "4", "", "Ben", "8")],
        ["Name: Kim; Score: 3", "Name: Lee; Score: 4", "Name: Ann; Score: 7",
         "Name: Ben; Score: 8"],
    ),
    "a form beside a table": (
        [("Customer", "Blue Tomato", "", "Product", "Price"), ("Invoice", "A-77", "", "Lamp", "30"),
         ("Terms", "30 days", "", "Chair", "45")],
        ["Customer: Blue Tomato", "Invoice: A-77", "Terms: 30 days", "Product: Lamp; Price: 30",
         "Product: Chair; Price: 45"],
    ),
    "two of them below each other": (
        [("City", "People", "", "", "Team", "Wins"), ("Seoul", "9", "", "", "Red", "3"),
         ("Oslo", "1", "", "", "Blue", "4"), ("Rome", "3", "", "", "", ""),
         ("Bern", "2", "", "", "Month", "Rain"), ("Kyiv", "2", "", "", "Jan", "30"),
         ("Lima", "8", "", "", "Feb", "40")],
        ["City: Seoul; People: 9", "City: Oslo; People: 1", "City: Rome; People: 3",
         "City: Bern; People: 2", "City: Kyiv; People: 2", "City: Lima; People: 8",
         "Team: Red; Wins: 3", "Team: Blue; Wins: 4", "Month: Jan; Rain: 30",
         "Month: Feb; Rain: 40"],
    ),
    "numbers alone go on with the table on the left": (
        [("Item", "2022", "2023", "", "2024", "2025"), ("Rent", "5", "6", "", "7", "8"),
         ("Food", "8", "9", "", "3", "4")],
        ["Item: Rent; 2022: 5; 2023: 6; 2024: 7; 2025: 8",
         "Item: Food; 2022: 8; 2023: 9; 2024: 3; 2025: 4"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_tables_side_by_side_have_names_of_their_own(samples, kind, case) -> None:
    rows, lines = SIDE_BY_SIDE[case]
    assert read(samples, kind, rows).splitlines()[-len(lines) :] == lines


def test_long_tables_side_by_side() -> None:
    rows = [["Name", "Age", "", "Pen", "Colour"]]
    rows += [[f"n{i}", str(i), "", f"p{i}", "red"] for i in range(300)]
    rows += [["n300", "300"]]
    lines = table_text(rows).splitlines()
    assert len(lines) == 601
    assert lines[300] == "Name: n300; Age: 300"
    assert lines[-1] == "Pen: p299; Colour: red"


@pytest.mark.parametrize(
    ("below", "lines"),
    [
        ([("Product", "Colour"), ("Lamp", "green")], ["Product: Lamp; Colour: green"]),
        (
            [("Staff", ""), ("Name", "City"), ("Kim", "Seoul"), ("Lee", "Oslo")],
            ["Staff", "Name: Kim; City: Seoul", "Name: Lee; City: Oslo"],
        ),
        ([("Foo", "Bar"), ("ef", "1"), ("gh", "2")], ["Foo: ef; Bar: 1", "Foo: gh; Bar: 2"]),
        ([("West", "n/a"), ("East", "3")], ["Region: West; Sales: n/a", "Region: East; Sales: 3"]),
        ([("Checked by", "Blue Tomato")], ["Checked by | Blue Tomato"]),
    ],
)
def test_what_stands_below_an_empty_row_has_names_of_its_own(samples, below, lines) -> None:
    rows = [("Region", "Sales"), ("North", "3"), ("South", "5"), ("", ""), *below]
    text = read(samples, "xlsx", rows).splitlines()
    assert text[2:] == ["Region: North; Sales: 3", "Region: South; Sales: 5", *lines]


def test_a_table_below_that_begins_as_the_one_above_has_its_own_names() -> None:
    text = "Month,Pens,Ink\nJan,3,4\nFeb,5,6\n\nMonth,Cups\nJan,9\nFeb,8\n"
    lines = parse_document("a.csv", text.encode()).pages[0].text.splitlines()
    assert lines[-2:] == ["Month: Jan; Cups: 9", "Month: Feb; Cups: 8"]


def test_any_row_of_a_large_table_is_found_and_shown_first(tmp_path) -> None:
    rows = "".join(f"{i},person{i},Seoul,x\n" for i in range(6000))
    (tmp_path / "members.csv").write_text("id,name,city,note\n" + rows)
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        for number in (40, 4321, 5999):
            [found, *_] = index.search(f"person{number}", 3)
            assert found.text.startswith(f"id: {number}; name: person{number};")
            [(start, end), *_] = found.highlights
            assert found.text[start:end] == f"person{number}"
            [page] = join_pages(index.read(found.address))
            assert page.text[found.start : found.end] == found.text


def test_tables_of_web_pages_are_lines_too() -> None:
    def page(table: str) -> str:
        prose = (
            "<p>" + "A sentence about the town, its people, and the sea around it. " * 4 + "</p>"
        )
        html = f"<html><body><article>{prose}<table>{table}</table>{prose}</article></body></html>"
        return "\n".join(p.text for p in parse_document("a.html", html.encode()).pages)

    head = "<tr><th>Port</th><th colspan=2>Depth in metres</th></tr>"
    text = page(
        f"{head}<tr><td rowspan=2>Incheon</td><td>9</td><td>12</td></tr><tr><td>8</td></tr>"
    )
    assert "Port: Incheon; Depth in metres: 9; Depth in metres: 12" in text
    assert "Port: Incheon; Depth in metres: 8" in text
    text = page("<tr><th>Quux</th><td>a</td></tr><tr><th>Plugh</th><td>b<br>c</td></tr>")
    assert "Quux: a" in text
    assert "Plugh: b c" in text
    text = page(
        "<caption>Trains</caption><thead><tr><td>From</td><td>7</td></tr></thead>"
        "<tr><td>Seoul</td><td>8</td></tr>"
    )
    assert "From: Seoul; 7: 8" in text
    assert "Trains" in text
