"""Text of Word and of drawings: paragraphs, tables, equations, symbols, charts, diagrams."""

from collections.abc import Callable, Collection, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hanol.retrieval.documents._mail import read_eml
from hanol.retrieval.documents._markup import natural, read_html
from hanol.retrieval.documents._remarks import hidden, remark
from hanol.retrieval.documents.office._metafile import metafile_text
from hanol.retrieval.documents.office._numbers import shown
from hanol.retrieval.documents.office._package import Package, attribute, is_on, relation, value
from hanol.retrieval.documents.tables._cells import Cell, Row
from hanol.retrieval.documents.tables._lines import table_text

_WIDEST = 1000  # columns; a broken span would go on for ever
# Deleted text, and what stands a second time for old programs.
_HIDDEN = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "delInstrText", "rt"))

_FONTS = {  # of their own: the code of a letter shows a picture
    name: {int(sign[:2], 16): sign[2] for sign in signs.split()}
    for line in Path(__file__).with_name("symbols.txt").read_text("utf-8").splitlines()[1:]
    for name, _, signs in (line.partition(": "),)
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
        unseen: Styles whose text is hidden.
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
        unseen: Collection[str] = (),
        values: bool = True,
    ) -> None:
        self._package, self._end, self._numbered = package, end, numbered
        self._related = package.related(part)
        self._headings, self._remarks = headings or {}, remarks or {}
        self._values, self._unseen = values, unseen
        self._pending: list[str] = []
        self._depth = 0  # of tables

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables in order, each followed by the remarks and charts in it."""
        for element in parent:
            if element.tag == "p":
                number, style = self._numbered(element), value(element, "pPr/pStyle")
                if text := "".join(self._pieces(element)).strip():
                    level = self._headings.get(style, 0)
                    if style in self._unseen:
                        hidden("has hidden text")
                    yield " ".join(filter(None, ("#" * level, number, text)))
            elif element.tag == "tbl":
                if text := self._table(element):
                    yield text
            elif element.tag == "altChunk":
                yield self._imported(self._related.get(relation(element), ""))
            elif element.tag not in _HIDDEN or element.find("oleObj") is not None:
                self._show(element)
                yield from self.blocks(element)
            if not self._depth:  # else behind the table
                waiting, self._pending = self._pending, []
                yield from waiting

    def _pieces(self, parent: Any) -> Iterator[str]:
        for element in parent:
            tag = element.tag
            number = tag == "fld" and attribute(element, "type") == "slidenum"
            if tag in _HIDDEN or tag.endswith("Pr") or number:
                continue
            if tag == "t":
                yield self._letters(parent, element.text or "")
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
                if tag == "txbxContent":
                    yield self._end
                yield from self._pieces(element)
                if tag in ("p", "oMathPara"):
                    yield self._end

    def _table(self, table: Any) -> str:
        heads, rows = 0, []
        above: dict[int, str] = {}
        for place, element in enumerate(own(table, "tr")):
            if heads == place and is_on(element, "trPr/tblHeader"):
                heads += 1
            rows.append(self._row(element, above))
        return table_text(rows, heads=heads)

    def _row(self, element: Any, above: dict[int, str]) -> Row:
        row: list[str | None] = [""] * _span(element, "trPr/gridBefore", 0)
        for cell in own(element, "tc"):
            if _merged(cell, "hMerge"):  # Word writes a span in two ways, PowerPoint in this one
                row.append(None)
                continue
            start = len(row)
            if _merged(cell, "vMerge"):
                row.append(Cell(above.get(start, ""), below=True))
            else:
                headings, self._headings = self._headings, {}
                self._depth += 1
                text = " ".join(self.blocks(cell))
                self._depth -= 1
                self._headings = headings
                above[start] = text
                row.append(Cell(text, strong=_is_strong(cell)))
            row += [None] * (_span(cell, "tcPr/gridSpan", 1) - 1)
        return row

    def _imported(self, part: str) -> str:
        """Text of a web page that Word would take in when it opens the file."""
        if part.endswith((".mht", ".mhtml")):
            return read_eml(self._package.read(part))[1][0]
        if part.endswith((".html", ".htm", ".xhtml")):
            return read_html(self._package.read(part), whole=True)[1]
        remark("is not read", "open the file in Word and save it again", part=part)
        return ""

    def _letters(self, run: Any, text: str) -> str:
        """The text of a run in its font."""
        font, least = "", 0x80
        for mark in run.iterfind("rPr/*"):
            if mark.tag == "rFonts":
                font, least = attribute(mark, "ascii"), 0x20
            elif mark.tag == "sym":  # of drawings: letters are in another font
                font = font or attribute(mark, "typeface")
            elif text.strip() and (
                is_on(mark, "@val", "1")
                if mark.tag == "vanish"
                else mark.tag == "rStyle" and attribute(mark, "val") in self._unseen
            ):
                hidden("has hidden text")
        return _symbols(text, font, least)

    def _show(self, element: Any) -> None:
        """Put the text of a chart, diagram or drawn picture behind the present block."""
        if element.tag in ("chart", "relIds", "blip", "imagedata") and (key := relation(element)):
            name = self._related.get(key, "")
            if element.tag in ("blip", "imagedata"):
                text = picture_text(self._package, name)
            else:
                text = drawn(self._package, name, values=self._values) if name else ""
            self._pending += filter(None, [text])


def picture_text(package: Package, name: str) -> str:
    """What is written in a picture that is drawn by Windows."""
    drawn = name.lower().endswith((".emf", ".wmf"))
    return metafile_text(package.read(name), _symbols) if drawn else ""


def own(parent: Any, tag: str) -> Iterator[Any]:
    """The rows of a table or cells of a row, which content controls may hold."""
    for element in parent:
        if element.tag == tag:
            yield element
        elif element.tag not in ("tbl", "tr", "tc", "del", "Fallback"):
            yield from own(element, tag)


def _span(element: Any, path: str, least: int) -> int:
    return min(natural(value(element, path), least), _WIDEST)


def _merged(cell: Any, name: str) -> bool:
    """Whether a cell only continues the one above (vMerge) or to the left (hMerge)."""
    mark = cell.find(f"tcPr/{name}")
    if mark is not None:
        return attribute(mark, "val", "continue") == "continue"
    return is_on(cell, f"@{name}")


def _is_strong(cell: Any) -> bool:
    """Whether all text of a cell is bold, or its ground is coloured."""
    shade = cell.find("tcPr/shd")
    if shade is not None and attribute(shade, "fill", "auto").lower() not in ("auto", "ffffff"):
        return True
    styles = [run.find("rPr") for run in cell.iter("r") if any(t.text for t in run.iter("t"))]
    return bool(styles) and all(s is not None and (is_on(s, "@b") or is_on(s, "b")) for s in styles)


def _form_field(data: Any) -> str:
    """The choice in a check box or list of an old form; its texts are ordinary runs."""
    box = data.find("checkBox")
    if box is not None:
        name = "default" if box.find("checked") is None else "checked"
        return "☒ " if is_on(box, name) else "☐ "
    entries = [attribute(entry, "val") for entry in data.iterfind("ddList//listEntry")]
    result = _span(data, "ddList/result", 0) or _span(data, "ddList/default", 0)
    return "".join(entries[result : result + 1])


# --- equations ----------------------------------------------------------------


def equation(math: Any) -> str:
    """An equation of Office in one line: x^2, a_i, (a+b)/c, √(x)."""

    def arg(name: str) -> str:
        found = math.find(name)
        return "" if found is None else "".join(map(equation, found))

    def sign(name: str, default: str) -> str:
        return value(math, f"{math.tag}Pr/{name}", default)

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
    """Text of a diagram (SmartArt) or chart with its values, which a workbook has in its sheets."""
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
