"""What a model wrote, sentence by sentence against the passages that it read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hanol.research._form import is_echo
from hanol.research.asking._answer import CitedSentence, Evidence
from hanol.research.asking._prompt import REFUSAL, reader_messages
from hanol.research.asking._question import NUMBER_WORD
from hanol.research.asking._units import FENCE, is_latin, stems_of, units_of
from hanol.retrieval import (
    Passage,
    SourceList,
    check_citations,
    citation_numbers,
    split_sentences,
)
from hanol.scoring import CITATION

_DENIES = re.compile(
    r"\b(?:not?|never|nobody|none|nothing|neither|nor|without|cannot)\b|n['’]t\b|않|없|아니|아닙|못하",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[.;:,!?]\s+|\s(?:but|and|while|although|because)\s")
_NUMBERS = re.compile(r"\d+(?:[.,:]\d+)*")
_SPELLED = [
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]
_WORD = re.compile(r"[a-z]+|\d+(?:[.,:]\d+)*")
# "Flights longer than four hours" is not what a sentence on shorter ones says.
_OPPOSITES = [
    pair.split("/")
    for pair in [
        "longer/shorter",
        "more/less",
        "more/fewer",
        "higher/lower",
        "larger/smaller",
        "before/after",
        "earlier/later",
        "above/below",
        "inside/outside",
        "open/closed",
        "minimum/maximum",
        "most/least",
        "increased/decreased",
        "increases/decreases",
        "allowed/forbidden",
    ]
]
_MOVES = re.compile(r"\bfrom (.+?) to (.+)", re.IGNORECASE)
_TRIED = 6  # most sentences that are compared with one of the answer
# What a sentence says in words of its own: share of its words that the quotation may lack, and
# words that say little, whichever they are.
_OWN = 0.4
_SHORT = 2  # words of an answer such as "Tom Reilly.", which says nothing of the question
_LIGHT = stems_of("need require get take give make use receive become go come allow call say")
_REFUSES = re.compile(
    re.escape(REFUSAL.rstrip("."))
    + r"|(?:^|[.!?]\s+)(?:the |these |this |given |provided )*(?:passages?|documents?) "
    r"(?:do|does)(?: not|n['’]t) (?:hold|have|mention|contain|provide|say|state|give|specify)",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a model says that the passages do not hold the answer."""
    return _REFUSES.search(text) is not None


@dataclass(frozen=True)
class _Quotation:
    """A sentence of a passage, which can hold one of the answer."""

    place: Evidence
    title: str  # of its document and its section, without numbers: those must stand in the sentence
    own: frozenset[str]  # stems
    about: frozenset[str]  # stems of the title
    others: frozenset[str]  # stems of the other sentences of its passage

    @property
    def text(self) -> str:
        return self.place.text


def checked(text: str, question: str, passages: Sequence[Passage]) -> list[CitedSentence]:
    """The sentences of an answer with the places that hold them.

    A citation stays where a sentence of its passage holds the answer's sentence; otherwise that
    gets the place that does. Where none does, it is not supported and keeps what the model cited.
    The place is quoted, so it is the quotation that must hold the sentence: its numbers, names and
    words, not another sentence of the same passage. Of a sentence in several parts each may have
    its own. Questions, echoes of the prompt and repetitions are left out. A sentence that denies is
    held by one that denies only, and the other way round.

    Args:
        text: What the model wrote, with the numbers of passages.
        question: Question as it was asked.
        passages: Passages in the order of their numbers.
    """
    known = [_quotations(passage) for passage in passages]
    told = [message.text for message in reader_messages("", ())]
    asked = stems_of(question)
    found: dict[str, CitedSentence] = {}
    text = FENCE.sub("", text)
    for span in split_sentences(text):
        written = text[span.start : span.end]
        bare = re.sub(r"\s+(?=[.,;:!?。])", "", " ".join(CITATION.sub(" ", written).split()))
        bare = bare.removeprefix("Question: ").removeprefix("Answer: ")
        if not any(map(str.isalnum, bare)) or bare.endswith(("?", "？")) or bare in found:
            continue
        if is_echo(bare, told, question):
            continue
        numbers = [n for match in CITATION.finditer(written) for n in citation_numbers(match[1])]
        cited = [known[n - 1] for n in dict.fromkeys(numbers) if 0 < n <= len(known)]
        holding = [place for each in cited for place in _holding(bare, each, asked)]
        if not holding:
            others = [one for each in known for one in each]
            holding = _holding(bare, others, asked)
        places = holding or [_nearest(bare, each) for each in cited]
        found[bare] = CitedSentence(bare, tuple(dict.fromkeys(places)), bool(holding))
    return list(found.values())


