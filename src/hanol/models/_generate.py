"""Text from a model, streamed, with its speed measured on the way."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from hanol.errors import ConfigError

_PREFILL_CHUNK = 1024  # tokens of a long prompt that go through the model at once


class Generation(BaseModel):
    """One completion and how long it took."""

    text: str
    token_ids: list[int]
    finish_reason: str = Field(
        description='"stop" at the end token or a stop text, "length" at the limit.'
    )
    prompt_tokens: int
    prefill_seconds: float = Field(description="Until the first token.")
    decode_seconds: float = Field(description="From the first token to the last.")

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second."""
        return self.prompt_tokens / max(self.prefill_seconds, 1e-9)

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first; 0.0 when there is only one."""
        return (len(self.token_ids) - 1) / self.decode_seconds if self.decode_seconds else 0.0


class _Streamer(BaseStreamer):
    """Turns token ids into text as they come, whole characters only, and notes the times.

    Each piece is the difference of two decodings that begin at the same token before it, so that
    the pieces put together are the text that the tokenizer gives for prompt and completion.
    """

    def __init__(
        self, tokenizer: Any, on_text: Callable[[str], None] | None, stop: Sequence[str] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._on_text = on_text
        self._stop = stop
        self._held = max((len(text) for text in stop), default=1) - 1  # may begin a stop text
        self._told = 0  # characters
        self._ids: list[int] = []
        self._begin = self._end = 0  # ids before `_end` are shown; decoding starts at `_begin`
        self.times: list[float] = []
        self.text = ""
        self.stopped = False

    def put(self, value: Tensor) -> None:
        new = value.flatten().tolist()
        self._ids += new
        if self._end == 0:  # the prompt comes first
            self._end = len(new)
            self._begin = max(0, self._end - 5)
            return
        self.times.append(time.perf_counter())
        self._show(hold=True)

    def end(self) -> None:
        self._show(hold=False)
        self._tell(len(self.text))

    def at_stop(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Whether a stop text was written: a stopping criterion of transformers."""
        return torch.full((len(input_ids),), self.stopped, device=input_ids.device)

    def _show(self, *, hold: bool) -> None:
        before = self._decode(self._ids[self._begin : self._end])
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(before) or (hold and text.endswith("\ufffd")):
            return  # a special token, or the first bytes of a character
        self._begin, self._end = self._end, len(self._ids)
        new = len(self.text)
        self.text += text[len(before) :]
        found = (self.text.find(stop, max(0, new - len(stop) + 1)) for stop in self._stop)
        ends = [place for place in found if place >= 0]
        if ends and not self.stopped:
            self.stopped = True
            self.text = self.text[: min(ends)]
        self._tell(len(self.text) - (0 if self.stopped else self._held))

    def _tell(self, end: int) -> None:
        if self._on_text is not None and end > self._told:
            self._on_text(self.text[self._told : end])
            self._told = end

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    stop: Sequence[str] = (),
    seed: int = 0,
    num_samples: int = 1,
    on_text: Callable[[str], None] | None = None,
) -> list[Generation]:
    """Complete a prompt.

    Args:
        model: Any causal language model of transformers.
        tokenizer: Its tokenizer.
        prompt: Text to go on from; empty starts from the begin token.
        max_new_tokens: At most this many tokens.
        temperature: 0 takes the most likely token each time; otherwise logits are divided by it.
        top_p: Sample from the smallest set of tokens that holds this share, in (0, 1].
        top_k: Sample from this many most likely tokens; None from all.
        stop: Texts that end a completion; they are not part of it.
        seed: Sample i uses seed + i; the global random state is left as it was.
        num_samples: Completions, one after another.
        on_text: Called with each piece of text as it comes.

    Raises:
        ConfigError: A value is out of range, or the prompt and the new tokens do not fit.
    """
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"`temperature` is {temperature}, but must be 0 (greedy) or more.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"`top_p` is {top_p}, but must be above 0 and at most 1.")
    if max_new_tokens < 1:
        raise ConfigError(f"`max_new_tokens` is {max_new_tokens}, but must be at least 1.")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"`top_k` is {top_k}, but must be at least 1.")
    if num_samples < 1:
        raise ConfigError(f"`num_samples` is {num_samples}, but must be at least 1.")
    ids = tokenizer(prompt, return_tensors="pt").input_ids.long()
    if ids.shape[1] == 0:
        start = tokenizer.bos_token_id
        if start is None:
            raise ConfigError("The prompt is empty and the tokenizer has no begin token.")
        ids = torch.tensor([[start]])
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and ids.shape[1] + max_new_tokens > limit:
        raise ConfigError(
            f"The prompt has {ids.shape[1]} tokens and {max_new_tokens} are to follow, but the "
            f"model's context is {limit}. Shorten the prompt or lower `max_new_tokens`."
        )
    ids = ids.to(model.device)
    # Greedy: transformers would warn of values of the model's own that have no effect.
    sampling: dict[str, Any] = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p}
        sampling["top_k"] = top_k or 0
    sampling["max_new_tokens"] = max_new_tokens
    return [
        _one(model, tokenizer, ids, sampling, seed + i, _Streamer(tokenizer, on_text, stop))
        for i in range(num_samples)
    ]


def _one(
    model: Any,
    tokenizer: Any,
    ids: Tensor,
    sampling: dict[str, Any],
    seed: int,
    streamer: _Streamer,
) -> Generation:
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends or []
    if model.config.model_type == "kimi_linear":  # exact under any split: bounds the memory
        sampling = {**sampling, "prefill_chunk_size": _PREFILL_CHUNK}
    pad = tokenizer.pad_token_id
    config = GenerationConfig(
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else (ends[0] if ends else 0),
        **sampling,
    )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        begin = time.perf_counter()
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            streamer=streamer,
            stopping_criteria=StoppingCriteriaList([streamer.at_stop]),
        )
    new = out[0, ids.shape[1] :].tolist()
    stopped = streamer.stopped or (bool(new) and new[-1] in ends)
    return Generation(
        text=streamer.text,
        token_ids=new,
        finish_reason="stop" if stopped else "length",
        prompt_tokens=ids.shape[1],
        prefill_seconds=streamer.times[0] - begin,
        decode_seconds=streamer.times[-1] - streamer.times[0],
    )
