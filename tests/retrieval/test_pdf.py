"""PDF files as programs really write them: fonts, forms, notes, faults, drawings."""

import io
import re
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pypdf
import pytest
from PIL import Image, ImageDraw, ImageFont

from hanol.errors import DocumentError
from hanol.retrieval import Document, parse_document
from hanol.retrieval.documents import _reader  # private: its process
from hanol.retrieval.documents.pdf import _ocr  # private: programs and processes
from hanol.retrieval.documents.pdf._legible import legible_part  # private: needs rare fonts
from hanol.retrieval.documents.pdf._objects import glyph_text  # private: a table of names


@pytest.fixture(autouse=True)
def _without_ocr(monkeypatch, request) -> None:
    if "ocr" not in request.node.name:
        monkeypatch.setattr(_ocr, "languages", lambda: "")


def parse(data: bytes) -> Document:
    return parse_document("a.pdf", data)


def text_of(data: bytes) -> str:
    return "\n---\n".join(page.text for page in parse(data).pages)


def shown(*lines: bytes, at: int = 700) -> bytes:
    """Drawing operators of lines below each other; each is what `Tj` takes."""
    return b"\n".join(
        b"BT /F1 12 Tf 72 %d Td %b Tj ET" % (at - 40 * i, line) for i, line in enumerate(lines)
    )


# --- fonts --------------------------------------------------------------------


def cid_pdf(samples, encoding: str, codes: bytes, ordering: str, subtype: int = 0) -> bytes:
    """Text in a font of that character collection, not embedded and without a Unicode table."""
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Asia /Encoding /%b /DescendantFonts [4 0 R] >>"
    )
    descendant = (
        b"<< /Type /Font /Subtype /CIDFontType%d /BaseFont /Asia /FontDescriptor 5 0 R /DW 1000 "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (%b) /Supplement 2 >> >>"
    )
    descriptor = (
        b"<< /Type /FontDescriptor /FontName /Asia /Flags 4 /FontBBox [0 0 1000 1000] /StemV 80 "
        b"/ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 >>"
    )
    more = (descendant % (subtype, ordering.encode()), descriptor)
    content = shown(b"<%b>" % codes.hex().encode())
    return samples.drawn_pdf(content, font=font % encoding.encode(), more=more)


@pytest.mark.parametrize(
    ("encoding", "codec", "ordering", "text"),
    [
        ("KSCms-UHC-H", "cp949", "Korea1", "똠방각하 펲시"),
        ("KSCms-UHC-V", "cp949", "Korea1", "세로쓰기"),
        ("KSCms-UHC-HW-H", "cp949", "Korea1", "가나다 ABC"),
        ("KSC-EUC-H", "euc_kr", "Korea1", "대한민국 2025년"),
        ("KSC-EUC-V", "euc_kr", "Korea1", "가나다"),
        ("KSCpc-EUC-H", "euc_kr", "Korea1", "한글 문서"),
        ("UniKS-UCS2-H", "utf-16-be", "Korea1", "가나다"),
        ("UniKS-UTF16-H", "utf-16-be", "Korea1", "가나다"),
        ("90ms-RKSJ-H", "cp932", "Japan1", "日本語のテキスト"),
        ("EUC-H", "euc_jp", "Japan1", "東京都"),
        ("UniJIS-UTF16-H", "utf-16-be", "Japan1", "日本語"),
        ("GBK-EUC-H", "gbk", "GB1", "中文简体"),
        ("GBK2K-H", "gb18030", "GB1", "中文"),
        ("ETen-B5-H", "big5", "CNS1", "中文繁體"),
    ],
)
def test_asian_fonts_without_a_unicode_table(samples, encoding, codec, ordering, text) -> None:
    found = text_of(cid_pdf(samples, encoding, text.encode(codec), ordering))
    assert "".join(found.split()) == "".join(text.split())


@pytest.mark.parametrize("encoding", ["Identity-H", "Identity-V"])
@pytest.mark.parametrize("subtype", [0, 2])
@pytest.mark.parametrize(
    ("ordering", "cids", "text"),
    [
        ("Korea1", (1086, 1087, 8, 34), "가각'A"),
        ("Japan1", (843, 844, 1125), "あぃ亜"),
        ("GB1", (4559, 1000), None),
        ("CNS1", (595, 596), "一乙"),
    ],
)
def test_numbers_of_a_character_collection(
    samples, encoding, subtype, ordering, cids, text
) -> None:
    codes = b"".join(cid.to_bytes(2, "big") for cid in cids)
    found = "".join(text_of(cid_pdf(samples, encoding, codes, ordering, subtype)).split())
    assert len(found) == len(cids)
    if text:
        assert found == text


