"""One question to some documents: search, read, check."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from hanol.engines import Completion, Engine, Message, Request, Sampling
from hanol.errors import ConfigError, EngineError, RunError, SearchIndexError
from hanol.research.asking._answer import Answer, CitedSentence, Evidence
from hanol.research.asking._check import checked, refuses
from hanol.research.asking._extract import ENOUGH, Candidates
from hanol.research.asking._prompt import reader_messages
from hanol.research.asking._rank import Ranks, aevidence, can_rank
from hanol.research.asking._units import Unit
from hanol.retrieval import Index, Passage
from hanol.runs import Ledger, synchronous

# Fit below which no model that writes is asked, chosen as `ENOUGH` on the tune half of the
# benchmark's questions.
_HOPELESS = 0.6
_FOREIGN = (
    "the question is in another script than the documents: this sentence is nearest in meaning, "
    "and no words show whether it answers."
)
_ROOM = 128  # most tokens of an answer
# A reader scores this many sentences; the best must explain this much of a token of the question,
# in nats; what the words in common add; a second sentence has this share of the first one's score.
_READ, _EVIDENT, _WORDS, _ALSO = 16, 0.25, 1.5, 0.6
# A vocabulary that has a script needs at most a token for two or three bytes of it.
_TOKENS_PER_BYTE = 0.45
_NOT_OURS = re.compile(r"(?<![\w\])])\[(\d{1,3}(?:[-–, ]+\d{1,3})*)\]")  # "as shown in [3]"


async def aask(
    library: Index | str | Path,
    question: str,
    engine: Engine | None = None,
    *,
    k: int = 5,
    write: bool = False,
    prompt_tokens: int = 800,
    on_text: Callable[[str], None] | None = None,
) -> Answer:
    """Answer a question from documents in one or two sentences, each with its source.

    Without an engine, the answer is the sentences of the documents that fit the question best, by
    their words and, if the index has an embedder, by their meaning. An engine that can score ranks
    them by how likely each makes the question, and the best one or two are quoted.

    Any other engine, or with `write`, reads the best passages and answers in its own words. Each of
    its sentences is compared with the passages: one without a citation, or with a wrong one, gets
    the passage that holds it, and one that no passage holds is marked. If none is held, or the
    model's vocabulary lacks the question's script, the documents are quoted after all.

    Args:
        library: Index, or folder of documents; one that was never indexed is indexed first.
        question: Question, in plain words.
        engine: Model that reads; None ranks by words and meaning alone.
        k: Number of passages to search for.
        write: Whether a model that could rank answers in its own words.
        prompt_tokens: Maximum length of a prompt in tokens, for models that write. Passages beyond
            it are left out, but never the first one.
        on_text: Called with each piece of the model's text as it comes, before it is checked.

    Raises:
        RunError: The question is empty.
        ConfigError: `engine` is a name.
        SearchIndexError: There is no such folder, or no document in it.
        EngineError: The model failed, or its context window is smaller than one passage.

    Example:
        >>> answer = ask("notes", "How are keys rotated?")  # doctest: +SKIP
        >>> answer.text, answer.sources[0].document  # doctest: +SKIP
        ('Keys are rotated every 90 days. [1]', 'keys.md')
    """
    if isinstance(engine, str):
        raise ConfigError(f"`engine` is {engine!r}: open it with `hanol.engines.open_engine`.")
    if not question.strip():
        raise RunError("The question is empty. Ask something in plain words.")
    with _opened(library) as index:
        began = time.perf_counter()
        # Of the same text twice on a page one is enough, and has one number.
        hits = {(p.address, p.text): p for p in reversed(index.search(question, k))}
        passages = list(reversed(hits.values()))
        found = Candidates(question, passages, index)
        ledger = Ledger(tool_calls=1, seconds=time.perf_counter() - began)
    quoted = Answer(question, ledger=ledger)
    if found.is_foreign or found.fit >= ENOUGH:
        doubt = _FOREIGN if found.is_foreign else ""
        chosen = tuple(map(_quote, found.best(1 if doubt else 3)))
        quoted = replace(quoted, sentences=chosen, quoted=True, doubt=doubt)
    ranker = engine if not write and engine is not None and can_rank(engine) else None
    least = ENOUGH if ranker else _HOPELESS
    if engine is None or found.is_foreign or found.fit < least:
        return quoted
    if note := _speechless(question, engine):
        return replace(quoted, note=note)
    if ranker is not None:
        return await _chosen(question, found, ranker, ledger, on_text)
    return await _written(question, passages, engine, quoted, prompt_tokens, on_text)


ask = synchronous(aask)


async def _chosen(
    question: str,
    found: Candidates,
    engine: Ranks,
    ledger: Ledger,
    on_text: Callable[[str], None] | None,
) -> Answer:
    """The sentences that a reader finds to answer, as they stand there."""
    began = time.perf_counter()
    likely = sorted(zip(found.scores, found.units, strict=True), key=lambda entry: -entry[0])
    likely = likely[:_READ]
    evidence, cost = await aevidence(question, [unit for _, unit in likely], engine)
    ledger += replace(cost, seconds=time.perf_counter() - began)
    ranked = sorted(
        (
            (value + _WORDS * words, value, unit)
            for value, (words, unit) in zip(evidence, likely, strict=True)
        ),
        key=lambda entry: -entry[0],
    )
    (top, value, first), *others = ranked
    if value < _EVIDENT:
        return Answer(question, ledger=ledger)
    also = (
        unit
        for score, _, unit in others
        if score >= _ALSO * top
        and not unit.repeats(first)
        # Rows share the names of their columns with the question, whichever of them it is about.
        and (not (first.is_row or unit.is_row) or found.adds(unit, first.told))
    )
    chosen = [first, *(one.after(first) for one in islice(also, 1))]
    if on_text is not None:
        on_text(" ".join(unit.quote for unit in chosen))
    return Answer(question, tuple(map(_quote, chosen)), quoted=True, ledger=ledger)


async def _written(
    question: str,
    passages: Sequence[Passage],
    engine: Engine,
    quoted: Answer,
    prompt_tokens: int,
    on_text: Callable[[str], None] | None,
) -> Answer:
    """What a model says of the passages, checked; the quotes if it says nothing that holds."""
    read = _fitting(question, passages, engine, prompt_tokens)
    began = time.perf_counter()
    done = await _read(engine, reader_messages(question, read, engine.control_tokens), on_text)
    usage = done.usage
    ledger = quoted.ledger + Ledger(
        model_calls=1,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        generated_tokens=usage.generated_tokens,
        seconds=time.perf_counter() - began,
    )
    said = done.text.rpartition("</think>")[2]
    if refuses(said):
        return Answer(question, ledger=ledger)
    sentences = checked(said, question, read)
    if any(sentence.supported for sentence in sentences):
        return Answer(question, tuple(sentences), ledger=ledger)
    note = f"Nothing that {engine.name!r} wrote is held by a passage"
    return replace(quoted, note=f"{note}; the documents are quoted instead.", ledger=ledger)


@contextmanager
def _opened(library: Index | str | Path) -> Iterator[Index]:
    """The index with at least one document; one that was opened here is closed."""
    if isinstance(library, Index):
        _need_documents(library)
        yield library
        return
    with Index.open(library) as index:
        if not index.documents():
            index.add()
        _need_documents(index)
        yield index


def _need_documents(index: Index) -> None:
    if not index.documents():
        raise SearchIndexError(
            f"There is no document to ask in {str(index.folder)!r}: put some there that "
            "`hanol index` reads, such as pdf, docx, html, md or txt files."
        )


def _quote(unit: Unit) -> CitedSentence:
    passage = unit.passage
    place = Evidence(passage.document, passage.page, unit.source, passage.doubt)
    return CitedSentence(_NOT_OURS.sub(r"(\1)", unit.quote), (place,))


def _speechless(question: str, engine: Engine) -> str:
    """Why a model cannot be asked in the question's script; empty if it can."""
    letters = "".join(c for c in question if c.isalpha() and not c.isascii())
    # Others than engines with a tokenizer of their own only estimate what a text takes.
    if "prompt_ids" not in engine.capabilities or 2 * len(letters) < _letters(question):
        return ""
    alone, without = (engine.count_tokens([Message("user", text)]) for text in (letters, ""))
    if alone - without < _TOKENS_PER_BYTE * len(letters.encode()):
        return ""
    return (
        f"{engine.name!r} has no vocabulary for the language of the question, so that it cannot "
        "speak it; the documents are quoted instead."
    )


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _fitting(
    question: str, passages: Sequence[Passage], engine: Engine, prompt_tokens: int
) -> list[Passage]:
    """The best passages that fit into a prompt, in the order of the index.

    The order does not depend on the question: one that finds the same passages shares the prompt
    up to itself, which the engine need not read again.
    """
    window = engine.context_window
    most = prompt_tokens if window is None else min(prompt_tokens, window - _ROOM)
    chosen: list[Passage] = []
    for passage in passages:
        more = sorted([*chosen, passage], key=lambda passage: passage.id)
        tokens = engine.count_tokens(reader_messages(question, more, engine.control_tokens))
        if tokens <= most:
            chosen = more
        elif not chosen:
            if window is not None and tokens + _ROOM > window:
                raise EngineError(
                    f"The context window of {engine.name!r} is {window} tokens, but one passage "
                    f"with the question has {tokens} and the answer needs {_ROOM}. Take a model "
                    "with a longer window, or none: the documents are quoted then."
                )
            return more
    return chosen


async def _read(
    engine: Engine, messages: Sequence[Message], on_text: Callable[[str], None] | None
) -> Completion:
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=_ROOM)
    request = Request(tuple(messages), sampling)
    if on_text is None:
        return await engine.complete(request)
    done: Completion | None = None
    async with aclosing(engine.stream(request)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            on_text(piece.text)
            done = piece.completion or done
    assert done is not None, "the last piece brings the completion"
    return done
