"""What a person sees in an Office file, beside its paragraphs and tables, is read."""

import datetime as dt
import io
import re
import struct
import time
import zipfile

import docx
import openpyxl
import pptx
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.worksheet.formula import ArrayFormula
from openpyxl.worksheet.table import Table
from pptx.chart.data import CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from hanol.retrieval import parse_document
from hanol.retrieval.documents._lists import spelled  # private: forms that few files have
from hanol.retrieval.documents.office._numbers import shown  # private: formats without a workbook

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
M = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
C = "http://schemas.openxmlformats.org/drawingml/2006/chart"
D = "http://schemas.openxmlformats.org/drawingml/2006/diagram"


def read(name: str, data: bytes) -> str:
    return "\n".join(page.text for page in parse_document(name, data).pages)


def saved(document) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def changed(data: bytes, change=None, add=None) -> bytes:
    """A package with each part changed by `change(name, content)`, and with more parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)) if change else old.read(name))
        for name, content in (add or {}).items():
            new.writestr(name, content)
    return out.getvalue()


def word(body: str, **parts: str) -> bytes:
    """A Word file with this body; each part is related to it by the kind that is its name."""
    xml = f'<w:document {W} {M} xmlns:r="{REL}" xmlns:a="{A}"><w:body>{body}</w:body></w:document>'
    relations = "".join(
        f'<Relationship Id="r_{kind}" Type="{REL}/{kind}" Target="{kind}.xml"/>' for kind in parts
    )

    def change(name: str, content: bytes) -> bytes:
        if name == "word/document.xml":
            return xml.encode()
        if name == "word/_rels/document.xml.rels":
            return content.replace(b"</Relationships>", f"{relations}</Relationships>".encode())
        return content

    more = {f"word/{kind}.xml": text.encode() for kind, text in parts.items()}
    return changed(saved(docx.Document()), change, more)


def p(*runs: str) -> str:
    return "<w:p>" + "".join(f"<w:r>{run}</w:r>" for run in runs) + "</w:p>"


def t(text: str) -> str:
    return f'<w:t xml:space="preserve">{text}</w:t>'


def book(*rows, do=None) -> bytes:
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(list(row))
    if do:
        do(made.active)
    return saved(made)


# --- Word ---------------------------------------------------------------------


def m(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


@pytest.mark.parametrize(
    ("math", "text"),
    [
        (m("E=mc"), "E=mc"),
        (f"<m:f><m:num>{m('a+b')}</m:num><m:den>{m('c')}</m:den></m:f>", "(a+b)/c"),
        (f"<m:sSup><m:e>{m('x')}</m:e><m:sup>{m('n+1')}</m:sup></m:sSup>", "x^(n+1)"),
        (f"<m:sSub><m:e>{m('a')}</m:e><m:sub>{m('i')}</m:sub></m:sSub>", "a_i"),
        (f"<m:rad><m:deg/><m:e>{m('x')}</m:e></m:rad>", "√x"),
        (
            f"<m:nary><m:naryPr><m:chr m:val='∑'/></m:naryPr><m:sub>{m('i')}</m:sub>"
            f"<m:sup>{m('n')}</m:sup><m:e>{m('i')}</m:e></m:nary>",
            "∑_i^n i",
        ),
        (
            f"<m:d><m:e><m:m><m:mr><m:e>{m('a')}</m:e><m:e>{m('b')}</m:e></m:mr><m:mr>"
            f"<m:e>{m('c')}</m:e><m:e>{m('d')}</m:e></m:mr></m:m></m:e></m:d>",
            "(a, b; c, d)",
        ),
        (f"<m:func><m:fName>{m('sin')}</m:fName><m:e>{m('x')}</m:e></m:func>", "sin x"),
    ],
)
def test_equations_are_one_line(math, text) -> None:
    body = (
        f"<w:p><w:r>{t('The law ')}</w:r><m:oMath>{math}</m:oMath><w:r>{t(' holds.')}</w:r></w:p>"
    )
    assert read("a.docx", word(body)) == f"The law {text} holds."
    cell = f"<w:tc><w:p><m:oMath>{math}</m:oMath></w:p></w:tc>"
    assert text in read("a.docx", word(f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>"))


@pytest.mark.parametrize(
    ("font", "code", "sign"),
    [
        ("Symbol", "F061", "α"),
        ("Symbol", "F0A3", "≤"),
        ("Symbol", "57", "Ω"),
        ("Wingdings", "F0FC", "✓"),
        ("Wingdings", "F0FE", "☑"),
        ("Wingdings", "F0E0", "→"),
    ],
)
def test_symbols_of_fonts_are_characters(font, code, sign) -> None:
    symbol = f'<w:sym w:font="{font}" w:char="{code}"/>'
    assert read("a.docx", word(p(t("at "), symbol, t(" = 30")))) == f"at {sign} = 30"
    run = f'<w:rPr><w:rFonts w:ascii="{font}"/></w:rPr>{t(chr(int(code, 16)))}'
    assert read("a.docx", word(p(run))) == sign


LISTS = f"""<w:numbering {W}>
<w:abstractNum w:abstractNumId="0">
<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="제%1조"/></w:lvl>
<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl>
<w:lvl w:ilvl="2"><w:start w:val="3"/><w:numFmt w:val="lowerRoman"/><w:lvlText w:val="(%3)"/>
</w:lvl>
</w:abstractNum>
<w:abstractNum w:abstractNumId="1">
<w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="bullet"/><w:lvlText w:val="x"/></w:lvl>
</w:abstractNum>
<w:num w:numId="7"><w:abstractNumId w:val="0"/></w:num>
<w:num w:numId="8"><w:abstractNumId w:val="0"/>
<w:lvlOverride w:ilvl="1"><w:startOverride w:val="5"/></w:lvlOverride></w:num>
<w:num w:numId="9"><w:abstractNumId w:val="1"/></w:num>
</w:numbering>"""


def item(text: str, number: int | str, level: int = 0) -> str:
    place = f'<w:ilvl w:val="{level}"/><w:numId w:val="{number}"/>'
    return f"<w:p><w:pPr><w:numPr>{place}</w:numPr></w:pPr><w:r>{t(text)}</w:r></w:p>"


def test_a_text_box_is_not_glued_to_the_word_before_it() -> None:
    box = f"<w:pict><w:txbxContent>{p(t('Boxed words'))}</w:txbxContent></w:pict>"
    lines = read("a.docx", word(p(t("The dam holds"), box, t(" since May.")))).splitlines()
    assert [line.strip() for line in lines] == ["The dam holds", "Boxed words", "since May."]


def test_clauses_and_lists_have_the_numbers_that_word_shows() -> None:
    body = item("Scope", 7) + item("Who", 7, 1) + item("one", 7, 2) + item("two", 7, 2)
    body += item("What", 7, 1) + item("a point", 9) + p(t("Between")) + item("Later", 8, 1)
    body += item("Term", 7) + item("How long", 7, 1) + item("no list", 0) + item("unknown", 99)
    made = word(body)

    def change(name: str, content: bytes) -> bytes:
        return LISTS.encode() if name == "word/numbering.xml" else content

    lines = [line for line in read("a.docx", changed(made, change)).splitlines() if line]
    assert lines == [
        "제1조 Scope", "1.1 Who", "(iii) one", "(iv) two", "1.2 What", "a point", "Between",
        "1.5 Later", "제2조 Term", "2.1 How long", "no list", "unknown",
    ]  # fmt: skip


def test_a_style_numbers_its_paragraphs() -> None:
    document = docx.Document()
    for text in ("first", "second"):
        document.add_paragraph(text, style="List Number")
    assert read("a.docx", saved(document)).split("\n\n") == ["1. first", "2. second"]


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [(4, "i", "iv"), (1999, "I", "MCMXCIX"), (5000, "i", "5000"), (2, "A", "B"), (27, "a", "27"),
     (3, "가", "다"), (20, "①", "⑳"), (21, "①", "21"), (7, "01", "07"), (10, "一", "十"),
     (12, "一", "十二"), (21, "一", "二十一"), (0, "a", "0"), (3, "", ""), (3, "?", "3")],
)  # fmt: skip
def test_numbers_of_lists(number, form, text) -> None:
    assert spelled(number, form) == text


def test_comments_and_notes_follow_what_they_are_about() -> None:
    reference = '<w:{0}Reference w:id="{1}"/>'
    body = p(t("First"), reference.format("comment", 4), reference.format("footnote", 2))
    cell = f"<w:tc>{p(t('Cell'), reference.format('comment', 5))}</w:tc>"
    body += f"<w:tbl><w:tr>{cell}</w:tr></w:tbl>{p(t('Last'), reference.format('endnote', 3))}"
    comments = "".join(
        f'<w:comment w:id="{number}" w:author="Kim">{p(t(text))}</w:comment>'
        for number, text in ((4, "Check it"), (5, "Too low"), (6, "Refers to nothing"))
    )
    notes = f'<w:footnote w:type="separator" w:id="0">{p(t("-"))}</w:footnote>'
    notes += f'<w:footnote w:id="2">{p(t("Census"))}</w:footnote>'
    text = read(
        "a.docx",
        word(
            body,
            comments=f"<w:comments {W}>{comments}</w:comments>",
            footnotes=f"<w:footnotes {W}>{notes}</w:footnotes>",
            endnotes=f'<w:endnotes {W}><w:endnote w:id="3">{p(t("At last"))}</w:endnote>'
            "</w:endnotes>",
        ),
    )
    assert text.split("\n\n") == [
        "First",
        "Comment by Kim: Check it",
        "Footnote: Census",
        "Cell",
        "Comment by Kim: Too low",
        "Last",
        "Endnote: At last",
        "Comment by Kim: Refers to nothing",
    ]


def test_what_was_filled_into_a_form_is_read() -> None:
    def field(data: str) -> str:
        return f'<w:fldChar w:fldCharType="begin"><w:ffData>{data}</w:ffData></w:fldChar>'

    entries = '<w:listEntry w:val="Red"/><w:listEntry w:val="Blue"/>'
    body = p(field("<w:checkBox><w:checked/></w:checkBox>"), t("Married"))
    body += p(field('<w:checkBox><w:checked w:val="0"/></w:checkBox>'), t("Retired"))
    body += p(field(f'<w:ddList><w:result w:val="1"/>{entries}</w:ddList>'))
    body += f"<w:sdt><w:sdtPr/><w:sdtContent>{p(t('Typed'))}</w:sdtContent></w:sdt>"
    assert read("a.docx", word(body)) == "☒ Married\n\n☐ Retired\n\nBlue\n\nTyped"


CHART = (
    f'<c:chartSpace xmlns:c="{C}" xmlns:a="{A}"><c:chart><c:title><c:tx><c:rich><a:p><a:r>'
    "<a:t>Harvest</a:t></a:r></a:p></c:rich></c:tx></c:title><c:plotArea><c:barChart><c:ser><c:tx>"
    '<c:strRef><c:strCache><c:pt idx="0"><c:v>Tons</c:v></c:pt></c:strCache></c:strRef></c:tx>'
    '<c:cat><c:strRef><c:strCache><c:pt idx="0"><c:v>Apples</c:v></c:pt></c:strCache></c:strRef>'
    '</c:cat><c:val><c:numRef><c:numCache><c:pt idx="0"><c:v>12</c:v></c:pt></c:numCache>'
    "</c:numRef></c:val></c:ser></c:barChart></c:plotArea></c:chart></c:chartSpace>"
)
DIAGRAM = f'<dgm:dataModel xmlns:dgm="{D}" xmlns:a="{A}"><dgm:ptLst>' + "".join(
    f"<dgm:pt><dgm:t><a:p><a:r><a:t>{step} step</a:t></a:r></a:p></dgm:t></dgm:pt>"
    for step in ("First", "Second")
)
DIAGRAM += "</dgm:ptLst></dgm:dataModel>"
SHOWN = '<a:graphic><a:graphicData><x:{} xmlns:x="x" {}/></a:graphicData></a:graphic>'


def test_charts_and_diagrams_in_a_text() -> None:
    body = p(t("Before"))
    body += p("<w:drawing>" + SHOWN.format("chart", 'r:id="r_chart"') + "</w:drawing>")
    shown_diagram = SHOWN.format("relIds", 'r:lo="none" r:dm="r_diagramData"')
    body += p(f"<w:drawing>{shown_diagram}</w:drawing>") + p(t("After"))
    text = read("a.docx", word(body, chart=CHART, diagramData=DIAGRAM))
    assert text == "Before\n\nHarvest\nApples; Tons: 12\n\nFirst step\nSecond step\n\nAfter"


# --- PowerPoint ---------------------------------------------------------------


def slide_with_chart(kind, data, title="") -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Slide"
    chart = slide.shapes.add_chart(kind, 0, 0, Inches(5), Inches(3), data).chart
    if title:
        chart.has_title = True
        chart.chart_title.text_frame.text = title
    return saved(show)


def test_charts_of_slides_are_tables() -> None:
    data = CategoryChartData(number_format="0%")
    data.categories = ["Seoul", "Busan"]
    data.add_series("Share", (0.25, None))
    data.add_series("Last year", (0.5, 0.125))
    text = read("a.pptx", slide_with_chart(XL_CHART_TYPE.LINE, data, "Cities compared"))
    assert text == (
        "Slide\nCities compared\nSeoul; Share: 25%; Last year: 50%\nBusan; Last year: 13%"
    )
    data = CategoryChartData()
    country = data.add_category("Korea")
    country.add_sub_category("Seoul")
    country.add_sub_category("Busan")
    data.add_series("Millions", (9.4, 3.3))
    text = read("a.pptx", slide_with_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, data))
    assert "Korea Seoul; Millions: 9.4\nKorea Busan; Millions: 3.3" in text
    data = XyChartData()
    data.add_series("Runs").add_data_point(1.5, 2.5)
    assert "1.5; Runs: 2.5" in read("a.pptx", slide_with_chart(XL_CHART_TYPE.XY_SCATTER, data))


def test_diagrams_and_comments_of_slides() -> None:
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[6])
    comment = '<p:cmLst xmlns:p="p"><p:cm authorId="0"><p:text>Shorten it</p:text></p:cm></p:cmLst>'
    frame = SHOWN.format("relIds", f'xmlns:r="{REL}" r:dm="r1"')
    relations = f'<Relationship Id="r1" Type="{REL}/diagramData" Target="../diagrams/data1.xml"/>'
    relations += f'<Relationship Id="r2" Type="{REL}/comments" Target="../comments/c1.xml"/>'

    def change(name: str, content: bytes) -> bytes:
        if name == "ppt/slides/slide1.xml":
            return content.replace(b"</p:spTree>", f"{frame}</p:spTree>".encode())
        if name == "ppt/slides/_rels/slide1.xml.rels":
            return content.replace(b"</Relationships>", f"{relations}</Relationships>".encode())
        return content

    parts = {"ppt/diagrams/data1.xml": DIAGRAM, "ppt/comments/c1.xml": comment}
    text = read("a.pptx", changed(saved(show), change, parts))
    assert text == "First step\nSecond step\nComment: Shorten it"


# --- Excel --------------------------------------------------------------------


def test_what_stands_beside_the_cells_of_a_sheet() -> None:
    def do(sheet) -> None:
        sheet["B2"].comment = Comment("disputed", "Lee")
        sheet.oddHeader.center.text = "R&&D plan"
        sheet.oddFooter.left.text = '&"Arial,Bold"&12Page &P of &N: secret'
        chart = BarChart()
        chart.title = "Largest cities"
        chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=2))
        sheet.add_chart(chart, "D1")

    assert read("a.xlsx", book(("City", "Pop"), ("Seoul", 9), do=do)).split("\n\n") == [
        "# Sheet",
        "R&D plan",
        "City: Seoul; Pop: 9",
        "Comment on B2 by Lee: disputed",
        "Largest cities",
        "Page  of : secret".replace("  ", " "),
    ]


def test_a_text_box_may_be_all_there_is_in_a_workbook() -> None:
    box = (
        f'<x:wsDr xmlns:x="x" xmlns:a="{A}"><x:sp><x:txBody><a:p><a:r><a:t>Boxed</a:t></a:r></a:p>'
    )
    relation = f'<Relationship Id="r1" Type="{REL}/drawing" Target="/xl/drawings/d.xml"/>'
    parts = {
        "xl/drawings/d.xml": f"{box}</x:txBody></x:sp></x:wsDr>",
        "xl/worksheets/_rels/sheet1.xml.rels": f"<Relationships>{relation}</Relationships>",
    }
    assert read("a.xlsx", changed(book(), add=parts)) == "# Sheet\n\nBoxed"


def test_array_formulas_show_their_text_where_no_value_is_stored() -> None:
    def do(sheet) -> None:
        sheet["B3"] = ArrayFormula("B3", "=SUM(A2:A2*2)")

    text = read("a.xlsx", book(("a", "total"), (1, 2), ("arr", None), do=do))
    assert text.endswith("a: arr; total: =SUM(A2:A2*2)")


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (7, "00000", "00007"),
        (0.155, "0.0%", "15.5%"),
        (1.005, "0.00", "1.01"),
        (1234.5, '"$"#,##0.00', "$1,234.50"),
        (-1234.5, "#,##0.00_);(#,##0.00)", "(1,234.50)"),
        (1500000, "[$₩-412]#,##0", "₩1,500,000"),
        (1500, '#,##0"원"', "1,500원"),
        (1234567, '0.0,,"M"', "1.2M"),
        (1012345678, r"000\-0000\-0000", "010-1234-5678"),
        (1.25, "# ?/?", "1 1/4"),
        (12345.678, "0.00E+00", "1.23E+04"),
        (0, '0;-0;"none"', "none"),
        (3, '[>100]"many";[<=100]"few: "0', "few: 3"),
        (44, ";;;", "44"),
        (0.1 + 0.2, "General", "0.3"),
        (123456789012, "General", "123456789012"),
        (45356, "yyyy-mm-dd", "2024-03-05"),
        (45356, 'yyyy"년" m"월" d"일"', "2024년 3월 5일"),
        (45356, "[$-F800]dddd, mmmm dd, yyyy", "Tuesday, March 05, 2024"),
        (45356.395833, "yyyy-mm-dd hh:mm", "2024-03-05 09:30"),
        (0.75, "h:mm AM/PM", "6:00 PM"),
        (1.5, "[h]:mm", "36:00"),
        (0.0034722, "mm:ss", "05:00"),
        (1, "d-mmm-yyyy;@", "1-Jan-1900"),
        (9e99, "yyyy-mm-dd", "9E+99"),
    ],
)
def test_numbers_are_written_as_their_cells_show_them(value, code, text) -> None:
    assert shown(repr(value), code) == text


def test_cells_are_written_as_they_are_shown() -> None:
    def do(sheet) -> None:
        sheet["A2"].number_format = "00000"
        sheet["B2"].number_format = "0.0%"

    row = (7, 0.155, dt.date(2024, 3, 5), dt.time(9, 5), True)
    text = read("a.xlsx", book(("Code", "Share", "Opened", "At", "Paid"), row, do=do))
    assert "Code: 00007; Share: 15.5%; Opened: 2024-03-05; At: 9:05:00; Paid: TRUE" in text


def test_a_workbook_of_many_texts_is_read_in_seconds() -> None:
    rows = [("id", "name", "note")]
    rows += [(i, f"name {i}", f"a longer note with its number {i}") for i in range(30_000)]
    data = book(*rows)
    begun = time.monotonic()
    text = read("a.xlsx", data)
    assert time.monotonic() - begun < 20  # 2 s on an idle core
    assert "id: 29999; name: name 29999; note: a longer note with its number 29999" in text


# --- packages -----------------------------------------------------------------


def strict(name: str, content: bytes) -> bytes:
    """The namespaces of Strict Open XML, a choice of the dialog for saving."""
    old = rb"http://schemas\.openxmlformats\.org/(\w+)/2006/"
    return re.sub(old, rb"http://purl.oclc.org/ooxml/\1/", content)


def test_strict_open_xml_is_read(samples) -> None:
    text = read("a.docx", changed(samples.word(), strict))
    assert "# Harvest" in text
    assert "fruit: apple; tons: 12" in text
    assert "Confidential header" in text
    assert read("a.pptx", changed(samples.slides(), strict)) == read("a.pptx", samples.slides())

    def do(sheet) -> None:
        sheet["A1"].comment = Comment("note it", "Ann")

    data = book(("City", "Opened"), ("Seoul", dt.date(2024, 3, 5)), do=do)
    assert read("a.xlsx", changed(data, strict)) == read("a.xlsx", data)
    assert "City: Seoul; Opened: 2024-03-05\n\nComment on A1 by Ann: note it" in read(
        "a.xlsx", data
    )


@pytest.mark.parametrize(
    ("kind", "suffixes"),
    [
        ("docx", ("docm", "dotx", "dotm")),
        ("pptx", ("pptm", "ppsx", "ppsm", "potx", "potm")),
        ("xlsx", ("xlsm", "xltx", "xltm")),
    ],
)
def test_templates_shows_and_files_with_macros_are_read(samples, kind, suffixes) -> None:
    data = samples.all_kinds()[f"a.{kind}"]
    expected = read(f"a.{kind}", data)
    for suffix in suffixes:
        template = changed(data, lambda name, part: part.replace(b".main+xml", b".template+xml"))
        assert read(f"a.{suffix}", template) == expected
        assert parse_document(f"a.{suffix}", template).kind == kind


def test_missing_parts_and_back_slashes_do_no_harm(samples) -> None:
    data = samples.all_kinds()["a.docx"]
    lost = f'<Relationship Id="x" Type="{REL}/image" Target="media/none.png"/></Relationships>'

    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"</Relationships>", lost.encode())

    assert read("a.docx", changed(data, change)) == read("a.docx", data)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for name, content in samples.unzipped(data).items():
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            new.writestr(info, content)
    assert read("a.docx", out.getvalue()) == read("a.docx", data)


def test_broken_parts_and_bytes_before_the_file(samples) -> None:
    data = samples.all_kinds()["a.docx"]
    assert read("a.docx", b"HTTP/1.1 200 OK\r\n\r\n" + data) == read("a.docx", data)

    def change(name: str, content: bytes) -> bytes:
        if name == "word/document.xml":
            content = content.replace(
                b"</w:body>", b"<w:p><w:r><w:t>B & C</w:t></w:r></w:p></w:body>"
            )
        if name == "xl/worksheets/sheet1.xml":
            content = content.replace(b"</sheetData>", b"<row><c><v>7</v></c><c></row></sheetData>")
        return content + b"<rubble" if "style" in name else content

    document = parse_document("a.docx", changed(data, change))
    assert document.pages[0].text.startswith(read("a.docx", data)[:130])
    assert any("document.xml" in one.part for one in document.remarks)
    document = parse_document("a.xlsx", changed(book(("City", "Pop"), ("Seoul", 9)), change))
    assert "City: Seoul; Pop: 9\nCity: 7" in document.pages[0].text
    assert len(document.remarks) == 2


def test_pages_and_word_art_in_word(samples) -> None:
    read_as = "<w:rt><w:r><w:t>とうきょう</w:t></w:r></w:rt>"
    ruby = f"<w:ruby>{read_as}<w:rubyBase><w:r><w:t>東京</w:t></w:r>"
    art = '<w:pict><v:textpath xmlns:v="v" string="Word art"/></w:pict>'
    body = f'<w:p><w:r>{ruby}</w:rubyBase></w:ruby></w:r><w:r>{art}</w:r></w:p><w:altChunk r:id="'
    page = "<html><body><p>A page in it</p></body></html>"
    for name, part in (("chunk.html", page), ("chunk.mht", f"Content-Type: text/html\n\n{page}")):
        data = changed(word(f'{body}r_aFChunk"/>', aFChunk="<a/>"), lambda _, content, name=name: (
            content.replace(b"aFChunk.xml", name.encode())), {f"word/{name}": part})  # fmt: skip
        assert read("a.docx", data) == "東京Word art\n\nA page in it"


def test_lists_of_excel_mark_their_names() -> None:
    def do(sheet) -> None:
        sheet.add_table(Table(displayName="T", ref="A2:B4"))

    rows = ("Words about it",), ("Blue", "Green"), ("sky", "hill"), ("sea", "wood")
    text = read("a.xlsx", book(*rows, do=do))
    assert text.endswith("Words about it\nBlue: sky; Green: hill\nBlue: sea; Green: wood")


def test_texts_of_libreoffice(samples) -> None:
    body = (
        '<text:h text:outline-level="2">Head</text:h><text:p>Words<text:s text:c="2"/>more'
        "<office:annotation><dc:creator>Kim</dc:creator><text:p>check</text:p></office:annotation>"
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>below"
        "</text:p></text:note-body></text:note><draw:object xlink:href='./Formula'/></text:p>"
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
    )
    math = "<math xmlns='http://www.w3.org/1998/Math/MathML'><mi>E</mi><mo>=</mo><mi>m</mi></math>"
    data = samples.opendocument("text", body, Formula=math)
    expected = "## Head\n\nWords  more\n\nComment by Kim: check\n\nFootnote: below\n\nE=m"
    assert read("a.odt", data) == expected
    assert read("a.ott", samples.opendocument("text-template", body, Formula=math)) == expected


def test_lists_and_headings_of_libreoffice_have_their_numbers(samples) -> None:
    def level(kind: str, number: int, form: str, more: str = "") -> str:
        return (
            f'<text:{kind} text:level="{number}" style:num-suffix="." style:num-format="{form}" '
            f"{more}/>"
        )

    numbered = "".join(level("list-level-style-number", *each) for each in (
        (1, "1"), (2, "a", 'text:display-levels="2" text:start-value="2"'),
    ))  # fmt: skip
    headings = "".join(level("outline-level-style", *each) for each in (
        (1, "I"), (2, "1", 'text:display-levels="2"'),
    ))  # fmt: skip
    styles = (
        f'<text:list-style style:name="L1">{numbered}</text:list-style>'
        f"<text:outline-style>{headings}</text:outline-style>"
    )

    def items(*texts: str, more: str = "") -> str:
        listed = "".join(f"<text:list-item><text:p>{t}</text:p></text:list-item>" for t in texts)
        return f'<text:list text:style-name="L1" {more}>{listed}</text:list>'

    def head(text: str, depth: int, more: str = "") -> str:
        return f'<text:h text:outline-level="{depth}" {more}>{text}</text:h>'

    inner = (
        "<text:list-item><text:p>outer</text:p><text:list><text:list-item><text:p>inner</text:p>"
    )
    inner += "<text:p>its second paragraph</text:p></text:list-item></text:list></text:list-item>"
    body = (
        head("Start", 1) + head("Part", 2) + items("a", "b")
        + items("c", more='text:continue-numbering="true"')
        + f'<text:list text:style-name="L1">{inner}</text:list>'
        + head("End", 1) + head("Bare", 2, 'text:is-list-header="true"')
        + "<text:list><text:list-item><text:p>bullet</text:p></text:list-item></text:list>"
    )  # fmt: skip
    data = changed(samples.opendocument("text", body), add={
        "styles.xml": f"<s xmlns:style='urn:style' {samples.OPENDOCUMENT}>{styles}</s>",
    })  # fmt: skip
    assert read("a.odt", data).split("\n\n") == [
        "# I. Start", "## I.1. Part", "1. a", "2. b", "3. c", "1. outer", "1.b. inner",
        "its second paragraph", "# II. End", "## Bare", "bullet",
    ]  # fmt: skip


def test_prefixes_that_are_not_declared_hide_nothing(samples) -> None:
    body = "<text:p>Words <foreign:mark foreign:a='1'>in between</foreign:mark> and after</text:p>"
    assert (
        read("a.ott", samples.opendocument("text-template", body)) == "Words in between and after"
    )
    broken = samples.opendocument("text", "<text:p>Words</text:section>")
    document = parse_document("a.odt", broken)
    assert document.pages[0].text == "Words"
    assert [one.part for one in document.remarks] == ["content.xml"]


def test_sheets_and_slides_of_libreoffice(samples) -> None:
    def row(*cells: str) -> str:
        inner = "".join(f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in cells)
        return f"<table:table-row>{inner}</table:table-row>"

    blank = '<table:table-row table:number-rows-repeated="1048576"><table:table-cell '
    blank += 'table:number-columns-repeated="16384"/></table:table-row>'
    sheet = f'<table:table table:name="S">{row("City", "Pop")}{row("Seoul", "9,4")}{blank}'
    document = parse_document(
        "a.ods", samples.opendocument("spreadsheet", f"{sheet}</table:table>" * 2)
    )
    assert [page.text for page in document.pages] == ["# S\n\nCity: Seoul; Pop: 9,4"] * 2
    slide = "<draw:page><draw:frame><text:p>One</text:p></draw:frame></draw:page>"
    document = parse_document("a.odp", samples.opendocument("presentation", slide * 2))
    assert [(page.number, page.text) for page in document.pages] == [(1, "One"), (2, "One")]


# --- pictures that are drawn by Windows -----------------------------------------


def emf(*records: tuple[int, bytes]) -> bytes:
    """A picture of records, each with its number and content."""
    head = struct.pack("<II32s4s", 1, 88, b"", b" EMF").ljust(88, b"\0")
    parts = [struct.pack("<II", kind, len(data) + 8) + data for kind, data in (*records, (14, b""))]
    return head + b"".join(parts)


def emf_text(x: int, y: int, text: str, widths: int = 8, options: int = 0) -> tuple[int, bytes]:
    raw = text.encode("utf-16-le")
    count = len(raw) // 2
    raw = raw.ljust(-(-len(raw) // 4) * 4, b"\0")
    head = struct.pack("<16xIffiiIII16xI", 1, 1, 1, x, y, count, 76, options, 76 + len(raw))
    return 84, head + raw + struct.pack(f"<{count}I", *[widths] * count)


def wmf(*records: tuple[int, bytes]) -> bytes:
    """A picture that can be placed, of records of 16 bits."""
    parts = [
        struct.pack("<IH", (len(data) + 6) // 2, kind) + data for kind, data in (*records, (0, b""))
    ]
    return b"\xd7\xcd\xc6\x9a".ljust(40, b"\0") + b"".join(parts)


def wmf_font(charset: int, face: bytes) -> tuple[int, bytes]:
    return 0x02FB, struct.pack("<hhhhhBBB5x32s", -12, 0, 0, 0, 400, 0, 0, 0, face)[:13] + bytes(
        [charset]
    ) + b"\0\0\0\0" + face.ljust(32, b"\0")  # fmt: skip


def wmf_text(x: int, y: int, raw: bytes, width: int = 8) -> tuple[int, bytes]:
    body = struct.pack("<hhHH", y, x, len(raw), 0) + raw + b"\0" * (len(raw) % 2)
    return 0x0A32, body + struct.pack(f"<{len(raw)}h", *[width] * len(raw))


SHIFT = struct.pack("<6fI", 1, 0, 0, 1, 0, 40, 4)
PICTURES = [
    (emf(emf_text(0, 0, "Cash"), emf_text(40, 0, "flow"), emf_text(0, 20, "2024")),
     "Cash flow\n2024"),
    (emf(emf_text(0, 0, "Wat"), emf_text(24, 0, "er"), emf_text(9, 9, "\x05", 8, 0x10)), "Water"),
    (emf(emf_text(0, 0, "one"), (36, SHIFT), emf_text(0, 0, "two")), "one\ntwo"),
    (emf((22, b"\1\0\0\0"), (27, struct.pack("<ii", 3, 4)), emf_text(0, 0, "И"),
         emf_text(0, 0, "қтисод")), "Иқтисод"),
    (wmf(wmf_font(204, b"Arial"), (0x012D, b"\0\0"), wmf_text(0, 5, "Дом".encode("cp1251"))),
     "Дом"),
    (wmf((0x02FA, bytes(10)), wmf_font(129, b"Batang"), (0x012D, b"\1\0"),
         wmf_text(0, 5, "수량".encode("cp949")), (0x01F0, b"\1\0"), wmf_font(2, b"Symbol"),
         (0x012D, b"\1\0"), wmf_text(0, 9, b"Da")), "수량\nΔα"),
    (wmf((0x0521, struct.pack("<H", 5) + b"Total\0" + struct.pack("<hh", 7, 7))), "Total"),
    (wmf(wmf_font(2, b"Wingdings"), (0x012D, b"\0\0"), wmf_text(0, 5, b"nnn")), ""),
]  # fmt: skip


@pytest.mark.parametrize(("picture", "text"), PICTURES)
def test_words_in_drawn_pictures(picture, text) -> None:
    suffix = "emf" if picture[40:44] == b" EMF" else "wmf"
    relation = (
        f'<Relationship Id="i" Type="{REL}/image" Target="media/a.{suffix}"/></Relationships>'
    )

    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"</Relationships>", relation.encode())

    def show(data: bytes) -> str:
        return read("a.docx", changed(body, change, {f"word/media/a.{suffix}": data}))

    body = word(p(t("Above"), f'<w:drawing xmlns:a="{A}"><a:blip r:embed="i"/></w:drawing>'))
    assert show(picture) == f"Above\n\n{text}".strip()
    old = '<w:object><v:imagedata xmlns:v="v" r:id="i"/></w:object>'
    body = word(p(t("Above"), old))
    assert show(picture) == f"Above\n\n{text}".strip()
    for end in range(0, len(picture), 19):  # cut off, or of rubble: no harm
        show(picture[:end])
        show(picture[:end] + b"\xff" * 40)
        show(picture[:end] + bytes(40))


# --- slides: what stands behind them, numbers of lists ----------------------------


def test_slides_show_their_master_and_the_numbers_of_lists() -> None:
    def para(text: str, mark: str = "", level: int = 0) -> str:
        return f'<a:p><a:pPr lvl="{level}">{mark}</a:pPr><a:r><a:t>{text}</a:t></a:r></a:p>'

    def shape(inner: str, place: str = "") -> str:
        return (
            f"<p:sp><p:nvSpPr><p:cNvPr id='9' name='x'/><p:cNvSpPr/><p:nvPr>{place}</p:nvPr>"
            f"</p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/>{inner}</p:txBody></p:sp></p:spTree>"
        )

    def auto(form: str, more: str = "") -> str:
        return f'<a:buAutoNum type="{form}" {more}/>'

    number = '<a:p><a:fld id="{1}" type="slidenum"><a:t>7</a:t></a:fld></a:p>'
    period, letter = auto("arabicPeriod"), auto("alphaLcParenR")
    title = shape(para("Next year"), '<p:ph type="title"/>')
    steps = (
        para("Plan", period) + para("now", letter, 1) + para("then", letter, 1)
        + para("", period) + para("Build", period) + para("Words") + para("Test", period)
        + para("Rome", auto("romanUcParenBoth", 'startAt="4"')) + number
    )  # fmt: skip
    show = pptx.Presentation()
    for _ in range(2):
        show.slides.add_slide(show.slide_layouts[6])

    def change(name: str, content: bytes) -> bytes:
        found = {
            "ppt/slides/slide1.xml": shape(steps).replace("</p:spTree>", title),
            "ppt/slides/slide2.xml": shape(para("Alone")),
            "ppt/slideLayouts/slideLayout7.xml": shape(para("On this layout")),
            "ppt/slideMasters/slideMaster1.xml": shape(para("ACME plan")) + shape(
                para("Click to edit"), '<p:ph type="body"/>'),
        }.get(name)  # fmt: skip
        if name == "ppt/slides/slide2.xml":
            content = content.replace(b"<p:sld ", b'<p:sld showMasterSp="0" ', 1)
        return content.replace(b"</p:spTree>", found.encode(), 1) if found else content

    document = parse_document("a.pptx", changed(saved(show), change))
    assert document.pages[0].text.split("\n") == [
        "Next year", "1. Plan", "a) now", "b) then", "2. Build", "Words", "1. Test", "(IV) Rome",
        "On this layout", "ACME plan",
    ]  # fmt: skip
    assert document.pages[1].text == "Alone"


def test_old_pictures_of_slides_and_those_for_old_programs_are_read_once() -> None:
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[6])
    ole = '<p:oleObj spid="s1" r:id="o1" progId="Excel.Sheet.8">{}</p:oleObj>'
    pic = '<p:pic><p:blipFill><a:blip r:embed="o2"/></p:blipFill></p:pic>'
    wrapped = (
        '<mc:AlternateContent xmlns:mc="mc"><mc:Choice Requires="v">{}</mc:Choice>'
        f"<mc:Fallback>{ole.format(pic)}</mc:Fallback></mc:AlternateContent>"
    ).replace("{}", ole.format(""))
    relations = f'<Relationship Id="o2" Type="{REL}/image" Target="../media/a.emf"/>'
    old = f'<Relationship Id="o3" Type="{REL}/vmlDrawing" Target="../drawings/v.vml"/>'
    end = "</Relationships>"
    vml = '<xml xmlns:v="v" xmlns:o="urn:schemas-microsoft-com:office:office">'
    vml += '<v:shape id="s1"><v:imagedata o:relid="x"/></v:shape></xml>'
    parts = {
        "ppt/media/a.emf": emf(emf_text(0, 0, "Budget")),
        "ppt/drawings/v.vml": vml,
        "ppt/drawings/_rels/v.vml.rels": "<Relationships>" + relations.replace("o2", "x") + end,
    }
    for frame, more in ((wrapped, relations), (wrapped, relations + old), (ole, old)):

        def change(name: str, content: bytes, frame=frame, more=more) -> bytes:
            content = content.replace(b"</p:spTree>", f"{frame}</p:spTree>".encode())
            known = name == "ppt/slides/_rels/slide1.xml.rels"
            return content.replace(end.encode(), f"{more}{end}".encode()) if known else content

        assert read("a.pptx", changed(saved(show), change, parts)) == "Budget"


# --- what programs hide ---------------------------------------------------------


def hidden_marks(name: str, data: bytes) -> list[tuple[tuple[int, ...], str]]:
    return [(one.pages, one.reason) for one in parse_document(name, data).remarks]


def test_hidden_sheets_rows_and_columns_are_read_with_a_remark(samples) -> None:
    def do(sheet) -> None:
        lists = sheet.parent.create_sheet("Lists")
        lists["A1"], lists.sheet_state = "Ulsan", "veryHidden"
        rows = sheet.parent.create_sheet("Rows")
        rows["A1"], rows["A3"] = "Busan", "Daegu"
        rows.row_dimensions[3].hidden = True
        columns = sheet.parent.create_sheet("Columns")
        columns["A1"], columns["C1"] = "Jeju", "Mokpo"
        columns.column_dimensions["C"].hidden = True
        empty = sheet.parent.create_sheet("Empty")  # Excel hides all columns behind the last
        empty["A1"] = "Suwon"
        empty.column_dimensions.group("B", "XFD", hidden=True)
        empty.row_dimensions[9].hidden = True

    data = book(("Seoul",), do=do)
    assert {"Seoul", "Ulsan", "Daegu", "Mokpo", "Suwon"} <= set(
        re.findall(r"\w+", read("a.xlsx", data))
    )
    cut = "has hidden rows or columns, read all the same"
    assert hidden_marks("a.xlsx", data) == [
        ((2,), "is a hidden sheet, read all the same"), ((3, 4), cut)
    ]  # fmt: skip
    cell = "<table:table-cell><text:p>{}</text:p></table:table-cell>"
    column = '<table:table-column table:number-columns-repeated="{}" table:visibility="{}"/>'
    plain = f"<table:table-row>{cell.format('Busan')}{cell.format('Daegu')}</table:table-row>"
    body = "".join(
        f'<table:table table:name="S" table:style-name="{style}">{columns}{row}</table:table>'
        for style, columns, row in (
            ("shown", column.format(2, "visible") + column.format(1000, "collapse"), plain),
            ("gone", "", plain), ("shown", column.format(1, "visible") * 2, plain.replace(
                "row>", 'row table:visibility="filter">', 1)),
            ("shown", column.format(1, "visible") + column.format(1, "collapse"), plain),
        )
    )  # fmt: skip
    styles = "".join(
        f'<style:style style:name="{name}" style:family="table"><style:table-properties '
        f'table:display="{value}"/></style:style>'
        for name, value in (("gone", "false"), ("shown", "true"))
    )
    ods = changed(samples.opendocument("spreadsheet", body), add={
        "styles.xml": f"<s xmlns:style='urn:style' {samples.OPENDOCUMENT}>{styles}</s>",
    })  # fmt: skip
    assert hidden_marks("a.ods", ods) == [
        ((2,), "is a hidden sheet, read all the same"), ((3, 4), cut)
    ]  # fmt: skip


def test_hidden_text_of_word_is_read_with_a_remark() -> None:
    def made(body: str) -> bytes:
        styles = "".join(
            f'<w:style w:type="{kind}" w:styleId="{name}"><w:rPr><w:vanish/></w:rPr></w:style>'
            for kind, name in (("character", "Secret"), ("paragraph", "Form"))
        )
        return changed(word(body), lambda name, part: (
            part.replace(b"</w:styles>", f"{styles}</w:styles>".encode())))  # fmt: skip

    told = [((), "has hidden text, read all the same")]
    vanish = "<w:rPr><w:vanish/></w:rPr>"
    for mark in (vanish, '<w:rPr><w:rStyle w:val="Secret"/></w:rPr>'):
        data = made(p(t("Offer "), f"{mark}{t('price 5')}"))
        assert read("a.docx", data) == "Offer price 5"
        assert hidden_marks("a.docx", data) == told
    form = f'<w:p><w:pPr><w:pStyle w:val="Form"/></w:pPr><w:r>{t("Top of Form")}</w:r></w:p>'
    assert hidden_marks("a.docx", made(form)) == told
    seen = "<w:rPr><w:vanish w:val='0'/></w:rPr>"
    assert hidden_marks("a.docx", made(p(f"{seen}{t('price 5')}", f"{vanish}{t(' ')}"))) == []


def test_hidden_slides_and_texts_have_a_remark(samples) -> None:
    show = pptx.Presentation()
    for title in ("Plan", "Backup"):
        show.slides.add_slide(show.slide_layouts[5]).shapes.title.text = title
    show.slides[1]._element.set("show", "0")
    assert read("a.pptx", saved(show)) == "Plan\nBackup"
    assert hidden_marks("a.pptx", saved(show)) == [((2,), "is a hidden slide, read all the same")]

    def style(name: str, family: str, properties: str) -> str:
        head = f'<style:style style:name="{name}" style:family="{family}">'
        return f"{head}<style:{properties}/></style:style>"

    styles = (
        style("gone", "drawing-page", 'drawing-page-properties presentation:visibility="hidden"')
        + style("bare", "drawing-page",
                'drawing-page-properties presentation:background-objects-visible="false"')
        + style("secret", "text", 'text-properties text:display="none"')
        + '<style:master-page style:name="M"><draw:frame presentation:class="title"><text:p>Click'
        "</text:p></draw:frame><draw:frame><text:p>ACME<text:page-number>7</text:page-number>"
        "</text:p></draw:frame></style:master-page>"
        + '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" '
        'style:num-suffix="." style:num-format="1"/></text:list-style>'
    )  # fmt: skip
    frame = '<draw:page draw:master-page-name="M" draw:style-name="{}">{}</draw:page>'
    listed = (
        '<text:list text:style-name="L1"><text:list-item><text:p>Step</text:p></text:list-item>'
    )
    listed += "</text:list>"
    slides = frame.format("x", listed) + frame.format("gone", "<text:p>Backup</text:p>")
    slides += frame.format("bare", "<text:p>Alone</text:p>")
    spaces = f"xmlns:style='urn:style' xmlns:presentation='urn:show' {samples.OPENDOCUMENT}"
    common = f"<s {spaces}>{styles}</s>"
    odp = changed(samples.opendocument("presentation", slides), add={"styles.xml": common})
    pages = [page.text for page in parse_document("a.odp", odp).pages]
    assert pages == ["1. Step\nACME", "Backup\nACME", "Alone"]
    assert hidden_marks("a.odp", odp) == [((2,), "is a hidden slide, read all the same")]
    for body in (
        '<text:p>Offer <text:span text:style-name="secret">price 5</text:span></text:p>',
        '<text:section text:display="none"><text:p>Offer price 5</text:p></text:section>',
        '<text:p>Offer <text:hidden-text text:is-hidden="true">price 5</text:hidden-text></text:p>',
    ):
        odt = changed(samples.opendocument("text", body), add={"styles.xml": common})
        assert read("a.odt", odt) == "Offer price 5"
        assert hidden_marks("a.odt", odt) == [((), "has hidden text, read all the same")]


def test_a_workbook_may_lack_its_texts() -> None:
    made = book(("Name", 2))
    relation = f'<Relationship Id="s" Type="{REL}/sharedStrings" Target="none.xml"/>'

    def change(name: str, content: bytes) -> bytes:
        known = name == "xl/_rels/workbook.xml.rels"
        end = b"</Relationships>"
        return content.replace(end, relation.encode() + end) if known else content

    assert read("a.xlsx", changed(made, change)) == read("a.xlsx", made)