GLYPHS = {
    "f_i": "fi", "T_h": "Th", "f_f_l.alt": "ffl", "one.oldstyle": "1", "a.sc": "a", "s_t": "st",
    "uni0041": "A", "uni00410042": "AB", "u1F600": "\N{GRINNING FACE}", "uniAC00": "가",
    "uniAC00_uniAC01.vert": "가각", "Euro": "€", "parenleftbigg": "(", "summationdisplay": "∑",
    "g23": "", "cid:77": "", ".notdef": "", "f_g23": "", "uD800110000": "",
}  # fmt: skip


def test_texts_of_glyph_names() -> None:
    assert {name: glyph_text(name) for name in GLYPHS} == GLYPHS


def named_font(*names: str) -> bytes:
    """A font, not embedded, whose codes from 1 on have these names."""
    listed = " ".join(f"/{name}" for name in names).encode()
    return (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+Own /FirstChar 1 /LastChar 126 "
        b"/Widths [%b] /Encoding << /Differences [1 %b] >> >>" % (b"500 " * 126, listed)
    )


@pytest.mark.parametrize(
    ("names", "drawn", "text"),
    [
        (
            "f_i T_h one.os two.os f_f_i",
            rb"(\001nd \002e \003\004 e\005cient)",
            "find The 12 efficient",
        ),
        ("f_l s_t.hist T_T", rb"(\001at fa\002 a\003a)", "flat fast aTTa"),
        ("c_t uni00660069 zero.taboldstyle", rb"(a\001or \002sh 1\003\003)", "actor fish 100"),
        ("A.sc b.sc u1D400", rb"(\001\002 \003)", "Ab \U0001d400"),
    ],
)  # fmt: skip
def test_ligatures_and_variants_by_the_names_of_their_glyphs(samples, names, drawn, text) -> None:
    data = samples.drawn_pdf(shown(drawn), font=named_font(*names.split()))
    assert text_of(data) == text


def right_to_left(*lines: tuple[str, ...]) -> tuple[bytes, bytes, bytes]:
    """Content, font and Unicode table of a page that draws these glyphs, each from the left on.

    A vowel mark stands over the glyph before it, a little higher than the line.
    """
    glyphs = [*dict.fromkeys(glyph for line in lines for glyph in line)]
    content = b""
    for row, line in enumerate(lines):
        x = 72
        for glyph in line:
            mark = unicodedata.category(glyph[0]) == "Mn"
            place = (x - 8, 702 - 20 * row) if mark else (x, 700 - 20 * row)
            code = glyphs.index(glyph) + 33
            content += b"BT /F1 12 Tf %d %d Td <%02x> Tj ET\n" % (*place, code)
            x += 0 if mark else 6
    rows = b"".join(
        b"<%02x> <%b>\n" % (code, glyph.encode("utf-16-be").hex().encode())
        for code, glyph in enumerate(glyphs, 33)
    )
    table = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n1 begincodespacerange\n"
        b"<00> <ff>\nendcodespacerange\n%d beginbfchar\n%bendbfchar\nendcmap\n"
        % (len(glyphs), rows)
    )
    font = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+Own /FirstChar 33 /LastChar 126 "
        b"/Widths [%b] /ToUnicode 4 0 R >>" % (b"500 " * 94)
    )
    return content, font, b"<< /Length %d >>\nstream\n%b\nendstream" % (len(table), table)


