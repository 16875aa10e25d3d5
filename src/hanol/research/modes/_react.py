"""ReAct: thought, action, observation, in one conversation that grows.

The loop of Tongyi DeepResearch (arXiv 2510.24701, section 2), with the order of messages and the
limits of its code behind `strict_official`. Otherwise it differs where that code loses evidence:
all calls of a turn run, roles alternate, and the order to answer follows the last result instead
of replacing it.
"""

from collections.abc import Awaitable, Callable

from hanol.research._context import Transcript
from hanol.research._prompts import FORCED_ANSWER
from hanol.research._run import BudgetSpent, Run
from hanol.runs import Termination

# In our words: what stands at this place in the official code is not published as a format.
OFFICIAL_ORDER = (
    "The context is full. Make no more tool calls. Think once more about everything above and "
    "give the answer that you find most likely, as <think>your last thoughts</think>\n"
    "<answer>your answer</answer>"
)

Restart = Callable[[Transcript], Awaitable[Transcript]]


async def react(run: Run, restart: Restart | None = None) -> None:
    """Run rounds to an answer or a limit; before each, `restart` may shorten the conversation."""
    transcript = opening(run, run.question)
    while True:
        run.step += 1
        try:
            if restart is not None:
                transcript = await restart(transcript)
            if transcript.tokens > run.prompt_limit:
                raise BudgetSpent("max_tokens")
            answered = await run.ask(transcript.messages, transcript.tokens)
        except BudgetSpent as spent:
            return await _end_forced(run, transcript, spent.reason)
        transcript.measured(answered.prompt_tokens)
        if run.settings.strict_official:
            transcript.add_apart("assistant", answered.text.strip())
        else:
            transcript.add("assistant", answered.text)
        turn = run.read(answered)
        if turn.kind == "answer":
            return await run.end("answer", turn.answer)
        if turn.kind == "error":
            told = await run.format_error(turn)
            if not run.settings.strict_official or "tool_call" in answered.text:
                # The official code says nothing without a call.
                transcript.add("user", told, is_format_error=True)
            if run.has_too_many_format_errors:
                return await _end_forced(run, transcript, "format_errors")
        else:
            calls = turn.calls[:1] if run.settings.strict_official else turn.calls
            transcript.add("user", await run.act(calls))


def opening(run: Run, question: str) -> Transcript:
    """A conversation that begins with the system prompt and the question."""
    transcript = Transcript(run.log.count)
    transcript.add("system", run.system)
    transcript.add("user", question)
    return transcript


async def _end_forced(run: Run, transcript: Transcript, reason: Termination) -> None:
    if not run.settings.strict_official:
        return await run.end_forced(*transcript.fitted(run.forced_limit, FORCED_ANSWER), reason)
    if reason != "max_tokens":
        return await run.end(reason, None)
    transcript.replace_last(OFFICIAL_ORDER)
    run.dialogue.pop()
    return await run.end_forced(*transcript.fitted(run.forced_limit), reason, OFFICIAL_ORDER)
