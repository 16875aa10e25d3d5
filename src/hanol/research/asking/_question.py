"""What a question asks for: words, numbers, years, options, a price, a count."""

import math
import re
from collections.abc import Sequence

from hanol.research.asking._units import DIGITS, Unit, keys_of, kind_of, stems_of
from hanol.retrieval import Index, word_stems

_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|old|far|often|large|big|high|fast|accurate)\b|"
    r"\bhow (?:deep|wide|tall|thick)\b|\bwhen\b|"
    r"\bnumber of\b|"
    r"\b(?:what|which) (?:\w+ ){0,2}?(?:year|percent\w*|share|number|size|score|accuracy|price|"
    r"rate|ratio|amount|date|latency|cost|speed)\b|몇|며칠|얼마",
    re.IGNORECASE,
)
NUMBER_WORD = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:twen|thir|for|fif)ty|"
    r"hundred|thousand|million|half|twice|once|double|triple)\b|절반|다섯|여섯|일곱|여덟|아홉|"
    r"(?<![가-힣])(?:한|두|세|네|열|열한|열두|스무) ?(?:개|명|번|배|시|권|마리|달|살|주|가지|사람)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NAME = re.compile(r"(?<!^)(?<![.!?:] )\b[A-Z]\w*")
_SPELLED = 12  # numbers up to this may be words in a text
_COUNTED = re.compile(
    r"\bhow many (?!(?:\w*seconds|minutes|hours|days|weeks|months|years|percent\w*|times|people|"
    r"\w*bytes|\w*met(?:re|er)s|miles|\w*grams?|euros?|dollars?|of)\b)(\w+)|"
    r"\bd(?:oes|o|id) (?:.* )?(\w+) cost\b",
    re.IGNORECASE,
)
_ASKS_PRICE = re.compile(
    r"\bcosts?\?|\bhow much do(?:es)? .* cost\b|(?:값|가격|[요비]금|료|비용)[은는이가]? 얼마"
)
# "14 Harbour Street" says nothing of how deep a harbour is.
_ASKS_SIZE = re.compile(r"\bhow (?:deep|wide|tall|thick)\b", re.IGNORECASE)
_SIZE = re.compile(
    r"\d ?-?(?:[a-z]|[가-힣])|\b(?:deep|wide|tall|thick|depth|width|height|thickness)\b|"
    rf"(?i:{NUMBER_WORD.pattern}) [a-z]"
)
# "Two heads" says nothing of how many days something takes.
_ASKS_TIME = re.compile(
    r"\bhow many (?:\w*seconds|minutes|hours|days|weeks|months|years)\b|"
    r"며칠|몇 ?(?:초|시간|일|주|달|개월|년|해)(?![가-힣]*째)",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(?:\w*seconds?|minutes?|hours?|days?|weeks?|months?|years?|\d+ ?(?:s|ms|min|h|d))\b|"
    r"초|분|시간|일|주|달|개월|년|해|하루|이틀|사흘|나흘|닷새|보름",
    re.IGNORECASE,
)
# What is asked for by "which", but need not stand in the answer: "the old bridge is red".
_ASKS_WHICH = re.compile(
    r"\bwhich (?!(?:colou?r|size|shape|material|da(?:y|te)|year|month|time|hour|place|city|town|"
    r"country|street|address|language|number|price|person|people|man|woman|name|kind|type|sort|way|"
    r"part|thing|side|direction|party|animal|food|of)s?\b)(\w+) (?:is|are|was|were)\b",
    re.IGNORECASE,
)
_ASKS_COMPOUND = re.compile(r"\b(?:the|an?|our|your) ([a-z]+) ([a-z]{3,})\s*\?*$")
_FUNCTION = (
    r"is|are|was|were|be|been|has|have|had|does|do|did|of|in|on|at|by|to|for|from|with|and|or|but|"
    r"that|which|who|when|where|after|before|until|than|as|must|may|can|will|not|cost|costs"
)
_TURN = re.compile(r"\b(?:next|last|first|previous|final|latest) \w+", re.IGNORECASE)
_ASKS_MOST = re.compile(
    r"\b(?:(?:long|short|larg|bigg|small|high|low|tall|deep|wid|old|young|new|lat|earli|cheap|fast|"
    r"slow|heavi|light|great|few|strong|weak|near|clos)est|most|least)\b|가장|제일",
    re.IGNORECASE,
)
_ASKS_WHAT_IS = re.compile(
    r"\b(?:is|are|was|were) (?:the |an? |our |your )?(\w[\w' -]*?)\s*\?*$", re.IGNORECASE
)
_PRICE = re.compile(
    r"[$€£¥₩]|(?i:\b(?:euros?|dollars?|cents?|pence|pounds?|francs?|kron\w+|yen|yuan|won|rupees?|"
    r"pesos?|lira|z[łl]oty|forints?)\b)|\b[A-Z]{3} ?\d|\d ?[A-Z]{3}\b|\d ?[천만억]? ?원|달러|유로|"
    r"(?i:\b(?:price|cost|fee|charge|rate)s?(?: \([^)]*\))?: \d)|"
    r"(?:값|가격|[요비]금|료|비용)[^:]{0,9}: ?\d"
)


