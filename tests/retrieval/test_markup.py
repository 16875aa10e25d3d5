"""XML, JSON and notebooks that are not quite as they should be, and what stands in them."""

import json

import pytest

from hanol.errors import DocumentError
from hanol.retrieval import Document, parse_document


def parse(name: str, data: bytes | str) -> Document:
    return parse_document(name, data.encode() if isinstance(data, str) else data)


def text_of(document: Document) -> str:
    return "\n".join(page.text for page in document.pages)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (
            "<doc><p>Take <b>the <i>red</i> pill</b> at noon</p><p>Then rest.</p></doc>",
            "Take the red pill at noon\nThen rest.",
        ),
        ("<p>H<sub>2</sub>O and CO<sub>2</sub> mix</p>", "H2O and CO2 mix"),
        ("<para>See <link url='u'>the page</link> first.</para>", "See the page first.\nurl: u"),
        ("<p><term>Tide</term>: the <em>rise</em> of water.</p>", "Tide: the rise of water."),
        ("<a>before<p>one</p>between<p>two</p>after</a>", "before\none\nbetween\ntwo\nafter"),
        ("<r><k>name</k><v>Kim</v></r>", "name\nKim"),
        ("<a>word<note>a note</note>more</a>", "word a note more"),
        ("<a>word.<note>a note.</note>More</a>", "word. a note. More"),
        ("<p>as said (<xref>1</xref>).</p>", "as said (1)."),
        ("<문단>오늘은 <강조>추운 날</강조>이다.</문단>", "오늘은 추운 날이다."),
    ],
)
def test_words_of_xml_in_the_order_of_the_file(xml, expected) -> None:
    assert text_of(parse("x.xml", xml)).splitlines() == [
        " ".join(line.split()) for line in expected.splitlines()
    ]


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        ("<rss><item>Caf&eacute; &amp; bar</item></rss>", "Café & bar"),
        ("<rss><item>Fish & chips</item><item>Tea</item></rss>", "Fish & chips\nTea"),
        ("<a><b>R&D at AT&T;</b><b>&nope; &copy; &#233;</b></a>", "R&D at AT&T;\n&nope; © é"),
        ("<a><b>x &amp y</b><b>1 < 2 <3</b></a>", "x & y\n1 < 2 <3"),
        ("<a><b>open</a>", "open"),
        ("<a><b>cut off</b><c>here and", "cut off\nhere and"),
        ("<a>one</a><a>two</a>", "one\ntwo"),
        ("<a n=5>value</a>", "value"),
        ("<a><x:b>prefix</x:b><b xml:id='1'>id</b></a>", "prefix\nid: 1 id"),
        ("rubble\r\n<?xml version='1.0' encoding='utf-8'?><a>é</a>", "é"),
    ],
)
def test_faults_of_xml_are_read_with_a_remark(xml, expected) -> None:
    document = parse("x.xml", xml)
    assert text_of(document) == expected
    assert document.remarks


@pytest.mark.parametrize(
    "xml",
    [
        '<doc><![CDATA[Write <!ENTITY x "y"> & <b> in the DTD]]></doc>',
        "<!-- <!ENTITY a '&b;'> --><doc>Write &lt;!ENTITY x \"y\"> &amp; &lt;b> in the DTD</doc>",
    ],
)
def test_xml_that_speaks_of_entities(xml) -> None:
    document = parse("x.xml", xml)
    assert text_of(document) == 'Write <!ENTITY x "y"> & <b> in the DTD'
    assert not document.remarks


def test_entities_that_a_document_declares() -> None:
    xml = (
        "<?xml version='1.0'?>\n<!DOCTYPE d [<!ENTITY co 'Acme &#169; &lt; Ltd'>]>\n<d>By &co;.</d>"
    )
    assert text_of(parse("x.xml", xml)) == "By Acme © < Ltd."
    with pytest.raises(DocumentError, match="entities"):
        parse("x.xml", xml.replace("&lt;", "&co;"))
    chapter = "<!DOCTYPE d [<!ENTITY c SYSTEM 'c.xml'>]><d><p>Words</p>&c;</d>"
    document = parse("x.xml", chapter)
    assert text_of(document) == "Words"
    assert "another file" in " ".join(map(str, document.remarks))
    many = f"<!DOCTYPE d [<!ENTITY a '{'x' * 9000}'>]><d>{'&a;' * 9000}</d>"
    with pytest.raises(DocumentError, match="entities"):
        parse("x.xml", many)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}\n\n{"b": 2}\n',
        b'\xef\xbb\xbf{"a": 1}\r\n\r\n\xef\xbb\xbf{"b": 2}\r\n',
        b'\n \n{"a": 1}\n\t\n{"b": 2}',
        '{"a": 1}\n\n{"b": 2}\n'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json"])
