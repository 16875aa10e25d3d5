"""Markov mode (IterResearch, arXiv 2511.07327): each round sees only a report and the last step.

A prompt has the system prompt and one message with three parts: the question, the report so far,
the last action with its result. Thoughts are not carried over, so prompts do not grow with rounds.
"""

from hanol.engines import Message, ToolCall
from hanol.research._context import cut, cut_sentences
from hanol.research._prompts import FORCED_ANSWER
from hanol.research._run import BudgetSpent, Run
from hanol.runs import ReportUpdated, TurnRejected
from hanol.tools import Turn, escape_restated, render_call

_PROMPT = """\
# Question
{question}

# Report so far
{report}

# Last action and its result
{last}"""


async def markov(run: Run) -> None:
    """Run rounds until there is an answer or a limit is reached."""
    rounds = _Rounds(run)
    while True:
        run.step += 1
        try:
            turn = await rounds.turn()
        except BudgetSpent as spent:
            return await run.end_forced(*rounds.prompt(FORCED_ANSWER), spent.reason)
        if turn.kind == "answer":
            return await run.end("answer", turn.answer)
        if turn.kind == "error":
            rounds.note = await run.format_error(turn)
            if run.has_too_many_format_errors:
                return await run.end_forced(*rounds.prompt(FORCED_ANSWER), "format_errors")
        else:
            await rounds.act(turn.calls)


class _Rounds:
    """What one round passes to the next, within its shares of the window."""

    def __init__(self, run: Run) -> None:
        self.note = ""  # about a turn that could not be used
        self._run = run
        self._report = self._action = self._observation = ""
        self._count = run.log.count
        base = self._count(run.system) + self._count(run.question) + self._count(_PROMPT)
        room = max(run.prompt_limit - base, 0)
        # Half of the room is the observation's (see `Run`), a quarter the report's; what is left
        # is for the last action and the note.
        self._report_limit = min(run.settings.report_tokens, room // 4)
        run.form.report_tokens = self._report_limit
        self._small_limit = min(2048, room // 8)

    async def turn(self) -> Turn:
        """One round: ask the model, take its new report, return the parsed turn."""
        run = self._run
        answered = await run.ask(*self.prompt(self.note))
        turn = run.read(answered)
        report = turn.report or ""
        if (length := self._count(report)) > self._report_limit:
            turn = await self._ask_shorter(length)
            report = cut_sentences(turn.report or report, self._report_limit, self._count)
        self._report = report or self._report
        await run.log.emit(ReportUpdated, step=run.step, report=self._report, kept=not report)
        return turn

    async def act(self, calls: tuple[ToolCall, ...]) -> None:
        """Run the calls of a turn; the next prompt shows them with their results."""
        self.note = ""
        text = escape_restated("\n".join(map(render_call, calls)), self._run.control)
        shown = cut(text, self._small_limit, self._count)
        self._action = shown or "(calls too long to be shown)"
        self._observation = await self._run.act(calls)

    def prompt(self, note: str) -> tuple[list[Message], int]:
        """System prompt and one message, with their length in tokens."""
        run = self._run
        content = _PROMPT.format(
            question=run.question,
            report=escape_restated(self._report, run.control) or "(none yet)",
            last=f"{self._action}\n{self._observation}" if self._action else "(none yet)",
        )
        if note:
            content += f"\n\n# Note\n{note}"
        messages = [Message("system", run.system), Message("user", content)]
        return messages, self._count(run.system) + self._count(content)

    async def _ask_shorter(self, length: int) -> Turn:
        run = self._run
        text = (
            f"Your report has {length} tokens, but may have {self._report_limit}. Write the turn "
            "again with a shorter report: keep the findings and the numbers of their sources."
        )
        await run.log.emit(TurnRejected, step=run.step, error="report_too_long", text=text)
        run.heard(text)
        answered = await run.ask(*self.prompt(text))
        return run.read(answered)
