"""Answers of a model to problems, and what each step of them was worth, without people.

The label of a step is the share of continuations from there that end right: an estimate of the
value of the policy which writes them, with a standard error of sqrt(p (1 - p) / rollouts).
Source: arXiv 2408.03314, appendix D; arXiv 2312.08935.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hanol.engines import Engine, Request
from hanol.errors import ConfigError, DataError
from hanol.rows import JsonLines
from hanol.runs import gather, synchronous
from hanol.scoring import last_answer, parse_verifier
from hanol.test_time._prompts import ThinkSettings
from hanol.worlds import MathProblem

OnProblem = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class SampledAnswer:
    """A model's answer to a problem.

    Attributes:
        text: What it wrote.
        right: Whether the problem's verifier accepts it.
        is_usable: Whether it came to an end and gives an answer that can be read.
    """

    text: str
    right: bool
    is_usable: bool


@dataclass
class _Sampler:
    engine: Engine
    settings: ThinkSettings
    seed: int
    left_out: Counter[str] = field(default_factory=Counter)

    async def answers(self, problem: MathProblem, prefix: str, count: int) -> list[SampledAnswer]:
        """Answers that go on from a prefix, which is part of their texts."""
        # Far apart, and the same after a resume: answer i of a request has its seed plus i.
        seed = random.Random(f"{self.seed} {problem.id} {prefix}").getrandbits(48)  # noqa: S311
        request = self._request(problem.problem, prefix, count, seed)
        requests = [request]
        if "n" not in self.engine.capabilities:
            requests = [
                replace(request, n=1, sampling=replace(request.sampling, seed=seed + i))
                for i in range(count)
            ]
        verify = parse_verifier(problem.verifier)
        found = []
        for one in requests:
            for choice in (await self.engine.complete(one)).choices:
                text = prefix + choice.text
                ended = choice.finish_reason == "stop"
                right = ended and verify(problem.problem, text, problem)
                usable = right or (ended and last_answer(text) is not None)
                found.append(SampledAnswer(text, right, usable))
        return found

    @property
    def _is_raw(self) -> bool:
        raw = self.settings.raw
        return not getattr(self.engine, "has_chat_template", True) if raw is None else raw

    def _request(self, problem: str, prefix: str, count: int, seed: int) -> Request:
        messages = self.settings.messages(problem)
        options: Any = {
            "sampling": replace(self.settings.sampling, seed=seed),
            "prefill": prefix,
            "n": count,
        }
        if self._is_raw:
            ids = self.engine.encode("".join(message.text for message in messages))
            return Request((), **options, prompt_ids=ids)
        return Request(messages, **options)


async def asample_answers(
    engine: Engine,
    problems: Sequence[MathProblem],
    *,
    samples: int = 64,
    settings: ThinkSettings | None = None,
    seed: int = 0,
    file: str | Path | None = None,
    on_problem: OnProblem = lambda row: None,
) -> list[dict[str, Any]]:
    """Answers of a model to problems, with what a verifier says of each.

    Args:
        engine: Writes the answers.
        problems: With verifiers, as `hanol.worlds.open_problems` makes them.
        samples: Answers a problem.
        settings: How answers are sampled.
        seed: Seed for sampling.
        file: JSON lines of finished problems, which are not sampled again; None keeps nothing.
        on_problem: Called with each row.

    Returns:
        A row per problem: `id`, `prompt`, `answers` (those that came to an end and can be read),
        `right` of each, and `left_out`, the number of the others.

    Raises:
        DataError: A problem has no answer or no verifier.
        EngineError: The engine failed.
    """
    sampler = _Sampler(engine, settings or ThinkSettings(), seed)

    async def sampled(problem: MathProblem) -> dict[str, Any]:
        answers = await sampler.answers(problem, "", samples)
        usable = [one for one in answers if one.is_usable]
        return {
            "id": problem.id,
            "prompt": problem.problem,
            "answers": [one.text for one in usable],
            "right": [one.right for one in usable],
            "left_out": len(answers) - len(usable),
        }

    _check_count(samples=samples)
    return await _each(problems, sampled, sampler.settings.concurrency, file, on_problem)


async def amonte_carlo_labels(
    engine: Engine,
    problems: Sequence[MathProblem],
    *,
    samples: int = 16,
    rollouts: int = 16,
    settings: ThinkSettings | None = None,
    seed: int = 0,
    file: str | Path | None = None,
    on_problem: OnProblem = lambda row: None,
) -> list[dict[str, Any]]:
    """What each step of a model's own solutions is worth: rows to train a process reward model on.

    Answers without an end, or in which no answer can be read, are left out. Equal beginnings of
    two solutions have one label; the last step of a solution is as right as its answer.

    Args:
        engine: Writes the solutions and their continuations; it must continue a `prefill`.
        problems: With verifiers, as `hanol.worlds.open_problems` makes them.
        samples: Solutions a problem.
        rollouts: Continuations of each step, K: the standard error of a label is
            sqrt(p (1 - p) / K).
        settings: How both are sampled, and the separator of steps.
        seed: Seed for sampling.
        file: JSON lines of finished problems, which are not sampled again; None keeps nothing.
        on_problem: Called with `{"id", "solutions", "left_out"}` of each finished problem.

    Returns:
        A row per solution: `id` and `prompt` of its problem, `completions` (its steps), `labels`
        from 0 to 1, and whether it is `right`.

    Raises:
        ConfigError: `samples` or `rollouts` is below 1.
        DataError: A problem has no answer or no verifier.
        CapabilityError: The engine cannot continue a prefill; the message names one that can.
        EngineError: The engine failed.

    Example:
        >>> rows = monte_carlo_labels(engine, open_problems("chains"))  # doctest: +SKIP
        >>> rows[0]["completions"], rows[0]["labels"]  # doctest: +SKIP
        (['3 + 4 = 7', '7 * 2 = 3', 'The answer is 3.'], [0.875, 0.9375, 1.0])
    """
    sampler = _Sampler(engine, settings or ThinkSettings(), seed)
    separator = sampler.settings.separator

    async def labelled(problem: MathProblem) -> dict[str, Any]:
        answers = await sampler.answers(problem, "", samples)
        usable = [one for one in answers if one.is_usable]
        starts = sorted({p for one in usable for _, p in split_steps(one.text, separator)[:-1]})

        async def value(start: str) -> float:
            ends = await sampler.answers(problem, start, rollouts)
            return sum(one.right for one in ends) / len(ends)

        values = dict(zip(starts, await gather(value, starts, concurrency=8), strict=True))
        solutions = []
        for one in usable:
            steps = split_steps(one.text, separator)
            labels = [*(values[start] for _, start in steps[:-1]), float(one.right)]
            solutions.append(
                {"completions": [step for step, _ in steps], "labels": labels, "right": one.right}
            )
        return {
            "id": problem.id,
            "prompt": problem.problem,
            "solutions": solutions,
            "left_out": len(answers) - len(usable),
        }

    _check_count(samples=samples, rollouts=rollouts)
    made = await _each(problems, labelled, sampler.settings.concurrency, file, on_problem)
    return [
        {"id": row["id"], "prompt": row["prompt"], **solution}
        for row in made
        for solution in row["solutions"]
    ]


monte_carlo_labels = synchronous(amonte_carlo_labels)
sample_answers = synchronous(asample_answers)


def split_steps(text: str, separator: str) -> list[tuple[str, str]]:
    """The steps of a solution, none blank, each with the text up to where the next one begins."""
    found, begin = list[tuple[str, str]](), 0
    while begin < len(text):
        end = text.find(separator, begin)
        end = len(text) if end < 0 else end + len(separator)
        if step := text[begin:end].removesuffix(separator).strip():
            found.append((step, text[:end]))
        begin = end
    return found


async def _each(
    problems: Sequence[MathProblem],
    work: Callable[[MathProblem], Any],
    concurrency: int,
    file: str | Path | None,
    on_problem: OnProblem,
) -> list[dict[str, Any]]:
    """The row of each problem, in their order; those of the file are not made again."""
    for problem in problems:
        if not problem.verifier:
            raise DataError(f"{problem.where} has no verifier: nothing says what is right.")
        if not problem.answer:
            raise DataError(f'{problem.where} has no "answer".')
    lines = None if file is None else JsonLines(file)
    rows = {} if lines is None else {str(row["id"]): row for row in lines.read()}

    async def one(problem: MathProblem) -> dict[str, Any]:
        if problem.id not in rows:
            rows[problem.id] = await work(problem)
            if lines is not None:
                lines.append(rows[problem.id])
        on_problem(rows[problem.id])
        return rows[problem.id]

    return await gather(one, problems, concurrency=concurrency)


def _check_count(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"`{name}` is {count}, but must be at least 1.")
