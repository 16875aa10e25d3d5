"""What a passage states: sentences that stand alone, named entries, rows of tables.

A text from a web page or a PDF has headings, lists and wrapped lines without any marks, so lines
are told apart by how they begin and end.
"""

import re
from calendar import month_abbr, month_name
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hanol.retrieval import Passage, split_sentences
from hanol.scoring import CITATION

_WORDS = (5, 48)  # of a sentence
_ITEM = re.compile(r"\s*(?:[-*+•·–]|\(?[a-z\d]{1,2}[.)])\s+")
_TABLE = re.compile(r"\s*\|(.*)\|\s*$")
_NUMBERS = re.compile(r"(?<!\S)[-−]?\d[\d.,]*%?(?!\S)")
# "os.getcwd()", "work_mem (integer)": what the text below it describes.
_NAME = re.compile(r"(?:class |exception )?[\w.]*[A-Za-z_][\w.-]*(?:\(.*\)| \([a-z ]+\))?¶?$")
_ENTRY = re.compile(r"([^\s:][^:\n]{1,60}): (\S.*)", re.DOTALL)
_HEADING_NUMBER = re.compile(
    r"^(?:(?:Chapter|Section|Appendix) )?(?:\d+(?:\.\d+)*[.:]?|[A-Z](?:\.\d+)+\.?)\s+(?=\S)"
)
_FORMULA = re.compile(r"[=≈∑∫≤≥∈∞^\\{}<>|~]|[\u0370-\u03ff]")
_DATE = re.compile(rf"\b(?:{'|'.join([*month_name[1:], *month_abbr[1:]])})\b .*\d{{4}}")
_INITIALS = re.compile(r"[A-Z][\w¨´’-]+,? (?:[A-Z]\.? ?){1,2}(?:,| \(|;| and )")
# References, addresses, times of a log, sessions of an interpreter, pointers to other places.
_NOISE = re.compile(
    r"(?:19|20)\d\d[.,] .*\d+[-–]\d+|doi:|https?:|\d\d:\d\d:|et al\.$|>>>|[Ss]ee |^Keywords|"
    r"^\d+ [A-Za-z]+:| [,.;](?: |$)|[,;]\.$|\b(?:Section|Figure|Chapter) \d"
)
_REFERS = re.compile(
    r"(?:It|He|She|This|These|That|Those|They|Such|Here|There|See|As|Both|Another|Other|Others|Many|"
    r"Some|So|Its|His|Her|Their|One|Each of|All of|The (?:following|above|latter|former|same|other|"
    r"second|third|next|first|previous|example)|In (?:this|these|that|such|both|the (?:following|"
    r"above|next|previous)))\b"
)
_LINKS = re.compile(
    r"(?:However|For example|For instance|Thus|Therefore|Hence|Also|Note that|Note|Moreover|"
    r"Furthermore|In addition|Additionally|In particular|Finally|Similarly|Instead|Otherwise|"
    r"Currently|By default|Usually|Generally|In general|Typically|Specifically),? "
)


@dataclass(frozen=True)
class Statement:
    """Something that a passage states.

    Args:
        text: The sentence, entry or row as it stands, with single blanks.
        core: The sentence for questions: without "However,", with the name of what "it" is.
        passage: Where it stands.
        heading: Heading above it, or "".
        item: What the paragraph describes, such as a function; of a row, the names of the
            columns; or "".
        kind: "entry" is a name and a text, "row" a row of a table.
        after: The sentence that follows in its paragraph, or "".
        is_first: Whether it is the first sentence below its heading or item.
    """

    text: str
    core: str
    passage: Passage
    heading: str = ""
    item: str = ""
    kind: Literal["sentence", "entry", "row"] = "sentence"
    after: str = ""
    is_first: bool = False

    @property
    def answer(self) -> str:
        """What a reader should say: the text, with a name in place of "it"."""
        changed = self.core.split()[:1] != self.text.split()[:1] and not _LINKS.match(self.text)
        return self.core if changed else self.text


def plain(text: str) -> str:
    """A text in one line, with numbers in square brackets in round ones, as readers see it."""
    text = re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)
    return " ".join(CITATION.sub(r"(\1)", text).replace("¶", "").split())