def _quotations(passage: Passage) -> list[_Quotation]:
    units = units_of([passage])
    texts = [(unit.quote, unit.heading) for unit in units] or [(passage.text, "")]
    stems = [stems_of(text) for text, _ in texts]
    found = []
    for i, (text, heading) in enumerate(texts):
        title = _NUMBERS.sub("", f"{passage.title}. {heading}")
        others = frozenset[str]().union(*stems[:i], *stems[i + 1 :])
        place = Evidence(passage.document, passage.page, text, passage.doubt)
        found.append(_Quotation(place, title, stems[i], stems_of(title), others))
    return found


def _holding(
    sentence: str, quotations: Sequence[_Quotation], asked: frozenset[str]
) -> list[Evidence]:
    """The place that holds a sentence, or those that hold its parts; none where one is not held."""
    own = stems_of(sentence)
    nearest = sorted(quotations, key=lambda one: (-len(own & one.own), len(one.text)))
    for one in nearest[:_TRIED]:
        if _holds(sentence, one, asked):
            return [one.place]
    parts = [part for part in _PARTS.split(sentence) if part.strip()]
    if len(parts) < 2 or any(len(stems_of(part)) <= _SHORT for part in parts):
        return []
    places = [_holding(part, quotations, asked) for part in parts]
    return [place for each in places for place in each] if all(places) else []


def _holds(sentence: str, quotation: _Quotation, asked: frozenset[str]) -> bool:
    text = quotation.text
    # Words of another script cannot be compared; then it takes numbers or names, as check_citations
    # knows.
    if is_latin(sentence) is is_latin(text) and not _says(sentence, quotation, asked):
        return False
    sources = SourceList()
    number = sources.cite(text, address="", title=quotation.title, sha256="").number
    report = check_citations(f"{sentence} [{number}]", sources)
    if not report.sentences or any(s.status != "supported" for s in report.sentences):
        return False
    if _differs(sentence, text):
        return False
    moved, said = _MOVES.search(sentence), _MOVES.search(text)
    if moved and said and _NUMBERS.search(moved[1]):
        first = _NUMBERS.findall(moved[1])
        if first[-1:] != _NUMBERS.findall(said[1])[-1:]:
            return False
    # Of a sentence in several parts another one may deny.
    parts = [part for part in _PARTS.split(text) if part.strip()] or [text]
    near = max(parts, key=lambda part: _overlap(sentence, part))
    return bool(_DENIES.search(sentence)) == bool(_DENIES.search(near))


def _differs(sentence: str, text: str) -> bool:
    """Whether a sentence has a number in words that a text lacks, or the opposite of its word."""
    own, other = (set(_WORD.findall(one.lower())) for one in (sentence, text))
    spelled = {word: str(number) for number, word in enumerate(_SPELLED, start=2)}
    if any(word not in other and spelled[word] not in other for word in own & spelled.keys()):
        return True
    lacking, more = own - other, other - own
    return any((a in lacking and b in more) or (b in lacking and a in more) for a, b in _OPPOSITES)


def _says(sentence: str, quotation: _Quotation, asked: frozenset[str]) -> bool:
    """Whether a quotation has the words of a sentence.

    A word that it lacks and another sentence of the passage has tells of something else: "laptops
    are booked in second class" mixes two sentences.
    """
    words = {s for s in stems_of(NUMBER_WORD.sub(" ", sentence)) if not s[0].isdecimal()}
    own = words - quotation.about - _LIGHT
    lacking = own - quotation.own
    if lacking & quotation.others or len(lacking) > _OWN * len(own):
        return False
    if len(own) > _SHORT or own & asked:
        return True
    return 2 * len(asked & (quotation.own | quotation.about)) >= len(asked)


def _overlap(sentence: str, text: str) -> int:
    return len(stems_of(sentence) & stems_of(text))


def _nearest(sentence: str, quotations: Sequence[_Quotation]) -> Evidence:
    """The sentence of a passage that is most like the answer's."""
    return max(quotations, key=lambda one: (_overlap(sentence, one.text), -len(one.text))).place
