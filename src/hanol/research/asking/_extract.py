"""The sentences of passages that answer a question best, without a model.

A sentence scores by the question's words that it holds, rare ones for more, compared as stems. Its
heading, its neighbours and the title of its document count for less: they say what it is about. A
row of a table is a sentence whose neighbour is the table's head.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hanol.retrieval import Index, Passage, split_sentences, word_stems

_ROW_NUMBERS = 3  # numbers in a line that make it a row
_NAMED = re.compile(r"[^:;.!?。]{1,60}: \S")  # a cell with the name of its column
_LINE, _STOP = re.compile(r".+"), re.compile(r"[.!?…。！？]")
_TITLE = 100  # characters
_ENDS = re.compile(r"[.!?:;,。…]['\")\]’”]*$|^[#|>*-]")  # a sentence, or another mark of Markdown
_SAYS = re.compile(rf"{_ENDS.pattern}|[\d:;]")  # what no heading has
_WRAPPED = 120  # most characters of a line of a text whose lines are broken at a margin
_LONG = 320  # characters of two sentences that are read at ease
_REFERS = re.compile(
    r"(?:It|Its|They|Their|He|His|She|Her|This|That|These|Those|Such)\b|이(?:는|를|것|들|로써)|"
    "그(?:는|들|것|녀)|이러한|그러한"
)

FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)  # of code in Markdown
_HEADING = re.compile(r"#{1,6} .*")
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|often|large|big|high|fast|accurate)\b|\bwhen\b|"
    r"\bnumber of\b|"
    r"\b(?:what|which) (?:\w+ ){0,2}?(?:year|percent\w*|share|number|size|score|accuracy|price|"
    r"rate|ratio|amount|date|latency|cost|speed)\b|몇|얼마",
    re.IGNORECASE,
)
_NUMBER_WORD = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:twen|thir|for|fif)ty|"
    r"hundred|thousand|million|half|twice|once|double|triple)\b|절반|다섯|여섯|일곱|여덟|아홉|"
    r"(?<![가-힣])(?:한|두|세|네|열|열한|열두|스무) ?(?:개|명|번|배|시|권|마리|달|살|주|가지|사람)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_NAME = re.compile(r"(?<!^)(?<![.!?:] )\b[A-Z]\w*")
# An option, a variable; "floor 2", where the 2 alone says little; a number.
_KEY = re.compile(
    r"(?<![\w-])--?[a-z][\w-]*|\b[a-z]\w*_\w+|"
    r"\b[a-z]{4,} \d\d?(?![\d.])|\d\d?[층호번장조권월회과절]"
)
_DIGITS = re.compile(r"(?<![a-z\d])\d+", re.IGNORECASE)
_SPELLED = 12  # numbers up to this may be words in a text
_YEAR = re.compile(r"(?:19|20)\d\d")
_COUNTED = re.compile(
    r"\bhow many (?!(?:\w*seconds|minutes|hours|days|weeks|months|years|percent\w*|times|people|"
    r"\w*bytes|\w*met(?:re|er)s|miles|\w*grams?|euros?|dollars?|of)\b)(\w+)|"
    r"\bd(?:oes|o|id) (?:.* )?(\w+) cost\b",
    re.IGNORECASE,
)
_ASKS_PRICE = re.compile(
    r"\bcosts?\?|\bhow much do(?:es)? .* cost\b|(?:값|가격|[요비]금|료|비용)[은는이가]? 얼마"
)
_ASKS_MOST = re.compile(
    r"\b(?:(?:long|short|larg|bigg|small|high|low|tall|deep|wid|old|young|new|lat|earli|cheap|fast|"
    r"slow|heavi|light|great|few|strong|weak|near|clos)est|most|least)\b|가장|제일",
    re.IGNORECASE,
)
_ASKS_WHAT_IS = re.compile(
    r"\b(?:is|are|was|were) (?:the |an? |our |your )?(\w[\w' -]*?)\s*\?*$", re.IGNORECASE
)
_PRICE = re.compile(
    r"[$€£¥₩]|\b(?:euros?|dollars?|cents?|pounds?|EUR|USD|GBP|KRW)\b|\d ?[천만억]? ?원|달러|유로"
)


@dataclass(frozen=True)
class Unit:
    """A sentence, or a row of a table, with the words around it."""

    passage: Passage
    rank: int  # of its passage, from 0
    order: int  # in its passage
    opens: bool  # a paragraph or item
    is_row: bool  # of a table
    lead: str  # the sentence before, if this one refers to it
    before: str  # what it must be read with: the head of its table, or the sentence before
    text: str
    stems: frozenset[str]  # of both
    around: frozenset[str]  # of its heading, its neighbours and the title
    keys: frozenset[str]  # numbers, years and options that it may be about

    @property
    def source(self) -> str:
        """The sentence as it stands there, with the one that it refers to."""
        return f"{self.lead} {self.text}".lstrip()

    @property
    def quote(self) -> str:
        """The same; of a row of a table each cell with the name of its column."""
        names, cells = (part.strip(" |").split(" | ") for part in (self.before, self.text))
        if not self.before.startswith("|") or len(names) != len(cells):
            return self.source
        return ", ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=True))

    @property
    def told(self) -> frozenset[str]:
        """Stems of what it tells: a row also what its table is about."""
        return self.stems | self.around if self.is_row else self.stems

    def follows(self, other: "Unit") -> bool:
        """Whether it goes on from another one."""
        return self.passage is other.passage and self.order == other.order + 1 and not self.opens

    def after(self, *others: "Unit") -> "Unit":
        """The unit without a sentence before it that those before it are or have."""
        is_said = any(self.lead in (one.text, one.lead) for one in others)
        return replace(self, lead="") if is_said else self

    def repeats(self, other: "Unit") -> bool:
        """Whether it says nothing more than another one."""
        return self.text in f"{other.lead} {other.text}" or other.text in self.text


class _Part(NamedTuple):
    kind: Literal["heading", "head", "row", "sentence"]  # head: of a table
    text: str
    opens: bool = True  # a paragraph or item


def units_of(passages: Sequence[Passage]) -> list[Unit]:
    """The sentences and rows of passages, those that overlap once.

    A sentence that begins with "it" and the like comes with the one before it.
    """
    found: dict[tuple[str, int | None, str], Unit] = {}
    for rank, passage in enumerate(passages):
        head = before = ""
        heading, text = _title_of(passage)
        titled = keys_of(f"{passage.title} {heading}")
        about = titled
        # Documents with pages are broken at margins of any width.
        pieces = list(_pieces(_in_blocks(text) if passage.page is None else text))
        for i, (kind, text, opens) in enumerate(pieces):
            if kind == "heading":
                heading, head, before = text, "", ""
                about = _said(keys_of(text), titled)
                continue
            if kind == "head":
                head = text
                continue
            if kind == "sentence" and not any(map(str.isalpha, text)):
                continue  # the number of a page
            following = pieces[i + 1 : i + 2]
            after = following[0].text if following and following[0].kind == kind else ""
            around = (head,) if kind == "row" else (before, after)
            refers = _REFERS.match(text) and len(before) + len(text) < _LONG
            lead = before if refers and kind == "sentence" else ""
            own = _stems(f"{lead} {text}")
            near = _stems(" ".join((passage.title, heading, *around)))
            lean = head if kind == "row" else before
            about = _said(keys_of(text), about)
            unit = Unit(
                passage, rank, i, opens, kind == "row", lead, lean, text, own, near - own, about
            )  # fmt: skip
            found.setdefault((passage.document, passage.page, text), unit)
            before = text
            if kind == "sentence":
                head = text  # of a table without rules, in plain text
    return list(found.values())


def keys_of(text: str) -> frozenset[str]:
    """The numbers, years, options and the like that a text names.

    Example:
        >>> sorted(keys_of("In 2019 the option --max-count cost 1,450 euros on floor 2."))
        ['--max-count', '1450', '2', '2019', 'floor 2']
    """
    text = _THOUSANDS.sub("", text.lower())
    return frozenset([*_KEY.findall(text), *_DIGITS.findall(text)])


def _kind(key: str) -> str:
    """Of keys of one kind, each replaces the one before; "" for numbers, which don't."""
    if key.isdecimal():
        return "year" if _YEAR.fullmatch(key) else ""
    return key.strip("0123456789") if key[0].isdecimal() or " " in key else "option"


