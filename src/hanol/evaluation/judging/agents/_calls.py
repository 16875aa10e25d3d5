"""Calls of a run: bounded, counted, kept in a log, so that none that has ended is made twice."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hanol.engines import Choice, Engine, Request
from hanol.errors import CapabilityError, EngineError
from hanol.evaluation.judging._rubric import Rubric
from hanol.evaluation.judging._settings import JudgeLimits
from hanol.evaluation.judging.agents._oracles import JudgeTurn, OfflineJudge
from hanol.evaluation.judging.replies._weights import weighted
from hanol.rows import JsonLines
from hanol.runs import Ledger

_log = logging.getLogger(__name__)
_HOPELESS = 20  # failed calls without a single success: the engine cannot be asked at all


class UnscoredError(Exception):
    """An item gets no score; the reason is for the report.

    Args:
        unanswered: An engine failed: another run may ask again.
    """

    def __init__(self, problem: str, *, unanswered: bool = False) -> None:
        super().__init__(problem)
        self.unanswered = unanswered


class StoppedError(Exception):
    """A limit of the run was reached: the item is left for the next run."""


class Calls:
    """Makes the calls of a run.

    Args:
        path: Log of finished calls; None keeps none.
        wanted: Keys of items that are not judged yet: calls for others are not kept in memory.

    Attributes:
        spent: What this process's calls have cost; earlier ones are not in it.
        made: Calls of this process.
    """

    def __init__(self, limits: JudgeLimits, path: Path | None, wanted: set[str]) -> None:
        self._limits = limits
        self._log = None if path is None else JsonLines(path)
        self._known: dict[str, dict[str, Any]] = {}
        for row in self._log.read() if self._log else ():
            if str(row.get("call", "")).partition("/")[0] in wanted:
                self._known[row["call"]] = row
        self._free = asyncio.Semaphore(limits.concurrency)
        self._unconstrained: set[str] = set()  # engines that refused a schema
        self._failed, self._is_alive = 0, False
        self.spent = Ledger()
        self.made = 0

    async def call(
        self, key: str, engine: Engine, request: Request, turn: JudgeTurn, rubric: Rubric
    ) -> Mapping[str, Any]:
        """The row of a call: text, finish reason, tokens; from the log if it was made before.

        Raises:
            UnscoredError: The engine did not answer.
            StoppedError: A limit forbids the call.
            EngineError: No call of this run was ever answered.
        """
        if (row := self._known.pop(key, None)) is not None:
            return row
        async with self._free:
            if (limit := self._limits.reached(self.spent, self.made)) is not None:
                raise StoppedError(f"stopped at {limit}")
            self.made += 1
            began = time.perf_counter()
            try:
                row = await self._ask(engine, request, turn, rubric)
            except EngineError as err:
                self._failed += 1
                if self._failed >= _HOPELESS and not self._is_alive:
                    raise EngineError(f"None of {self._failed} calls was answered: {err}") from err
                raise UnscoredError(f"{turn.role}: {err}", unanswered=True) from err
        self._is_alive = True
        seconds = time.perf_counter() - began
        price = self._limits.cost(row["prompt_tokens"], row["generated_tokens"])
        self.spent += Ledger(
            model_calls=1, prompt_tokens=row["prompt_tokens"], money=price, seconds=seconds,
            generated_tokens=row["generated_tokens"], cached_tokens=row["cached_tokens"],
        )  # fmt: skip
        row = {"call": key, **row, "seconds": round(seconds, 4)}
        if self._log is not None:
            self._log.append(row)
        return row

    def forget(self, key: str) -> None:
        """Drop what is left of an item's earlier calls: it is done."""
        for name in [name for name in self._known if name.partition("/")[0] == key]:
            del self._known[name]

    async def _ask(
        self, engine: Engine, request: Request, turn: JudgeTurn, rubric: Rubric
    ) -> dict[str, Any]:
        if isinstance(engine, OfflineJudge):
            return _row(Choice(engine.answer(turn)))
        if request.constraint is not None and (
            "json_schema" not in getattr(engine, "capabilities", ())
            or engine.name in self._unconstrained
        ):
            request = replace(request, constraint=None)
        try:
            done = await engine.complete(request)
        except CapabilityError:
            if request.constraint is None:
                raise
            if engine.name not in self._unconstrained:
                _log.warning("%s takes no JSON schema: replies are free from now on.", engine.name)
                self._unconstrained.add(engine.name)
            done = await engine.complete(replace(request, constraint=None))
        usage = done.usage
        row = _row(done.choices[0]) | {
            "prompt_tokens": usage.prompt_tokens,
            "generated_tokens": usage.generated_tokens,
            "cached_tokens": usage.cached_tokens,
        }
        if request.top_logprobs:
            row["weighted"] = weighted(done.choices[0], rubric)
        return row


def _row(choice: Choice) -> dict[str, Any]:
    return {
        "text": choice.text, "finish": choice.finish_reason,
        "prompt_tokens": 0, "generated_tokens": 0, "cached_tokens": 0,
    }  # fmt: skip