@pytest.mark.parametrize(
    ("drawn", "text"),
    [
        (["م", "لا", "س", "ل", "ا"], "السلام"),  # a ligature of two letters, as LibreOffice has it
        (["\ufee1", "\ufefc", "\ufeb4", "\ufedf", "\u0627"], "السلام"),  # forms of letters
        ([*"2024", " ", *"م", "ا", "ع", " ", *"10:30"], "10:30 عام 2024"),
        ([*"50%", " ", *"רעש", " ", *"9,400"], "9,400 שער 50%"),
        ([*"הריהב", " ", *"Blue Sky", " ", *"עבצ"], "צבע Blue Sky בהירה"),
        ([")", "ה", "ב", "(", " ", "א"], "א (בה)"),  # brackets by their meaning
        (["(", "ה", "ב", ")", " ", "א"], "א (בה)"),  # and by their look
        ([*"say ", "ם", "ו", "ל", "ש", *" (peace) now"], "say שלום (peace) now"),
        (["ה", "\u064e", "ل", "\u064f", "ا", "\u064e"], "اَلُهَ".replace("ه", "ה")),
    ],
)
def test_words_from_right_to_left_are_in_their_order(samples, drawn, text) -> None:
    content, font, table = right_to_left(drawn)
    data = samples.drawn_pdf(content, font=font, more=(table,))
    assert text_of(data) == unicodedata.normalize("NFC", text)


# --- pages that cannot be read --------------------------------------------------


def coded_pdf(samples, *texts: str) -> bytes:
    """Pages in a font whose Unicode table gives these texts, whatever the page shows."""
    letters = sorted(set("".join(texts)))
    rows = "\n".join(
        f"<{i:04x}> <{char.encode('utf-16-be').hex()}>" for i, char in enumerate(letters, 1)
    )
    table = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /T def "
        "/CMapType 2 def 1 begincodespacerange <0000> <ffff> endcodespacerange "
        f"{len(letters)} beginbfchar {rows} endbfchar endcmap end end"
    ).encode()
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Own /Encoding /Identity-H "
        b"/DescendantFonts [4 0 R] /ToUnicode 5 0 R >>"
    )
    more = (
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Own /DW 600 /CIDSystemInfo "
        b"<< /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(table), table),
    )
    codes = ("".join(f"{letters.index(char) + 1:04x}" for char in text) for text in texts)
    return samples.drawn_pdf(
        *(shown(b"<%b>" % code.encode()) for code in codes), font=font, more=more
    )


PLAIN = "What was agreed in the meeting"
RUBBISH = {
    "private use": "\ue000\ue001\ue002 \uf8ff\ue004\ue005 \uf123",
    "unassigned": "\u0378\u0379 \u0380\u0381\u0382 \u2fe0\u2fe1 ok",
    "scripts in one word": "аკܐԱ ሀᏣᐁ ꀀजབ ກကខ",
    "Latin between them": "aაb ܐcሀ dᏣᐁ eꀀजf",
    "bytes in pairs": "㑡㔢 䐳䍄 㘷㡢 㜸㝣",
    "dingbats": "❚❤❡ q✉✐❝❦ ❜r♦✇♥ ❢♦①",
    "replaced": "\ufffd\ufffd\ufffd \ufffd\ufffd ab",
}


@pytest.mark.parametrize("text", RUBBISH.values(), ids=RUBBISH)
def test_a_page_that_cannot_be_a_text_is_named(samples, text) -> None:
    document = parse(coded_pdf(samples, PLAIN, text, PLAIN))
    assert [page.text for page in document.pages] == [PLAIN, "", PLAIN]
    assert any(note.startswith("page 2:") and "OCR" in note for note in map(str, document.remarks))
    with pytest.raises(DocumentError, match="fonts.*OCR"):
        parse(coded_pdf(samples, text))


@pytest.mark.parametrize(
    "text",
    [
        "한국어 CPU는 3.5GHz로 μm 단위 日本 ㈜한올 ㎏",
        "日本語とEnglish、ひらがなカタカナ한글",
        "Языки: русский, USB-кабель, λ-выражение",
        "العربية עברית ไทย हिन्दी ქართული Հայերեն አማርኛ",
        "ใช้Windowsได้ และPDFด้วย",
        "∀x∈ℝ: αβγ ≤ 𝑓(x) → ∑ ½ ﬁ",
        "𝑓(𝑥) = 𝑎𝑥 + 𝑏, 𝐴 ⊂ 𝐵",
        "• one \uf0b7 two, and more words of the list",
        "Tiếng Việt, polski żółć, Türkçe ğüş, ÆØÅ",
        "ㄅㄆㄇ 注音 gbˈɪŋ ʔaʁ",
    ],
)
def test_texts_of_many_scripts_are_legible(samples, text) -> None:
    document = parse(coded_pdf(samples, text))
    # sorted, because a line that is drawn from left to right is turned where scripts run leftward
    drawn, found = (
        sorted("".join(unicodedata.normalize("NFKC", whole).split()))
        for whole in (text, document.pages[0].text)
    )
    assert found == drawn
    assert not document.remarks