class Asked:
    """A question: its words with their idf in the index, and what an answer must be about."""

    def __init__(self, question: str, index: Index) -> None:
        words = dict(word_stems(question))
        total = max(1, sum(info.passages for info in index.documents()))
        self._words: list[tuple[tuple[str, ...], float]] = []
        names = {name.lower() for name in _NAME.findall(question)}
        self._keys = {k for k in keys_of(question) if not k.isdecimal() or int(k) > _SPELLED}
        strange = set()
        for word, stem in words.items():
            # Pairs of characters that no passage has are endings, unless the first one is.
            counts = index.passage_counts(stem if len(stem) > 1 else [word])
            count = min(filter(None, counts), default=0) if counts[0] else 0
            self._words.append((stem, math.log(1 + total / (count + 1))))
            if not count:
                strange.add(word)
        which = {word.lower() for word in _ASKS_WHICH.findall(question)}
        self._is_strange = bool(strange & (names | which))
        compound = _ASKS_COMPOUND.search(question)
        self._other = re.compile(
            rf"\b{compound[2]} (?!(?:{_FUNCTION})\b)[a-z]{{4,}}"
            if compound and compound[1] in strange
            else r"(?!)"
        )
        self.total = sum(weight for _, weight in self._words)
        counted = _COUNTED.search(question)
        self._counted = stems_of(counted[1] or counted[2]) if counted else frozenset[str]()
        self._most = set(_ASKS_MOST.findall(question.lower()))
        asked = _ASKS_WHAT_IS.search(question)
        self._tells = re.compile(
            rf"\b{re.escape(asked[1])} (?:is|are|was|were)\b" if asked else r"(?!)", re.IGNORECASE
        )
        turn = _TURN.search(question)
        self._turn = turn[0].lower() if turn else ""
        self._asks_size = _ASKS_SIZE.search(question) is not None
        self._asks_time = _ASKS_TIME.search(question) is not None
        self._asks_price = _ASKS_PRICE.search(question) is not None
        self.asks_number = self._asks_price or _ASKS_NUMBER.search(question) is not None
        self._numbers = set(_NUMBER.findall(question))

    def of(self, stems: frozenset[str]) -> float:
        """Weight of the question's words among some stems; of a part of a word, its share."""
        return sum(
            weight * sum(part in stems for part in stem) / len(stem) for stem, weight in self._words
        )

    def tells(self, unit: Unit) -> bool:
        """Whether a sentence says "the rent is", or "next meeting", where the question has it."""
        is_next = bool(self._turn) and self._turn in unit.text.lower()
        return is_next or self._tells.search(unit.text) is not None

    def is_other(self, unit: Unit) -> bool:
        """Whether a sentence is about "release notes" where the question is about a press release.

        The documents have nothing of the press then.
        """
        return self._other.search(unit.text) is not None

    def about(self, units: Sequence[Unit]) -> list[Unit]:
        """Those that may be about the question's numbers, years and options; none without them.

        All of them where each key is named, but nowhere together.
        """
        if self._is_strange:
            return []
        if self._most:  # no row says how it compares to the others
            units = [u for u in units if not u.is_row or self._most <= set(u.text.lower().split())]
        named = frozenset[str]().union(*(unit.keys for unit in units))
        kinds = set(map(kind_of, named))
        keys = set()
        for key in self._keys:
            if key in named:
                keys.add(key)
            # "Step 2" may be "the second step", and "exit status 0, 2 on errors" has a 2.
            elif kind_of(key) in {"", "year", "option"} or (
                kind_of(key) in kinds and not _is_listed(key, units)
            ):
                return []
        kept = [unit for unit in units if keys <= unit.keys]
        others = [unit for unit in units if not keys <= unit.keys]
        words = [(weight, stem) for stem, weight in self._words if not stem[0].isdecimal()]
        if kept and words and self._holds(others, max(words)[1]):
            return kept if self._holds(kept, max(words)[1]) else []  # it has other numbers
        return kept or list(units)

    def _holds(self, units: Sequence[Unit], stem: tuple[str, ...]) -> bool:
        return any(part in unit.stems for unit in units for part in stem)

    def may_answer(self, unit: Unit) -> bool:
        """Whether a sentence has a number of what is asked for that the question does not have."""
        text = unit.quote
        if self._asks_size and not _SIZE.search(text):
            return False
        if self._asks_time and not _TIME.search(text) and not unit.is_row:
            return False
        return not self.asks_number or (
            self._counted <= unit.stems | unit.around
            and (not self._asks_price or _PRICE.search(text) is not None)
            and (
                not self._numbers.issuperset(_NUMBER.findall(text))
                or NUMBER_WORD.search(text) is not None
            )
        )


def _is_listed(key: str, units: Sequence[Unit]) -> bool:
    """Whether the number of a key stands alone in a sentence that has the key of another number."""
    number = DIGITS.findall(key)
    return any(
        unit.keys.issuperset(number) and kind_of(key) in map(kind_of, unit.keys) for unit in units
    )
