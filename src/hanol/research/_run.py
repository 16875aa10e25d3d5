"""What all modes of a run share: budgets, tools, format errors, the forced answer, the end."""

import asyncio
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import cache, partial
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from hanol.control import ControlTokens
from hanol.engines import Message, Request, Sampling, ToolCall
from hanol.errors import CapabilityError, EngineError, HanolError, MissingExtraError, RunError
from hanol.research._context import cut
from hanol.research._form import TurnForm, Turns, is_echo
from hanol.research._prompts import FORCED_ANSWER, format_error, without_descriptions
from hanol.research._run_log import RunLog, TimeIsUp, printable
from hanol.retrieval import SourceList, check_citations
from hanol.runs import (
    ANSWER_RESERVE,
    Budget,
    Ledger,
    Mode,
    ModelAnswered,
    Purpose,
    RunEnded,
    Termination,
    ToolReturned,
    TurnRejected,
)
from hanol.tools import (
    Observation,
    Tool,
    ToolContext,
    ToolSpec,
    Turn,
    escape_observation,
    fence_observation,
    parse_turn,
)

# Both forms, because a tokenizer may join the line end to the tag.
STOP = ("\n<tool_response>", "<tool_response>")
MAX_FORMAT_ERRORS = 3  # in a row; then the answer is asked for
_LONGEST_REASON = 300  # characters of what a tool raised
_log = logging.getLogger(__name__)

# How Tongyi DeepResearch samples turns (arXiv 2510.24701). The paper calls the penalty one on
# repetition; its code sends it as `presence_penalty`.
AGENT_SAMPLING = Sampling(temperature=0.85, top_p=0.95, presence_penalty=1.1, max_tokens=10_000)
# Of models with a small window, which are small models: above it, their turns lose the question.
SMALL_SAMPLING = Sampling(temperature=0.3, top_p=0.95, max_tokens=10_000)
# The likeliest token each time; a penalty would keep a model from copying what it has read.
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=10_000)
# What the model or its server chooses: a checkpoint's AutoDeco heads do so for each token.
OWN_SAMPLING = Sampling(max_tokens=10_000)


MOST_ROLLOUTS = 256  # of a heavy run
HEAVY_SAMPLING = ("parallel", "partial", "saved")  # how its rollouts are made; saved ones are given
# Settings that older runs do not have, as they are in JSON.
_NEWER: dict[str, Any] = {"loading": None, "turns": "auto", "web": None}
_NEWER |= {"control_tokens": [], "control_mark": ControlTokens.mark}