@pytest.mark.parametrize("first", ["g", "cid:", "glyph", "C0"])
def test_glyphs_without_telling_names(samples, first) -> None:
    font = named_font(*(f"{first}{i}" for i in range(1, 120)))
    drawn = shown(rb"(\054\101\116\046\055\054\047\050 \060\061\062\063\064)")
    with pytest.raises(DocumentError, match="fonts.*OCR"):
        text_of(samples.drawn_pdf(drawn, font=font))


def test_glyphs_numbered_as_in_ascii(samples) -> None:
    font = named_font(*(f"c{i}" for i in range(1, 127)))
    sentence = "The quick brown fox jumps over the lazy dog and runs away from here"
    data = samples.drawn_pdf(shown(f"({sentence})".encode()), font=font)
    assert text_of(data).split() == sentence.split()


COUNCIL = "The council approved the budget\nof the town on the third of November"
KOREAN = Path(__file__).with_name("korean_scan.png")
needs_ocr = pytest.mark.skipif("eng" not in _ocr.languages(), reason="no tesseract with eng")


def scanned(*texts: str, angle: int = 0) -> bytes:
    """A PDF of pictures of pages."""
    pages = []
    for text in texts:
        page = Image.new("L", (1240, 1754), 255)
        draw = ImageDraw.Draw(page)
        draw.multiline_text((120, 200), text, fill=0, font=ImageFont.load_default(36), spacing=24)
        pages.append(page.rotate(angle))
    out = io.BytesIO()
    pages[0].save(out, "PDF", save_all=True, append_images=pages[1:], resolution=150)
    return out.getvalue()


def only_page(data: bytes) -> tuple[str, list[tuple[int, ...]]]:
    """Text of the page, and where it is doubtful."""
    document = parse(data)
    assert all("read by OCR" in one.reason for one in document.remarks)
    return " ".join(document.pages[0].text.split()), [one.pages for one in document.remarks]


@pytest.mark.parametrize(
    ("installed", "used"),
    [
        ((), ""),
        (("osd",), ""),
        (("eng", "osd"), "eng"),
        (("deu", "eng", "kor", "osd"), "kor+eng+deu"),
        (("chi_sim", "eng", "fra", "jpn", "kor", "osd", "script/Latin"), "kor+eng"),
    ],
)
def test_ocr_languages(monkeypatch, installed, used) -> None:
    monkeypatch.setattr(_ocr, "_installed", lambda: installed)
    assert _ocr.languages() == used


@needs_ocr
@pytest.mark.parametrize("angle", [0, 180])
def test_ocr_of_a_scan(angle) -> None:
    if angle and not _ocr.finds_up():
        pytest.skip("tesseract lacks osd, which finds which way is up")
    # which way is up takes tesseract a few lines to tell
    text, doubtful = only_page(scanned("\n".join([COUNCIL] * 5), angle=angle))
    assert text.count(" ".join(COUNCIL.split())) >= 4
    assert doubtful == [(1,)]


@pytest.mark.skipif("kor" not in _ocr.languages(), reason="no tesseract with kor")
def test_ocr_of_korean() -> None:
    page = Image.new("L", (1600, 2200), 255)
    page.paste(Image.open(KOREAN), (150, 200))
    out = io.BytesIO()
    page.save(out, "PDF", resolution=200)
    text, _ = only_page(out.getvalue())
    # With another language beside it tesseract takes 위원은 for AAS and 원을 for BS.
    assert "자치회는 십일월 삼일에 예산안을 승인하였다." in text
    assert "위원은 다리 보수를 위하여" in text


def page_and_scan(samples) -> bytes:
    writer = pypdf.PdfWriter()
    for data in (samples.drawn_pdf(shown(b"(A page of letters)")), scanned(COUNCIL)):
        writer.append(io.BytesIO(data))
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@needs_ocr
def test_ocr_of_some_pages_only(samples) -> None:
    document = parse(page_and_scan(samples))
    assert document.pages[0].text == "A page of letters"
    assert "approved the budget" in document.pages[1].text
    assert [(one.pages, one.status) for one in document.remarks] == [((2,), "doubtful")]


