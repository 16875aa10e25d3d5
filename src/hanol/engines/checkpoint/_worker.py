"""The thread that runs a model: prompts join, answers grow together, finished ones leave.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

import atexit
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from hanol.attention import CACHE_NAME
from hanol.engines.checkpoint._chat import common_prefix
from hanol.engines.checkpoint._draws import Draws
from hanol.engines.checkpoint._job import EngineTask, Job
from hanol.engines.checkpoint._layers import Contents, contents, is_known, is_recurrent
from hanol.engines.checkpoint._prefixes import KeptPrefix, PrefixStore
from hanol.engines.checkpoint._rows import OneRow, Rows, alike
from hanol.engines.checkpoint._sight import Sight
from hanol.errors import EngineError
from hanol.sampling import TextStream, token_texts

_log = logging.getLogger(__name__)
_CHUNK = 512  # prompt tokens that pass at once
_ROWS_A_CHUNK = 32  # the more answers are being written, the more may pass between two tokens
_PIECE = 64  # of them, the fewest that a prompt gets
_PATIENCE = 5.0  # seconds in which a request that is expected must come, or it is not waited for
_SCORED = 128  # tokens of a continuation that pass at once: the logits of each are needed


class _AbandonedError(Exception):
    """Nobody waits any more for what the model is computing."""


class Worker:
    """Runs a model in a thread of its own, for many requests at once.

    Each pass takes one token of every row: the one drawn last, or the next one of a prompt. What
    prompts are behind by more than that passes before, several prompts at once.

    Model and tokenizer are used by this thread alone; `ends` are the tokens that end an answer,
    and `sight` reads images, if the model does.
    """

    def __init__(
        self, model: Any, tokenizer: Any, ends: frozenset[int], max_batch: int, cache_bytes: int,
        sight: Sight | None = None,
    ) -> None:  # fmt: skip
        self._model, self._ends, self._sight = model, ends, sight
        self._text_of = token_texts(tokenizer)
        self._draws = Draws(model, self._text_of)
        self._slices = "logits_to_keep" in signature(model.forward).parameters
        self._layers = _layers(model)
        self._store = PrefixStore(cache_bytes)
        self._epoch = self._stored = 0  # of the weights, now and in the store
        self._running: list[Job] = []  # by row
        self._queued: deque[Job] = deque()
        self._waiting: queue.SimpleQueue[EngineTask | None] = queue.SimpleQueue()
        # Wherever a request is when something raises, its caller waits for one of these.
        self._unanswered: set[Future[Any]] = set()
        self._crew = 0  # requests that are waited for
        self._late: float | None = None  # when missing ones are waited for no longer
        self._thread: threading.Thread | None = None
        self._end: EngineError | None = None  # why no request is taken any more
        self._lock = threading.Lock()  # of `_end` and `_thread`
        # A thread that is inside the model when the interpreter ends aborts the process. What asks
        # the engine comes after it, and so is stopped before it.
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)
        with torch.inference_mode():
            like = getattr(self._forward([[0]]), CACHE_NAME)
        self._like, self._known = like, is_known(like)
        self._rows = self._no_rows()
        self._max_batch = max_batch if self._known else 1
        self._keeps = self._known and cache_bytes > 0
        # Where nothing is kept, no copies of states are needed, and a prompt is read in one piece.
        self.is_recurrent = self._keeps and is_recurrent(like)
        if not self._known:
            kinds = {type(layer).__name__ for layer in getattr(like, "layers", [])}
            _log.warning(
                "The cache of %s (%s) can be neither batched nor reused: requests run one after "
                "another.",
                type(model).__name__,
                ", ".join(sorted(kinds)) or type(like).__name__,
            )

    def submit(self, task: EngineTask) -> "Future[Any]":
        """Queue a request; cancelling the future frees its places."""
        with self._lock:
            if self._end is not None:
                raise EngineError(str(self._end)) from self._end.__cause__
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hanol-engine", daemon=True)
                self._thread.start()
            self._unanswered.add(task.future)
            task.future.add_done_callback(self._unanswered.discard)
            self._waiting.put(task)
        return task.future

    def forget(self) -> None:
        """Take up nothing that was computed before now."""
        self._epoch += 1

    def expect(self, requests: int) -> None:
        """Compute nothing while fewer requests are here."""
        self._crew = requests
        self._waiting.put(None)  # so that it is noticed

    def close(self) -> None:
        """Stop before the next layer of a prompt or token of an answer; who waits gets an error."""
        atexit.unregister(self._at_exit)
        with self._lock:
            self._end = EngineError("The engine is closed: open it again.")
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        self._store.clear()

    # -- the thread

    def _run(self) -> None:
        end = EngineError("The engine was closed before the answer was there.")
        try:
            with torch.inference_mode():
                while self._end is None:
                    try:
                        self._pass()
                    except _AbandonedError:
                        continue  # rows are as before the pass, and all of them will leave
                    except Exception as err:  # of these requests; the next ones may do better
                        self._fail(err)
        except BaseException as err:
            end = EngineError(
                f"The engine's thread died of {type(err).__name__}: {err}. Open it again."
            )
            end.__cause__ = err
            raise
        finally:
            with self._lock:  # whoever submits later is refused
                self._end = self._end or end
            self._tell(end)

    def _pass(self) -> None:
        gone = [row for row, job in enumerate(self._running) if job.is_gone]
        for row in gone:  # the next prompt of a conversation goes on from a stopped answer
            job = self._running[row]
            if not job.is_scored and job.fed > job.task.cached:
                self._remember(row, job)
        self._leave(gone)
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
            if job.is_gone:
                continue
            if self._waits_for_prompt(job):
                held.append(job)
                continue
            prefix, tokens = None, 0
            if self._keeps and job.task.prompt is None:
                prefix, tokens = self._store.longest(job.task.keys)
                if job.task.pictured is not None and not self._knows(job.task, tokens):
                    prefix, tokens = None, 0
                if self._is_computed_now(job, tokens):
                    held.append(job)
                    continue
            self._begin(job, prefix, tokens)
        self._queued.extendleft(reversed(held))

    def _knows(self, task: EngineTask, tokens: int) -> bool:
        """Whether so many tokens hold all images of a prompt, and the model still knows them."""
        assert task.pictured is not None
        assert self._sight is not None
        task.seen = self._sight.known(task.pictured)
        return tokens >= task.pictured.end and task.seen is not None

    def _look(self, row: int, job: Job) -> None:
        """Run a prompt with images, but for its last token, in a pass of its own."""
        task = job.task
        assert task.pictured is not None
        assert self._sight is not None
        try:
            with self._stoppable():
                cache, task.seen = self._sight.look(task.pictured)
        except _AbandonedError:
            raise
        except Exception as err:  # of these images; other requests go on
            error = err
            if not isinstance(err, EngineError):
                error = EngineError(f"The model failed on images: {type(err).__name__}: {err}")
                error.__cause__ = err
            task.fail(error)
            return
        job.fed = len(task.ids) - 1
        if self._known:
            self._rows.put(row, contents(cache), job.fed)
        else:
            self._rows.chunked([row], [job.fed], cache)

    def _waits_for_prompt(self, job: Job) -> bool:
        """Whether the first job of the request is still computing what this one begins with."""
        task = job.task
        is_later = self._known and job.index > 0 and len(task.ids) > 1
        return is_later and task.prompt is None and not task.jobs[0].is_finished

    def _hear(self) -> None:
        """Take what was submitted; wait while there is nothing else to do, or some are missing."""
        heard: list[EngineTask] = []
        while self._end is None:
            with self._lock:  # what is counted is in the queue
                is_missing = len(self._unanswered) < self._crew
            if not is_missing:
                self._late = None
            elif self._late is None:
                self._late = time.monotonic() + _PATIENCE
            left = 0.0 if self._late is None else self._late - time.monotonic()
            is_idle = not (self._running or self._queued or heard)
            try:
                # What hangs must not take the time of the others.
                wait = None if is_idle else max(left, 0.0)
                task = self._waiting.get(block=wait != 0, timeout=wait)
            except queue.Empty:
                break
            if task is not None:
                heard.append(task)
        if self._crew:  # the order in which they came is chance
            heard.sort(key=lambda task: (task.sampling.seed or 0, task.ids))
        for task in heard:
            self._queued.extend(task.jobs)

    def _is_computed_now(self, job: Job, cached: int) -> bool:
        """Whether another prompt is on its way through much of what this one begins with."""
        ids = job.task.keys
        if len(ids) - cached <= _CHUNK:
            return False
        for other in self._running:
            if other.fed < len(other.task.ids):
                shared = common_prefix(other.task.keys, ids)
                if self.is_recurrent:
                    shared = max((mark for mark in other.task.marks if mark <= shared), default=0)
                if shared - cached >= _CHUNK:
                    return True
        return False

    def _begin(self, job: Job, prefix: KeptPrefix | None, tokens: int) -> None:
        """Take up what was computed of the prompt, or of a conversation that begins alike."""
        task, row = job.task, len(self._running)
        if not job.is_scored:
            job.text = TextStream(
                self._text_of, task.ids, task.sampling.stop, keep_stop=task.keeps_stop
            )
        job.epoch = self._epoch
        held = task.prompt
        if held is not None:
            tokens = len(task.ids) - 1
            job.points = {n: x for n, x in task.jobs[0].points.items() if n <= tokens}
        elif prefix is not None:
            job.points = {n: x for n, x in (prefix.points or {}).items() if n <= tokens}
            held = Contents(prefix.grown, job.points.get(tokens, []))
        self._rows.put(row, held, tokens)
        self._running.append(job)
        job.fed = tokens
        task.waiting -= 1
        if job.index == 0:
            task.cached = tokens
            task.times = [time.perf_counter()]
        if task.waiting == 0:
            task.prompt = None
        if task.pictured is not None and tokens == 0:
            self._look(row, job)
        self._append_forced(job)
        if job.is_finished:
            self._finish([row])
        else:
            self._share_prompt(row, job)

    def _share_prompt(self, row: int, job: Job) -> None:
        """Copy a prompt that is through, but for its last token, for jobs that wait for it."""
        task = job.task
        if job.fed == len(task.ids) - 1 and task.waiting and self._known and task.prompt is None:
            task.prompt = self._rows.read(row)

    def _feed_prompts(self) -> None:
        """Up to `_CHUNK` tokens of prompts; the last token of each is left to the next step."""
        behind = {row: job.behind - 1 for row, job in enumerate(self._running) if job.behind > 1}
        if not behind:
            return
        most = max(min(_PIECE, _CHUNK), _CHUNK // len(behind))
        rows = alike({row: min(tokens, most) for row, tokens in behind.items()}, _CHUNK)
        counts = [self._next_count(self._running[row], most) for row in rows]
        fed = [(self._running[row], count) for row, count in zip(rows, counts, strict=True)]
        T = max(counts)
        ids_BT = [job.sequence[job.fed : job.fed + n] + [0] * (T - n) for job, n in fed]
        scores = any(self._is_scoring(job, n) for job, n in fed)
        with self._stoppable():
            inputs = self._rows.chunk(rows, counts) | self._seen([job for job, _ in fed], T)
            outputs = self._forward(ids_BT, all_logits=scores, **inputs)
        self._rows.chunked(rows, counts, getattr(outputs, CACHE_NAME))
        for i, (row, (job, n)) in enumerate(zip(rows, fed, strict=True)):
            if self._is_scoring(job, n):
                self._score(job, self._draws.logits(outputs)[i, :n])
            job.fed += n
            self._mark(row, job)
        self._finish([row for row in rows if self._running[row].is_finished])

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """Let a pass of many tokens, which may take seconds, end before any of its layers."""

        def check(*_: Any) -> None:
            if threading.current_thread() is self._thread and (
                self._end is not None or all(job.is_gone for job in self._running)
            ):
                raise _AbandonedError

        hooks = [layer.register_forward_pre_hook(check) for layer in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _next_count(self, job: Job, most: int) -> int:
        """Tokens that pass at once: where states are copied, there must be an end."""
        prompt = len(job.task.ids) - 1
        ends = [job.fed + most, len(job.sequence) - 1]
        if job.fed < prompt and (job.is_scored or job.task.waiting):
            ends.append(prompt)
        elif job.is_scored:
            ends.append(job.fed + _SCORED)
        if self.is_recurrent:
            ends += [mark for mark in job.task.marks if mark > job.fed]
        return min(ends) - job.fed

    def _is_scoring(self, job: Job, count: int) -> bool:
        return job.is_scored and job.fed + count >= len(job.task.ids)

    def _score(self, job: Job, logits_TV: Tensor) -> None:
        """Note the log-probabilities of the tokens that come after these."""
        first = max(0, len(job.task.ids) - 1 - job.fed)  # before it is prompt alone
        after = job.sequence[job.fed + first + 1 : job.fed + len(logits_TV) + 1]
        logprobs_TV = logits_TV[first:].float().log_softmax(-1)
        ids = torch.tensor(after, device=logits_TV.device).unsqueeze(-1)
        job.logprobs += logprobs_TV.gather(-1, ids).squeeze(-1).tolist()
        job.is_finished = len(job.logprobs) == len(job.sequence) - len(job.task.ids)

    def _mark(self, row: int, job: Job) -> None:
        """Copy recurrent states where other conversations may continue; share a long new prompt."""
        self._share_prompt(row, job)
        if self.is_recurrent and job.fed in job.task.marks:
            job.points[job.fed] = self._rows.states(row)
        if job.fed == len(job.task.ids) - 1 and job.fed - job.task.cached >= _CHUNK:
            self._remember(row, job)

    def _remember(self, row: int, job: Job) -> None:
        if self._keeps and job.epoch == self._epoch:
            held = self._rows.read(row)
            points = None
            if self.is_recurrent:
                points = {**job.points, job.fed: held.fixed}
            self._store.put(KeptPrefix(job.keys, held.grown, points))

    def _step(self) -> None:
        """One more token for each row; a new one where its prompt is through."""
        inputs = self._rows.step() | self._seen(self._running, 1)
        outputs = self._forward([[job.sequence[job.fed]] for job in self._running], **inputs)
        self._rows.stepped(getattr(outputs, CACHE_NAME))
        ready = []
        for row, job in enumerate(self._running):
            if self._is_scoring(job, 1):
                self._score(job, self._draws.logits(outputs)[row, -1:])
            job.fed += 1
            if job.behind:
                self._mark(row, job)
            elif not job.is_finished:
                ready.append(row)
        self._accept(outputs, ready)
        self._finish([row for row, job in enumerate(self._running) if job.is_finished])

    def _seen(self, jobs: list[Job], count: int) -> dict[str, Any]:
        """What so many more tokens of rows need of their images."""
        if self._sight is None:
            return {}
        seen = [job.task.seen for job in jobs]
        return self._sight.inputs(seen, [job.fed for job in jobs], count)

    def _forward(self, ids_BT: list[list[int]], *, all_logits: bool = False, **inputs: Any) -> Any:
        inputs |= self._draws.inputs
        if self._slices and not all_logits:
            inputs["logits_to_keep"] = 1
        ids = torch.tensor(ids_BT, device=self._model.device)
        return self._model(input_ids=ids, use_cache=True, **inputs)

    def _accept(self, outputs: Any, rows: list[int]) -> None:
        """Draw a token for each of these rows, and take what can only come after it."""
        jobs = [self._running[row] for row in rows]
        if not jobs:
            return
        for row, job, drawn in zip(rows, jobs, self._draws(outputs, rows, jobs), strict=True):
            if len(job.task.times) == 1:
                job.task.times.append(time.perf_counter())
            was_stopping = self.is_recurrent and job.text.may_be_stopping
            job.append(*drawn, self._ends)
            if self.is_recurrent and not was_stopping and job.text.may_be_stopping:
                # If it is a stop string, the next prompt goes on from before it.
                job.points.pop(job.stopping, None)
                job.stopping = job.fed
                job.points[job.fed] = self._rows.states(row)
            self._append_forced(job)
            job.show()

    def _append_forced(self, job: Job) -> None:
        """Take the tokens that a constraint leaves no choice about; they pass together."""
        while job.constraint is not None and not job.is_finished:
            forced = job.constraint.forced()
            for token in forced:
                certain = ((self._text_of((token,)), 0.0),) if job.task.top_logprobs else ()
                if job.append(token, 0.0, certain, self._ends):
                    break
            if not forced:
                break

    def _finish(self, rows: list[int]) -> None:
        """Keep what was computed in these rows, tell who waits, and free them."""
        for row in rows:
            job = self._running[row]
            # Of continuations the first one brings the prompt, unless it was known.
            is_new = job.index == 0 and 2 * job.task.cached < len(job.task.ids)
            if job.fed and (not job.is_scored or is_new):
                self._remember(row, job)
            if not job.is_scored:
                job.show()
            job.task.finish()
        self._leave(rows)

    def _leave(self, rows: list[int]) -> None:
        """Free these rows; the last ones take their places."""
        for row in sorted(rows, reverse=True):
            self._rows.drop(row)
            last = self._running.pop()
            if row < len(self._running):
                self._running[row] = last

    def _no_rows(self) -> Rows:
        return Rows(self._like) if self._known else OneRow()

    def _fail(self, err: Exception) -> None:
        """Tell everybody who waits, and begin anew."""
        error = err
        if not isinstance(err, EngineError):
            error = EngineError(f"The model failed with {type(err).__name__}: {err}")
            error.__cause__ = err
        self._tell(error)
        self._running = []
        self._queued.clear()
        self._rows = self._no_rows()
        self._store.clear()  # memory may be what was missing

    def _tell(self, error: Exception) -> None:
        for future in list(self._unanswered):
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_exception(error)


def _close(worker: "weakref.ref[Worker]") -> None:
    if (alive := worker()) is not None:
        alive.close()


def _layers(model: Any) -> list[torch.nn.Module]:
    """The decoder's layers, in whatever the model is wrapped."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = (part for part in model.modules() if isinstance(part, torch.nn.ModuleList))
    return [layer for layers in lists if len(layers) == count for layer in layers]
