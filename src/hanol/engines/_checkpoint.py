"""A transformers checkpoint in this process, for many requests at once."""

import asyncio
import copy
from collections.abc import Sequence
from typing import Any, Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import autodeco, models
from hanol.engines._base import EngineBase, check_request
from hanol.engines._chat import CHATML, ChatTokens
from hanol.engines._engine import Completion, Message, Request
from hanol.engines._job import Job
from hanol.engines._worker import Worker
from hanol.errors import EngineError

_CHATML_END = "<|im_end|>"


class CheckpointEngine(EngineBase):
    """A causal language model of transformers, run by one thread.

    Requests that come at the same time are decoded together: new ones join between two tokens,
    finished ones leave. What was computed of a conversation is kept, so that a transcript that
    grows costs its new tokens only. Neither changes the answer: each request has random numbers of
    its own, and what the model computes agrees to rounding.

    AutoDeco heads choose temperature and top-p of each token where a request leaves them None.
    `logprobs` are those of the distribution that the token was drawn from; of a greedy answer, the
    log-softmax of the logits. An end token counts, and has the text "".

    Keys, values and latents can be taken up at any token; the states of Kimi-Linear only where a
    copy was made: at the ends of the system message, of prompts and of answers.

    Args:
        model: In evaluation mode.
        tokenizer: Its tokenizer.
        name: What opens it again.
        chat_template: In the place of the checkpoint's: "chatml", or a Jinja template.
        max_batch: Answers written at the same time.
        cache_bytes: Memory for what was computed of earlier requests.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        chat_template: str | None = None,
        max_batch: int = 16,
        cache_bytes: int = 1 << 30,
    ) -> None:
        self.name = name
        self.context_window = _window(model, tokenizer)
        self._chat = ChatTokens(tokenizer, chat_template, name)
        ends = _end_tokens(model, tokenizer)
        # A model that never learned chatml's end as one token may still write it as text.
        written = chat_template in ("chatml", CHATML) and (
            tokenizer.convert_tokens_to_ids(_CHATML_END) not in ends
        )
        self._stop = (_CHATML_END,) if written else ()
        # A copy: tokenizers may not be used by two threads at once.
        self._worker = Worker(model, copy.deepcopy(tokenizer), ends, max_batch, cache_bytes)

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        dtype: str | None = None,
        device: str = "cpu",
        revision: str | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Self:
        """Load a bundled model, a folder or a hub id; with its AutoDeco heads, if it has them.

        Args:
            spec: What to load.
            dtype: "float32", "bfloat16" or "float16"; None is float32 on CPU, else the
                checkpoint's own.
            device: Where the model runs.
            revision: Commit or branch of a hub id.
            name: What opens the engine again; `spec` when left out.
            options: See the class.

        Raises:
            CheckpointError: Nothing loadable is there.
        """
        wanted = None if dtype is None else models.dtype_named(dtype)
        config = models.load_config(spec, revision=revision)
        heads = isinstance(config, autodeco.AutoDecoConfig)
        load: Any = autodeco.AutoDecoForCausalLM.from_pretrained if heads else models.load_model
        model = load(spec, dtype=wanted, device=device, revision=revision)
        tokenizer = autodeco.load_tokenizer(spec, revision=revision)
        return cls(model, tokenizer, name=name or spec, **options)

    async def complete(self, request: Request) -> Completion:
        """Complete one conversation; cancelling the task frees its place.

        Raises:
            EngineError: The prompt does not fit, the checkpoint has no chat template, a value is
                out of range, or the model failed.
        """
        check_request(self, request)
        job = self._job(request)
        return await asyncio.wrap_future(self._worker.submit(job))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation, up to where the answer begins; exact."""
        return len(self._chat.encode(self._chat.render(messages)).ids)

    def forget(self) -> None:
        """Drop everything computed of earlier requests, as when weights have changed.

        Call it while no request is on its way.
        """
        self._worker.forget()

    async def aclose(self) -> None:
        """Stop the thread and forget what was kept."""
        await asyncio.to_thread(self._worker.close)

    def _job(self, request: Request) -> Job:
        encoded = self._chat.encode(self._chat.render(request.messages))
        ids, limit = encoded.ids, request.sampling.max_tokens
        if self.context_window is not None:
            if len(ids) >= self.context_window:
                raise EngineError(
                    f"The prompt has {len(ids)} tokens, but the context window of {self.name!r} "
                    f"is {self.context_window}. Shorten the conversation."
                )
            limit = min(limit or self.context_window, self.context_window - len(ids))
        if limit is None:
            raise EngineError(
                f"{self.name!r} does not say how long its context is: give `max_tokens`."
            )
        marks = self._chat.marks(request.messages, encoded) if self._worker.is_recurrent else ()
        return Job(request, ids, limit, (*request.sampling.stop, *self._stop), marks)


def _window(model: Any, tokenizer: Any) -> int | None:
    limits = [
        getattr(model.config.get_text_config(), "max_position_embeddings", None),
        tokenizer.model_max_length,
    ]
    # Tokenizers without a limit of their own say a very large number.
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    found = {ends} if isinstance(ends, int) else set(ends or ())
    return frozenset(found | {tokenizer.eos_token_id}) - {None}