@needs_ocr
def test_ocr_ends_in_time(monkeypatch, samples) -> None:
    monkeypatch.setattr(_ocr, "SECONDS", -1.0)
    document = parse(page_and_scan(samples))
    assert document.pages[1].text == ""
    (remark,) = document.remarks
    assert (remark.pages, remark.status) == ((2,), "skipped")
    assert "the time for OCR" in remark.reason
    assert "ocrmypdf" in remark.advice


@needs_ocr
def test_ocr_of_letters_that_tesseract_does_not_know(monkeypatch) -> None:
    monkeypatch.setattr(_ocr, "languages", lambda: "eng")
    page = Image.new("L", (1600, 2200), 255)
    page.paste(Image.open(KOREAN), (150, 200))
    out = io.BytesIO()
    page.save(out, "PDF", resolution=200)
    with pytest.raises(DocumentError, match="no text.*tesseract's data of its language"):
        parse(out.getvalue())


def test_a_scan_is_named_where_no_program_reads_it(samples) -> None:
    (remark,) = parse(page_and_scan(samples)).remarks
    assert (remark.pages, remark.status) == ((2,), "skipped")
    assert "install tesseract" in remark.advice
    with pytest.raises(DocumentError, match="no text.*install tesseract"):
        parse(scanned(COUNCIL))


def test_a_stamp_on_a_scan_does_not_hide_that_it_is_one(samples) -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(scanned(COUNCIL)))
    stamp = pypdf.PdfReader(io.BytesIO(samples.drawn_pdf(shown(b"(Scanned by a program)")))).pages
    writer.pages[0].merge_page(stamp[0])
    out = io.BytesIO()
    writer.write(out)
    document = parse(out.getvalue())
    assert document.pages[0].text == "Scanned by a program"
    assert [one.pages for one in document.remarks] == [(1,)]


# --- forms and notes ------------------------------------------------------------


def field(body: str, rect: str) -> bytes:
    return f"<< /Type /Annot /Subtype /Widget {body} /Rect [{rect}] >>".encode()


def form(samples, *lines: bytes, notes: list[bytes]) -> bytes:
    refs = b" ".join(b"%d 0 R" % (4 + i) for i in range(len(notes)))
    return samples.drawn_pdf(
        shown(*lines), more=tuple(notes), page=b"/Annots [%b]" % refs,
        catalog=b"/AcroForm << /Fields [%b] /DA (/F1 12 Tf) >>" % refs,
    )  # fmt: skip


def test_what_was_filled_in_stands_behind_its_label(samples) -> None:
    notes = [
        field("/FT /Tx /T (f1) /V (Kim Minsu)", "150 655 300 675"),
        field("/FT /Tx /T (f2) /V <feff d55c ae00>", "150 615 300 635"),
        field("/FT /Ch /Ff 131072 /T (f3) /V (PUS) /Opt [[(SEL) (Seoul)] [(PUS) (Busan)]]",
              "150 575 300 595"),
        field("/FT /Ch /T (f4) /V [(red) (blue)] /Opt [(red) (green) (blue)]", "150 535 300 555"),
    ]  # fmt: skip
    lines = (b"(Application)", b"(Name)", b"(In Korean)", b"(City)", b"(Colours)", b"(End)")
    assert text_of(form(samples, *lines, notes=notes)).split("\n") == [
        "Application", "Name Kim Minsu", "In Korean 한글", "City Busan", "Colours red, blue", "End",
    ]  # fmt: skip


def test_ticks(samples) -> None:
    on = "/AP << /N << /On 9 0 R /Off 9 0 R >> >>"
    notes = [
        field(f"/FT /Btn /T (a) /V /On /AS /On {on}", "72 655 84 670"),
        field(f"/FT /Btn /T (b) /V /Off /AS /Off {on}", "72 615 84 630"),
        field("/FT /Btn /Ff 32768 /T (c) /V /Express", "150 575 160 590"),
        field("/FT /Btn /Ff 65536 /T (d) /V (Submit)", "72 10 160 20"),
    ]
    lines = (b"(Choose)", b"(     I agree)", b"(     Send news)", b"(Delivery)")
    text = text_of(form(samples, *lines, notes=notes))
    assert [line.strip() for line in text.split("\n")] == [
        "Choose", "☑ I agree", "☐ Send news", "Delivery ☑ Express",
    ]  # fmt: skip