def _said(own: frozenset[str], before: frozenset[str]) -> frozenset[str]:
    """What a sentence may be about: what it names, and what was named before and not replaced."""
    kinds = set(map(_kind, own)) - {""}
    return own | {key for key in before if _kind(key) not in kinds}


def _title_of(passage: Passage) -> tuple[str, str]:
    """The line over a document, or none, and the text of a passage without it."""
    line, _, rest = passage.text.partition("\n")
    alone = rest.startswith("\n") and len(line) < _TITLE and not _ENDS.search(line)
    begins = passage.start == 0 and passage.page in (None, 1)
    is_title = begins and (alone or line.strip() == passage.title)
    return (line.strip(), rest) if rest.strip() and is_title else ("", passage.text)


def _in_blocks(text: str) -> str:
    """A text whose lines are paragraphs, as those of web pages are, with its headings marked."""
    lines = text.splitlines()
    if FENCE.search(text) or max(map(len, lines), default=0) <= _WRAPPED:
        return text
    parts: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        is_heading = 0 < len(line) < _TITLE and after and not _SAYS.search(line)
        parts += [f"# {line}" if is_heading else line, "\n" if line.startswith("|") else "\n\n"]
    return "".join(parts)


def _pieces(text: str) -> Iterator[_Part]:
    # no sentence ends inside of a row
    whole = _LINE.sub(lambda m: _STOP.sub("x", m[0]) if _is_named(m[0]) else m[0], text)
    for span in split_sentences(whole):
        piece = FENCE.sub("", text[span.start : span.end])
        if _HEADING.fullmatch(piece.strip()):
            yield _Part("heading", piece.strip(" #\n"))
            continue
        if span.kind in ("heading", "table_head"):
            yield _Part("heading" if span.kind == "heading" else "head", " ".join(piece.split()))
            continue
        if piece.lstrip().startswith("|"):
            yield _Part("row", " ".join(piece.strip(" |").split()))
            continue
        opens, prose = span.starts_block, ""
        for line in [*piece.splitlines(), ""]:
            is_row = _is_named(line) or (_is_row(line) and "\n" in piece)
            if prose and (is_row or not line.strip()):
                for part in _parts(prose):
                    yield _Part("sentence", part, opens)
                    opens = False
                prose = ""
            if is_row:
                yield _Part("row", " ".join(line.split()))
                opens = True
            else:
                prose = f"{prose}\n{line}"