def test_empty_lines_and_marks_in_json_lines(name, data) -> None:
    document = parse(name, data)
    assert text_of(document).splitlines() == ['{"a": 1}', '{"b": 2}']
    assert not document.remarks


def test_values_of_json_stand_as_in_the_file() -> None:
    numbers = "[1.10, 1e5, 1E400, 12345678901234567890.123, -0, 7]"
    assert text_of(parse("x.jsonl", numbers)) == numbers
    assert text_of(parse("x.jsonl", '{"a": "one", "a": "two"}')) == '{"a": "one", "a": "two"}'
    assert '"price": 1.10,' in text_of(parse("x.json", '{"price": 1.10, "n": 1}'))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.ipynb"])
def test_what_is_not_quite_json_keeps_its_words(name) -> None:
    document = parse(name, '{"name": "\\uc548\\ub155", // a comment\n "list": [1, 2,]')
    assert "안녕" in text_of(document)
    assert "not JSON" in " ".join(map(str, document.remarks))


# --- notebooks ------------------------------------------------------------------


def notebook(*outputs: object, **cell: object) -> str:
    cells = [{"cell_type": "code", "source": "show()", "outputs": list(outputs)} | cell]
    return json.dumps({"nbformat": 4, "cells": cells})


def shown(**data: object) -> dict[str, object]:
    return {
        "output_type": "display_data",
        "data": {k.replace("_", "/"): v for k, v in data.items()},
    }


REPR = "<IPython.core.display.HTML object>"
TABLE = "<style>b {color: red}</style><table><tr><td>Seoul</td><td>9.4</td></tr></table>"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (shown(text_html=TABLE), "Seoul: 9.4"),
        (shown(text_plain=REPR, text_html=["<p>Accuracy was ", "93 percent</p>"]), "93 percent"),
        (shown(text_plain="<pandas.Styler at 0x7f>", text_html=TABLE), "Seoul"),
        (shown(text_plain=["GT(_data=", "  [1, 2])"], text_html=TABLE), "Seoul"),
        (shown(text_latex="$\\frac{a}{b}$"), "\\frac"),
        (shown(text_plain="<IPython.core.display.Math object>", text_latex="$x^2$"), "x^2"),
        (shown(text_plain="<JSON object>", application_json={"k": ["안녕"]}), "안녕"),
        (shown(text_plain="<Markdown object>", text_markdown="# Found"), "# Found"),
        (shown(text_csv="a,b"), "a,b"),
        (
            shown(
                text_plain="<SVG object>",
                **{"image_svg+xml": ["<svg><text x='1'>Seoul <tspan>9", "</tspan></text></svg>"]},
            ),
            "Seoul 9",
        ),
        (
            shown(
                **{
                    "application_vnd.plotly.v1+json": {
                        "data": [{"name": "mm", "y": [1]}],
                        "layout": {"title": {"text": "Rain"}, "template": {"name": "color"}},
                    }
                }
            ),
            "mm\nRain",
        ),
        ({"output_type": "display_data", "svg": "<svg><title>Old rain</title></svg>"}, "Old rain"),
        ({"output_type": "pyout", "html": ["<b>of version 3</b>"]}, "of version 3"),
        ({"output_type": "stream", "text": ["one\n", None, "two"]}, "one\ntwo"),
    ],
)
def test_rich_outputs(output, expected) -> None:
    text = text_of(parse("x.ipynb", notebook(output)))
    assert expected in text
    for noise in (" object", "0x7f", "_data", "color"):
        assert noise not in text