def test_a_form_whose_only_text_was_filled_in(samples) -> None:
    notes = [
        field("/FT /Tx /T (name) /V (Kim Minsu)", "72 600 300 620"),
        field("/Parent 6 0 R", "72 560 300 580"),
        b"<< /FT /Tx /T (city) /TU (Place of birth) /V (Busan) >>",
        field("/FT /Tx /Ff 8192 /T (key) /V (secret)", "72 500 300 520"),
        field("/FT /Tx /F 2 /T (hidden) /V (unseen)", "72 500 300 520"),
    ]
    text = text_of(form(samples, b"()", notes=notes))
    assert text.split("\n") == ["name: Kim Minsu", "Place of birth: Busan"]


def test_what_was_filled_in_and_is_on_no_page(samples) -> None:
    more = (
        b"<< /FT /Tx /T (name) /V (Kim Minsu) >>",
        b"<< /T (home) /Kids [6 0 R] >>",
        b"<< /FT /Tx /T (city) /V (Busan) /Parent 5 0 R >>",
    )
    catalog = b"/AcroForm << /Fields [4 0 R 5 0 R] >>"
    text = text_of(samples.drawn_pdf(shown(b"(Body)"), more=more, catalog=catalog))
    assert text.split("\n") == ["Body", "name: Kim Minsu", "home.city: Busan"]
    xfa = (
        b"<xfa:datasets xmlns:xfa='http://www.xfa.org/schema/xfa-data/1.0/'><xfa:data><form>"
        b"<Name>Kim &amp; Lee</Name><Empty/></form></xfa:data></xfa:datasets>"
    )
    more = (b"<< /Length %d >>\nstream\n%b\nendstream" % (len(xfa), xfa),)
    catalog = (
        b"/NeedsRendering true /AcroForm << /Fields [] /XFA [(template) 4 0 R (datasets) 4 0 R] >>"
    )
    document = parse(samples.drawn_pdf(shown(b"(Please wait)"), more=more, catalog=catalog))
    assert document.pages[0].text == "Please wait\nName: Kim & Lee"
    assert "XFA" in document.remarks[0].reason


def test_comments_and_typed_text(samples) -> None:
    notes = [
        b"<< /Type /Annot /Subtype /FreeText /Contents (approved by the board) "
        b"/Rect [300 695 500 715] >>",
        b"<< /Type /Annot /Subtype /Highlight /T (Lee) /Contents (Which year?) "
        b"/Rect [72 655 140 675] >>",
        b"<< /Type /Annot /Subtype /Text /Contents (Ask Park) /Rect [560 300 580 320] >>",
        b"<< /Type /Annot /Subtype /Link /Contents (a link) /Rect [72 655 140 675] >>",
        b"<< /Type /Annot /Subtype /Popup /Contents (a popup) /Rect [72 655 140 675] >>",
    ]
    text = text_of(form(samples, b"(Budget)", b"(Total)", notes=notes))
    assert "Budget approved by the board" in text
    assert "[Lee: Which year?]" in text
    assert "[Ask Park]" in text
    assert "link" not in text
    assert "popup" not in text


def test_notes_that_are_broken_do_not_hide_the_page(samples) -> None:
    document = parse(form(samples, b"(Body)", notes=[field("/FT /Tx /V (x)", "a b c")]))
    assert document.pages[0].text.startswith("Body")


# --- faults ---------------------------------------------------------------------


def faults(data: bytes) -> dict[str, bytes]:
    return {
        "bytes before": b"x" * 5000 + b"\n" + data,
        "headers of a mail before": b"Content-Type: application/pdf\r\n" * 100 + b"\r\n" + data,
        "no first line": data.partition(b"\n")[2],
        "bytes behind": data + b"y" * 5000,
        "no startxref": data[: data.index(b"startxref")],
        "no trailer": data[: data.index(b"trailer")],
        "no root": re.sub(rb"/Root \d+ 0 R", b"", data),
        "no table": data[: data.index(b"xref\n")],
        "wrong offsets": re.sub(rb"\d{10} 00000 n", b"0000000007 00000 n", data),
        "wrong start": re.sub(rb"startxref\n\d+", b"startxref\n9", data),
        "no endobj": data.replace(b"\nendobj", b""),
        "wrong length": data.replace(b"/Length ", b"/Length 9"),
        "unknown version": data.replace(b"%PDF-1.4", b"%PDF-9.9"),
        "no types of pages": re.sub(rb"/Type /Pages?\b", b"", data),
        "bad operators": data.replace(b"BT ", b"Q Q foo 1 2 ) ] >> BT "),
        "Windows line ends": data.replace(b"\n", b"\r\n"),
    }


