"""One answer to one problem, and a reward that a program gives: an environment without people.

Besides the true reward there are two arms that know nothing of the answer, chance and form alone:
some models rise under them too (arXiv 2506.10947), so a gain without them says little.
"""

import os
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from hanol.engines import Completion, Engine, Message, Request
from hanol.errors import ConfigError, DataError
from hanol.rl._rollout import Rollout, SampledTurn
from hanol.rows import JsonLines
from hanol.runs import Mode, RunEnded, Task, gather
from hanol.sampling import Sampling
from hanol.scoring import Verifier, calculated, last_answer, parse_verifier
from hanol.training import prompt_ids
from hanol.worlds import MathProblem

RewardArm = Literal["verified", "random", "format"]
_TESTED = 20  # answers of each kind that a verifier has to judge rightly
_HEADS = 0.5  # probability of a reward by chance
_CALLED = ">>"
_CALL = re.compile(r"<<([^<>]{1,60})>>\Z")


class VerifiedEnvironment:
    """Problems with exact answers, for `GrpoTrainer` and `TrlRollouts`.

    Args:
        problems: What is asked, with verifiers.
        sampling: How answers are drawn; uncut, with a `max_tokens`.
        arm: Where the reward comes from: "verified" is 1 for a right answer; "format" 1 for an
            answer that ends and has the form, right or wrong; "random" 1 by chance.
        verifier: Judges in place of the problems' own, as `parse_verifier` takes it.
        form: Regular expression that an answer has to contain under "format"; None: that an
            answer can be read in it.
        no_stop_penalty: Taken from the reward of an answer that `max_tokens` cut; Tulu 3 has 10
            for a reward of 10.
        template: What is asked, with "{problem}" in it.
        system: System message; None for that of the chat template.
        raw_with: Tokenizer of the model, to ask without its chat template; None asks with it.
        calculator: Answers may calculate: behind "<<12 * 3>>" the value is put, whose tokens are
            not learned.

    Raises:
        ConfigError: A verifier or a pattern cannot be read, or `template` has no "{problem}".
        DataError: No problems, or one without answer or verifier.
    """

    mode: Mode = "react"

    def __init__(
        self,
        problems: Sequence[MathProblem],
        *,
        sampling: Sampling,
        arm: RewardArm = "verified",
        verifier: str | None = None,
        form: str | None = None,
        no_stop_penalty: float = 0.0,
        template: str = "{problem}",
        system: str | None = None,
        raw_with: PreTrainedTokenizerBase | None = None,
        calculator: bool = False,
    ) -> None:
        if "{problem}" not in template:
            raise ConfigError(f'`template` is {template!r}, but must contain "{{problem}}".')
        if lacking := [one for one in problems if not one.answer or not (verifier or one.verifier)]:
            raise DataError(f"{lacking[0].where} has no answer, or no verifier.")
        try:
            self._form = None if form is None else re.compile(form)
        except re.error as err:
            raise ConfigError(f"`form` is {form!r}, which is no regular expression: {err}") from err
        if sampling.max_tokens is None:
            raise ConfigError("`sampling` has no `max_tokens`: an answer could go on for ever.")
        self.sampling, self.arm, self._penalty = sampling, arm, no_stop_penalty
        self._calculates, self._most = calculator, sampling.max_tokens
        self._problems = {one.id: one for one in problems}
        self._verifier = None if verifier is None else parse_verifier(verifier)
        self._template, self._system, self._raw_with = template, system, raw_with

    @property
    def tasks(self) -> list[Task]:
        """The problems, as trainers take them."""
        return [Task(one.id, one.problem, one.answer) for one in self._problems.values()]

    def check_reward(self) -> None:
        """Refuse a verifier that does not know right from wrong.

        It is shown 20 answers that are right and 20 that are right for another problem.

        Raises:
            DataError: A right answer does not earn 1, or a wrong one does not earn 0; or the
                problems have one answer only.
        """
        problems = list(self._problems.values())
        answers = {one.id: one.solution or f"The answer is {one.answer}." for one in problems}
        tested = problems[:: max(1, len(problems) // _TESTED)][:_TESTED]
        for number, problem in enumerate(tested):
            other = next(
                (x for x in problems[number:] + problems if x.answer != problem.answer), None
            )
            if other is None:
                raise DataError(
                    f"All {len(problems)} problems have the answer {problem.answer!r}: nothing "
                    "tells a right answer from a constant one. Use other problems."
                )
            for text, wanted in ((answers[problem.id], True), (answers[other.id], False)):
                if self._verify(problem, text) is not wanted:
                    kind = "right" if wanted else "wrong"
                    raise DataError(
                        f"The verifier gives a {kind} answer {int(not wanted)} instead of "
                        f"{int(wanted)}: {text[-80:]!r} to {problem.problem[-80:]!r}. A model "
                        "would learn its mistakes: correct the verifier or the answers."
                    )

    def reward(self, problem: MathProblem, text: str, *, ended: bool, seed: int) -> float:
        """What an answer earns."""
        if self.arm == "random":
            earned = random.Random(f"{seed} {problem.id}").random() < _HEADS  # noqa: S311
        elif not ended:
            earned = False
        elif self.arm == "format":
            has_form = last_answer(text) is not None
            earned = has_form if self._form is None else self._form.search(text) is not None
        else:
            earned = self._verify(problem, text)
        return float(earned) - (0.0 if ended else self._penalty)

    async def rollouts(
        self,
        engine: Engine,
        tasks: Sequence[Task],
        *,
        seeds: Sequence[int],
        concurrency: int,
        folder: str | os.PathLike[str] | None = None,
        on_rollout: Callable[[Rollout], None] | None = None,
    ) -> list[Rollout]:
        """One answer to each problem with its seed; see `Environment`."""
        left = len(tasks)

        async def attempt(job: tuple[Task, int]) -> Rollout:
            nonlocal left
            rollout = await self._attempt(engine, *job)
            left -= 1
            engine.expect(min(concurrency, left))
            if on_rollout is not None:
                on_rollout(rollout)
            return rollout

        try:
            engine.expect(min(concurrency, left))
            jobs = zip(tasks, seeds, strict=True)
            made = await gather(attempt, jobs, concurrency=concurrency)
        finally:
            engine.expect(0)
        if folder is not None:
            JsonLines(Path(folder) / "answers.jsonl").append(*map(_row, made))
        return made

    async def _attempt(self, engine: Engine, task: Task, seed: int) -> Rollout:
        problem, began = self._problems[task.id], time.monotonic()
        request, text = self._request(problem, seed), ""
        turns: list[SampledTurn] = []
        while True:
            completion = await engine.complete(request)
            turns.append(_turn(completion))
            text += completion.text
            call = _CALL.search(text) if self._calculates else None
            written = sum(len(turn.token_ids) for turn in turns)
            if call is None or written >= self._most:
                break
            value = calculated(call[1]) or "?"
            text += value
            heard = (*turns[-1].prompt_ids, *turns[-1].token_ids)
            heard += engine.encode(value, begins=False)
            request = self._goes_on(heard, seed + len(turns), written)
        ended = call is None and completion.finish_reason == "stop"
        reward = self.reward(problem, text, ended=ended, seed=seed)
        event = RunEnded(
            number=0, time=time.time(), step=len(turns),
            termination="answer" if ended else "max_tokens", answer=text, citations=None,
            model_calls=len(turns), tool_calls=len(turns) - 1,
            prompt_tokens=len(turns[0].prompt_ids), completion_tokens=written,
            seconds=time.monotonic() - began, money=0.0,
        )  # fmt: skip
        return Rollout(task, (event,), tuple(turns), reward)

    def _request(self, problem: MathProblem, seed: int) -> Request:
        text = self._template.replace("{problem}", problem.problem)
        options = self._options(seed)
        if self._raw_with is not None:
            return Request((), prompt_ids=tuple(prompt_ids(text, self._raw_with)), **options)
        system = () if self._system is None else (Message("system", self._system),)
        return Request((*system, Message("user", text)), **options)

    def _goes_on(self, ids: tuple[int, ...], seed: int, written: int) -> Request:
        """The rest of an answer, from exactly these tokens."""
        return Request((), prompt_ids=ids, **self._options(seed, written))

    def _options(self, seed: int, written: int = 0) -> dict[str, Any]:
        drawn = replace(self.sampling, seed=seed, max_tokens=self._most - written)
        if not self._calculates:
            return {"sampling": drawn, "top_logprobs": 0}
        stopped = replace(drawn, stop=(*drawn.stop, _CALLED))
        return {"sampling": stopped, "top_logprobs": 0, "keep_stop": True}

    def _verify(self, problem: MathProblem, text: str) -> bool:
        verify: Verifier = self._verifier or parse_verifier(problem.verifier)
        return verify(problem.problem, text, problem)


def _turn(completion: Completion) -> SampledTurn:
    ids, logprobs = completion.ids, completion.choices[0].logprobs
    if completion.prompt_ids is None or ids is None or logprobs is None:
        raise DataError(
            "The engine returns no token ids or log-probabilities, so nothing can be learned from "
            "its answers. Use a checkpoint in this process."
        )
    return SampledTurn(tuple(completion.prompt_ids), tuple(ids), tuple(logprobs))


def _row(rollout: Rollout) -> dict[str, Any]:
    ended = rollout.events[-1]
    assert isinstance(ended, RunEnded)
    return {
        "id": rollout.task.id,
        "text": ended.answer,
        "ended": ended.termination == "answer",
        "reward": rollout.reward,
    }
