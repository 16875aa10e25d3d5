"""A search over an engine: prefixes become requests, answers become steps with scores.

In this process prefixes are token ids that end exactly where a sample ended, so that the engine
takes up what it computed of them (keys and values at any token, recurrent states at the ends of
samples) and every token passes through the model once. Other engines continue a text.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hanol.engines import CachedEngine, Choice, Completion, Engine, Request
from hanol.errors import CapabilityError, ConfigError, DataError
from hanol.runs import Ledger, gather, in_thread, synchronous
from hanol.scoring import StepScorer, last_answer, stated_answer
from hanol.test_time._prompts import ThinkSettings
from hanol.test_time._thought import Thought
from hanol.test_time.searches._search import Search
from hanol.test_time.searches._tree import Prefix, Step


async def arun(
    search: Search,
    engine: Engine,
    verifier: StepScorer | None,
    problem: str,
    settings: ThinkSettings | None = None,
    *,
    read_answer: Callable[[str], Any] = last_answer,
    state: str | Path | None = None,
) -> Thought:
    """Search for the answer to a problem with a model.

    Args:
        search: The strategy, not yet asked. Without `answer_tokens` of its own it gets the
            `max_tokens` of the settings.
        engine: Samples solutions.
        verifier: Scores their steps; None where the strategy needs none.
        problem: What is asked.
        settings: How solutions are sampled.
        read_answer: The answer of a finished solution; None where there is none. A solution that
            was cut off has none.
        state: File that keeps the state after every round; a search that was killed goes on from
            it.

    Raises:
        ConfigError: The strategy needs a verifier.
        CapabilityError: The engine cannot do what the strategy needs; the message names strategies
            that it can.
        DataError: The state is that of another search.
        EngineError: The engine failed.
    """
    run = _Run(search, engine, verifier, problem, settings or ThinkSettings(), read_answer)
    began = time.monotonic()
    search = run.start(state)
    while not search.done:
        prefixes = search.ask()
        for prefix, continuations in zip(prefixes, await run.timed(prefixes), strict=True):
            scores = await run.scored(prefix, continuations)
            search.tell(prefix, continuations, scores)
        if state is not None:
            search.save(state)
    run.ledger.seconds = time.monotonic() - began
    text = "" if search.chosen is None else search.text(search.chosen)
    return Thought(
        problem, search.answer, text, search.name, search.options, search.votes,
        tuple(search.nodes), search.chosen, run.ledger, run.prompt_tokens, run.model_seconds,
    )  # fmt: skip


run = synchronous(arun)


class _Run:
    """One search on its way."""

    def __init__(
        self,
        search: Search,
        engine: Engine,
        verifier: StepScorer | None,
        problem: str,
        settings: ThinkSettings,
        read: Callable[[str], Any],
    ) -> None:
        self._search, self._engine, self._verifier = search, engine, verifier
        self._problem, self._settings, self._read = problem, settings, read
        self.ledger = Ledger()
        self.prompt_tokens, self.model_seconds = 0, 0.0
        self._times: list[float] = []  # of the calls of a round
        self._by_ids = {"prompt_ids", "keep_stop"} <= engine.capabilities
        self._prompts: dict[tuple[str, ...], tuple[int, ...]] = {}
        check_fits(type(search), engine, verifier)

    def start(self, state: str | Path | None) -> Search:
        """The search, limited in tokens, perhaps in the state that it had."""
        search, tokens = self._search, self._settings.sampling.max_tokens
        if search.answer_tokens is None:
            search.answer_tokens = search.options["answer_tokens"] = tokens
        if state is not None and Path(state).exists():
            saved = type(search).load(state, equal=search.equal)
            if saved.options != search.options:
                raise DataError(
                    f"{str(state)!r} is the state of a search with {saved.options}, not with "
                    f"{search.options}: name another file."
                )
            self._search = saved
        return self._search

    async def timed(self, prefixes: Sequence[Prefix]) -> list[list[Step]]:
        """`continued`, with the time that it took."""
        began, self._times = time.monotonic(), []
        found = await self.continued(prefixes)
        took = max(self._times, default=0.0)  # servers do not measure it
        self.model_seconds += took or time.monotonic() - began
        return found

    async def continued(self, prefixes: Sequence[Prefix]) -> list[list[Step]]:
        """For each prefix the continuations that it wants."""
        if not self._by_ids:
            most = self._settings.concurrency
            return await gather(self._continuations, prefixes, concurrency=most)
        # What is decoded together is decided here, and not by who comes first: roundings depend
        # on it, and so, once in a long while, does a token.
        model, expected = _innermost(self._engine), sum(map(self._is_asked, prefixes))

        async def counted(prefix: Prefix) -> list[Step]:
            nonlocal expected
            is_asked = self._is_asked(prefix)
            try:
                return await self._continuations(prefix)
            finally:
                expected -= is_asked
                model.expect(expected)

        model.expect(expected)
        try:
            return await gather(counted, prefixes, concurrency=max(1, len(prefixes)))
        finally:
            model.expect(0)

    def _is_asked(self, prefix: Prefix) -> bool:
        """Whether the model itself is asked at once for what follows a prefix."""
        if not isinstance(self._engine, CachedEngine):
            return True
        is_one = prefix.max_steps in (None, 1)
        return is_one and bool(self._engine.lacks(self._request(prefix, self._stop(prefix))))

    async def scored(
        self, prefix: Prefix, continuations: Sequence[Step]
    ) -> list[float] | list[list[float]]:
        """For each continuation the scores of its steps, as the verifier sees them."""
        if self._verifier is None or not self._search.needs_scores:
            return [0.0] * len(continuations)
        steps = self._settings.steps
        before = len(steps(prefix.text))
        pairs = [(self._problem, steps(prefix.text + one.text) or [""]) for one in continuations]
        return [found[before:] or found[-1:] for found in await self._scores(pairs)]

    async def _scores(self, pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
        verifier: Any = self._verifier
        before = getattr(verifier, "tokens_scored", 0)
        if hasattr(verifier, "ascore_batch"):  # it asks an engine, of this loop
            found = await verifier.ascore_batch(pairs)
        elif hasattr(verifier, "score_batch"):
            found = await in_thread(verifier.score_batch, pairs)
        else:
            found = [await in_thread(verifier.score, text, steps) for text, steps in pairs]
        tokens = getattr(verifier, "tokens_scored", 0) - before
        parameters = getattr(verifier, "parameters", None) or 0
        self.ledger += Ledger(verifier_tokens=tokens, flops=2.0 * parameters * tokens)
        for (_, steps), scores in zip(pairs, found, strict=True):
            if len(scores) != len(steps):
                raise DataError(
                    f"The verifier gave {len(scores)} scores for {len(steps)} steps: it must give "
                    "one for each."
                )
        return [list(map(float, scores)) for scores in found]

    async def _continuations(self, prefix: Prefix) -> list[Step]:
        if prefix.max_steps is None or prefix.max_steps == 1:
            return await self._next_steps(prefix)
        # Several steps of one continuation: nothing can be counted inside of a request.
        path, left, tokens = prefix.path, prefix.max_tokens, 0
        for i in range(prefix.max_steps):
            room = None if left is None else left - tokens
            at = replace(prefix, path=path, n=1, max_steps=1, max_tokens=room, seed=prefix.seed + i)
            [step] = await self._next_steps(at)
            path, tokens = (*path, step), tokens + step.cost
            if step.ends or (left is not None and tokens >= left):
                break
        rolled = path[len(prefix.path) :]
        ids = tuple(i for step in rolled for i in step.ids)
        text = "".join(step.text for step in rolled)
        return [replace(path[-1], text=text, ids=ids, tokens=tokens)]

    async def _next_steps(self, prefix: Prefix) -> list[Step]:
        stop = self._stop(prefix)
        request = self._request(prefix, stop)
        completions = [await self._complete(one) for one in self._split(request)]
        return [
            self._step(prefix, choice, stop)
            for completion in completions
            for choice in completion.choices
        ]

    def _stop(self, prefix: Prefix) -> tuple[str, ...]:
        separator = () if prefix.max_steps is None else (self._settings.separator,)
        return (*separator, *prefix.stop)

    def _split(self, request: Request) -> list[Request]:
        """The request, or several with seeds of their own where the engine draws one at a time."""
        if "n" in self._engine.capabilities:
            return [request]
        first = request.sampling.seed or 0
        return [
            replace(request, n=1, sampling=replace(request.sampling, seed=first + i))
            for i in range(request.n)
        ]

    def _request(self, prefix: Prefix, stop: tuple[str, ...]) -> Request:
        sampling = replace(
            self._settings.sampling, seed=prefix.seed, stop=stop, max_tokens=prefix.max_tokens
        )
        if prefix.greedy:
            sampling = replace(sampling, temperature=0.0)
        if self._by_ids:
            ids = list(self._prompt(prefix.context))
            pending = ""  # text without tokens, which follows what has some
            for step in prefix.path:
                if step.ids or not step.text:
                    ids += [*self._forced(pending), *step.ids]
                    pending = ""
                else:
                    pending += step.text
            return Request(
                (), sampling, prompt_ids=tuple(ids), prefill=pending, n=prefix.n,
                top_logprobs=prefix.top_logprobs or None, keep_stop=bool(stop),
            )  # fmt: skip
        messages = self._settings.messages(self._problem, prefix.context)
        return Request(
            messages, sampling, prefill=prefix.text, n=prefix.n,
            top_logprobs=prefix.top_logprobs or None,
        )  # fmt: skip

    def _prompt(self, context: tuple[str, ...]) -> tuple[int, ...]:
        if context not in self._prompts:
            settings = self._settings
            is_raw = settings.raw
            if is_raw is None:
                is_raw = not getattr(_innermost(self._engine), "has_chat_template", True)
            said: Any = settings.messages(self._problem, context)
            if is_raw:
                said = "".join(message.text for message in said)
            self._prompts[context] = self._engine.encode(said)
        return self._prompts[context]

    def _forced(self, text: str) -> tuple[int, ...]:
        """Tokens of text that the search put into a solution."""
        return () if not text else self._engine.encode(text, begins=False)

    async def _complete(self, request: Request) -> Completion:
        completion = await self._engine.complete(request)
        usage = completion.usage
        self._times.append(usage.prompt_seconds + usage.generation_seconds)
        self.prompt_tokens = self.prompt_tokens or usage.prompt_tokens
        passed = usage.prompt_tokens - usage.cached_tokens + usage.generated_tokens
        self.ledger += Ledger(
            model_calls=1,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            generated_tokens=usage.generated_tokens,
            flops=2.0 * (self._engine.parameters or 0) * passed,
        )
        return completion

    def _step(self, prefix: Prefix, choice: Choice, stop: tuple[str, ...]) -> Step:
        text, ids = choice.text, choice.ids or ()
        is_cut = choice.finish_reason == "length"
        if self._by_ids:
            ended = not is_cut and not any(one in text for one in stop)
        else:
            # Servers do not say what ended an answer: an answer, or nothing new, is the end.
            ended = not is_cut and (not stop or not text.strip() or stated_answer(text) is not None)
            if not is_cut and not ended:
                text += stop[0]
        tokens = len(ids)
        if choice.ids is None:
            tokens = min(-(-len(text.encode()) // 4), prefix.max_tokens or len(text))
        if ended and self._by_ids and ids:
            ids = ids[:-1]  # the end token: nothing can follow it
        answer = self._read(prefix.text + text) if ended else None
        return Step(
            text, ids=ids, tokens=tokens, final=ended, answer=answer,
            confidences=tuple(
                -sum(logprob for _, logprob in likeliest) / len(likeliest)
                for likeliest in choice.top_logprobs or () if likeliest
            ),
        )  # fmt: skip


def check_fits(kind: type[Search], engine: Engine, verifier: StepScorer | None) -> None:
    """Refuse a strategy that lacks a verifier, or an engine that cannot do what it needs.

    Raises:
        ConfigError: It needs a verifier.
        CapabilityError: The engine cannot do it; the message names strategies that work with it.
    """
    if kind.needs_scores and verifier is None:
        others = ", ".join(name for name, one in Search.kinds.items() if not one.needs_scores)
        raise ConfigError(
            f"The strategy {kind.name!r} needs a verifier that scores steps, such as a process "
            f"reward model. These need none: {others}."
        )
    lacking = _lacking(kind, engine)
    if lacking:
        others = ", ".join(name for name, one in Search.kinds.items() if not _lacking(one, engine))
        raise CapabilityError(
            f"The strategy {kind.name!r} {lacking}, which the engine {engine.name!r} cannot do. "
            f"These work with it: {others}; a checkpoint in this process works with all."
        )


def _lacking(kind: type[Search], engine: Engine) -> str:
    can = engine.capabilities
    if kind.needs_prefixes and "prefill" not in can:
        return "continues solutions in the middle (`prefill`)"
    if kind.needs_confidence and "logprobs" not in can:
        return "needs log-probabilities of tokens (`logprobs`)"
    return ""


def _innermost(engine: Engine) -> Engine:
    while isinstance(inner := getattr(engine, "engine", None), Engine):
        engine = inner
    return engine
