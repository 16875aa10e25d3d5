"""Numbers that Word shows before the paragraphs of lists, clauses and headings."""

import re
from typing import Any, NamedTuple

from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents.office._package import Package, attribute

_FORMS = {
    "lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I",
    "decimalZero": "01", "decimalEnclosedCircle": "①", "ganada": "가", "chosung": "ㄱ",
    "chineseCounting": "一", "chineseCountingThousand": "一", "japaneseCounting": "一",
    "ideographDigital": "一", "none": "",
}  # fmt: skip
_CHAIN = 10  # styles that are based on one another
_LEVEL = re.compile(r"%([1-9])")


class _Level(NamedTuple):
    start: int
    form: str
    text: str  # "%1.%2." with the numbers of the levels above


class Numbering:
    """Counts the numbered paragraphs of a Word file, which are asked for in order.

    Args:
        package: The file.
    """

    def __init__(self, package: Package) -> None:
        self._levels: dict[str, dict[int, _Level]] = {}  # by list
        self._counters: dict[str, str] = {}  # lists that count on: those of one definition
        self._restarts: dict[tuple[str, int], int] = {}  # by list and level
        self._counts: dict[str, dict[int, int]] = {}
        self._styles = {
            attribute(style, "styleId"): style
            for part in package.related(package.main, "styles")
            for style in package.tree(part).iter("style")
        }
        for part in package.related(package.main, "numbering"):
            tree = package.tree(part)
            known = {attribute(e, "abstractNumId"): _levels(e) for e in tree.iter("abstractNum")}
            for element in tree.iterfind("num"):
                name, base = attribute(element, "numId"), _value(element, "abstractNumId")
                self._counters[name] = base
                self._levels[name] = known.get(base, {}) | _levels(element)
                for change in element.iterfind("lvlOverride"):
                    if (start := _value(change, "startOverride")).isdecimal():
                        self._restarts[name, int(attribute(change, "ilvl", "0"))] = int(start)

    def of(self, paragraph: Any) -> str:
        """What stands before a paragraph, or ""."""
        name, level = self._place(paragraph)
        found = self._levels.get(name, {})
        if level not in found:
            return ""
        counts = self._counts.setdefault(self._counters[name], {})
        count = counts.get(level, found[level].start - 1) + 1
        counts[level] = self._restarts.pop((name, level), count)
        for deeper in [key for key in counts if key > level]:
            del counts[deeper]

        def number(match: re.Match[str]) -> str:
            at = int(match[1]) - 1
            one = found.get(at, _Level(1, "1", ""))
            return spelled(counts.get(at, one.start), one.form)

        return "" if found[level].form == "bullet" else _LEVEL.sub(number, found[level].text)

    def _place(self, paragraph: Any) -> tuple[str, int]:
        """Name of the list and level, by the paragraph or by its style."""
        name, level, element = "", "", paragraph
        for _ in range(_CHAIN):
            name = name or _value(element, "pPr/numPr/numId")
            level = level or _value(element, "pPr/numPr/ilvl")
            style = _value(element, "basedOn" if element.tag == "style" else "pPr/pStyle")
            if name or style not in self._styles:
                break
            element = self._styles[style]
        return name, int(level) if level.isdecimal() else 0


def _levels(parent: Any) -> dict[int, _Level]:
    found = {}
    for element in parent.iter("lvl"):
        start, form = _value(element, "start"), _value(element, "numFmt") or "decimal"
        found[int(attribute(element, "ilvl", "0"))] = _Level(
            int(start) if start.isdecimal() else 0,
            form if form == "bullet" else _FORMS.get(form, "1"),
            _value(element, "lvlText"),
        )
    return found


def _value(element: Any, path: str) -> str:
    found = element.find(path)
    return "" if found is None else attribute(found, "val")
