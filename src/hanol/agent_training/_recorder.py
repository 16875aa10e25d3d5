"""Keeps the tokens of each turn: in memory, and beside the log of the run.

A line of `turns.jsonl` is written before the event of its turn, and holds only what the turn's
prompt adds to the turn before. So a run that is killed and resumed has every turn of its log.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hanol.engines import Completion, Engine, Request, WrappedEngine
from hanol.errors import EngineError, RunError
from hanol.files import open_regular
from hanol.research import request_sha256
from hanol.rl import SampledTurn
from hanol.rows import JsonLines, whole_lines
from hanol.runs import ModelAnswered


class Recorder(WrappedEngine):
    """An engine that remembers what tokens another one drew; on disk too if there is a folder."""

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        super().__init__(engine)
        self._path = None if folder is None else folder / "turns.jsonl"
        self._last: tuple[int, ...] | None = None  # prompt and tokens of the last line
        self._drawn: dict[str, SampledTurn] = {}
        self._turns: list[SampledTurn | None] = []

    @property
    def turns(self) -> tuple[SampledTurn, ...]:
        """The turns of the agent so far; empty if the tokens of any one are not known."""
        turns = [turn for turn in self._turns if turn is not None]
        return tuple(turns) if len(turns) == len(self._turns) else ()

    async def complete(self, request: Request) -> Completion:
        """The engine's answer, remembered."""
        completion = await self.engine.complete(request)
        turn = _turn(completion)
        if turn is not None:
            key = request_sha256(request)
            self._drawn[key] = turn
            self._append(key, turn)
        return completion

    def took(self, request: Request, event: ModelAnswered) -> None:
        """Note that a run used an answer, new or from its log."""
        if event.purpose not in ("turn", "forced_answer"):
            return
        key = event.request_sha256
        if key not in self._drawn:
            self._drawn = self._stored() | self._drawn
        self._turns.append(self._drawn.get(key))

    def _append(self, key: str, turn: SampledTurn) -> None:
        """Write a turn. It survives the end of this process."""
        if self._path is None:
            return
        if self._last is None:
            self._stored()  # says what the last line is
        assert self._last is not None
        kept = _num_common(self._last, turn.prompt_ids)
        read = {"request": key, "kept": kept, "prompt": turn.prompt_ids[kept:]}
        written = {"tokens": turn.token_ids, "logprobs": turn.logprobs}
        JsonLines(self._path).append(read | written)
        self._last = turn.prompt_ids + turn.token_ids

    def _stored(self) -> dict[str, SampledTurn]:
        """Every whole turn of the file, by the hash of its request."""
        data = b""
        if self._path is not None and self._path.exists():
            with open_regular(self._path) as file:
                data = file.read()
        self._last = ()
        found: dict[str, SampledTurn] = {}
        for number, line in enumerate(whole_lines(data), start=1):
            try:
                row: dict[str, Any] = json.loads(line)
                prompt = self._last[: row["kept"]] + tuple(row["prompt"])
                turn = SampledTurn(prompt, tuple(row["tokens"]), tuple(row["logprobs"]))
                found[row["request"]] = turn
            except (ValueError, LookupError, TypeError) as err:
                raise RunError(
                    f"{str(self._path)!r}, line {number} is damaged ({err!r}). Delete the run "
                    "folder to make the rollout again."
                ) from err
            self._last = turn.prompt_ids + turn.token_ids
        return found


def _num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Leading tokens that both have."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _turn(completion: Completion) -> SampledTurn | None:
    prompt_ids, token_ids = completion.prompt_ids, completion.ids
    if prompt_ids is None or token_ids is None or completion.logprobs is None:
        return None
    if len(token_ids) != len(completion.logprobs):
        raise EngineError(
            f"The engine returned {len(token_ids)} tokens, but {len(completion.logprobs)} "
            "log-probabilities, so nothing can be learned from it."
        )
    return SampledTurn(tuple(prompt_ids), tuple(token_ids), tuple(completion.logprobs))
