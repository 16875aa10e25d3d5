"""Synthesis of questions: drawn from a graph or by a world, filtered, worded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from hanol.errors import ConfigError, DataError
from hanol.retrieval import Index
from hanol.synthesis._filters import Reason
from hanol.synthesis._questions import SynthQuestion, question_of
from hanol.synthesis._replies import Replies
from hanol.synthesis._sieve import Sieve
from hanol.synthesis._wording import rewrite_prompt, wording_problem
from hanol.worlds import Encyclopedia, GraphQuestion, KnowledgeGraph, QuestionWalker

_MOST_HOPS = 5
_WORLD_ROUNDS = (100, 10, 1)  # questions that a world is asked for at once
_FAILURES = 3  # to draw a single one; then the world has no more
_WORDING_TOKENS = 512


@dataclass(frozen=True)
class QuestionReport:
    """What became of the questions that were drawn.

    Args:
        drawn: Walks that led to a question.
        kept: Questions of the set.
        dropped: How many each filter took.
        reworded: Questions that have a model's wording.
        refused_wordings: Wordings that had lost a name or told the answer; the template stands.
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
    world: Encyclopedia | None = None,
    hops: Sequence[int] = (1, 2, 3),
    level: int = 0,
    sets: bool = False,
    seed: int = 0,
    closed_book: Replies | None = None,
    wording: Replies | None = None,
    on_question: Callable[[int], None] = lambda kept: None,
) -> tuple[list[SynthQuestion], QuestionReport]:
    """Make questions whose answers are unique, and which nothing simpler answers.

    Args:
        graph: All facts.
        index: The documents, for the question whether one search is enough (from level 1 on).
        num_questions: Wanted, at least 1; fewer come back when nothing new is found for long.
        world: Where the graph is a world's: its own wording is used.
        hops: Facts to follow, from 1 to 5; several are drawn from equally.
        level: 0 names the start, 1 describes it by two facts, 2 by three, with spans in the place
            of numbers and dates.
        sets: Also allow questions with up to three answers, all of which are asked for.
        seed: The same seed, documents and models give the same questions.
        closed_book: A model; what it answers without any document is dropped.
        wording: A model that words the questions of documents more naturally.
        on_question: Told how many there are, whenever there are more.

    Raises:
        ConfigError: A number is out of its range.
        DataError: Not one question was found.
        EngineError: A model did not answer.
    """
    _check(num_questions, hops, level)
    # Text seeds are hashed by SHA-512: the same in every process, unlike `hash`.
    rng = Random(f"questions {seed} {tuple(hops)} {level} {sets}")  # noqa: S311
    drafts: Iterator[GraphQuestion | None]
    if world is None:
        drafts = _walks(graph, rng, hops, level, sets)
    else:
        drafts = _of_world(world, graph, hops, level, sets, seed)
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
    questions = [question_of(draft, text) for draft, text in zip(kept, texts, strict=True)]
    reworded = sum(text != draft.text for draft, text in zip(kept, texts, strict=True))
    counts = QuestionReport(sieve.drawn, len(kept), dict(sieve.dropped), reworded, refused)
    return questions, counts


def _check(num_questions: int, hops: Sequence[int], level: int) -> None:
    if num_questions < 1:
        raise ConfigError(f"`num_questions` is {num_questions}, but must be at least 1.")
    if not hops or not all(1 <= number <= _MOST_HOPS for number in hops):
        raise ConfigError(f"`hops` is {tuple(hops)}, but must be from 1 to {_MOST_HOPS}.")
    if not 0 <= level <= 2:
        raise ConfigError(f"`level` is {level}, but must be 0, 1 or 2.")


def _walks(
    graph: KnowledgeGraph, rng: Random, hops: Sequence[int], level: int, sets: bool
) -> Iterator[GraphQuestion | None]:
    walker = QuestionWalker(graph)
    while True:
        yield walker.draw(rng, hops=rng.choice(hops), level=level, sets=sets)


def _of_world(
    world: Encyclopedia,
    graph: KnowledgeGraph,
    hops: Sequence[int],
    level: int,
    sets: bool,
    seed: int,
) -> Iterator[GraphQuestion]:
    """Questions as the world draws them, round after round."""
    number = failures = 0
    while failures < _FAILURES:
        number += 1
        # A world tells how many there are only by failing.
        for count in _WORLD_ROUNDS:
            try:
                drawn = world.questions(
                    count,
                    hops=tuple(hops),
                    level=level,  # type: ignore[arg-type]  # checked by the caller
                    sets=sets,
                    seed=seed * 1_000_003 + number,
                )
            except DataError:
                continue
            for question in drawn:
                pages = tuple(graph.pages[title] for title in question.entities)
                yield replace(question, path=pages, sources=pages)
            break
        else:
            failures += 1


async def _reworded(
    drafts: list[GraphQuestion], model: Replies, seed: int
) -> tuple[list[str], int]:
    """A model's wordings, where they still ask for the same; and how many do not."""
    prompts = [rewrite_prompt(draft.text) for draft in drafts]
    replies = await model.ask(prompts, max_tokens=_WORDING_TOKENS, seed=seed)
    texts, refused = [], 0
    for draft, reply in zip(drafts, replies, strict=True):
        if wording_problem(reply, draft.constants, draft.answers) is None:
            texts.append(reply)
        else:
            refused += 1
            texts.append(draft.text)
    return texts, refused
