"""An expert that answers from any folder: it searches, opens the page and quotes its sentence.

It knows which document answers and with which sentence. It opens the document where a search finds
it and searches again with fewer words where none does; what it was not shown it does not answer.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from random import Random

from hanol.agent_training.expert._talk import (
    LINK,
    NOT_AMONG,
    NOT_FOUND,
    Talk,
    plain,
    rendered,
    thought,
)
from hanol.agent_training.expert._turns import Turns
from hanol.engines import Message
from hanol.errors import DataError, EngineError
from hanol.retrieval import Index
from hanol.tools import SEARCH, VISIT, Turn, render_turn
from hanol.worlds import GraphQuestion

_LONGEST = 220  # characters of a sentence that is an answer
_SENTENCE = re.compile(r"[A-Z\d“\"'(][^|<>\n]*[.!?]")
_NOT_HERE = 0.08  # share of questions about documents that are elsewhere
_NOT_SHOWN = 0.12  # share of questions whose sentence is not found that are not answered
_FEWER = 3  # words of the second query
_WEAK = frozenset(
    re.findall(
        r"\w+",
        """a about after all also am an and any are as at be because been before but by can
        could did do does doing done during each either for from get given had happens has have
        how i if in instead into is it its just kind made make makes many may me mean might more
        most much must my need needed no not of on one only or other out over own same should so
        some such than that the their them then there these they this those through to too under
        until up use used using very want was way we were what when where whether which while
        who whom whose why will with within without would you your""",
    )
)


class QuotingExpert(Turns):
    """Answers questions about a folder with sentences of its documents; an `Engine`.

    Args:
        index: The documents; the tools are `compact_tools` over them.
        questions: Rows with "document", the path of a document or its last parts, and "answer", a
            sentence of it. Of those about other documents some are kept, which nothing here
            answers; of sentences that are long or no sentences none.
        seed: Chooses these.

    Raises:
        DataError: No question is about a document of the folder.
        EngineError: From `complete`, where the conversation asks another question.
    """

    name = "expert"
    context_window = 8_192  # as small models have

    def __init__(self, index: Index, questions: Iterable[GraphQuestion], *, seed: int = 0) -> None:
        here = {info.document: info.document for info in index.documents()}
        here |= {PurePosixPath(path).name: path for path in here}
        known, others = list[GraphQuestion](), list[GraphQuestion]()
        for question in questions:
            document = here.get(str(question.details.get("document")))
            fits = len(question.answers) == 1 and len(question.answers[0]) <= _LONGEST
            if document is None:
                others.append(replace(question, answers=(NOT_FOUND,), sources=()))
            elif fits and _SENTENCE.fullmatch(plain(question.answers[0])):
                known.append(replace(question, sources=(document,)))
        if not known:
            raise DataError(
                f"No question is about a document of {str(index.folder)!r}: the expert needs "
                '"document", the path of one, and "answer", a sentence that it has.'
            )
        rng = Random(f"quoting {seed}")  # noqa: S311
        elsewhere = rng.sample(others, min(len(others), round(_NOT_HERE * len(known))))
        self.questions = rng.sample([*known, *elsewhere], len(known) + len(elsewhere))
        self._questions = {question.text: question for question in self.questions}

    @staticmethod
    def is_right(question: GraphQuestion, text: str) -> bool:
        """Whether a text quotes the sentence, or says that there is none where that is asked for or
        one of the few that are to be learned.
        """
        if plain(text) == NOT_FOUND:
            rng = Random(f"quoting {question.text}")  # noqa: S311
            return not question.sources or rng.random() < _NOT_SHOWN
        return plain(question.answers[0]).rstrip(".") in plain(text)

    def turn(self, messages: Sequence[Message]) -> str:
        """The next turn of a conversation, as text."""
        talk = Talk.of(messages)
        if (question := self._questions.get(talk.question)) is None:
            raise EngineError(f"The expert does not know the question {talk.question[:100]!r}.")
        answer = plain(question.answers[0])
        said = next((n for n, text in talk.seen.items() if answer in plain(text)), None)
        if said is not None:
            quoted = f"{answer.rstrip('.')} [{said}]."
            return thought([f"[{said}] says it."]) + render_turn(Turn("answer", answer=quoted))
        before = [] if not talk.made else [NOT_AMONG if talk.has_hits else "It does not say it."]
        queries = list(_queries(question.text))
        searched = sum(f'["{query}"]' in talk.made for query in queries)
        links = {address: words for words, address in LINK.findall(talk.hits)}
        for address in question.sources:
            if address in links:
                goal = queries[max(searched - 1, 0)]
                call = rendered(VISIT.name, {"url": [address], "goal": goal})
                if call not in talk.made:
                    return f"{thought([f'I open [{links[address]}]({address}).'])}{call}"
        if searched < len(queries):
            need = f'1. I need "{queries[searched]}".'
            call = rendered(SEARCH.name, {"query": [queries[searched]]})
            return f"{thought([*before, need])}{call}"
        return thought(before) + render_turn(Turn("answer", answer=NOT_FOUND))


def _queries(question: str) -> Iterator[str]:
    """The content words of a question, then the longest of them; in their order."""
    found = re.findall(r"\w[\w.+#'’/_-]*\w|\w", question)
    words = [word for word in found if word.lower() not in _WEAK] or found
    yield " ".join(words)
    longest = sorted(words, key=len, reverse=True)[:_FEWER]
    if len(longest) < len(words):
        yield " ".join(word for word in words if word in longest)