@pytest.mark.parametrize("fault", faults(b"xref\nstartxref trailer"))
def test_files_that_viewers_repair(samples, fault) -> None:
    intact = samples.drawn_pdf(shown(b"(Body)", b"(of the text)"))
    assert text_of(faults(intact)[fault]) == "Body\nof the text"


def test_pages_that_cannot_be_opened_are_named(samples) -> None:
    data = samples.drawn_pdf(shown(b"(One)"), shown(b"(Two)"), shown(b"(Three)"))
    document = parse(data.replace(b"6 0 R 8 0 R]", b"96 0 R 8 0 R]", 1))
    assert "Three" in document.pages[-1].text
    assert any("cannot be opened" in note.reason for note in document.remarks)


@pytest.mark.parametrize("line", [b"(Applicant:)", b"(To the board,)", b"(Conclusion:  )"])
def test_a_last_line_that_announces_more(samples, line) -> None:
    document = parse(samples.drawn_pdf(shown(line)))
    assert document.title == document.pages[0].text


# --- paragraphs and headings ---------------------------------------------------


def set_lines(*lines: tuple[str, str, int, int]) -> bytes:
    """Drawing operators of lines: font, text, size, and points below the line before."""
    y, drawn = 760, []
    for font, text, size, below in lines:
        y -= below
        # Many programs scale a font of size 1.
        drawn.append(f"BT /{font} 1 Tf {size} 0 0 {size} 72 {y} Tm ({text}) Tj ET")
    return "\n".join(drawn).encode()


def set_pdf(samples, *lines: tuple[str, str, int, int]) -> bytes:
    bold = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>"
    data = samples.drawn_pdf(set_lines(*lines), more=(bold,))
    return data.replace(b"/F1 ", b"/F2 4 0 R /F1 ", 1)


def test_paragraphs_and_headings_stand_apart(samples) -> None:
    lines = [
        ("F1", "Annual report of the harbour, with an", 16, 0),
        ("F1", "outlook on the coming year", 16, 18),
        ("F1", "The harbour was open on 340 days. Ships came from all", 10, 14),
        ("F1", "parts of the world. Most of them brought grain, and", 10, 12),
        ("F1", "some brought wood, which was sold on the quay", 10, 12),
        ("F1", "to the builders of the town.", 10, 12),
        ("F1", "Fees did not change.", 10, 20),
        ("F2", "2.1 Repairs", 10, 24),
        ("F1", "The crane was repaired in May.", 10, 16),
        ("F2", "Warning: a sentence in bold letters is no heading.", 10, 20),
        ("F1", "17", 10, 60),
    ]
    assert text_of(set_pdf(samples, *lines)) == (
        "# Annual report of the harbour, with an outlook on the coming year\n\n"
        "The harbour was open on 340 days. Ships came from all\n"
        "parts of the world. Most of them brought grain, and\n"
        "some brought wood, which was sold on the quay\nto the builders of the town.\n\n"
        "Fees did not change.\n\n"
        "# 2.1 Repairs\n\n"
        "The crane was repaired in May.\n\n"
        "Warning: a sentence in bold letters is no heading.\n\n17"
    )


def test_a_sentence_over_two_columns_stays_whole(samples) -> None:
    left = b"BT /F1 10 Tf 72 700 Td (The first column ends) Tj 0 -12 Td (within a) Tj ET\n"
    right = b"BT /F1 10 Tf 320 700 Td (sentence that goes) Tj 0 -12 Td (on here.) Tj ET"
    text = text_of(samples.drawn_pdf(left + right))
    assert text == "The first column ends\nwithin a\nsentence that goes\non here."


# --- size -----------------------------------------------------------------------


def drawings() -> dict[str, bytes]:
    n = range(100_000)
    return {
        "lines": b"".join(b"%d %d m %d %d l S\n" % (i % 600, i % 790, i * 7 % 600, i) for i in n),
        "curves": b"".join(b"%d 9 m 1 2 3 4 %d 6 c f\n" % (i % 600, i % 700) for i in n),
        "boxes": b"".join(b"0.%d g %d 3 4 5 re f\n" % (i % 9, i % 600) for i in n),
        "states": b"q 1 0 0 1 1 1 cm 0 0 1 1 re W n Q\n" * 100_000,
        "inline pictures": b"BI /W 1 /H 1 /BPC 8 /CS /G ID x EI\n" * 20_000,
    }