def _parts(text: str) -> Iterator[str]:
    """A sentence; one that is too long, because it has no full stops, in groups of its lines."""
    part = ""
    for line in text.splitlines():
        if len(text) > 2 * _LONG and part and len(part) + len(line) > _LONG:
            yield part
            part = ""
        part = f"{part} {' '.join(line.split())}".strip()
    if part:
        yield part


def _is_named(line: str) -> bool:
    """Whether a line is a row of a table as the readers write it: "Name: Pen; Price: 1.50"."""
    cells = line.split("; ")
    return 2 * sum(map(bool, map(_NAMED.match, cells))) > max(2, len(cells))


def _is_row(line: str) -> bool:
    words = line.split()
    numbers = sum(any(map(str.isdigit, word)) and not word[0].isalpha() for word in words)
    return numbers >= _ROW_NUMBERS and 2 * numbers >= len(words)


def _stems(text: str) -> frozenset[str]:
    return frozenset(part for _, stem in word_stems(text) for part in stem)


class Weights:
    """The words of a question, and how much each counts: its idf in the index."""

    def __init__(self, question: str, index: Index) -> None:
        words = dict(word_stems(question))
        total = max(1, sum(info.passages for info in index.documents()))
        self._words: list[tuple[tuple[str, ...], float]] = []
        names = {name.lower() for name in _NAME.findall(question)}
        self._keys = {k for k in keys_of(question) if not k.isdecimal() or int(k) > _SPELLED}
        self._is_strange = False
        for word, stem in words.items():
            # Pairs of characters that no passage has are endings, unless the first one is.
            counts = index.passage_counts(stem if len(stem) > 1 else [word])
            count = min(filter(None, counts), default=0) if counts[0] else 0
            self._words.append((stem, math.log(1 + total / (count + 1))))
            self._is_strange |= not count and word in names
        self.total = sum(weight for _, weight in self._words)
        counted = _COUNTED.search(question)
        self._counted = _stems(counted[1] or counted[2]) if counted else frozenset[str]()
        self._most = set(_ASKS_MOST.findall(question.lower()))
        asked = _ASKS_WHAT_IS.search(question)
        self._tells = re.compile(
            rf"\b{re.escape(asked[1])} (?:is|are|was|were)\b" if asked else r"(?!)", re.IGNORECASE
        )
        self._asks_price = _ASKS_PRICE.search(question) is not None
        self.asks_number = self._asks_price or _ASKS_NUMBER.search(question) is not None
        self._numbers = set(_NUMBER.findall(question))

    def of(self, stems: frozenset[str]) -> float:
        """Weight of the question's words among some stems; of a part of a word, its share."""
        return sum(
            weight * sum(part in stems for part in stem) / len(stem) for stem, weight in self._words
        )

    def tells(self, unit: Unit) -> bool:
        """Whether a sentence says "the rent is" where the question is "what is the rent"."""
        return self._tells.search(unit.text) is not None

    def about(self, units: Sequence[Unit]) -> list[Unit]:
        """Those that may be about the question's numbers, years and options; none without them.

        All of them where each key is named, but nowhere together.
        """
        if self._is_strange:
            return []
        if self._most:  # no row says how it compares to the others
            units = [u for u in units if not u.is_row or self._most <= set(u.text.lower().split())]
        named = frozenset[str]().union(*(unit.keys for unit in units))
        kinds = set(map(_kind, named))
        keys = set()
        for key in self._keys:
            # "Step 2" may be "the second step", where no step has another number.
            may_be_in_words = _kind(key) not in {"", "year", "option", *kinds}
            if key in named:
                keys.add(key)
            elif not may_be_in_words and not named.issuperset(_DIGITS.findall(key) or [key]):
                return []
        kept = [unit for unit in units if keys <= unit.keys]
        others = [unit for unit in units if not keys <= unit.keys]
        words = [(weight, stem) for stem, weight in self._words if not stem[0].isdecimal()]
        if kept and words and self._holds(others, max(words)[1]):
            return kept if self._holds(kept, max(words)[1]) else []  # it has other numbers
        return kept or list(units)

    def _holds(self, units: Sequence[Unit], stem: tuple[str, ...]) -> bool:
        return any(part in unit.stems | unit.around for unit in units for part in stem)

    def may_answer(self, unit: Unit) -> bool:
        """Whether a sentence has a number of what is asked for that the question does not have."""
        text = unit.quote
        return not self.asks_number or (
            self._counted <= unit.stems | unit.around
            and (not self._asks_price or _PRICE.search(text) is not None)
            and (
                not self._numbers.issuperset(_NUMBER.findall(text))
                or _NUMBER_WORD.search(text) is not None
            )
        )


