"""Numbers that Word shows before the paragraphs of lists, clauses and headings."""

import re
from typing import Any, NamedTuple

from hanol.retrieval.documents._lists import spelled
from hanol.retrieval.documents._markup import natural
from hanol.retrieval.documents.office._package import Package, attribute, local, value

_FORMS = {
    "lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I",
    "decimalZero": "01", "decimalEnclosedCircle": "①", "ganada": "가", "chosung": "ㄱ",
    "chineseCounting": "一", "chineseCountingThousand": "一", "japaneseCounting": "一",
    "ideographDigital": "一", "none": "",
}  # fmt: skip
_LEVEL = re.compile(r"%([1-9])")


class _Level(NamedTuple):
    start: int
    form: str
    text: str  # "%1.%2." with the numbers of the levels above


class Numbering:
    """Counts the numbered paragraphs of a Word file, asked for in order; it has styles by id."""

    def __init__(self, package: Package, styles: dict[str, Any]) -> None:
        self._styles, self._places = styles, dict[str, tuple[str, str]]()
        self._levels: dict[str, dict[int, _Level]] = {"": {}}  # by list, as they are needed
        self._counters: dict[str, str] = {}  # lists that count on: those of one definition
        self._restarts: dict[tuple[str, int], int] = {}  # by list and level
        self._counts: dict[str, dict[int, int]] = {}
        trees = [package.tree(p, bare=False) for p in package.related(package.main, "numbering")]
        self._lists = {attribute(e, "numId"): e for t in trees for e in t.iterfind("{*}num")}
        self._known = {
            attribute(e, "abstractNumId"): e for t in trees for e in t.iter("{*}abstractNum")
        }

    def _levels_of(self, name: str) -> dict[int, _Level]:
        if name in self._lists and name not in self._levels:
            element = local(self._lists[name])
            base = self._counters[name] = value(element, "abstractNumId")
            self._levels[name] = _levels(self._known.get(base, element)) | _levels(element)
            for change in element.iterfind("lvlOverride"):
                if (start := value(change, "startOverride")).isdecimal():
                    self._restarts[name, int(attribute(change, "ilvl", "0"))] = int(start)
        return self._levels.get(name, {})

    def of(self, paragraph: Any) -> str:
        """What stands before a paragraph, or ""."""
        if not self._lists:
            return ""
        name, shown = self._place(paragraph, "pPr/pStyle")
        level = natural(shown)
        found = self._levels_of(name)
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

    def _place(self, element: Any, base: str) -> tuple[str, str]:
        """Name of the list and level of a paragraph or style, or of the style that it names."""
        name, level = value(element, "pPr/numPr/numId"), value(element, "pPr/numPr/ilvl")
        style = value(element, base)
        if not name and style in self._styles:
            if style not in self._places:
                self._places[style] = "", ""  # it may be based on itself
                bare = local(self._styles[style])
                self._places[style] = self._place(bare, "basedOn")
            name, above = self._places[style]
            level = level or above
        return name, level


def _levels(parent: Any) -> dict[int, _Level]:
    found = {}
    for element in local(parent).iter("lvl"):
        form = value(element, "numFmt") or "decimal"
        found[int(attribute(element, "ilvl", "0"))] = _Level(
            natural(value(element, "start")),
            form if form == "bullet" else _FORMS.get(form, "1"),
            value(element, "lvlText"),
        )
    return found
