"""Text of Word and of drawings: paragraphs, tables, equations, symbols, charts, diagrams."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from hanol.retrieval.documents._mail import read_eml
from hanol.retrieval.documents._markup import read_html
from hanol.retrieval.documents._remarks import remark
from hanol.retrieval.documents._tables import Cell, Row, table_text
from hanol.retrieval.documents.office._numbers import shown
from hanol.retrieval.documents.office._package import Package, attribute, relation

_WIDEST = 1000  # columns; a broken span would go on for ever
# Deleted text, and what stands a second time for old programs.
_HIDDEN = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "delInstrText", "rt"))
_OFF = ("0", "false", "off", "none")

_SYMBOL = (
    " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾"
    "αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
    + " "
    * 33
    + "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓"
    "◊〈®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪ 〉∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭"
)
"""Characters of the font Symbol from code 0x20, as Adobe assigns them."""
_DINGBATS = dict(
    zip(
        b"\xfb\xfc\xfd\xfe\xa8\x6f\x71\x72\xa7\x6c\x6e\xd8\xdf\xe0\xe1\xe2\xe8\xf0\x28\x2a\x4a\x4c"
        b"\x76\x77\x9f\xab\x6d\xa1\xa4\xf3\x71\x75\xef\xf1\xf2\x80\x81\x82\x83\x84\x85\x86\x87\x88"
        b"\x89\x8a\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95",
        "✗✓☒☑◻□❑❒▪●■➢←→↑↓➔⇨☎✉☺☹❖◆•★❍○◉⬄❑◆⇦⇧⇩⓪①②③④⑤⑥⑦⑧⑨⑩❶❷❸❹❺❻❼❽❾❿",
        strict=False,
    )
)
_FONTS = {  # of their own: the code of a letter shows a picture
    "wingdings": _DINGBATS,
    "wingdings 2": dict(zip(b"PORQSTVX\xa3\x96\x97\x98", "✓✗☑☒☒☒⊗⊗□••●", strict=True)),
    "webdings": dict(zip(b"acrgni", "✓■✗■●ℹ", strict=True)),
    "symbol": {code: sign for code, sign in enumerate(_SYMBOL, 0x20) if sign != " "},
}


def _symbols(text: str, font: str, least: int = 0x20) -> str:
    """Characters of a font that is no Unicode font, from a code on; others as they are."""
    table = _FONTS.get(font.lower())
    if table is None and not any("\uf020" <= sign <= "\uf0ff" for sign in text):
        return text
    return "".join(
        (table or _FONTS["symbol"]).get(ord(sign) & 0xFF, "•" if ord(sign) > 0xFF else sign)
        if (table and least <= ord(sign) < 0x100) or "\uf020" <= sign <= "\uf0ff"
        else sign
        for sign in text
    )


class Flow:
    """Reader of the text of a part.

    Args:
        package: The file.
        part: Name of the part, whose charts and diagrams are found by its relationships.
        end: What a line break within a paragraph becomes.
        headings: Level of each paragraph style that is a heading.
        remarks: Comments and notes by tag and id of the reference to them.
        numbered: Gives what stands before a paragraph of a list; called for each in order.
        values: Also write the numbers of charts.
    """

    def __init__(
        self,
        package: Package,
        part: str,
        *,
        end: str = " ",
        headings: dict[str, int] | None = None,
        remarks: dict[tuple[str, str], str] | None = None,
        numbered: Callable[[Any], str] = lambda paragraph: "",
        values: bool = True,
    ) -> None:
        self._package, self._end, self._numbered = package, end, numbered
        self._related = package.related(part)
        self._headings, self._remarks = headings or {}, remarks or {}
        self._values = values
        self._pending: list[str] = []
        self._depth = 0  # of tables

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables in order, each followed by the remarks and charts in it."""
        for element in parent:
            if element.tag == "p":
                number = self._numbered(element)
                if text := self._inline(element).strip():
                    level = self._headings.get(_style(element), 0)
                    yield " ".join(filter(None, ("#" * level, number, text)))
            elif element.tag == "tbl":
                if text := self._table(element):
                    yield text
            elif element.tag == "altChunk":
                yield self._imported(self._related.get(relation(element), ""))
            elif element.tag not in _HIDDEN:
                self._show(element)
                yield from self.blocks(element)
            yield from self._waiting()

    def _waiting(self) -> list[str]:
        if self._depth:
            return []  # behind the table
        waiting, self._pending = self._pending, []
        return waiting

    def _inline(self, parent: Any) -> str:
        return "".join(self._pieces(parent))

    def _pieces(self, parent: Any) -> Iterator[str]:
        for element in parent:
            tag = element.tag
            if tag in _HIDDEN or tag.endswith("Pr"):
                continue
            if tag == "t":
                yield _symbols(element.text or "", *_font(parent))
            elif tag == "sym":
                code = chr(int(attribute(element, "char", "20"), 16))
                yield _symbols(code, attribute(element, "font"))
            elif tag in ("tab", "noBreakHyphen"):
                yield "\t" if tag == "tab" else "-"
            elif tag in ("br", "cr"):
                yield self._end
            elif tag == "oMath":
                yield equation(element)
            elif tag == "textpath":  # WordArt
                yield attribute(element, "string")
            elif tag == "ffData":
                yield _form_field(element)
            elif tag == "tbl":  # in a text box
                yield self._table(element) + self._end
            elif remark := self._remarks.pop((tag, attribute(element, "id")), ""):
                self._pending.append(remark)
            else:
                self._show(element)
                yield from self._pieces(element)
                if tag in ("p", "oMathPara"):
                    yield self._end

    def _table(self, table: Any) -> str:
        heads, rows = 0, []
        above: dict[int, str] = {}
        for place, element in enumerate(_own(table, "tr")):
            head = element.find("trPr/tblHeader")
            if head is not None and attribute(head, "val", "1") not in _OFF and heads == place:
                heads += 1
            rows.append(self._row(element, above))
        return table_text(rows, heads=heads)

    def _row(self, element: Any, above: dict[int, str]) -> Row:
        row: list[str | None] = [""] * _span(element, "trPr/gridBefore", 0)
        for cell in _own(element, "tc"):
            if _merged(cell, "hMerge"):  # Word writes a span in two ways, PowerPoint in this one
                row.append(None)
                continue
            start = len(row)
            if _merged(cell, "vMerge"):
                row.append(Cell(above.get(start, ""), below=True))
            else:
                text = " ".join(self._cell_lines(cell))
                above[start] = text
                row.append(Cell(text, strong=_is_strong(cell)))
            row += [None] * (_span(cell, "tcPr/gridSpan", 1) - 1)
        return row

    def _cell_lines(self, cell: Any) -> list[str]:
        headings, self._headings = self._headings, {}
        self._depth += 1
        lines = list(self.blocks(cell))
        self._depth -= 1
        self._headings = headings
        return lines

    def _imported(self, part: str) -> str:
        """Text of a web page that Word would take in when it opens the file."""
        if part.endswith((".mht", ".mhtml")):
            return read_eml(self._package.read(part))[1][0]
        if part.endswith((".html", ".htm", ".xhtml")):
            return read_html(self._package.read(part), whole=True)[1]
        remark("is not read", "open the file in Word and save it again", part=part)
        return ""

    def _show(self, element: Any) -> None:
        """If an element shows a chart or diagram, put its text behind the present block."""
        if element.tag in ("chart", "relIds") and (key := relation(element)):
            name = self._related.get(key, "")
            if name and (text := drawn(self._package, name, values=self._values)):
                self._pending.append(text)


