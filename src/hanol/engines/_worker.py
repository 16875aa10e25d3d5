"""The thread that runs a model: prompts join, answers grow together, finished ones leave.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

import logging
import queue
import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoForCausalLM
from hanol.engines._chat import common_prefix
from hanol.engines._engine import Completion
from hanol.engines._job import Job
from hanol.engines._layers import Contents, is_known, is_recurrent
from hanol.engines._prefixes import Prefix, PrefixStore
from hanol.engines._rows import OneRow, Rows
from hanol.engines._stream import Decoder, TextStream
from hanol.errors import EngineError
from hanol.sampling import draw

_log = logging.getLogger(__name__)
_CHUNK = 512  # prompt tokens that pass at once
_ROWS_A_CHUNK = 32  # the more answers are being written, the more may pass between two tokens
_PIECE = 64  # of them, the fewest that a prompt gets


class Worker:
    """Runs a model in a thread of its own, for many requests at once.

    Each pass takes one token of every row: the one drawn last, or the next one of a prompt. What
    prompts are behind by more than that passes before, several prompts at once.

    Args:
        model: In evaluation mode; used by this thread alone.
        tokenizer: Used by this thread alone.
        ends: Tokens that end an answer.
        max_batch: Answers written at the same time.
        cache_bytes: Memory for what was computed of earlier prompts and answers.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ends: frozenset[int], max_batch: int, cache_bytes: int
    ) -> None:
        self._model, self._ends = model, ends
        self._decoder = Decoder(tokenizer)
        self._heads = isinstance(model, AutoDecoForCausalLM)
        self._truncation = model.config.serving()[0] if self._heads else "hard"
        self._slices = "logits_to_keep" in signature(model.forward).parameters
        self._store = PrefixStore(cache_bytes)
        self._epoch = self._stored = 0  # of the weights, now and in the store
        self._running: list[Job] = []  # by row
        self._queued: deque[Job] = deque()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # Wherever a request is when something raises, its caller waits for one of these.
        self._unanswered: set[Future[Completion]] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._end: EngineError | None = None  # why no request is taken any more
        self._lock = threading.Lock()  # of `_end` and `_thread`
        with torch.inference_mode():
            probe = getattr(self._forward([[0]]), CACHE_NAME)
        self._known = is_known(probe)
        self._like = probe
        self._rows = self._no_rows()
        self._max_batch = max_batch if self._known else 1
        self._keeps = self._known and cache_bytes > 0
        # Where nothing is kept, no copies of states are needed, and a prompt is read in one piece.
        self.is_recurrent = self._keeps and is_recurrent(probe)
        if not self._known:
            kinds = sorted({type(layer).__name__ for layer in getattr(probe, "layers", [])})
            _log.warning(
                "The cache of %s (%s) can be neither batched nor reused: requests run one after "
                "another.",
                type(model).__name__,
                ", ".join(kinds) or type(probe).__name__,
            )

    def submit(self, job: Job) -> "Future[Completion]":
        """Queue a request; cancelling the future frees its place.

        Raises:
            EngineError: The engine was closed, or its thread has died.
        """
        with self._lock:
            if self._closed:
                raise EngineError("The engine is closed: open it again.")
            if self._end is not None:
                raise EngineError(str(self._end)) from self._end.__cause__
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="hanol-engine", daemon=True)
                thread.start()
                self._thread = thread
            self._unanswered.add(job.future)
            job.future.add_done_callback(self._unanswered.discard)
            self._waiting.put(job)
        return job.future

    def forget(self) -> None:
        """Take up nothing that was computed before now."""
        self._epoch += 1

    def close(self) -> None:
        """Stop; whoever waits gets an EngineError."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        self._store.clear()

    # -- the thread

    def _run(self) -> None:
        end = EngineError("The engine was closed before the answer was there.")
        try:
            with torch.inference_mode():
                while not self._closed:
                    try:
                        self._pass()
                    except Exception as err:  # of these requests; the next ones may do better
                        self._fail(_as_engine_error(err))
        except BaseException as err:
            end = EngineError(
                f"The engine's thread died of {type(err).__name__}: {err}. Open it again."
            )
            end.__cause__ = err
            raise
        finally:
            with self._lock:  # whoever submits later is refused
                self._end = end
            self._tell(end)

    def _pass(self) -> None:
        self._leave([i for i, job in enumerate(self._running) if job.future.cancelled()])
        self._admit()
        for _ in range(1 + len(self._running) // _ROWS_A_CHUNK):
            self._feed_prompts()
        if any(job.behind == 1 for job in self._running):
            self._step()

    def _admit(self) -> None:
        """Give free places to those who wait, in their order."""
        self._hear()
        if self._stored != self._epoch:
            self._stored = self._epoch
            self._store.clear()
        held: list[Job] = []
        while self._queued and len(self._running) < self._max_batch:
            job = self._queued.popleft()
            if job.future.done():  # cancelled, or failed with others
                continue
            prefix, tokens = self._store.longest(job.ids) if self._keeps else (None, 0)
            if self._is_computed_now(job, tokens):
                held.append(job)
            else:
                self._begin(job, prefix, tokens)
        self._queued.extendleft(reversed(held))

    def _hear(self) -> None:
        """Take what was submitted; wait for it when there is nothing else to do."""
        with suppress(queue.Empty):
            while not self._closed:
                job = self._waiting.get(block=not (self._running or self._queued))
                if job is not None:
                    self._queued.append(job)

    def _is_computed_now(self, job: Job, cached: int) -> bool:
        """Whether another prompt is on its way through much of what this one begins with."""
        if not self._keeps or len(job.ids) - cached <= _CHUNK:
            return False
        for other in self._running:
            if other.fed < len(other.ids):
                shared = common_prefix(other.ids, job.ids)
                if self.is_recurrent:
                    shared = max((mark for mark in other.marks if mark <= shared), default=0)
                if shared - cached >= _CHUNK:
                    return True
        return False

    def _begin(self, job: Job, prefix: Prefix | None, tokens: int) -> None:
        """Take up what was computed of an earlier conversation that begins alike."""
        job.stream = TextStream(self._decoder, job.ids, job.stop)
        job.epoch = self._epoch
        contents = None
        if prefix is not None:
            job.points = {n: x for n, x in (prefix.points or {}).items() if n <= tokens}
            contents = Contents(prefix.grown, job.points.get(tokens, []))
        self._rows.put(len(self._running), contents, tokens)
        self._running.append(job)
        job.fed = job.cached = tokens

    def _feed_prompts(self) -> None:
        """Up to `_CHUNK` tokens of prompts; the last token of each is left to the next step."""
        behind = {row: job.behind - 1 for row, job in enumerate(self._running) if job.behind > 1}
        if not behind:
            return
        most = max(min(_PIECE, _CHUNK), _CHUNK // len(behind))
        rows = _alike({row: min(tokens, most) for row, tokens in behind.items()})
        jobs = [self._running[row] for row in rows]
        counts = [self._next_count(job, most) for job in jobs]
        T = max(counts)
        ids_BT = [
            job.sequence[job.fed : job.fed + count] + [0] * (T - count)
            for job, count in zip(jobs, counts, strict=True)
        ]
        outputs = self._forward(ids_BT, **self._rows.chunk(rows, counts))
        self._rows.chunked(rows, counts, getattr(outputs, CACHE_NAME))
        for row, job, count in zip(rows, jobs, counts, strict=True):
            job.fed += count
            self._mark(row, job)

    def _next_count(self, job: Job, most: int) -> int:
        """Tokens of a prompt that pass at once: recurrent states are copied at its marks."""
        ends = [job.fed + most, len(job.sequence) - 1]
        if self.is_recurrent:
            ends += [mark for mark in job.marks if mark > job.fed]
        return min(ends) - job.fed

    def _mark(self, row: int, job: Job) -> None:
        """Copy recurrent states where another conversation may go on; share a long new prompt."""
        if self.is_recurrent and job.fed in job.marks:
            job.points[job.fed] = self._rows.states(row)
        if job.fed == len(job.ids) - 1 and job.fed - job.cached >= _CHUNK:
            self._remember(row, job)

    def _remember(self, row: int, job: Job) -> None:
        if self._keeps and job.epoch == self._epoch:
            held = self._rows.read(row)
            points = None
            if self.is_recurrent:
                points = {**job.points, job.fed: held.fixed}
            self._store.put(Prefix(job.sequence[: job.fed], held.grown, points))

    def _step(self) -> None:
        """One more token for each row; a new one where its prompt is through."""
        inputs = self._rows.step()
        outputs = self._forward([[job.sequence[job.fed]] for job in self._running], **inputs)
        self._rows.stepped(getattr(outputs, CACHE_NAME))
        ready = []
        for row, job in enumerate(self._running):
            job.fed += 1
            if job.behind == 0:
                ready.append(row)
            elif self.is_recurrent:
                self._mark(row, job)
        self._accept(outputs, ready)

    def _forward(self, ids_BT: list[list[int]], **inputs: Any) -> Any:
        if self._heads:
            inputs["output_base_logits"] = True
        if self._slices:
            inputs["logits_to_keep"] = 1
        ids = torch.tensor(ids_BT, device=self._model.device)
        return self._model(input_ids=ids, use_cache=True, **inputs)

    def _accept(self, outputs: Any, rows: list[int]) -> None:
        """Draw a token for each of these rows; those that are finished leave."""
        jobs = [self._running[row] for row in rows]
        drawn = draw(*self._distribution(outputs, rows, jobs))
        finished = []
        for row, job, token, logprob in zip(rows, jobs, drawn.tokens, drawn.logprobs, strict=True):
            was_stopping = self.is_recurrent and job.stream.may_be_stopping
            job.sequence.append(token)
            job.logprobs.append(logprob)
            if job.penalty_V is not None:
                job.penalty_V[token] = job.request.sampling.presence_penalty
            if token not in self._ends:
                job.stream.push(token)
            if token in self._ends or job.stream.stopped or job.new_tokens >= job.limit:
                finished.append(row)
            elif self.is_recurrent and not was_stopping and job.stream.may_be_stopping:
                # If it is a stop string, the next prompt goes on from before it.
                job.points.pop(job.stopping, None)
                job.stopping = job.fed
                job.points[job.fed] = self._rows.states(row)
        for row, job in zip(rows, jobs, strict=True):
            if row in finished:
                self._remember(row, job)
                _resolve(job, job.completion(self._ends))
        self._leave(finished)

    def _distribution(
        self, outputs: Any, rows: list[int], jobs: list[Job]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits with penalties, temperature, top-p and a random number of each of these rows."""
        logits_BV = (outputs.base_logits if self._heads else outputs.logits)[rows, -1].float()
        temperatures, top_ps = [1.0] * len(jobs), [1.0] * len(jobs)
        if self._heads:
            temperatures = outputs.temperature[rows, -1].tolist()
            top_ps = outputs.top_p[rows, -1].tolist()
        for i, job in enumerate(jobs):
            sampling = job.request.sampling
            if sampling.temperature is not None:
                temperatures[i] = sampling.temperature
            if sampling.top_p is not None:
                top_ps[i] = sampling.top_p
            elif self._truncation == "none":
                top_ps[i] = 1.0
            elif self._truncation == "soft" and sampling.temperature is None:
                logits_BV[i] = outputs.logits[rows[i], -1]
                temperatures[i] = top_ps[i] = 1.0
            if sampling.presence_penalty:
                if job.penalty_V is None:
                    job.penalty_V = torch.zeros_like(logits_BV[i])
                logits_BV[i] -= job.penalty_V
        device = logits_BV.device
        uniform = [job.uniform() for job in jobs]
        return (
            logits_BV,
            torch.tensor(temperatures, device=device),
            torch.tensor(top_ps, device=device),
            torch.tensor(uniform, device=device, dtype=torch.float64),
        )

    def _leave(self, rows: list[int]) -> None:
        """Free these rows; the last ones take their places."""
        for row in sorted(rows, reverse=True):
            self._rows.drop(row)
            last = self._running.pop()
            if row < len(self._running):
                self._running[row] = last

    def _no_rows(self) -> Rows | OneRow:
        return Rows(self._like) if self._known else OneRow()

    def _fail(self, error: EngineError) -> None:
        """Tell everybody who waits, and begin anew."""
        self._tell(error)
        self._running = []
        self._queued.clear()
        self._rows = self._no_rows()
        self._store.clear()  # memory may be what was missing

    def _tell(self, error: EngineError) -> None:
        for future in list(self._unanswered):
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_exception(error)


def _alike(tokens: dict[int, int]) -> list[int]:
    """Rows for one pass: the first, and those nearest to it in tokens; the rest is padding."""
    first = next(iter(tokens.values()))
    longest, rows = 0, list[int]()
    for row in sorted(tokens, key=lambda row: abs(tokens[row] - first)):
        longest = max(longest, tokens[row])
        if rows and longest * (len(rows) + 1) > _CHUNK:
            break
        rows.append(row)
    return rows


def _resolve(job: Job, completion: Completion) -> None:
    with suppress(InvalidStateError):  # cancelled meanwhile
        job.future.set_result(completion)


def _as_engine_error(err: Exception) -> EngineError:
    if isinstance(err, EngineError):
        return err
    made = EngineError(f"The model failed with {type(err).__name__}: {err}")
    made.__cause__ = err
    return made