def statements(passage: Passage, topic: str) -> Iterator[Statement]:
    """What a passage states, in order.

    Args:
        passage: The passage.
        topic: What its document is about, if "it" and "he" mean that; else "".
    """
    title = _HEADING_NUMBER.sub("", passage.title.partition(" — ")[0])
    heading, item = (title if passage.start == 0 else ""), ""
    columns = ""
    is_first = bool(heading)
    is_cut = passage.start > 0  # the first sentence may be the end of one
    for kind, text in _blocks(passage.text):
        if kind == "heading":
            heading, item, is_first = _HEADING_NUMBER.sub("", text), "", True
        elif kind == "item":
            item, is_first = _name(text), True
        elif kind == "columns":
            columns = text
        elif kind == "row":
            yield Statement(text, text, passage, heading, columns, kind="row")
        elif (entry := _ENTRY.fullmatch(text)) and _is_entry(entry[1], entry[2]):
            yield Statement(text, text, passage, heading, kind="entry")
        else:
            found = [plain(text[span.start : span.end]) for span in split_sentences(text)]
            for number, sentence in enumerate(found):
                core = _core(sentence, item or (topic if passage.start == 0 else ""))
                if core and _stands_alone(sentence) and not (is_cut and number == 0):
                    after = found[number + 1] if number + 1 < len(found) else ""
                    yield Statement(
                        sentence, core, passage, heading, item, "sentence",
                        after if _stands_alone(after) else "", is_first,
                    )  # fmt: skip
                is_first = is_cut = False


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """The paragraphs, headings, items and rows of a text."""
    lines = [line.rstrip() for line in text.splitlines()]
    block: list[str] = []
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        after = next((each for each in lines[number + 1 :] if each), "")
        bare = line.strip()
        mark = _ITEM.match(line)
        content = line[mark.end() :].strip() if mark else bare
        row = _TABLE.match(line)
        begins = not block or mark is not None or before.endswith((".", ":", "?", "!"))
        kind = ""
        if row or (len(_NUMBERS.findall(bare)) >= 2 and len(bare) < 90 and _is_row(bare)):
            kind = "row"
        elif content and begins and _NAME.fullmatch(content) and (mark or "(" in content):
            kind = "item"
        elif bare and begins and _is_heading(content, after):
            kind = "heading"
        is_table = kind == "row"
        if is_table and block and len(block[-1].split()) < 15 and block[-1][-1] not in ".:":
            yield "columns", plain(block.pop())
        elif is_table and row and not _TABLE.match(before):
            kind = "columns"
        if block and (kind or mark or not bare):
            yield "text", "\n".join(block)
            block = []
        if is_table:
            cells = row[1].split("|") if row else [bare]
            joined = " | ".join(c.strip() for c in cells if c.strip(" -:"))
            is_noise = _DATE.search(joined) or _FORMULA.search("".join(cells))
            if len(joined) > 3 and not is_noise:
                yield kind, plain(joined)
        elif kind:
            yield kind, plain(content)
        elif content and not (mark is None and bare in "-*"):
            block.append(content)
    if block:
        yield "text", "\n".join(block)


def _name(item: str) -> str:
    """The name alone: "move()" of "move(src, dst)", "work_mem" of "work_mem (integer)"."""
    name, bracket, _ = item.removeprefix("class ").removeprefix("exception ").partition("(")
    return name.strip() + ("()" if bracket and not name.endswith(" ") else "")


def _is_heading(line: str, after: str) -> bool:
    words = line.rstrip("¶").split()
    return (
        0 < len(words) <= 9
        and line[0].isupper() | line[0].isdigit()
        and line[-1] not in ".:;,!?-"
        and sum(map(str.isalpha, line)) > len(line) / 2
        and bool(after)
        # A paragraph of a web page is one long line; a line of a PDF goes on in the next one.
        and (not after[0].islower() or (len(line) < 60 and len(after) > 120))
    )


def _is_row(line: str) -> bool:
    """Whether a line is a label and its numbers."""
    label = _NUMBERS.sub("", line).split()
    numbers = len(_NUMBERS.findall(line))
    return 1 <= len(label) <= 6 and numbers >= len(label) / 2 and line[0].isalpha()


def _is_entry(name: str, text: str) -> bool:
    return (
        len(name.split()) <= 7
        and len(text.split()) <= 40
        and ". " not in text
        and "\n" not in name
        and not _REFERS.match(name)
        and "://" not in name
        and not text.startswith(("See ", "see "))
    )


def _stands_alone(sentence: str) -> bool:
    """Whether a sentence can be quoted as an answer."""
    solid = sentence.replace(" ", "")
    return (
        _WORDS[0] <= len(sentence.split()) <= _WORDS[1]
        and sentence.endswith(".")
        and not sentence.endswith("..")
        and (sentence[0].isupper() or sentence[0].isdigit() or sentence[0] in "\"“'(`")
        and sentence.count("(") == sentence.count(")")
        and sentence.count('"') % 2 == 0
        and sum(map(str.isalpha, solid)) > 0.7 * len(solid)
        and len(_FORMULA.findall(sentence)) < 2
        and len(_INITIALS.findall(sentence)) < 2  # a list of references
        and not _NOISE.search(sentence)
    )


_PRONOUN = re.compile(
    r"(?:It|He|She|This (?:function|method|option|parameter|setting|command|module|class|article|"
    r"exception|attribute|variable|type|program|package|view|operator|property))(?= )"
    r"(?! seems| follows| turns out| (?:is|was|may be|can be|would be) (?:\w+ )?(?:necessary|"
    r"possible|important|recommended|easy|clear|common|useful|likely|known|best|worth|true|hard|"
    r"difficult|assumed|good|better|impossible|sufficient|convenient|up to|because|not)\b)"
)
_OWN = re.compile(r"(?:Its|His|Her)(?= )")


def _core(sentence: str, name: str) -> str:
    """The sentence for questions; "" where nobody knows what it refers to."""
    core = _LINKS.sub("", sentence, count=1) if _LINKS.match(sentence) else sentence
    core = core[:1].upper() + core[1:]
    if name:
        core = _PRONOUN.sub(lambda _: name, core, count=1) if _PRONOUN.match(core) else core
        core = _OWN.sub(lambda _: f"{name}'s", core, count=1) if _OWN.match(core) else core
    return "" if _REFERS.match(core) else core