def _own(parent: Any, tag: str) -> Iterator[Any]:
    """The rows of a table or cells of a row, which content controls may hold."""
    for element in parent:
        if element.tag == tag:
            yield element
        elif element.tag not in ("tbl", "tr", "tc", "del", "Fallback"):
            yield from _own(element, tag)


def _span(element: Any, path: str, least: int) -> int:
    found = element.find(path)
    value = attribute(found, "val") if found is not None else ""
    return min(int(value), _WIDEST) if value.isdigit() and value.isascii() else least


def _merged(cell: Any, name: str) -> bool:
    """Whether a cell only continues the one above (vMerge) or to the left (hMerge)."""
    mark = cell.find(f"tcPr/{name}")
    if mark is not None:
        return attribute(mark, "val", "continue") == "continue"
    return cell.get(name, "0") not in _OFF


def _is_strong(cell: Any) -> bool:
    """Whether all text of a cell is bold, or its ground is coloured."""
    shade = cell.find("tcPr/shd")
    if shade is not None and attribute(shade, "fill", "auto").lower() not in ("auto", "ffffff"):
        return True
    runs = [run for run in cell.iter("r") if any(t.text for t in run.iter("t"))]
    return bool(runs) and all(map(_is_bold, runs))


def _is_bold(run: Any) -> bool:
    mark = run.find("rPr/b")
    if mark is not None:
        return attribute(mark, "val", "1") not in _OFF
    style = run.find("rPr")
    return style is not None and style.get("b", "0") not in _OFF


def _style(paragraph: Any) -> str:
    style = paragraph.find("pPr/pStyle")
    return "" if style is None else attribute(style, "val")


def _font(run: Any) -> tuple[str, int]:
    """The font of a run, and the first code that it shows."""
    font = run.find("rPr/rFonts")
    if font is not None:
        return attribute(font, "ascii"), 0x20
    font = run.find("rPr/sym")  # of drawings: letters are in another font
    return ("" if font is None else attribute(font, "typeface")), 0x80


