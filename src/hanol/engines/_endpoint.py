"""A model behind an OpenAI-compatible endpoint."""

import asyncio
import ipaddress
import logging
import os
import random
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from hanol.engines._base import EngineBase, check_request, cut_at_stop
from hanol.engines._engine import Completion, Message, Request, Usage
from hanol.engines._replies import estimate, is_passing, logprobs, message, refused_parameter
from hanol.errors import EngineError, require

_log = logging.getLogger(__name__)
_TRIES_UNTIL_REACHED = 3  # while no request was ever answered: nobody waits minutes for a typo
_LONGEST_PAUSE = 30.0
_TOKENS_PER_MESSAGE = 8


class EndpointEngine(EngineBase):
    """Chat completions over HTTP, asked again when a server is busy or answers nothing.

    Timeouts, lost connections, 408, 409, 425, 429, 5xx and empty answers are tried again after
    min(30, 2^k + U(0, 1)) seconds, as the released Tongyi DeepResearch code does; other refusals
    are not. Parameters that the server refuses are left out from then on; stop strings are applied
    here too. Reasoning that comes apart stands in `<think>` tags before the answer.

    The key goes to the host of the specification only: redirects are not followed.

    Args:
        spec: "http(s)://host:port/v1#model".
        api_key_env: Environment variable that holds the key; none is sent when it is not set.
        tries: Requests for one answer, at most.
        timeout: Seconds for one request.
        max_concurrency: Requests in flight, at most.
        context_window: Of the model, in tokens; servers do not tell in a common way.
        tokenizer: Hub id, folder or bundled name of the model's tokenizer, to count exactly.

    Raises:
        EngineError: The specification names no model, or holds a password.
        MissingExtraError: The client library is not installed.
    """

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
        parts = urlsplit(spec)
        if not (parts.scheme in ("http", "https") and parts.hostname and parts.fragment):
            raise EngineError(
                f"{_without_password(spec)!r} does not name a model at an endpoint: write "
                "http://host:port/v1#model."
            )
        if parts.username or parts.password:
            raise EngineError(
                f"The address of {parts.hostname!r} holds a user name or password, which would end "
                f"up in logs. Put the key into the environment variable {api_key_env}."
            )
        self.name, self._model = spec, parts.fragment
        self._url = parts._replace(fragment="").geturl()
        self._loopback = _is_loopback(parts.hostname)
        self._key_env, self._tries, self._timeout = api_key_env, tries, timeout
        self._max_concurrency, self.context_window = max_concurrency, context_window
        self._tokens = _exact_counter(tokenizer)
        self._reached = False
        self._refused: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._headers: dict[str, Any] = {}
        self._free = asyncio.Semaphore(max_concurrency)

    def __repr__(self) -> str:
        return f"EndpointEngine({self.name!r})"

    async def complete(self, request: Request) -> Completion:
        """Complete one conversation.

        Raises:
            EngineError: The endpoint refused the request, or did not answer in all tries.
        """
        check_request(self, request)
        client = self._connect()
        async with self._free:
            return await self._with_retries(client, request)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the conversation: exact with a tokenizer, else an estimate that is rather high.

        The estimate: one token for each 4 letters of an ASCII word (begun ones included), each
        digit, sign or run of line ends, and each 2 bytes of other scripts; 8 a message.
        """
        if self._tokens is not None:
            return int(self._tokens(messages))
        return sum(_TOKENS_PER_MESSAGE + estimate(one.content) for one in messages)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.close()
        self._client = self._loop = None

    # -- one request

    def _connect(self) -> Any:
        """The client of the running loop: connections cannot move to another one."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            openai = self._openai
            key = os.environ.get(self._key_env)
            unset = openai.Omit()
            headers = {"OpenAI-Organization": unset, "OpenAI-Project": unset}
            # The library wants this one to be left out of each request, not of the client.
            self._headers = {} if key else {"Authorization": unset}
            self._client = openai.AsyncOpenAI(
                base_url=self._url,
                api_key=key or "none",
                default_headers=headers,
                max_retries=0,
                timeout=self._timeout,
                http_client=openai.DefaultAsyncHttpxClient(
                    trust_env=not self._loopback, follow_redirects=False, timeout=self._timeout
                ),
            )
            self._loop, self._free = loop, asyncio.Semaphore(self._max_concurrency)
        return self._client

    async def _with_retries(self, client: Any, request: Request) -> Completion:
        openai = self._openai
        for attempt in range(self._tries):
            try:
                answer = self._read(request, await self._send(client, request))
                if answer.text.strip():
                    return answer
                problem = "it answered with an empty text"
            except openai.APITimeoutError:
                problem = f"there was no answer within {self._timeout:g} seconds"
            except openai.APIConnectionError as err:
                problem = f"the connection failed ({self._redacted(err.__cause__ or err)})"
            except openai.APIStatusError as err:
                if not is_passing(err):
                    raise await self._refusal(client, err) from None
                problem = f"it answered {err.status_code}: {self._redacted(message(err))}"
            tries = self._tries if self._reached else min(self._tries, _TRIES_UNTIL_REACHED)
            if attempt + 1 >= tries:
                break
            _log.warning("%s: %s; trying again (%d of %d).", self, problem, attempt + 2, tries)
            await _pause(attempt)
        raise EngineError(
            f"{self._url} gave no answer in {attempt + 1} tries; at last, {problem}. Is the server "
            "running at this address, and is it overloaded?"
        )

    async def _send(self, client: Any, request: Request) -> Any:
        """Ask once; without parameters that the server says it does not take."""
        refused = self._refused
        while True:
            try:
                response = await client.chat.completions.create(
                    **self._body(request, refused), extra_headers=self._headers
                )
            except self._openai.APIStatusError as err:
                self._reached = True
                named = refused_parameter(err, self._body(request, refused))
                if named is None:
                    raise
                refused |= {named}
                continue
            self._reached = True
            if refused != self._refused:
                gone = ", ".join(sorted(refused - self._refused))
                _log.warning("%s does not take %s: left out from now on.", self, gone)
                self._refused |= refused
            return response

    def _body(self, request: Request, refused: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [one.to_dict() for one in request.messages],
            "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "presence_penalty": request.sampling.presence_penalty or None,
            "stop": list(request.sampling.stop) or None,
            "seed": request.sampling.seed,
            "logprobs": request.top_logprobs is not None or None,
        }
        if "max_tokens" in refused:
            body["max_completion_tokens"] = body.pop("max_tokens")
        return {k: v for k, v in body.items() if v is not None and k not in refused}

    def _read(self, request: Request, response: Any) -> Completion:
        choices = getattr(response, "choices", None)
        if choices is None:
            raise EngineError(
                f"{self._url} did not answer with a chat completion. An OpenAI-compatible address "
                "usually ends with /v1."
            )
        if not choices:
            return Completion.of("", usage=Usage(0, 0))
        choice = choices[0]
        said = choice.message
        reasoning = getattr(said, "reasoning_content", None) or getattr(said, "reasoning", None)
        content, was_cut = cut_at_stop(said.content or "", request.sampling.stop)
        text = content
        if reasoning and "</think>" not in content:
            text = f"<think>\n{reasoning.strip()}\n</think>\n\n{content.lstrip()}"
        usage = response.usage
        details = getattr(usage, "prompt_tokens_details", None)
        tokens, logprobs_ = logprobs(choice, content if was_cut else None)
        return Completion.of(
            text,
            "length" if choice.finish_reason == "length" and not was_cut else "stop",
            usage=Usage(
                usage.prompt_tokens if usage else self.count_tokens(request.messages),
                usage.completion_tokens if usage else estimate(text),
                getattr(details, "cached_tokens", None) or 0,
            ),
            tokens=tokens,
            logprobs=logprobs_,
        )

    # -- refusals

    async def _refusal(self, client: Any, err: Any) -> EngineError:
        said, status = self._redacted(message(err)), err.status_code
        if status in (401, 403):
            state = "holds a key that is refused" if os.environ.get(self._key_env) else "is not set"
            cure = f"The environment variable {self._key_env} {state}."
        elif status == 404:
            names = await self._model_names(client)
            cure = (
                f"It has {', '.join(names)}: write one of them after the #."
                if names
                else "Check the address (it usually ends with /v1) and the model after the #."
            )
        elif 300 <= status < 400:
            cure = "Redirects are not followed: give the address that it leads to."
        else:
            cure = "The request itself was refused, so it was not tried again."
        return EngineError(f"{self._url} answered {status} for {self._model!r}: {said}. {cure}")

    async def _model_names(self, client: Any) -> list[str]:
        try:
            listed = await client.models.list(timeout=10, extra_headers=self._headers)
            return [str(model.id) for model in listed.data][:10]
        except (self._openai.OpenAIError, AttributeError, TypeError):
            return []

    def _redacted(self, what: object) -> str:
        """A message without the key, should a server repeat it."""
        text = str(what).strip().rstrip(".")[:500] or type(what).__name__
        key = os.environ.get(self._key_env)
        return text.replace(key, "***") if key else text


async def _pause(attempt: int) -> None:
    seconds = 2.0**attempt + random.uniform(0, 1)  # noqa: S311
    await asyncio.sleep(min(_LONGEST_PAUSE, seconds))


def _exact_counter(tokenizer: str | None) -> Any:
    if tokenizer is None:
        return None
    from hanol.engines.checkpoint._chat import ChatTokens
    from hanol.models import load_tokenizer

    chat = ChatTokens(load_tokenizer(tokenizer), None, tokenizer)
    return lambda messages: len(chat.encode(chat.render(messages)).ids)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _without_password(spec: str) -> str:
    return re.sub(r"//[^/@]*@", "//", spec)