def test_plain_outputs_stay_what_they_are() -> None:
    output = shown(text_plain="   city  n\n0  Seoul  9", text_html=TABLE)
    assert "0  Seoul  9" in text_of(parse("x.ipynb", notebook(output)))
    document = parse("x.ipynb", notebook(shown(text_plain="<Figure size 1x1>", image_png="iVBO")))
    assert "Figure" not in text_of(document)
    assert "pictures" in " ".join(map(str, document.remarks))


@pytest.mark.parametrize(
    "holes",
    [
        {"cells": [None, {"cell_type": "code"}, {"source": None}, {"source": "word()"}]},
        {"cells": None, "worksheets": [{}, None, {"cells": [{"input": "word()"}]}]},
        {"cells": [{"source": ["wo", None, "rd()"], "outputs": None}, 7, "text"]},
        {
            "cells": [
                {"source": "word()", "outputs": [None, {}, {"data": None}, {"data": {"a": 1}}]}
            ]
        },
        {"cells": {"source": "word()"}, "metadata": None},
    ],
)
def test_notebooks_with_holes(holes) -> None:
    assert "word()" in text_of(parse("x.ipynb", json.dumps(holes)))
    assert "word()" in text_of(parse("x.ipynb", "\ufeff" + json.dumps(holes)))


def test_headings_of_old_notebooks() -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": ["The tides"]}]
    document = parse("x.ipynb", json.dumps({"worksheets": [{"cells": cells}]}))
    assert (document.title, text_of(document)) == ("The tides", "## The tides")


def test_items_of_numbered_lists_have_their_numbers() -> None:
    page = (
        "<p>Do this:</p><ol><li>Open the valve.<ol type='a'><li>left</li><li>right</li></ol></li>"
        "<li>Wait.</li></ol><p>Then:</p><ol start=3><li>Close it.</li><li value=7>Go.</li>"
        "<li>Rest.</li></ol><ul><li>a point</li></ul><ol reversed=''><li>odd</li></ol>"
        "<ol style='list-style: none'><li>bare</li></ol><ol start=x><li>first</li></ol>"
    )
    text = parse_document("a.html", page.encode()).pages[0].text
    assert text.split("\n") == [
        "Do this:", "1. Open the valve.", "a. left", "b. right", "2. Wait.", "Then:",
        "3. Close it.", "7. Go.", "8. Rest.", "a point", "odd", "bare", "1. first",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>10<sup>8</sup> on 44<sup>2</sup> km<sup>2</sup>", "10^8 on 44^2 km^2"),
        ("<p>the 1<sup>st</sup> Ca<sup>2+</sup>, 10<sup>-3</sup>", "the 1st Ca^2+, 10^-3"),
        ("<p>in 1990<sup><a href=#n>2</a></sup>, 5<sup>[3]</sup>", "in 19902, 5[3]"),
        ("<p>H<sub>2</sub>O, 101<sub>2</sub>", "H2O, 101_2"),
        (
            "<p><math><mfrac> <mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow> <mi>b</mi> </mfrac>"
            "<mo>=</mo><msup><mi>x</mi><mn>2</mn></msup></math>",
            "(a+1)/b=x^2",
        ),
        (
            "<form><p><label for=n>Name:</label><input id=n value=Kim><input type=hidden value=x>"
            "<input type=password value=y><input type=submit value=Send>"
            "<p>Note:<textarea>two\nwords</textarea><p>City:<select><option>Busan"
            "<option selected>Seoul</select><p><input type=checkbox checked>yes"
            "<p><input type=radio>no</form>",
            "Name: Kim\nNote: two words\nCity: Seoul\n☑ yes\n☐ no",
        ),
        ("<form action=/search><input name=t value=old></form><p>Found.", "Found."),
        (
            "<p><img alt='Rain by month'><p>Text.<img alt=dot><img alt='a line' role=presentation>"
            "<p>A cat<img alt='A cat'><p><a href=/b><img alt='Other page'></a>",
            "Rain by month\nText.\nA cat",
        ),
        (
            "<p hidden>a</p><p>Seen<b style='display: none'>b</b> too<i style=visibility:hidden>c"
            "</i>.</p><div role=tabpanel hidden>Second tab</div>",
            "Seen too.\nSecond tab",
        ),
    ],
)
def test_pages_are_read_as_they_are_shown(page, expected) -> None:
    assert text_of(parse("page.html", f"<body>{page}")) == expected