def _form_field(data: Any) -> str:
    """The choice in a check box or list of an old form; its texts are ordinary runs."""
    box, choices = data.find("checkBox"), data.find("ddList")
    if box is not None:
        mark = box.find("checked")
        mark = box.find("default") if mark is None else mark
        return "☒ " if mark is not None and attribute(mark, "val", "1") not in _OFF else "☐ "
    if choices is not None:
        entries = [attribute(entry, "val") for entry in choices.iter("listEntry")]
        result = _span(data, "ddList/result", 0) or _span(data, "ddList/default", 0)
        return entries[result] if result < len(entries) else ""
    return ""


# --- equations ----------------------------------------------------------------


def equation(math: Any) -> str:
    """An equation of Office in one line: x^2, a_i, (a+b)/c, √(x)."""

    def arg(name: str) -> str:
        found = math.find(name)
        return "" if found is None else "".join(map(equation, found))

    def sign(name: str, default: str) -> str:
        found = math.find(f"{math.tag}Pr/{name}")
        return default if found is None else attribute(found, "val")

    base = arg("e")
    if math.tag in ("t", "delText"):
        return math.text or ""
    if math.tag.endswith("Pr"):
        return ""
    if math.tag == "f":
        return f"{_group(arg('num'))}/{_group(arg('den'))}"
    if math.tag in ("sSup", "sSub", "sSubSup", "sPre", "nary"):
        low, high = arg("sub"), arg("sup")
        scripts = (f"_{_group(low)}" if low else "") + (f"^{_group(high)}" if high else "")
        if math.tag == "nary":
            return f"{sign('chr', '∫')}{scripts} {base}"
        return scripts + base if math.tag == "sPre" else base + scripts
    if math.tag == "rad":
        return f"{arg('deg')}√{_group(base)}"
    if math.tag == "d":
        parts = ["".join(map(equation, part)) for part in math.findall("e")]
        return sign("begChr", "(") + sign("sepChr", "|").join(parts) + sign("endChr", ")")
    if math.tag in ("m", "eqArr"):
        rows = math.findall("mr" if math.tag == "m" else "e")
        return "; ".join(
            ", ".join("".join(map(equation, e)) for e in row.findall("e")) or equation(row)
            for row in rows
        )
    if math.tag in ("limLow", "limUpp"):
        return f"{base}{'_' if math.tag == 'limLow' else '^'}{_group(arg('lim'))} "
    if math.tag == "func":
        return f"{arg('fName')} {base}".replace("  ", " ")
    if math.tag == "acc":
        return base + sign("chr", "\u0302")
    return "".join(map(equation, math))


def _group(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() else f"({text})"


# --- charts and diagrams ------------------------------------------------------


def drawn(package: Package, part: str, *, values: bool = True) -> str:
    """Text of a chart with its values, or of a diagram (SmartArt).

    Args:
        package: The file.
        part: Name of the part of the chart or diagram.
        values: Also write the numbers; in a workbook they stand in its sheets.
    """
    tree = package.tree(part)
    lines = [
        text for title in tree.iterfind(".//title/tx/strRef") for text in _points(title).values()
    ]
    lines += Flow(package, part).blocks(tree)
    series = [*tree.iter("ser")]
    names = [" ".join(t for e in s.findall("tx") for t in _points(e).values()) for s in series]
    if not values:
        return "\n".join([*lines, *filter(None, names)])
    columns: list[dict[int, str]] = [{}]
    for one in series:
        for tag in ("cat", "xVal"):
            columns[0] |= {k: v for e in one.findall(tag) for k, v in _points(e).items()}
        columns.append(
            {k: v for t in ("val", "yVal") for e in one.findall(t) for k, v in _points(e).items()}
        )
    places = sorted({place for column in columns for place in column})
    rows = [[column.get(place, "") for column in columns] for place in places]
    lines.append(table_text([["", *names], *rows], heads=1) if rows else "")
    for data in tree.iter("data"):  # charts since 2016
        dimensions = [[p.text or "" for p in d.iter("pt")] for d in data if d.tag.endswith("Dim")]
        lines.append(table_text(list(row) for row in zip_longest(*dimensions, fillvalue="")))
    return "\n".join(filter(None, lines))


def _points(element: Any) -> dict[int, str]:
    """The stored texts or numbers of a series by place; of levels, the outer before the inner."""
    found: dict[int, str] = {}
    code = element.findtext(".//formatCode") or "General"
    for level in element.findall(".//lvl") or [element]:
        points = {
            int(attribute(point, "idx", "0")): shown(
                point.findtext("v") or "", point.get("formatCode") or code
            )
            for point in level.iter("pt")
        }
        last = ""
        for place in sorted(found.keys() | points.keys()):
            last = points.get(place, last)
            found[place] = f"{last} {found[place]}".strip() if place in found else last
    text = element.findtext("v") or "".join(t.text or "" for t in element.iter("t"))
    return found or ({0: text} if text else {})
