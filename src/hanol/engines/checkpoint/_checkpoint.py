"""A transformers checkpoint in this process, for many requests at once."""

import asyncio
import copy
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol import attention, models  # each name of them loads what it needs
from hanol.control import ControlTokens
from hanol.engines._engine import Continuations, Engine
from hanol.engines._request import Capability, Completion, Message, Piece, Request, Scored
from hanol.engines.checkpoint._chat import CHATML, ChatTokens
from hanol.engines.checkpoint._draws import has_heads
from hanol.engines.checkpoint._job import EngineTask
from hanol.engines.checkpoint._seeing import load_seeing
from hanol.engines.checkpoint._sight import OURS, Pictured, Sight, has_images
from hanol.engines.checkpoint._worker import Worker
from hanol.errors import ConfigError, EngineError
from hanol.runs import in_thread
from hanol.sampling import ConstraintCompiler, Sampling, TokenConstraint

_log = logging.getLogger(__name__)
_CHATML_END = "<|im_end|>"
# Of a conversation whose model's makers advise nothing: less than 1, at which small models ramble.
_CONVERSATION = Sampling(temperature=0.7, top_p=0.95)


class CheckpointEngine(Engine):
    """A causal language model of transformers, run by one thread.

    Requests that come at the same time are decoded together: new ones join between two tokens,
    finished ones leave. What was computed of a conversation is kept, so that a transcript that
    grows costs its new tokens only. Neither changes the answer: each request has random numbers of
    its own, and what the model computes agrees to rounding; to the last bit, where `expect` decides
    what is decoded together.

    AutoDeco heads choose temperature and top-p of each token where a request leaves them None.
    Log-probabilities are those of the distribution that the token was drawn from; of a greedy
    answer, the log-softmax of the logits. An end token counts, and has the text "".

    Keys, values and latents can be taken up at any token; the states of Kimi-Linear only where a
    copy was made: at the ends of the system message, of prompts and of answers.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        name: The specification that opens it again.
        chat_template: Used instead of the checkpoint's: "chatml", or a Jinja template.
        max_batch: Answers written at the same time.
        cache_bytes: Memory for what was computed of earlier requests.
        processor: Reads images for the model; None for a model of text alone.
        max_tiles: Most tiles of an image, where that can be chosen; None has the processor's.

    Raises:
        ConfigError: `max_batch` is below 1, or `max_tiles` was given where it has no meaning.
    """

    capabilities: frozenset[Capability] = frozenset(
        {"score", "n", "prefill", "prompt_ids", "tools", "json_schema", "regex", "grammar",
         "logprobs", "keep_stop"}
    )  # fmt: skip

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        chat_template: str | None = None,
        max_batch: int = 16,
        cache_bytes: int = 1 << 30,
        processor: Any = None,
        max_tiles: int | None = None,
    ) -> None:
        if max_batch < 1:
            raise ConfigError(f"`max_batch` is {max_batch}, but must be at least 1.")
        self.name = name
        self.context_window = _window(model, tokenizer)
        if not ConstraintCompiler.fits(tokenizer):
            self.capabilities = self.capabilities - {"json_schema", "regex", "grammar"}
        self.parameters = _parameters(getattr(model, "llm", model))
        sight = None
        template = getattr(processor, "chat_template", None)
        parts = bool(template) and chat_template is None and model.config.model_type != OURS
        if parts and tokenizer.chat_template is None:
            tokenizer.chat_template = template
        self._chat = ChatTokens(tokenizer, chat_template, name, takes_parts=parts)
        if processor is not None:
            self.capabilities = self.capabilities | {"images"}
            sight = Sight(model, processor, self._chat, name, max_tiles)
        elif max_tiles is not None:
            raise ConfigError(f"{name!r} reads no images, so `max_tiles` has no meaning.")
        self._sight = sight
        self._tokenizer = tokenizer
        self._model = model
        self._ends = ends = _end_tokens(model, tokenizer)
        self.default_sampling = _default_sampling(model, is_chat=self._chat.has_template)
        self._control: ControlTokens | None = None
        self._compiler: ConstraintCompiler | None = None
        self._compiling = threading.Lock()
        # A model that never learned chatml's end as one token may still write it as text.
        written = chat_template in ("chatml", CHATML) and (
            tokenizer.convert_tokens_to_ids(_CHATML_END) not in ends
        )
        self._stop = (_CHATML_END,) if written else ()
        # A copy: tokenizers may not be used by two threads at once.
        self._worker = Worker(model, copy.deepcopy(tokenizer), ends, max_batch, cache_bytes, sight)

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        dtype: str | None = None,
        device: str = "cpu",
        revision: str | None = None,
        name: str | None = None,
        mask_fix: Literal["on", "transformers"] = "on",
        **options: Any,
    ) -> Self:
        """Load a bundled model, a folder or a hub id; with its AutoDeco heads, if it has them.

        Image-text models that have a processor read images.

        Args:
            spec: What to load.
            dtype: "float32", "bfloat16" or "float16", on a CPU also "int8" or "int4" (weights
                alone; see `hanol.attention.pack`) or "auto", the fastest whose answers stay the
                same (measured once a machine); None is float32 on CPU, else the checkpoint's own.
            device: Where the model runs.
            revision: Commit or branch of a hub id.
            name: The specification that opens the engine again; `spec` when left out.
            mask_fix: Of Llama-3.2-Vision, "on" gives tokens that see no image Meta's masks,
                "transformers" those of transformers, by which text before an image depends on it.
            options: See the class.

        Raises:
            CheckpointError: Nothing loadable is there.
            ConfigError: The device cannot be used.
        """
        packed = dtype if dtype in (*attention.KINDS, "auto") and device == "cpu" else None
        named = None if packed in ("int8", "int4", "auto") else dtype
        wanted = None if named is None else models.dtype_named(named)
        seeing = load_seeing(spec, wanted, device, revision, mask_fix)
        if seeing is not None:
            if packed is not None:
                raise ConfigError(
                    f"{spec!r} reads images: `dtype` {packed!r} is for models of text alone."
                )
            model, tokenizer, processor = seeing
            return cls(model, tokenizer, name=name or spec, processor=processor, **options)
        heads = models.model_type(spec, revision=revision) == "autodeco"
        load: Any = models.load_model
        if heads:
            from hanol.autodeco import AutoDecoForCausalLM

            load = AutoDecoForCausalLM.from_pretrained
        model = load(spec, dtype=wanted, device=device, revision=revision)
        tokenizer = models.load_tokenizer(spec, revision=revision)
        base = model.llm if heads else model
        parameters = _parameters(base)  # before packing, which takes them out of the model
        if packed == "auto":
            packed = models.speed_report(spec, base, tokenizer).taken
        if packed in attention.KINDS:
            attention.pack(base, packed)
            _log.info("%s: weights in %s", spec, packed)
        made = cls(model, tokenizer, name=name or spec, **options)
        made.parameters = parameters
        return made

    async def complete(self, request: Request) -> Completion:
        """Answer one request; cancelling the task frees its places.

        Raises:
            EngineError: The request is malformed, the prompt does not fit, the checkpoint has no
                chat template, the constraint cannot be followed, or the model failed.
            MissingExtraError: A constraint needs llguidance, which is not installed.
        """
        return await asyncio.wrap_future(self._worker.submit(await self._answers(request)))

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The answers piece by piece; closing the iterator frees their places."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()

        def put(piece: Piece | None) -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody listens
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        task = await self._answers(request)
        task.on_text = lambda choice, text, temperature: put(Piece(text, choice, None, temperature))
        future = self._worker.submit(task)
        future.add_done_callback(lambda _: put(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            yield Piece("", completion=future.result())
        finally:
            future.cancel()

    async def score(self, request: Request, continuations: Continuations) -> list[Scored]:
        """Log-probabilities of continuations, whose prompt goes through the model once.

        Temperature, penalties, heads and constraints play no part: they are those of the model's
        own distribution.

        Args:
            request: The prompt, and its prefill.
            continuations: Texts, or tokens.

        Raises:
            EngineError: A continuation is empty or does not fit, or as `complete` raises it.
        """
        self.check(request)
        if not continuations:
            return []
        text, ids, marks, pictured = await self._read(request)
        after = [self._continuation(text, ids, one) for one in continuations]
        longest = len(ids) + max(map(len, after))
        if self.context_window is not None and longest > self.context_window:
            raise EngineError(
                f"The prompt and a continuation have {longest} tokens, but the context window of "
                f"{self.name!r} is {self.context_window}. Shorten them."
            )
        task = EngineTask(ids, marks, continuations=after, pictured=pictured)
        return await asyncio.wrap_future(self._worker.submit(task))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered conversation, up to where the answer begins; exact."""
        if self._sight is not None and has_images(messages):
            return len(self._sight.prompt(messages).ids)
        return len(self._chat.encode(self._chat.render(messages)).ids)

    @property
    def control_tokens(self) -> ControlTokens:
        """Special tokens of the tokenizer, and added ones that are no words."""
        if self._control is None:
            self._control = ControlTokens.of(self._tokenizer)
        return self._control

    def encode(self, prompt: str | Sequence[Message], *, begins: bool = True) -> tuple[int, ...]:
        """The tokens of a plain text (of an empty one, the begin token), or of a conversation.

        Raises:
            EngineError: The text is empty, and the tokenizer has no begin token; or the checkpoint
                has no chat template; or the conversation has images.
        """
        if not isinstance(prompt, str):
            if has_images(prompt):
                raise EngineError("A prompt as token ids holds no images: ask with `messages`.")
            return tuple(self._chat.encode(self._chat.render(prompt)).ids)
        if not begins:
            return tuple(self._chat.encode(prompt).ids)
        ids = self._tokenizer(prompt).input_ids or [self._tokenizer.bos_token_id]
        if ids == [None]:
            raise EngineError("The prompt is empty and the tokenizer has no begin token.")
        return tuple(ids)

    @property
    def has_chat_template(self) -> bool:
        """Whether it answers messages; without a template it only continues `prompt_ids`."""
        return self._chat.has_template

    @property
    def cache_size(self) -> models.CacheSize:
        """Bytes that the model keeps of one sequence."""
        base = getattr(self._model, "llm", self._model)  # of a model with heads
        return models.cache_size(base.config, base.dtype.itemsize)

    def forget(self) -> None:
        """Drop everything computed of earlier requests, as when weights have changed.

        Call it while no request is on its way.
        """
        self._worker.forget()

    def expect(self, requests: int) -> None:
        """Wait before each token until so many requests are here; see `Engine.expect`."""
        self._worker.expect(requests)

    async def aclose(self) -> None:
        """Stop the thread and forget what was kept."""
        await asyncio.to_thread(self._worker.close)

    async def _read(self, request: Request) -> "_Prompt":
        """The prompt; images are read in a thread, since others must not wait."""
        if has_images(request.messages):
            return await in_thread(self._prompt, request)
        return self._prompt(request)

    def _prompt(self, request: Request) -> "_Prompt":
        """A prompt's text, its tokens, where other conversations may continue, and its images."""
        text: str | None = None
        marks: tuple[int, ...] = ()
        pictured: Pictured | None = None
        if request.prompt_ids is not None:
            ids = self._known(request.prompt_ids)
            if request.prefill:
                ids += self._chat.encode(request.prefill).ids
        elif self._sight is not None and has_images(request.messages):
            pictured = self._sight.prompt(request.messages, request.tools, request.prefill)
            ids = pictured.ids
        else:
            text = self._chat.render(request.messages, tools=request.tools) + request.prefill
            encoded = self._chat.encode(text)
            ids = encoded.ids
            recurrent = self._worker.is_recurrent
            marks = self._chat.marks(request.messages, encoded) if recurrent else ()
        if not ids:  # there would be nothing to compute, and nothing would ever come
            raise EngineError(
                f"The prompt of {self.name!r} has no tokens: its chat template writes nothing."
            )
        if self.context_window is not None and len(ids) >= self.context_window:
            if pictured is not None:
                raise EngineError(
                    f"The prompt (row 0) needs {len(ids):,} tokens with its {pictured.count} "
                    f"images, but {self.context_window - 1:,} are allowed by {self.name!r}. Allow "
                    "fewer tiles (`max_tiles`, on the command line --tiles), or leave images out."
                )
            raise EngineError(
                f"The prompt has {len(ids)} tokens, but the context window of {self.name!r} "
                f"is {self.context_window}. Shorten the conversation."
            )
        return _Prompt(text, ids, marks, pictured)

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Token ids of a caller, checked here: in the model's thread they would fail all."""
        size = self._model.config.get_text_config().vocab_size
        for token in ids:
            if not (isinstance(token, Integral) and 0 <= token < size):
                raise EngineError(
                    f"{token!r} is not a token of {self.name!r}: ids are whole numbers from 0 to "
                    f"{size - 1}."
                )
        return list(ids)

    def _continuation(
        self, text: str | None, ids: list[int], after: str | Sequence[int]
    ) -> list[int]:
        """Its tokens as they follow the prompt."""
        if not after:
            raise EngineError("A continuation is empty: there is nothing to score.")
        if not isinstance(after, str):
            return self._known(after)
        if text is not None:
            whole = self._chat.encode(text + after).ids
            if len(whole) > len(ids) and whole[: len(ids)] == ids:
                return whole[len(ids) :]
        return self._chat.encode(after).ids

    async def _answers(self, request: Request) -> EngineTask:
        self.check(request)
        _, ids, marks, pictured = await self._read(request)
        limit, window = request.sampling.max_tokens, self.context_window
        if window is not None:
            limit = min(limit or window, window - len(ids))
        if limit is None:
            raise EngineError(
                f"{self.name!r} does not say how long its context is: give `max_tokens`."
            )
        stop = (*request.sampling.stop, *self._stop)
        constraints: list[TokenConstraint | None] = [None] * request.n
        if request.constraint is not None:
            # Reading a grammar takes up to a second, in which others must not wait.
            constraints = await in_thread(self._constraints, request)
        return EngineTask(
            ids, marks, replace(request.sampling, stop=stop), limit, constraints,
            top_logprobs=request.top_logprobs, calls_tools=bool(request.tools),
            keeps_stop=request.keep_stop, pictured=pictured,
        )  # fmt: skip

    def _constraints(self, request: Request) -> list[TokenConstraint | None]:
        one = request.constraint
        assert one is not None
        with self._compiling:
            if self._compiler is None:
                self._compiler = ConstraintCompiler(self._tokenizer, self._ends)
            return [self._compiler.start(one.kind, one.text) for _ in range(request.n)]


class _Prompt(NamedTuple):
    text: str | None
    ids: list[int]
    marks: tuple[int, ...]
    pictured: Pictured | None


def _parameters(model: Any) -> int:
    """Weights that a token meets: a table of embeddings is only looked up, unless it is tied."""
    count = sum(part.numel() for part in model.parameters())
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    table = getattr(read, "weight", None)  # one of fewer bits is no parameter
    if table is None or getattr(written, "weight", None) is table:
        return count
    return count - table.numel()


def _window(model: Any, tokenizer: Any) -> int | None:
    limits = [
        getattr(model.config.get_text_config(), "max_position_embeddings", None),
        tokenizer.model_max_length,
    ]
    # Tokenizers without a limit of their own say a very large number.
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)


def _default_sampling(model: Any, *, is_chat: bool) -> Sampling:
    """What generation_config.json asks for, if it asks for sampling; heads choose by themselves."""
    if has_heads(model):
        return Sampling()
    config = model.generation_config
    if not getattr(config, "do_sample", False):
        return _CONVERSATION if is_chat else Sampling()
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    found = {name: value for name in names if (value := getattr(config, name, None)) is not None}
    if not found.get("top_k"):  # 0 is none in transformers
        found.pop("top_k", None)
    try:
        return Sampling(**found)
    except ConfigError:  # written by hand, and out of range
        return Sampling()


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    ends = getattr(model.generation_config, "eos_token_id", None)
    found = {ends} if isinstance(ends, int) else set(ends or ())
    return frozenset(found | {tokenizer.eos_token_id}) - {None}