@pytest.mark.parametrize("kind", ["lines", "curves", "boxes", "states", "inline pictures"])
def test_a_page_of_drawings_is_read_for_its_words(samples, kind) -> None:
    start = time.monotonic()
    assert text_of(samples.drawn_pdf(drawings()[kind] + shown(b"(Map of the town)"))) == (
        "Map of the town"
    )
    assert time.monotonic() - start < 8


def endless_pdf(samples) -> bytes:
    """A picture of sixteen pictures of sixteen pictures, and so on."""
    forms = [
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources << /XObject << /X %d 0 R "
        b">> >> /Length 96 >>\nstream\n%b\nendstream" % (5 + level, b"/X Do " * 16)
        for level in range(8)
    ]
    forms.append(b"<< /Subtype /Form /BBox [0 0 6 8] /Length 2 >>\nstream\nq \nendstream")
    data = samples.drawn_pdf(b"/X Do " + shown(b"(Body)"), more=tuple(forms))
    return data.replace(b"/Font << /F1 3 0 R >>", b"/XObject << /X 4 0 R >>")


def test_a_page_without_end_is_stopped_apart(samples, monkeypatch) -> None:
    code = (
        "from hanol.retrieval.documents import _reader, _reading; _reader.STEP_SECONDS = 1.0; "
        "_reading.answer_requests()"
    )
    monkeypatch.setattr(_reader, "_CHILD", code)
    monkeypatch.setattr(_reader, "_idle", [])
    with pytest.raises(DocumentError, match="a page or part that takes"):
        parse(endless_pdf(samples))


def test_what_is_read_apart_is_the_same(samples) -> None:
    data = coded_pdf(samples, PLAIN, RUBBISH["private use"])
    document = parse(data)
    assert (document.pages[0].text, document.pages[1].text) == (PLAIN, "")
    assert document.remarks
    with pytest.raises(DocumentError, match="encrypted"):
        parse(samples.encrypted_pdf(data, "user", "owner"))
    with pytest.raises(DocumentError, match="is broken"):
        parse(data[:40])


def test_pdfium_is_not_loaded_where_documents_are_parsed_apart(samples, tmp_path) -> None:
    (tmp_path / "a.pdf").write_bytes(samples.drawn_pdf(shown(b"(Body)")))
    code = (
        "import sys, pathlib; from hanol.retrieval import read_document; "
        "assert read_document(pathlib.Path(sys.argv[1])).pages[0].text == 'Body'; "
        "assert not {'pypdfium2', 'pypdf'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.pdf"], check=True, timeout=60)


def test_a_long_document_is_read_in_a_second(samples) -> None:
    page = shown(*(b"(Line %d of a page with ordinary text that goes on)" % i for i in range(17)))
    start = time.process_time()
    assert len(parse(samples.drawn_pdf(*[page] * 100)).pages) == 100
    assert time.process_time() - start < 1


def test_aes_without_a_password(samples) -> None:
    plain = samples.drawn_pdf(shown(b"(open text)"))
    for algorithm in ("RC4-128", "AES-128", "AES-256"):
        assert text_of(samples.encrypted_pdf(plain, "", "owner", algorithm)) == "open text"
        with pytest.raises(DocumentError, match="encrypted"):
            parse(samples.encrypted_pdf(plain, "user", "owner", algorithm))


def test_signs_of_no_script_beside_a_sound_text_do_not_hide_it() -> None:
    sound = "Більшість команд малювання мають одну або дві форми.\n\\put(0,0){\\lіne(1,2){.5}}"
    drawn = "\n".join(("\x01", "✁", "✂", "✄", "\ue000", "✆✡")) * 2
    assert legible_part(f"{sound}\n{drawn}").strip() == sound
    assert legible_part(f"{sound}\n{drawn}", unknown=9).strip() == sound
    assert legible_part(f"{sound}\n{drawn}", unknown=90) == ""
    assert legible_part("✁ord✂ th✄t ✆annot ✡e re✑d word\ue000 " * 9 + sound) == ""
