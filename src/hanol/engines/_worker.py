"""The thread that runs a model: prompts join, answers grow together, finished ones leave.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

import logging
import queue
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from hanol.decoding import AutoDecoForCausalLM
from hanol.engines._draw import draw
from hanol.engines._engine import Completion
from hanol.engines._job import Job
from hanol.engines._prefixes import Prefix, PrefixStore
from hanol.engines._rows import Contents, Rows, contents, fill, is_known, is_recurrent
from hanol.engines._stream import TextStream
from hanol.errors import EngineError

_log = logging.getLogger(__name__)
_CHUNK = 512  # prompt tokens between two tokens of the answers that are being written


@dataclass
class _Prefill:
    job: Job
    cache: Any
    done: int


class Worker:
    """Runs a model in a thread of its own, for many requests at once.

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
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._heads = isinstance(model, AutoDecoForCausalLM)
        self._truncation = model.config.serving()[0] if self._heads else "hard"
        self._slices = "logits_to_keep" in signature(model.forward).parameters
        self._store = PrefixStore(cache_bytes)
        self._rows = Rows()
        self._running: list[Job] = []
        self._prefill: _Prefill | None = None
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        with torch.inference_mode():
            probe = self._forward([[0]], None).past_key_values
        self._like = probe if is_known(probe) else None
        # Where nothing is kept, no copies of states are needed, and a prompt is read in one piece.
        self.is_recurrent = self._like is not None and is_recurrent(probe) and cache_bytes > 0
        self._max_batch = max_batch
        if self._like is None:
            self._max_batch = 1
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
            EngineError: The engine was closed.
        """
        if self._closed:
            raise EngineError("The engine is closed: open it again.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hanol-engine", daemon=True)
            self._thread.start()
        self._waiting.put(job)
        return job.future

    def close(self) -> None:
        """Stop; whoever waits gets an EngineError."""
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        self._store.clear()

    # -- the thread

    @torch.inference_mode()
    def _run(self) -> None:
        while not self._closed:
            try:
                self._forget_cancelled()
                self._fill_places()
                if self._running:
                    self._step()
            except Exception as err:  # the thread must go on: nobody may wait for ever
                self._fail(_as_engine_error(err))
        self._fail(EngineError("The engine was closed before the answer was there."))

    def _forget_cancelled(self) -> None:
        if self._prefill is not None and self._prefill.job.future.cancelled():
            self._prefill = None
        keep = [i for i, job in enumerate(self._running) if not job.future.cancelled()]
        self._keep(keep)

    def _fill_places(self) -> None:
        """Let prompts in; a long one chunk by chunk between the tokens of the others."""
        while len(self._running) < self._max_batch:
            if self._prefill is None:
                try:
                    job = self._waiting.get(block=not self._running)
                except queue.Empty:
                    return
                if job is None:
                    return  # closed
                if job.future.cancelled():
                    continue
                self._prefill = _Prefill(job, None, 0)
                self._begin(self._prefill)
            self._prefill_chunk(self._prefill)
            if self._running:
                return

    def _begin(self, prefill: _Prefill) -> None:
        """Take up what was computed of an earlier conversation that begins alike."""
        job = prefill.job
        job.stream = TextStream(self._tokenizer, job.ids, job.stop)
        job.generator = torch.Generator()
        if job.request.seed is None:
            job.generator.seed()
        else:
            job.generator.manual_seed(job.request.seed)
        prefix, tokens = self._store.longest(job.ids)
        if prefix is None:
            return
        fixed = []
        if prefix.points is not None:
            fixed = [x.clone() for x in prefix.points[tokens]]
            job.points[tokens] = prefix.points[tokens]
        held = Contents([x[..., :tokens, :] for x in prefix.grown], fixed)
        prefill.cache = fill(self._like, held, tokens)
        prefill.done = job.cached = tokens

    def _prefill_chunk(self, prefill: _Prefill) -> None:
        job, done = prefill.job, prefill.done
        end = min([done + _CHUNK, len(job.ids), *(mark for mark in job.marks if mark > done)])
        outputs = self._forward([job.ids[done:end]], prefill.cache)
        prefill.cache, prefill.done = outputs.past_key_values, end
        if self.is_recurrent and (end in job.marks or end == len(job.ids)):
            job.points[end] = [x.clone() for x in contents(prefill.cache).fixed]
        if end < len(job.ids):
            return
        self._running.append(job)
        self._prefill = None
        self._remember(job, job.ids, contents(prefill.cache).grown if self._like else [])
        self._rows.add(prefill.cache, len(job.ids))
        self._accept(outputs, [len(self._running) - 1])

    def _remember(self, job: Job, ids: list[int], grown: list[Tensor]) -> None:
        if self._like is not None:
            points = dict(job.points) if self.is_recurrent else None
            self._store.put(Prefix(ids, grown, points))

    def _step(self) -> None:
        """One more token for each running job."""
        inputs = self._rows.inputs(self._model.device)
        cache = inputs.pop("past_key_values")
        outputs = self._forward([[job.new[-1]] for job in self._running], cache, **inputs)
        self._rows.advance(outputs.past_key_values)
        self._accept(outputs, list(range(len(self._running))))

    def _forward(self, ids_BT: list[list[int]], cache: Any, **inputs: Any) -> Any:
        if self._heads:
            inputs["output_base_logits"] = True
        if self._slices:
            inputs["logits_to_keep"] = 1
        return self._model(
            input_ids=torch.tensor(ids_BT, device=self._model.device),
            past_key_values=cache,
            **{"use_cache": True, **inputs},
        )

    def _accept(self, outputs: Any, rows: list[int]) -> None:
        """Draw a token for each of these running jobs; those that are finished leave."""
        jobs = [self._running[row] for row in rows]
        drawn = draw(*self._distribution(outputs, jobs))
        finished = []
        for row, job, token, logprob in zip(rows, jobs, drawn.tokens, drawn.logprobs, strict=True):
            fed = len(job.ids) + len(job.new)  # tokens in the cache
            was_stopping = job.stream.may_be_stopping if self.is_recurrent else False
            job.new.append(token)
            job.logprobs.append(logprob)
            if job.penalty_V is not None:
                job.penalty_V[token] = job.request.presence_penalty
            if token not in self._ends:
                job.stream.push(token)
            if token in self._ends or job.stream.stopped or len(job.new) >= job.limit:
                finished.append(row)
            elif self.is_recurrent and not was_stopping and job.stream.may_be_stopping:
                # If it is a stop string, the next prompt goes on from before it.
                job.points.pop(job.stopping, None)
                job.stopping = fed
                job.points[fed] = self._rows.states(row)
        for row in finished:
            self._finish(row)
        if finished:
            self._keep([row for row in range(len(self._running)) if row not in finished])

    def _distribution(self, outputs: Any, jobs: list[Job]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits with penalties, temperature, top-p and a random number of each row."""
        logits_BV = (outputs.base_logits if self._heads else outputs.logits)[:, -1].float()
        temperatures, top_ps = [1.0] * len(jobs), [1.0] * len(jobs)
        if self._heads:
            temperatures = outputs.temperature[:, -1].tolist()
            top_ps = outputs.top_p[:, -1].tolist()
        uniform = []
        for row, job in enumerate(jobs):
            request = job.request
            if request.temperature is not None:
                temperatures[row] = request.temperature
            if request.top_p is not None:
                top_ps[row] = request.top_p
            elif self._truncation == "none":
                top_ps[row] = 1.0
            elif self._truncation == "soft" and request.temperature is None:
                logits_BV[row] = outputs.logits[row, -1]
                temperatures[row] = top_ps[row] = 1.0
            if request.presence_penalty:
                if job.penalty_V is None:
                    job.penalty_V = torch.zeros_like(logits_BV[row])
                logits_BV[row] -= job.penalty_V
            uniform.append(torch.rand((), generator=job.generator, dtype=torch.float64))
        device = logits_BV.device
        return (
            logits_BV,
            torch.tensor(temperatures, device=device),
            torch.tensor(top_ps, device=device),
            torch.stack(uniform).to(device),
        )

    def _finish(self, row: int) -> None:
        job = self._running[row]
        if self._like is not None:
            held = self._rows.row(row)
            fed = [*job.ids, *job.new[:-1]]
            if self.is_recurrent:
                job.points[len(fed)] = held.fixed
            self._remember(job, fed, held.grown)
        _resolve(job, job.completion(self._ends))

    def _keep(self, rows: list[int]) -> None:
        if len(rows) < len(self._running):
            self._running = [self._running[row] for row in rows]
            self._rows.keep(rows)

    def _fail(self, error: EngineError) -> None:
        """Tell everybody who waits."""
        jobs, self._running = self._running, []
        if self._prefill is not None:
            jobs.append(self._prefill.job)
            self._prefill = None
        with suppress(queue.Empty):
            while True:
                job = self._waiting.get(block=False)
                if job is not None:
                    jobs.append(job)
        self._rows = Rows()
        self._store.clear()  # memory may be what was missing
        for job in jobs:
            with suppress(Exception):  # cancelled meanwhile
                job.future.set_exception(error)


def _resolve(job: Job, completion: Completion) -> None:
    with suppress(Exception):  # cancelled meanwhile
        job.future.set_result(completion)


def _as_engine_error(err: Exception) -> EngineError:
    if isinstance(err, EngineError):
        return err
    made = EngineError(f"The model failed with {type(err).__name__}: {err}")
    made.__cause__ = err
    return made
