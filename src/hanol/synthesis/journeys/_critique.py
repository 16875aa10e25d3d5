"""Thoughts without a tree: a model proposes steps, a critic lets them stand or sends it back.

Source: arXiv 2410.18982, section 6.5 names both loops as routes to long thoughts and describes
neither; the actions are the paper's (continue, backtrack, reflect, terminate).
"""

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from hanol.engines import Engine, Message, Request, Sampling
from hanol.errors import ConfigError
from hanol.runs import synchronous
from hanol.scoring import last_answer, parse_verifier
from hanol.synthesis.journeys._judge import StepJudge
from hanol.synthesis.journeys._walk import JourneyEvent, Walk, backtrack_to, reflection
from hanol.synthesis.journeys._write import StepWriter, TreeSettings, states_answer
from hanol.worlds import MathProblem

_REPLY = """\
Problem:
{problem}

Solution so far, one step a line:
{steps}

A colleague says of the last step: {reason}.
If the colleague is right, write "I agree". Else write in one sentence why the step is right."""
_AGREES = "i agree"
_REPLY_TOKENS = 64


class _Stood(NamedTuple):
    """A step that stands."""

    node: int
    step: str


async def apropose_critique(
    problem: MathProblem,
    engine: Engine,
    critic: StepJudge,
    *,
    settings: TreeSettings | None = None,
    seed: int = 0,
    max_steps: int = 30,
    debate: bool = False,
) -> Walk:
    """Let a model propose one step after another, and a critic object.

    A step that the critic lets stand is gone on from. Of one that it calls incorrect the reason is
    written down and the model returns to the step before; after `settings.width` such steps at one
    place, one step further. The thought ends with an answer that the problem's verifier takes.

    Args:
        problem: With a verifier.
        engine: Proposes the steps; it has to be able to continue a `prefill`.
        critic: Judges each step.
        settings: How steps are drawn; None takes the defaults.
        seed: The same seed and models give the same thought.
        max_steps: Most proposals.
        debate: Let the model answer an objection; where it does not agree, the critic judges again
            with that answer before it.

    Returns:
        The thought; its `final` is None when no answer was accepted within `max_steps`.

    Raises:
        ConfigError: There is no proposal.
        CapabilityError: The engine cannot continue a `prefill`.
        DataError: The critic gave neither a verdict nor a score, or an unknown one.
        EngineError: A model did not answer.
    """
    if max_steps < 1:
        raise ConfigError(f"`max_steps` is {max_steps}, but must be 1 or more.")
    settings = settings or TreeSettings()
    writer = StepWriter(problem, engine, settings, seed)
    verify = parse_verifier(problem.verifier)
    stood: list[_Stood] = []
    events: list[JourneyEvent] = []
    tried: Counter[tuple[str, ...]] = Counter()
    for number in range(1, max_steps + 1):
        before = [one.step for one in stood]
        attempt = tried[tuple(before)]
        tried[tuple(before)] += 1
        parent = stood[-1].node if stood else 0
        step = next(iter(await writer.write(before, 1, attempt)), "")
        is_leaf = states_answer(step)
        if step:
            judged = await critic.judge(problem, [*before, step])
            is_right = judged.verdict != "incorrect"
            if is_leaf:  # the critic may pass what the verifier does not
                is_right = verify(problem.problem, "\n".join([*before, step]), problem)
            if is_right:
                kind = "terminate" if is_leaf else "step"
                events.append(JourneyEvent(kind, number, parent, step, "correct"))  # type: ignore[arg-type]
                stood.append(_Stood(number, step))
                if is_leaf:
                    final = last_answer(step)
                    return Walk(tuple(events), problem.problem, problem.answer, final)
                continue
            events.append(JourneyEvent("step", number, parent, step, "incorrect"))
            events.append(reflection(number, parent, judged.reason))
            if debate and not is_leaf:
                reply = await _reply(problem, engine, [*before, step], judged.reason, seed)
                events.append(JourneyEvent("reflect", number, parent, reply))
                if _AGREES not in reply.casefold():
                    heard = replace(problem, problem=f"{problem.problem}\nRemark: {reply}")
                    again = await critic.judge(heard, [*before, step])
                    if again.verdict != "incorrect":
                        stood.append(_Stood(number, step))
                        continue
        if stood and (not step or tried[tuple(before)] >= settings.width):
            stood.pop()
        back = stood[-1] if stood else None
        above = stood[-2].node if len(stood) > 1 else 0
        if step:
            events.append(backtrack_to(back.node if back else 0, above, back and back.step))
    return Walk(tuple(events), problem.problem, problem.answer, None)


propose_critique = synchronous(apropose_critique)


async def _reply(
    problem: MathProblem, engine: Engine, steps: list[str], reason: str, seed: int
) -> str:
    asked = _REPLY.format(problem=problem.problem, steps="\n".join(steps), reason=reason)
    sampling = Sampling(temperature=0.0, max_tokens=_REPLY_TOKENS, seed=seed)
    completion = await engine.complete(Request((Message("user", asked),), sampling))
    return " ".join(completion.text.rpartition("</think>")[2].split()) or "I agree."
