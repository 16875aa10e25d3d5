"""A model behind an OpenAI-compatible endpoint."""

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx

from hanol.engines._engine import Engine, cannot
from hanol.engines._open import is_loopback
from hanol.engines._request import Capability, Completion, Message, Piece, Request, Usage
from hanol.engines._wire import (
    ReceivedAnswer,
    body_of,
    estimate,
    message,
    refused_parameter,
    reported_error,
)
from hanol.errors import CapabilityError, ConfigError, EngineError, require
from hanol.http import BoundedClient

_log = logging.getLogger(__name__)
_TRIES_UNTIL_REACHED = 3  # while no request was ever answered: nobody waits minutes for a typo
_RETRIED = (408, 409, 425, 429)  # and everything from 500 on
_TOKENS_PER_MESSAGE = 8
# What to do about an empty text, by finish reason.
_CURES = {
    "length": ": allow more tokens",
    "tool_calls": ": it took a tool call out of the text and lost it; start it without its parser",
}
# What reading an answer of another shape raises: it comes from outside, so nothing of it is sure.
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, RecursionError)
_MOST_WITH_LOGPROBS = 10 * BoundedClient.most_bytes  # likely tokens in the place of each
_MOST_TOKENS = 10**9  # of one request; who counts more does not count


class EndpointEngine(Engine):
    """Chat completions over HTTP, asked again when a server is busy or answers nothing.

    Timeouts, lost connections, 408, 409, 425, 429 and 5xx are tried again by the client library,
    after as long as the server says or pauses that double to 8 seconds, and so are such errors with
    status 200; empty answers and those that were cut off are asked for again at once; other
    refusals are not tried again. Parameters of the sampling that the server refuses are left out
    from then on; stop strings are applied here too. Reasoning that comes apart stands in `<think>`
    tags before the answer. Tokens that the server does not count are estimated.

    Tools, JSON schemas, images and audio are sent as OpenAI's API has them. Regular expressions
    need vLLM, a grammar vLLM or, with its `gbnf`, llama.cpp, a `prefill` one of the two; the list
    of models tells which it is.

    The key goes to the host of the specification only: redirects are not followed.

    Args:
        spec: "http(s)://host:port/v1#model".
        api_key_env: Environment variable that holds the key; none is sent when it is not set.
        tries: Requests for one answer, at most.
        timeout: Seconds for one request; of a streamed answer, for each piece.
        max_concurrency: Requests in flight, at most.
        context_window: The model's, in tokens; servers do not tell in a common way.
        tokenizer: Hub id, folder or bundled name of the model's tokenizer, to count exactly.

    Raises:
        ConfigError: `tries`, `timeout` or `max_concurrency` is too small.
        CheckpointError: The tokenizer cannot be loaded.
        EngineError: The specification names no model, or holds a password.
        MissingExtraError: The client library is not installed.
    """

    capabilities: frozenset[Capability] = frozenset(
        {"n", "prefill", "tools", "json_schema", "regex", "grammar", "logprobs", "images", "audio"}
    )

    def __init__(
        self,
        spec: str,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        tries: int = 10,
        timeout: float = 600.0,
        max_concurrency: int = 64,
        context_window: int | None = None,
        tokenizer: str | None = None,
    ) -> None:
        self._openai: Any = require("openai", extra="research", feature="A model endpoint")
        if tries < 1 or max_concurrency < 1 or not timeout > 0:
            raise ConfigError(
                f"`tries` is {tries}, `max_concurrency` {max_concurrency} and `timeout` {timeout}, "
                "but they must be at least 1, 1 and more than 0."
            )
        host = None
        with suppress(ValueError):  # a bracket that is not closed, a port that is not a number
            parts = urlsplit(spec)
            host = parts.hostname if parts.port != 0 else None
        if not (host and parts.scheme in ("http", "https") and parts.fragment):
            raise EngineError(
                f"{re.sub('//[^/@]*@', '//', spec)!r} does not name a model at an endpoint: write "
                "http://host:port/v1#model."
            )
        if parts.username or parts.password:
            raise EngineError(
                f"The address of {host!r} holds a user name or password, which would end "
                f"up in logs. Put the key into the environment variable {api_key_env}."
            )
        self.name, self._model = spec, parts.fragment
        self._url = parts._replace(fragment="").geturl()
        self._loopback = is_loopback(host)
        self._key_env, self._tries, self._timeout = api_key_env, tries, timeout
        self._max_concurrency, self.context_window = max_concurrency, context_window
        self._chat: Any = None
        if tokenizer is not None:
            from hanol.engines.checkpoint._chat import ChatTokens  # heavy, and rarely needed
            from hanol.models import load_tokenizer

            self._chat = ChatTokens(load_tokenizer(tokenizer), None, tokenizer)
        self._reached = False
        self._server: str | None = None  # as its list of models says
        self._refused: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._headers: dict[str, Any] = {}
        self._free = asyncio.Semaphore(max_concurrency)

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            EngineError: The endpoint refused the request, or did not answer in all tries.
            CapabilityError: It cannot do what is asked, or refused a request with a constraint.
        """
        self.check(request)
        client = self._connect(request)
        server = await self._server_for(client, request)
        answers: list[ReceivedAnswer] = []
        usage = Usage()
        async with self._free:
            for attempt in range(request.n * self._tries):
                rest = _rest(request, len(answers))
                try:
                    response = await self._send(client, rest, server)
                    if (error := reported_error(response)) is not None:
                        failure = await self._refusal(client, request, error)
                        if not _is_passing(error.status_code):
                            raise failure
                        await _pause(attempt)
                        continue
                    new = self._answers(request, response)
                    answers += [answer for answer in new if not answer.is_empty][: rest.n]
                    usage = self._added(usage, request, response, new)
                    if len(answers) == request.n:
                        return Completion(tuple(answer.choice() for answer in answers), usage)
                    failure = self._empty(new)
                except (json.JSONDecodeError, UnicodeDecodeError) as err:
                    failure = self._malformed(err)  # cut off, perhaps by a proxy
                except _MALFORMED as err:
                    raise self._malformed(err) from err
        raise failure

    async def stream(self, request: Request) -> AsyncIterator[Piece]:
        """The answers as they come; a connection that breaks in between is an error."""
        self.check(request)
        client = self._connect(request)
        server = await self._server_for(client, request)
        usage: Any = None
        async with self._free:
            for _ in range(self._tries):
                answers = [ReceivedAnswer(request.sampling.stop) for _ in range(request.n)]
                chunks = await self._send(client, request, server, stream=True)
                is_counted = False
                try:
                    async for chunk in self._chunks(chunks):
                        if (error := reported_error(chunk)) is not None:
                            raise await self._refusal(client, request, error)
                        usage = chunk.usage or usage
                        is_counted = bool(chunk.usage and not chunk.choices)
                        for choice in chunk.choices or ():
                            if (at := choice.index or 0) not in range(request.n):
                                raise LookupError(f"choice {at} of {request.n}")
                            answers[at].add(choice)
                            if not answers[at].is_empty and (new := answers[at].new_text()):
                                yield Piece(new, at)
                except (self._openai.OpenAIError, httpx.RequestError, TimeoutError) as err:
                    raise EngineError(
                        f"{self._url} broke off its answer: {self._redacted(err.__cause__ or err)}."
                    ) from None
                except _MALFORMED as err:
                    raise self._malformed(err) from err
                finally:
                    await chunks.close()
                if not all(answer.is_empty for answer in answers):
                    # Some servers end with the usage instead of a reason.
                    if not (is_counted or any(answer.reason for answer in answers)):
                        raise EngineError(
                            f"{self._url} broke off its answer: the stream ended without a reason."
                        )
                    break
            else:
                raise self._empty(answers)
        try:
            choices = tuple(answer.choice() for answer in answers)
            spent = self._spent(request, usage, [choice.text for choice in choices])
        except _MALFORMED as err:
            raise self._malformed(err) from err
        for i, answer in enumerate(answers):
            if rest := answer.rest():
                yield Piece(rest, i)
        yield Piece("", completion=Completion(choices, spent))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the conversation: exact with a tokenizer, else an upper estimate.

        The estimate: one token for each 4 letters of an ASCII word (rounded up), each
        digit, sign or run of line ends, and each 2 bytes of other scripts; 8 a message.
        """
        if self._chat is not None:
            return len(self._chat.encode(self._chat.render(messages)).ids)
        return sum(_TOKENS_PER_MESSAGE + estimate(one.text) for one in messages)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.close()
        self._client = self._loop = None

    # -- one request

    def _connect(self, request: Request) -> Any:
        """The client of the running loop: connections cannot move to another one."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            openai = self._openai
            key = os.environ.get(self._key_env)
            unset = openai.Omit()
            headers = {"OpenAI-Organization": unset, "OpenAI-Project": unset}
            # The library wants this one to be left out of each request, not of the client.
            self._headers = {} if key else {"Authorization": unset}
            self._http = BoundedClient(
                trust_env=not self._loopback,
                timeout=self._timeout,
                limits=httpx.Limits(max_connections=None),
                event_hooks={"response": [_say_whether_to_retry]},
            )
            self._client = _passing_over_empty_events(openai.AsyncOpenAI)(
                base_url=self._url,
                api_key=key or "none",
                default_headers=headers,
                max_retries=self._tries - 1,
                timeout=self._timeout,
                http_client=self._http,
            )
            self._loop, self._free = loop, asyncio.Semaphore(self._max_concurrency)
        if request.top_logprobs:
            self._http.most_bytes = _MOST_WITH_LOGPROBS
        return self._client

    async def _send(
        self, client: Any, request: Request, server: str, *, stream: bool = False
    ) -> Any:
        """Ask once; without parameters that the server says it does not take."""
        refused, openai = self._refused, self._openai
        if not self._reached:  # nobody waits long for a typo
            client = client.with_options(max_retries=min(self._tries, _TRIES_UNTIL_REACHED) - 1)
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        while True:
            body = body_of(request, self._model, refused, server)
            body |= {name: value for name, value in streamed.items() if name not in refused}
            try:
                response = await client.chat.completions.create(**body, extra_headers=self._headers)
            except openai.APIStatusError as err:
                self._reached = True
                named = refused_parameter(err, body)
                if named is None:
                    raise await self._refusal(client, request, err) from None
                refused |= {named}
                continue
            except openai.APITimeoutError:
                raise self._silence(
                    f"there was no answer within {self._timeout:g} seconds"
                ) from None
            except openai.APIConnectionError as err:
                problem = f"the connection failed ({self._redacted(err.__cause__ or err)})"
                raise self._silence(problem) from None
            self._reached = True
            if refused != self._refused:
                gone = ", ".join(sorted(refused - self._refused))
                _log.warning("%s does not take %s: left out from now on.", self.name, gone)
                self._refused |= refused
            return response

    async def _server_for(self, client: Any, request: Request) -> str:
        """Who serves the model, where the request needs what only some servers have."""
        kind = request.constraint.kind if request.constraint is not None else None
        if not request.prefill and kind in (None, "json_schema"):
            return ""
        if self._server is None:
            owners = await self._models(client)
            # llama.cpp answers to any name, and lists the one that it loaded.
            only = next(iter(owners.values())) if len(owners) == 1 else ""
            self._server = owners.get(self._model, only)
        if request.prefill and self._server not in ("vllm", "llamacpp"):
            raise cannot(self.name, "prefill")
        by_gbnf = self._server == "llamacpp" and request.constraint and request.constraint.gbnf
        if (kind == "regex" or kind == "grammar") and self._server != "vllm" and not by_gbnf:
            raise cannot(self.name, kind)
        return self._server

    async def _chunks(self, stream: Any) -> AsyncIterator[Any]:
        """The chunks of a stream; of a server that does not stream, its whole answer."""
        if "json" in stream.response.headers.get("content-type", ""):
            async with asyncio.timeout(self._timeout):
                body = await stream.response.aread()
            if body.lstrip().startswith(b"{"):
                yield self._openai.types.chat.ChatCompletion.construct(**json.loads(body))
                return
        chunks = aiter(stream)
        while True:
            async with asyncio.timeout(self._timeout):  # events without data come for ever
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _answers(self, request: Request, response: Any) -> list[ReceivedAnswer]:
        if isinstance(response, str) and response.lstrip()[:1] in ("", "{"):
            json.loads(response)  # raises: the client library could not read it either
        choices = getattr(response, "choices", None)
        if choices is None:
            raise EngineError(
                f"{self._url} did not answer with a chat completion. An OpenAI-compatible address "
                "usually ends with /v1."
            )
        answers = [ReceivedAnswer(request.sampling.stop) for _ in choices]
        for answer, choice in zip(answers, choices, strict=True):
            answer.add(choice)
        return answers

    def _added(
        self, usage: Usage, request: Request, response: Any, new: list[ReceivedAnswer]
    ) -> Usage:
        texts = [answer.choice().text for answer in new]
        spent = self._spent(request, response.usage, texts)
        return Usage(
            max(usage.prompt_tokens, spent.prompt_tokens),
            usage.generated_tokens + spent.generated_tokens,
            max(usage.cached_tokens, spent.cached_tokens),
        )

    def _spent(self, request: Request, usage: Any, texts: list[str]) -> Usage:
        """What the server counted, and estimates of what it did not."""
        details = getattr(usage, "prompt_tokens_details", None)
        return Usage(
            _count(usage, "prompt_tokens") or self.count_tokens(request.messages),
            _count(usage, "completion_tokens") or sum(map(estimate, texts)),
            _count(details, "cached_tokens"),
        )

    # -- refusals

    async def _refusal(self, client: Any, request: Request, err: Any) -> EngineError:
        said, status = self._redacted(message(err)), err.status_code
        if _is_passing(status):
            return self._silence(f"it answered {status or 'with an error'}: {said}")
        if status in (401, 403):
            state = "holds a key that is refused" if os.environ.get(self._key_env) else "is not set"
            cure = f"The environment variable {self._key_env} {state}."
        elif status == 404:
            names = list(await self._models(client))[:10]
            cure = (
                f"It has {', '.join(names)}: write one of them after the #."
                if names
                else "Check the address (it usually ends with /v1) and the model after the #."
            )
        elif 300 <= status < 400:
            cure = "Redirects are not followed: give the address that it leads to."
        else:
            cure = "The request itself was refused, so it was not tried again."
        constrained = request.constraint is not None and status in (400, 422)
        kind = CapabilityError if constrained else EngineError
        return kind(f"{self._url} answered {status} for {self._model!r}: {said}. {cure}")

    def _silence(self, problem: str) -> EngineError:
        tries = self._tries if self._reached else min(self._tries, _TRIES_UNTIL_REACHED)
        return EngineError(
            f"{self._url} gave no answer in {tries} tries; at last, {problem}. Is the server "
            "running at this address, and is it overloaded?"
        )

    def _empty(self, answers: Sequence[ReceivedAnswer]) -> EngineError:
        """The error of answers without text, with the cure where the server gave a reason."""
        reason = next((answer.reason for answer in answers if answer.reason), "stop")
        cure = _CURES.get(reason, "")
        why = "" if reason == "stop" else f" (finish_reason {reason!r}{cure})"
        return self._silence(f"it answered with an empty text{why}")

    async def _models(self, client: Any) -> dict[str, str]:
        """Who owns each model; none where the server has no list."""
        try:
            listed = await client.with_options(max_retries=1).models.list(
                timeout=10, extra_headers=self._headers
            )
            return {str(model.id): str(model.owned_by) for model in listed.data}
        except (self._openai.OpenAIError, *_MALFORMED):
            return {}

    def _malformed(self, err: Exception) -> EngineError:
        what = self._redacted(f"{type(err).__name__}: {err}")
        return EngineError(f"{self._url} sent a malformed answer ({what}). Is it the right server?")

    def _redacted(self, what: object) -> str:
        """A message in one line, without the key, should a server repeat it."""
        text = " ".join(str(what)[:5000].split()).rstrip(".")[:500] or type(what).__name__
        key = os.environ.get(self._key_env)
        return text.replace(key, "***") if key else text


async def _say_whether_to_retry(response: Any) -> None:
    """Tell the client library what it does not know of some answers."""
    if response.status_code == 425:  # too early
        response.headers["x-should-retry"] = "true"
    elif response.status_code == 429 and b'"insufficient_quota"' in await response.aread():
        response.headers["x-should-retry"] = "false"


def _passing_over_empty_events(client: Any) -> Any:
    """The class of a client whose streams may have events without data, as keep-alives are."""

    # The library reads every event as JSON, and has no public place to change that.
    def make_decoder(self: Any) -> Any:
        decoder = client._make_sse_decoder(self)
        events = decoder.aiter_bytes

        async def with_data(parts: Any) -> AsyncIterator[Any]:
            async for event in events(parts):
                if event.data.strip():
                    yield event

        decoder.aiter_bytes = with_data
        return decoder

    return type(client.__name__, (client,), {"_make_sse_decoder": make_decoder})


def _rest(request: Request, done: int) -> Request:
    """What is still to be answered: not every server draws several answers at once."""
    if not done:
        return request
    seed = request.sampling.seed
    sampling = replace(request.sampling, seed=None if seed is None else seed + done)
    return replace(request, n=request.n - done, sampling=sampling)


def _count(counts: Any, name: str) -> int:
    """A number of tokens, 0 where it is missing or is none."""
    with suppress(*_MALFORMED, OverflowError):
        count = int(getattr(counts, name))
        return count if 0 < count <= _MOST_TOKENS else 0
    return 0


def _is_passing(status: int | None) -> bool:
    """Whether another try may succeed after an error; a server may name no status."""
    return status is None or status in _RETRIED or status >= 500


async def _pause(attempt: int) -> None:
    """Wait before the next try, as the client library does after a status that tells of errors."""
    await asyncio.sleep(min(0.5 * 2**attempt, 8))