# How much of a sentence's score a word is worth that stands in the title, the heading or a
# neighbour; what a text of twice the usual length loses; what a number is worth where one is asked
# for; what each place of its passage in the search loses; what similarity in meaning adds. Chosen,
# as the shares below, on the tune half of the benchmark's questions.
_AROUND, _LENGTH, _NUMERIC, _RANK, _MEANING = 0.4, 0.05, 0.1, 0.15, 1.0
_TELLS = 0.1  # what it is worth that "the rent is" answers "what is the rent"
# A further sentence needs this share of the best score: one that holds words of the question that
# those before lack, and one that follows one of them.
_ALSO, _NEXT = 0.6, 0.25
_NEW = 0.1  # share of the question's words that is new
ENOUGH = 0.8  # fit from which sentences of the documents are an answer


class Candidates:
    """The sentences that a search found for a question, and how well each fits.

    Attributes:
        units: The sentences.
        scores: Of each, by words and, where the index has an embedder, by meaning.
        fit: How well the documents fit the question by words alone: the share of its words, rare
            ones for more, that the passages hold together, and the score of the best sentence that
            may answer it: one with a number, where one is asked for.
        is_foreign: Whether the sentence nearest in meaning is in another script than the question,
            so that words cannot agree; the scores are its similarities then.
    """

    def __init__(self, question: str, passages: Sequence[Passage], index: Index) -> None:
        self._weights = weights = Weights(question, index)
        found = units_of(passages) if weights.total else []
        about = weights.about(found)
        self.units = about or found
        self.scores, self.fit, self.is_foreign = list[float](), 0.0, False
        if self.units:
            texts = [unit.quote for unit in self.units]  # a row of numbers means nothing alone
            near = index.similarities(question, texts)
            words = _word_scores(self.units, weights)
            self.scores = words if near is None else _with_meaning(words, near)
            read = frozenset[str]().union(*(unit.stems | unit.around for unit in self.units))
            pairs = zip(words, self.units, strict=True)
            best = max((score for score, unit in pairs if weights.may_answer(unit)), default=0.0)
            if about and best:
                self.fit = weights.of(read) / weights.total + best
            if near is not None and self.fit < ENOUGH:
                others = [_is_latin(text) is not _is_latin(question) for text in texts]
                self.is_foreign = others[near.index(max(near))]
                if self.is_foreign:
                    self.scores = [s if o else -1.0 for s, o in zip(near, others, strict=True)]

    def adds(self, unit: Unit, held: frozenset[str]) -> bool:
        """Whether a sentence holds words of the question that others, by their stems, lack."""
        return self._weights.of(unit.stems - held) > _NEW * self._weights.total

    def best(self, most: int = 3) -> tuple[Unit, ...]:
        """The best sentences, best first.

        A further one comes along where it is nearly as good as the first and holds words of the
        question that those before it lack, or where it goes on from one of them.
        """
        if not self.units:
            return ()
        ranked = sorted(zip(self.scores, self.units, strict=True), key=lambda entry: -entry[0])
        top, best = ranked.pop(0)
        chosen, held = [best], best.told
        while ranked and len(chosen) < most:
            for score, unit in ranked:
                goes_on = score >= _NEXT * top and any(map(unit.follows, chosen))
                if goes_on or (score >= _ALSO * top and self.adds(unit, held)):
                    chosen.append(unit)
                    held |= unit.told
                    break
            else:
                break
            ranked = [(s, one) for s, one in ranked if not any(map(one.repeats, chosen))]
        return tuple(unit.after(*chosen[:i]) for i, unit in enumerate(chosen))


def _is_latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return 2 * sum(c < "\u0250" for c in letters) >= len(letters)


def _word_scores(units: Sequence[Unit], weights: Weights) -> list[float]:
    usual = sum(len(unit.stems) for unit in units) / len(units)
    found = []
    for unit in units:
        words = weights.of(unit.stems | unit.keys) + _AROUND * weights.of(unit.around)
        words /= weights.total
        words /= 1 + _LENGTH * max(0.0, len(unit.stems) / usual - 1)
        if weights.asks_number and weights.may_answer(unit):
            words *= 1 + _NUMERIC
        if weights.tells(unit):
            words *= 1 + _TELLS
        found.append(words * (1 - _RANK * unit.rank))
    return found


def _with_meaning(words: Sequence[float], near: Sequence[float]) -> list[float]:
    low, span = min(near), max(near) - min(near)
    return [w + _MEANING * (n - low) / (span or 1.0) for w, n in zip(words, near, strict=True)]
