"""The sentences of passages that answer a question best, without a model.

A sentence scores by the question's words that it holds, rare ones for more, compared as stems. Its
heading, its neighbours and the title of its document count for less: they say what it is about.
"""

from collections.abc import Sequence

from hanol.research.asking._question import Asked
from hanol.research.asking._units import Unit, is_latin, units_of
from hanol.retrieval import Index, Passage

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
        self._asked = asked = Asked(question, index)
        found = units_of(passages) if asked.total else []
        about = asked.about(found)
        self.units = about or found
        self.scores, self.fit, self.is_foreign = list[float](), 0.0, False
        if self.units:
            texts = [unit.quote for unit in self.units]  # a row of numbers means nothing alone
            near = index.similarities(question, texts)
            words = _word_scores(self.units, asked)
            self.scores = words if near is None else _with_meaning(words, near)
            read = frozenset[str]().union(*(unit.stems | unit.around for unit in self.units))
            pairs = list(zip(words, self.units, strict=True))
            best = max((score for score, unit in pairs if asked.may_answer(unit)), default=0.0)
            _, nearest = max(pairs, key=lambda pair: pair[0])
            if about and best and not asked.is_other(nearest):
                self.fit = asked.of(read) / asked.total + best
            if near is not None and self.fit < ENOUGH:
                others = [is_latin(text) is not is_latin(question) for text in texts]
                self.is_foreign = others[near.index(max(near))]
                if self.is_foreign:
                    self.scores = [s if o else -1.0 for s, o in zip(near, others, strict=True)]

    def adds(self, unit: Unit, held: frozenset[str]) -> bool:
        """Whether a sentence holds words of the question that others, by their stems, lack."""
        return self._asked.of(unit.stems - held) > _NEW * self._asked.total

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


def _word_scores(units: Sequence[Unit], asked: Asked) -> list[float]:
    usual = sum(len(unit.stems) for unit in units) / len(units)
    found = []
    for unit in units:
        words = asked.of(unit.stems | unit.keys) + _AROUND * asked.of(unit.around)
        words /= asked.total
        words /= 1 + _LENGTH * max(0.0, len(unit.stems) / usual - 1)
        if asked.asks_number and asked.may_answer(unit):
            words *= 1 + _NUMERIC
        if asked.tells(unit):
            words *= 1 + _TELLS
        found.append(words * (1 - _RANK * unit.rank))
    return found


def _with_meaning(words: Sequence[float], near: Sequence[float]) -> list[float]:
    low, span = min(near), max(near) - min(near)
    return [w + _MEANING * (n - low) / (span or 1.0) for w, n in zip(words, near, strict=True)]
