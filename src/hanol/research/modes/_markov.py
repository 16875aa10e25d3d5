"""Markov mode (IterResearch, arXiv 2511.07327): each round sees only a report and the last step.

A prompt has the system prompt and one message with three parts: the question, the report so far,
the last action with its result. Thoughts are not carried over, so prompts do not grow with rounds.
"""

from dataclasses import dataclass

from hanol.engines import Message, ToolCall
from hanol.research._context import cut, cut_sentences
from hanol.research._prompts import FORCED_ANSWER
from hanol.research._run import BudgetSpent, Run
from hanol.runs import ReportUpdated, TurnRejected
from hanol.tools import Turn, render_call

_PROMPT = """\
# Question
{question}

# Report so far
{report}

# Last action and its result
{last}"""


@dataclass
class _RoundState:
    """The state that one round passes to the next."""

    report: str = ""
    action: str = ""
    observation: str = ""
    note: str = ""


async def markov(run: Run) -> None:
    """Run rounds until there is an answer or a limit is reached."""
    rounds = _Rounds(run)
    state = _RoundState()
    while True:
        run.step += 1
        try:
            turn = await rounds.turn(state)
        except BudgetSpent as spent:
            state.note = FORCED_ANSWER
            return await run.end_forced(*rounds.prompt(state), spent.reason)
        if turn.kind == "answer":
            return await run.end("answer", turn.answer)
        if turn.kind == "error":
            state.note = await run.format_error(turn)
            if run.has_too_many_format_errors:
                state.note = FORCED_ANSWER
                return await run.end_forced(*rounds.prompt(state), "format_errors")
        else:
            state.note = ""
            state.action = rounds.action(turn.calls)
            state.observation = await run.act(turn.calls)


class _Rounds:
    """Prompts and reports within their shares of the window."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._count = run.log.count
        base = self._count(run.system) + self._count(run.question) + self._count(_PROMPT)
        room = max(run.prompt_limit - base, 0)
        # Half of the room is the observation's (see `Run`), a quarter the report's; what is left
        # is for the last action and a note about a turn that could not be used.
        self._report_limit = min(run.settings.report_tokens, room // 4)
        self._small_limit = min(2048, room // 8)

    async def turn(self, state: _RoundState) -> Turn:
        """One round: ask the model, take its new report, return the parsed turn."""
        run = self._run
        answered = await run.ask(*self.prompt(state))
        turn = run.parse(answered.text)
        report = turn.report or ""
        if (length := self._count(report)) > self._report_limit:
            turn = await self._ask_shorter(state, length)
            report = cut_sentences(turn.report or report, self._report_limit, self._count)
        kept = not report
        state.report = report or state.report
        await run.log.emit(ReportUpdated, step=run.step, report=state.report, kept=kept)
        return turn

    def prompt(self, state: _RoundState) -> tuple[list[Message], int]:
        """System prompt and one message, with their length in tokens."""
        run = self._run
        last = f"{state.action}\n{state.observation}" if state.action else "(none yet)"
        content = _PROMPT.format(
            question=run.question, report=state.report or "(none yet)", last=last
        )
        if state.note:
            content += f"\n\n# Note\n{state.note}"
        messages = [Message("system", run.system), Message("user", content)]
        return messages, self._count(run.system) + self._count(content)

    def action(self, calls: tuple[ToolCall, ...]) -> str:
        """The calls of a turn, as the next prompt shows them."""
        text = "\n".join(render_call(call) for call in calls)
        return cut(text, self._small_limit, self._count) or "(calls too long to be shown)"

    async def _ask_shorter(self, state: _RoundState, length: int) -> Turn:
        run = self._run
        text = (
            f"Your report has {length} tokens, but may have {self._report_limit}. Write the turn "
            "again with a shorter report: keep the findings and the numbers of their sources."
        )
        await run.log.emit(TurnRejected, step=run.step, error="report_too_long", text=text)
        run.heard(text)
        again = _RoundState(state.report, state.action, state.observation, text)
        answered = await run.ask(*self.prompt(again))
        return run.parse(answered.text)
