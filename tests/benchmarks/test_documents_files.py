"""What the benchmark of readers of documents leaves out before it asks other tools."""

import zipfile

import pytest
from lxml import etree

from _documents_files import NAMESPACES, Real, shown

W, C, A = (NAMESPACES[key] for key in "wca")
TEXT = NAMESPACES["text"]


@pytest.mark.parametrize(
    ("kind", "part", "xml", "left"),
    [
        (
            "docx",
            "word/document.xml",
            f'<w:body xmlns:w="{W}"><w:del><w:t>old </w:t></w:del><w:t>new</w:t>'
            "<w:moveFrom><w:t>moved</w:t></w:moveFrom></w:body>",
            "new",
        ),
        (
            "pptx",
            "ppt/slides/slide1.xml",
            f'<a:p xmlns:a="{A}"><a:t>Page </a:t><a:fld type="slidenum"><a:t>7</a:t></a:fld></a:p>',
            "Page ",
        ),
        (
            "odp",
            "content.xml",
            f'<t:p xmlns:t="{TEXT}">Page <t:page-number>7</t:page-number> of 9</t:p>',
            "Page  of 9",
        ),
        ("xlsx", "a.xml", f'<w:t xmlns:w="{W}">all</w:t>', "all"),
    ],
)
def test_tools_get_files_without_what_they_do_not_show(tmp_path, kind, part, xml, left) -> None:
    path = tmp_path / f"a.{kind}"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr(part, xml)
    made = tmp_path / "shown.zip"
    made.write_bytes(shown(Real(kind, "made", path)))
    with zipfile.ZipFile(made) as package:
        assert "".join(etree.fromstring(package.read(part)).itertext()) == left


def test_axes_of_charts_are_hidden_and_pictures_have_no_names(tmp_path) -> None:
    path = tmp_path / "a.pptx"
    axes = "<c:valAx><c:scaling/><c:delete val='0'/></c:valAx><c:valAx><c:scaling/></c:valAx>"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("chart.xml", f'<c:c xmlns:c="{C}">{axes}<c:pic descr="a cow"/></c:c>')
    made = tmp_path / "shown.zip"
    made.write_bytes(shown(Real("pptx", "made", path)))
    with zipfile.ZipFile(made) as package:
        text = package.read("chart.xml").decode()
    assert text.count('delete val="1"') == 2
    assert "cow" not in text


def test_a_broken_file_is_given_as_it_is(tmp_path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"no zip")
    assert shown(Real("docx", "made", path)) == b"no zip"
