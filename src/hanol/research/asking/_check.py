"""What a model wrote, sentence by sentence against the passages that it read."""

import re
from collections.abc import Sequence

from hanol.research._form import is_echo
from hanol.research.asking._answer import CitedSentence, Evidence
from hanol.research.asking._prompt import REFUSAL, reader_messages
from hanol.research.asking._units import FENCE, units_of
from hanol.retrieval import (
    Passage,
    SourceList,
    check_citations,
    citation_numbers,
    split_sentences,
    word_stems,
)
from hanol.scoring import CITATION

_DENIES = re.compile(
    r"\b(?:not?|never|nobody|none|nothing|neither|nor|without|cannot)\b|n['’]t\b|않|없|아니|아닙|못하",
    re.IGNORECASE,
)
_PARTS = re.compile(r"[.;:,!?]\s+|\s(?:but|and|while|although|because)\s")
_REFUSES = re.compile(
    re.escape(REFUSAL.rstrip("."))
    + r"|(?:^|[.!?]\s+)(?:the |these |this |given |provided )*(?:passages?|documents?) "
    r"(?:do|does)(?: not|n['’]t) (?:hold|have|mention|contain|provide|say|state|give|specify)",
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a model says that the passages do not hold the answer."""
    return _REFUSES.search(text) is not None


def checked(text: str, question: str, passages: Sequence[Passage]) -> list[CitedSentence]:
    """The sentences of an answer with the places that hold them.

    A citation stays where its passage holds the sentence; otherwise the sentence gets the passage
    that does. Where none does, it is not supported and keeps what the model cited. Questions,
    echoes of the prompt and repetitions are left out. A sentence that denies is held by one that
    denies only, and the other way round.

    Args:
        text: What the model wrote, with the numbers of passages.
        question: Question as it was asked.
        passages: Passages in the order of their numbers, no two with the same text and page.
    """
    sources = SourceList()
    for passage in passages:
        sources.cite_passage(passage)
    told = [message.text for message in reader_messages("", ())]
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
        cited = [n for match in CITATION.finditer(written) for n in citation_numbers(match[1])]
        cited = [n for n in dict.fromkeys(cited) if n in sources]
        holding = [n for n in cited if _holds(bare, n, sources, passages)]
        if not holding:
            others = [n for n in sources if n not in cited and _holds(bare, n, sources, passages)]
            holding = sorted(others, key=lambda n: -_overlap(bare, sources[n].text))[:1]
        places = dict.fromkeys(_place(bare, passages[n - 1]) for n in holding or cited)
        found[bare] = CitedSentence(bare, tuple(places), bool(holding))
    return list(found.values())


def _holds(sentence: str, number: int, sources: SourceList, passages: Sequence[Passage]) -> bool:
    report = check_citations(f"{sentence} [{number}]", sources)
    if not report.sentences or any(s.status != "supported" for s in report.sentences):
        return False
    said = _place(sentence, passages[number - 1]).text
    # Of a sentence in several parts another one may deny.
    parts = [part for part in _PARTS.split(said) if part.strip()] or [said]
    nearest = max(parts, key=lambda part: _overlap(sentence, part))
    return bool(_DENIES.search(sentence)) == bool(_DENIES.search(nearest))


def _overlap(sentence: str, text: str) -> int:
    own, other = ({part for _, stem in word_stems(t) for part in stem} for t in (sentence, text))
    return len(own & other)


def _place(sentence: str, passage: Passage) -> Evidence:
    """The sentence of a passage that is most like the answer's."""
    texts = [unit.quote for unit in units_of([passage])] or [passage.text]
    best = max(texts, key=lambda text: (_overlap(sentence, text), -len(text)))
    return Evidence(passage.document, passage.page, best, passage.doubt)