@dataclass(frozen=True)
class Settings:
    """Everything about a run that is not its question, its model or its index.

    Args:
        mode: Which loop; see `Researcher`.
        seed: Seed for sampling; the call after n others has this seed plus n.
        today: ISO date of the system prompt.
        strict_official: Keep message order and limits of the official code, its losses included.
        logprobs: Record how uncertain the model was about its calls, for partial rollouts.
        extract: Let `visit` ask the model what a page says about its goal, as the official code
            does; otherwise it shows the best passages.
        report_tokens: Markov mode: longest report.
        summary_every: ReSum mode: also restart after this many rounds.
        fork_step: Rounds up to this one were copied from another run.
        schemas: Name, description and parameters of each tool.
        heavy: Number `n` of rollouts and how they are made (`sampling`), if the run is a
            synthesis over rollouts.
        turns: "constrained" holds every turn to a grammar, "auto" does where the engine can follow
            one, "free" does not. What comes is read leniently in any case.
        loading: Options that the model was loaded with, such as its dtype; a resumed run gets them.
        web: Provider of the web search, by its specification; a resumed run gets it.
        control_tokens: Control tokens of the model that have no common shape.
        control_mark: What breaks one in what tools return.
    """

    mode: Mode = "react"
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = AGENT_SAMPLING
    seed: int = 0
    today: str = ""
    strict_official: bool = False
    logprobs: bool = False
    extract: bool = False
    report_tokens: int = 4096
    summary_every: int | None = None
    fork_step: int = 0
    context_window: int | None = None
    schemas: tuple[dict[str, Any], ...] = ()
    heavy: dict[str, Any] | None = None
    loading: dict[str, str] | None = None
    turns: Turns = "auto"
    web: str | None = None
    control_tokens: tuple[str, ...] = ()
    control_mark: str = ControlTokens.mark

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the log."""
        plain = cast(dict[str, Any], json.loads(json.dumps(asdict(self))))
        # The hash of a run without these stays what it was before there were any.
        for name, default in _NEWER.items():
            if plain[name] == default:
                del plain[name]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """The settings that a log was written with.

        Raises:
            RunError: They are damaged, or those of another version.
        """
        try:
            _settings().validate_python(values)
            _ = [ToolSpec(**schema) for schema in values.get("schemas", ())]
            # Not what pydantic made: it turns 0 into 0.0, and hashes of requests tell them apart.
            budget, sampling = Budget(**values["budget"]), Sampling(**values["sampling"])
            parts = {"budget": budget, "sampling": sampling}
            made = cls(**{**values, **parts, "schemas": tuple(values.get("schemas", ()))})
            made._check()
            return made
        except (KeyError, TypeError, ValueError) as err:
            why = err.errors()[0]["msg"] if isinstance(err, ValidationError) else err
            raise RunError(
                f"The settings in the first line of the log cannot be used ({why}): it was written "
                "by another version, or is damaged. Start a new run in another folder."
            ) from err

    def _check(self) -> None:
        """Refuse what no run has, as a log that somebody sends may.

        Raises:
            ValueError: A value is out of range.
        """
        heavy = self.heavy
        bounds: dict[str, bool] = {
            "heavy": heavy is None
            or (
                type(heavy.get("n")) is int
                and 1 <= heavy["n"] <= MOST_ROLLOUTS
                and heavy.get("sampling") in HEAVY_SAMPLING
            ),
            "fork_step": self.fork_step >= 0,
            "report_tokens": self.report_tokens >= 1,
            "summary_every": self.summary_every is None or self.summary_every >= 1,
            "context_window": self.context_window is None or self.context_window >= 1,
            "today": not self.today or bool(date.fromisoformat(self.today)),
        }
        for name, is_good in bounds.items():
            if not is_good:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}")


@cache
def _settings() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


class BudgetSpent(Exception):  # noqa: N818 - control flow inside the loop
    """The next turn would go past a limit."""

    def __init__(self, reason: Termination) -> None:
        super().__init__(reason)
        self.reason = reason


class Run:
    """The state of one run; it can be rebuilt from the run's events.

    Args:
        started: Fields of the first event.
        log: The log that all calls go through.
        context: What tools get, except the engine.

    Raises:
        RunError: The prompt leaves no room in the model's window.
    """

    def __init__(
        self,
        started: Mapping[str, Any],
        settings: Settings,
        tools: Sequence[Tool],
        log: RunLog,
        context: ToolContext,
    ) -> None:
        self.question = question = started["question"]
        self.system = system = started["system_prompt"]
        self.settings = settings
        self.tools = {tool.name: tool for tool in tools}
        self.log = log
        self.spent = log.spent
        turns = "free" if settings.strict_official else settings.turns
        self.form = TurnForm(log.engine, tools, turns)
        self.control = ControlTokens(tuple(settings.control_tokens), settings.control_mark)
        self.step = 0
        self.repaired = 0  # turns that were read leniently
        self._told = [FORCED_ANSWER, without_descriptions(system, tools)]
        self._plain: list[str] = []  # what the model said outside of any form, echoes apart
        self._context = context
        self._format_errors = 0
        self._results: dict[str, ToolReturned] = {}
        self.dialogue = [Message("system", system), Message("user", question)]
        # Pages cannot know it, and the same run always has the same: replays ask the same.
        self._fence = hashlib.sha256(f"fence {started['run_id']}".encode()).hexdigest()[:12]
        self.prompt_limit = self._prompt_limit()
        base = log.count(system) + log.count(question)
        reserve = min(ANSWER_RESERVE, self.prompt_limit // 4)  # small windows have small answers
        if base + reserve > self.prompt_limit:
            raise RunError(
                f"System prompt and question have {base} tokens, but prompts may have only "
                f"{self.prompt_limit} (window of {log.engine.name!r} and `context_tokens` of "
                f"the budget), and {reserve} are needed besides. Use a model with a longer "
                "window, fewer tools or a shorter question."
            )
        room = (self.prompt_limit - base) // 2
        self.observation_limit = min(settings.budget.observation_tokens, room)

    @property
    def sources(self) -> SourceList:
        """The numbered sources so far."""
        return self._context.sources

    def _prompt_limit(self) -> int:
        limit = self.settings.budget.context_tokens
        window = self.settings.context_window
        if window is not None:
            answer = self.settings.sampling.max_tokens or window
            limit = min(limit, window - min(answer, window // 4))
        return limit

    @property
    def forced_limit(self) -> int:
        """Most tokens of the prompt that asks for the answer."""
        return int(min(self.prompt_limit, self.spent.prompt_room()))

    async def ask(
        self,
        messages: Sequence[Message],
        prompt_tokens: int,
        *,
        purpose: Purpose = "turn",
        sampling: Sampling | None = None,
        place: int | None = None,
    ) -> ModelAnswered:
        """One call of the model by the agent.

        Args:
            purpose: What it is for; a forced answer may use what is kept back for it.
            place: Added to the seed; distinguishes calls that run at once. None is the number of
                calls so far.

        Raises:
            BudgetSpent: A limit is reached, or was while the call ran.
            EngineError: The model failed.
        """
        forced = purpose in ("forced_answer", "synthesis")
        if not forced and (reason := self.spent.reached(prompt_tokens)):
            raise BudgetSpent(reason)
        sampling = sampling or self.settings.sampling
        window = self.settings.context_window
        room = self.spent.room(prompt_tokens, forced=forced)
        if window is not None:
            room = min(room, window - prompt_tokens)
        if room < 1:
            raise BudgetSpent("max_tokens")
        most = sampling.max_tokens or self.settings.budget.context_tokens
        max_tokens = int(min(most, room))
        request = Request(
            tuple(messages),
            replace(
                sampling,
                max_tokens=max_tokens,
                stop=STOP if purpose in ("turn", "forced_answer") else (),
                seed=self.settings.seed + (self.spent.turns if place is None else place),
            ),
            constraint=self.form.constraint(purpose, max_tokens),
            top_logprobs=0 if self.settings.logprobs else None,
        )
        seconds = self.spent.seconds_left(forced=forced)
        asked = partial(self.log.model, step=self.step, purpose=purpose, seconds=seconds)
        try:
            try:
                event = await asked(request)
            except (CapabilityError, MissingExtraError) as err:
                if request.constraint is None or not self.form.is_given_up(err):
                    raise
                event = await asked(replace(request, constraint=None))
        except TimeIsUp:
            self.spent.cut_off()
            raise BudgetSpent("max_seconds") from None
        if purpose in ("turn", "forced_answer"):
            self.dialogue.append(Message("assistant", event.text))
        return event

    def parse(self, text: str) -> Turn:
        """Parse what the model wrote."""
        return parse_turn(text, tuple(self.tools.values()))

    def read(self, event: ModelAnswered) -> Turn:
        """Parse a turn of the agent; an echo of the instructions is no answer."""
        turn = self.parse(event.text)
        if turn.answer is not None and self.is_echo(turn.answer):
            detail = "The answer only repeats the instructions."
            return Turn("error", error="empty_answer", detail=detail, think=turn.think)
        if turn.error == "no_action":
            plain = _untagged(event.text)
            self._plain += [plain] * (plain != "" and not self.is_echo(plain))
        self.repaired += turn.repaired or (event.native_calls and turn.error is None)
        return turn

    def last_answer(self, event: ModelAnswered | None) -> str | None:
        """The answer of a turn that had to be one; else what was last said in no form at all."""
        answer = None if event is None else self.read(event).answer
        if answer is None and self._plain:
            self.repaired += 1
            answer = self._plain[-1]
        return answer

    def is_echo(self, answer: str) -> bool:
        """Whether an answer only repeats what the model was told."""
        return is_echo(answer, self._told, self.question)

    async def act(self, calls: Sequence[ToolCall]) -> str:
        """Run the calls of a turn in order; returns what the model reads next."""
        self._format_errors = 0
        share = max(64, self.observation_limit // max(len(calls), 1))
        blocks = []
        for index, call in enumerate(calls):
            event = await self._call(index, call)
            text = cut(event.text, share, self.log.count)
            if not self.settings.strict_official:
                text = fence_observation(
                    text, marker=self._fence, source=event.name, control=self.control
                )
            else:
                text = escape_observation(text, self.control)
            blocks.append(response(text))
        return self.heard("\n".join(blocks))

    async def format_error(self, turn: Turn) -> str:
        """Tell the model why its turn cannot be used; returns what the model reads next."""
        self._format_errors += 1
        text = format_error(turn)
        self._told.append(text)
        await self.log.emit(TurnRejected, step=self.step, error=turn.error, text=text)
        return self.heard(response(text))

    @property
    def has_too_many_format_errors(self) -> bool:
        """Whether the model wrote too many turns in a row that cannot be used."""
        return self._format_errors >= MAX_FORMAT_ERRORS

    async def end(
        self, termination: Termination, answer: str | None, *, also: Sequence[Ledger] = ()
    ) -> None:
        """Write the last event; the answer's citations are checked first.

        Args:
            also: Costs of other runs that were made for this one.
        """
        citations = None
        if answer is not None:
            citations = check_citations(answer, self.sources).to_dict()
        total = sum(also, self.spent.ledger)
        await self.log.emit(
            RunEnded,
            step=self.step,
            termination=termination,
            answer=answer,
            citations=citations,
            model_calls=total.model_calls,
            tool_calls=total.tool_calls,
            prompt_tokens=total.prompt_tokens,
            cached_tokens=total.cached_tokens,
            completion_tokens=total.generated_tokens,
            seconds=total.seconds,
            money=total.money,
            repaired=self.repaired,
        )

    async def end_forced(
        self,
        messages: Sequence[Message],
        prompt_tokens: int,
        reason: Termination,
        order: str = FORCED_ANSWER,
    ) -> None:
        """Ask for the answer with what was found so far, if the budget allows it, and end the run.

        Args:
            messages: The prompt, which ends with `order`.
        """
        self.heard(order)
        try:
            event: ModelAnswered | None = await self.ask(
                messages, prompt_tokens, purpose="forced_answer"
            )
        except BudgetSpent:
            event = None
        await self.end(reason, self.last_answer(event))

    def heard(self, text: str) -> str:
        """Record what the model was told, for the transcript."""
        self.dialogue.append(Message("user", text))
        return text

    async def _call(self, index: int, call: ToolCall) -> ToolReturned:
        arguments = cast(dict[str, Any], _plain(dict(call.arguments)))
        key = json.dumps([call.name, arguments], sort_keys=True)
        before = self._results.get(key)

        async def run() -> Observation:
            if before is not None:
                return Observation(
                    "You made this very call before; it gives the same result. Ask something "
                    f"else, or answer.\n{before.text}",
                    sources=tuple(before.sources),
                    addresses=tuple(before.addresses),
                )
            return await self._run_tool(call.name, arguments)

        seconds = self._tool_seconds()
        event = await self.log.tool(
            run, step=self.step, call=index, name=call.name, arguments=arguments, seconds=seconds
        )
        for source in event.sources:
            self.sources.add(source)
        self._context.addresses.update(event.addresses)
        if before is None and not event.failed:
            self._results[key] = event
        return event

    async def _run_tool(self, name: str, arguments: Mapping[str, Any]) -> Observation:
        limit = self.settings.budget.tool_calls
        if limit is not None and self.spent.ledger.tool_calls >= limit:
            return Observation(f"The budget of {limit} tool calls is spent.", failed=True)
        if self._tool_seconds() <= 0:
            return Observation("The run's time is used up.", failed=True)
        # Tools get copies: what counts is the event, and a call that is cut off leaves none.
        context = ToolContext(
            self.sources.copy(),
            index=self._context.index,
            engine=self.log.extractor(self.step) if self.settings.extract else None,
            addresses=set(self._context.addresses),
            chance=f"{self.settings.seed} {self.spent.ledger.tool_calls}",
            deadline=time.monotonic() + self._tool_seconds(),
        )
        try:
            result = await self.tools[name].run(arguments, context)
            return replace(result, text=printable(result.text))
        except EngineError:
            raise  # the model is gone, also for the agent: stop, and resume later
        except HanolError as err:
            return Observation(f"{name} failed: {err}", failed=True)
        # It ends its call, not the run: a resumed one would make the same call.
        except (Exception, asyncio.CancelledError) as err:
            task = asyncio.current_task()
            if isinstance(err, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # by the run, not within the tool
            _log.debug("The tool %s failed.", name, exc_info=True)
            kind, why = type(err).__name__, str(err)[:_LONGEST_REASON]
            return Observation(f"{name} failed: {kind}: {why}", failed=True)

    def _tool_seconds(self) -> float:
        return max(self.spent.seconds_left(forced=False), 0.0)


def _untagged(text: str) -> str:
    """What is neither thought nor report, without tags."""
    text = re.sub(r"<report>.*?</report>", "", text.rpartition("</think>")[2], flags=re.DOTALL)
    return re.sub(r"</?(?:think|answer)>", "", text).strip()


def response(text: str) -> str:
    """A text as the result of a tool."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _plain(value: Any) -> Any:
    """Arguments as JSON can keep them: no half characters, no infinities."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
