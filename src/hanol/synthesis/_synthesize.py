"""Draws questions from a graph or a world, filters and rewords them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hanol.errors import DataError
from hanol.retrieval import Index
from hanol.synthesis._filters import Reason, Sieve, wording_problem
from hanol.synthesis._replies import Replies
from hanol.worlds import AnyPage, GraphQuestion, KnowledgeGraph, QuestionWalker, World

_WORLD_ROUNDS = (100, 10, 1)  # questions requested from a world at once
_FAILURES = 3  # failed requests for a single question after which a world has no more
_WORDING_TOKENS = 512
_REWRITE = """\
Rewrite the puzzle below as one natural question of at most two sentences.

# Puzzle
{puzzle}

# Rules
1. Ask for the same thing, under exactly the same conditions. Leave no condition out, add none.
2. Copy every name in quotation marks letter for letter; the quotation marks may go.
3. Do not name what the letters stand for, and do not use the letters.

Write the question and nothing else."""


@dataclass(frozen=True)
class QuestionReport:
    """Counts of drawn questions.

    Args:
        drawn: Questions that were drawn.
        kept: Questions in the result.
        dropped: Number of questions that each filter dropped.
        reworded: Questions with a model's wording.
        refused_wordings: Model wordings that lost a name or gave the answer away; these
            questions keep the template's wording.
    """

    drawn: int
    kept: int
    dropped: dict[Reason, int]
    reworded: int = 0
    refused_wordings: int = 0


async def asynthesize_questions(
    graph: KnowledgeGraph,
    index: Index,
    num_questions: int,
    *,
    world: World[AnyPage] | None = None,
    hops: Sequence[int] = (1, 2, 3),
    level: int = 0,
    sets: bool = False,
    seed: int = 0,
    closed_book: Replies | None = None,
    wording: Replies | None = None,
    on_question: Callable[[int], None] = lambda kept: None,
) -> tuple[list[GraphQuestion], QuestionReport]:
    """Make questions with unique answers that cannot be answered in a simpler way.

    Args:
        graph: All facts.
        index: The documents, searched from level 1 on to drop questions that one search answers.
        num_questions: Number of questions, at least 1; fewer are returned when no new one is
            found for a long time.
        world: The world whose graph it is; its own wording is used.
        hops: Numbers of facts to follow, from 1 to 5, drawn with equal probability.
        level: 0 names the start, 1 describes it by two facts, 2 by three, with spans instead of
            numbers and dates.
        sets: Also allow questions with up to three answers, all of which are asked for.
        seed: The same seed, documents and models give the same questions.
        closed_book: A model; questions that it answers without documents are dropped.
        wording: A model that words the questions more naturally.
        on_question: Called with the number of questions whenever it grows.

    Raises:
        ConfigError: A number is out of its range.
        DataError: Not one question was found.
        EngineError: A model did not answer.
    """
    QuestionWalker.check(num_questions, hops, level)
    # Text seeds are hashed by SHA-512: the same in every process, unlike `hash`.
    rng = Random(f"questions {seed} {tuple(hops)} {level} {sets}")  # noqa: S311
    drafts: Iterator[GraphQuestion | None]
    if world is None:
        drafts = _walks(graph, rng, hops, level, sets)
    else:
        drafts = _of_world(world, graph, seed, hops=hops, level=level, sets=sets)
    sieve = Sieve(graph, index, closed_book)
    kept = await sieve.take(drafts, num_questions, on_question)
    if not kept:
        raise DataError(
            f"No question was found ({sieve.counted()}). Use fewer hops, a lower level, or more "
            "documents; `--model` extracts more facts."
        )
    texts, refused = [draft.text for draft in kept], 0
    if wording is not None:
        texts, refused = await _reworded(kept, wording, seed)
    questions = [replace(draft, text=text, id="") for draft, text in zip(kept, texts, strict=True)]
    reworded = sum(text != draft.text for draft, text in zip(kept, texts, strict=True))
    counts = QuestionReport(sieve.drawn, len(kept), dict(sieve.dropped), reworded, refused)
    return questions, counts


def _walks(
    graph: KnowledgeGraph, rng: Random, hops: Sequence[int], level: int, sets: bool
) -> Iterator[GraphQuestion | None]:
    walker = QuestionWalker(graph)
    while True:
        yield walker.draw(rng, hops=rng.choice(hops), level=level, sets=sets)


def _of_world(
    world: World[AnyPage], graph: KnowledgeGraph, seed: int, **asked: Any
) -> Iterator[GraphQuestion]:
    """Questions of a world, in rounds."""
    where = {page.address: graph.pages[page.title] for page in world.pages}
    number = failures = 0
    while failures < _FAILURES:
        number += 1
        # Only a failure shows that a world has no more questions.
        for count in _WORLD_ROUNDS:
            try:
                drawn = world.questions(count, seed=seed * 1_000_003 + number, **asked)
            except DataError:
                continue
            for question in drawn:
                path = tuple(where[address] for address in question.path)
                sources = tuple(where[address] for address in question.sources)
                yield replace(question, path=path, sources=sources)
            break
        else:
            failures += 1


async def _reworded(
    drafts: list[GraphQuestion], model: Replies, seed: int
) -> tuple[list[str], int]:
    """Wordings by a model, and how many were refused because they ask something else."""
    prompts = [_REWRITE.format(puzzle=draft.text) for draft in drafts]
    replies = await model.ask(prompts, max_tokens=_WORDING_TOKENS, seed=seed)
    texts, refused = [], 0
    for draft, reply in zip(drafts, replies, strict=True):
        if wording_problem(reply, draft.constants, draft.answers) is None:
            texts.append(reply)
        else:
            refused += 1
            texts.append(draft.text)
    return texts, refused
