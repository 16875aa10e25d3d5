"""deep-research.heavy-mode: several rollouts in parallel and their agreement.

The bundled model is asked; nothing is trained. Seeds are worlds.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from claims.deep_research import lab
from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    TURN,
    WINDOW,
    accuracy,
    attempted,
    engine_of,
    log,
    place,
    right,
    shuffled,
    unseen,
)
from claims.figures import Figures, gain
from claims.kept import read_lines
from claims.small import one_thread
from hanol import agent_training
from hanol.claims import Claim, Measurement
from hanol.engines import Completion, Engine, Message, Request, Usage, WrappedEngine
from hanol.research import aheavy_research
from hanol.rows import replace_rows
from hanol.runs import Budget, RunEnded, ToolReturned
from hanol.worlds import Encyclopedia, GraphQuestion

_N, _HEAVY_COUNT = 4, 30
_REPORT = re.compile(
    r"^# Report \d+$.*?^Answer: (.*?)(?=\n\n# Report \d+$|\n\nThink inside )", re.M | re.S
)
_CITED = re.compile(r"\s*\[(?:\d+|\?)\]")
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.S)


class Agreement(WrappedEngine):
    """An engine that samples as another one and puts rollouts together by a fixed rule.

    A report is the last thought of its rollout. Of the answers in the reports, those that are the
    same but for case, spaces and citations count together; the one that most reports give is
    chosen, of equals the first that names a source, else the first.

    Args:
        engine: Makes the rollouts, at temperature 1 from the whole distribution: a penalty on what
            occurred before, as the paper has it, would keep a small model from copying.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.name = f"{engine.name} by agreement"

    async def complete(self, request: Request) -> Completion:
        """The engine's turn; where rollouts are reported or put together, the rule's."""
        if len(request.messages) > 1:  # a conversation with a system message
            return await self.engine.complete(
                replace(
                    request,
                    sampling=replace(
                        request.sampling,
                        temperature=1.0,
                        top_p=1.0,
                        presence_penalty=0.0,
                        max_tokens=TURN,
                    ),
                )
            )
        prompt = request.messages[0].text
        answers = _REPORT.findall(prompt)
        if answers:
            text = f"<answer>{agreed(answers)}</answer>"
        else:
            thoughts = _THOUGHT.findall(prompt.rpartition("# Conversation\n")[2])
            text = f"<report>{thoughts[-1].strip() if thoughts else 'nothing'}</report>"
        usage = Usage(self.count_tokens(request.messages), len(text.split()))
        return Completion.of(text, usage=usage)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the engine counts; what only the rule reads costs nothing."""
        return self.engine.count_tokens(messages) if len(messages) > 1 else 1

    async def aclose(self) -> None:
        """Close the engine."""
        await self.engine.aclose()


def agreed(answers: Sequence[str]) -> str:
    """The answer that most give."""
    given = [answer for answer in answers if answer != "none was found"]
    if not given:
        return ""
    counts = Counter(map(_plain, given))
    most = max(counts.values())
    first = [answer for answer in given if counts[_plain(answer)] == most]
    return next((answer for answer in first if re.search(r"\[\d+\]", answer)), first[0])


def _plain(answer: str) -> str:
    return " ".join(_CITED.sub("", answer).casefold().split())


def _heavy(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        world, kinds = unseen(seed, quick, (1, 2, 3), _HEAVY_COUNT)
        described = world.questions(
            2 if quick else _HEAVY_COUNT, hops=(1, 2), described=True, seed=seed
        )
        kinds = {**kinds, "described": described}
        folder = place(seed, quick, "heavy")
        calls = 2 if quick else 12
        with one_thread():
            greedy = attempted(lab.MODEL, world, kinds, folder / "greedy.jsonl", max_calls=calls)
            file = folder / f"{_N}.jsonl"
            if not file.exists():
                asked = [question for kind in kinds.values() for question in kind]
                replace_rows(file, _heavy_answers(world, asked, folder / "world", seed, calls))
        single, chosen, any_of, cost = zip(*read_lines(file), strict=True)
        figures.add(f"Avg@1 of the {_N}", 100 * mean(single))
        figures.add(f"heavy, n = {_N}", 100 * mean(chosen))
        figures.add(f"any of the {_N}", 100 * mean(any_of))
        figures.add("greedy, one rollout", accuracy(greedy))
        figures.add("tokens written, of one rollout", mean(cost))
        figures.add_gain("gain", gain(single, chosen))
        figures.add_gain("heavy over greedy", gain(right(greedy), chosen))
    return heavy_verdict(figures)


def _heavy_answers(
    world: Encyclopedia, questions: Sequence[GraphQuestion], folder: Any, seed: int, calls: int
) -> list[list[float]]:
    """Of each question: share of right rollouts, whether the choice and any is right, and cost."""
    log.info("Seed %d: %d rollouts at each of %d questions", seed, _N, len(questions))
    with agent_training.WorldEnvironment(world, folder, tools=shuffled(world.seed)) as environment:

        async def all_of_them() -> list[list[float]]:
            engine = Agreement(engine_of(lab.MODEL))
            limit = asyncio.Semaphore(16)

            async def one(number: int, question: GraphQuestion) -> list[float]:
                async with limit:
                    events = [
                        event
                        async for event in aheavy_research(
                            environment.index, engine, question.text, n=_N, mode="react",
                            tools=environment.tools, seed=100_000 * seed + number,
                            budget=Budget(model_calls=calls, context_tokens=WINDOW, seconds=None),
                        )
                    ]  # fmt: skip
                return _judged(events, lambda text: world.is_right(question, text))

            try:
                pairs = enumerate(questions)
                return list(await asyncio.gather(*(one(*pair) for pair in pairs)))
            finally:
                await engine.aclose()

        return asyncio.run(all_of_them())


def _judged(events: Sequence[Any], is_right: Callable[[str], bool]) -> list[float]:
    rollouts = [event.arguments for event in events if isinstance(event, ToolReturned)]
    marks = [float(is_right(rollout["answer"] or "")) for rollout in rollouts]
    last = events[-1]
    assert isinstance(last, RunEnded)
    chosen = float(is_right(last.answer or ""))
    written = mean(rollout["spent"]["generated_tokens"] for rollout in rollouts)
    return [mean(marks), chosen, max(marks), last.completion_tokens / max(written, 1.0)]


def heavy_verdict(figures: Figures) -> Measurement:
    """Whether several rollouts give more than one of them."""
    shown = figures["gain"] >= 5 and min(figures.values["gain, low"]) > 0
    return figures.measurement(
        shown,
        f"One sampled rollout {figures[f'Avg@1 of the {_N}']:.1f} %, {_N} and their agreement "
        f"{figures[f'heavy, n = {_N}']:.1f} % ({figures['gain']:+.1f} points, "
        f"{figures['gain, low']:+.1f} to {figures['gain, high']:+.1f}), any of the {_N} "
        f"{figures[f'any of the {_N}']:.1f} %, for "
        f"{figures['tokens written, of one rollout']:.1f} times the written tokens; one greedy "
        f"rollout {figures['greedy, one rollout']:.1f} %.",
    )


HEAVY_MODE = Claim(
    id="deep-research.heavy-mode",
    title="Several rollouts in parallel, put together, answer more than one.",
    paper="Heavy mode: HLE 38.3 instead of 32.9, BrowseComp 58.3 instead of 43.4, BrowseComp-ZH "
    f"58.1 instead of 46.7 (Tongyi DeepResearch, {PAPER}, Pass@1 against Avg@3).",
    scale=f"The bundled `{lab.MODEL}`, {_N} rollouts at temperature 1 and their synthesis by "
    f"`hanol.research.heavy_research`, {_HEAVY_COUNT} questions each of 1, 2 and 3 hops and with a "
    "described start in an unseen world, one world a seed. A model of this size cannot weigh "
    "reports in free text, so this is NOT the paper's synthesis: a rule chooses the answer that "
    "most reports give (of equals the first that names a source), which is a majority vote. The "
    "verdict is about parallel rollouts only.",
    expectation=f"Shown if the choice from {_N} is right at least 5 points more often than one of "
    "the same rollouts (means over seeds), with a 95 % interval above 0 in every seed; it writes "
    f"about {_N} times the tokens. One greedy rollout is reported beside it: where the likeliest "
    "token is nearly always the right one, as here, it may be as good as the vote.",
    larger="`hanol research FOLDER QUESTION --heavy 4` with a chat model, whose synthesis is the "
    f"paper's: reports, no tools, one answer. {BENCHMARKS}.",
    experiment=_heavy,
)
