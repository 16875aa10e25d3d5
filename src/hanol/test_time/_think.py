"""One problem, by the name of a strategy: what the command line and the server call."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hanol.engines import Engine
from hanol.errors import ConfigError
from hanol.runs import synchronous
from hanol.scoring import StepScorer, last_answer
from hanol.test_time._prompts import ThinkSettings
from hanol.test_time._run import arun
from hanol.test_time._thought import Thought
from hanol.test_time.searches import BeamSearch, Majority, Search, strategy_class

if TYPE_CHECKING:
    from hanol.test_time._policy import PolicyTable

_WIDTH = 4  # next steps of a prefix, where nothing else is said and the budget is divisible by it
_DIVIDES = ("width", "lookahead", "chains")
_PROBES = 4  # answers from which the difficulty of a problem is told


def make_search(
    strategy: str, budget: int, options: Mapping[str, Any] | None = None, *, seed: int = 0
) -> Search:
    """The search that a name and its options stand for.

    Args:
        strategy: One of `strategy_names()`.
        budget: See `Search`.
        options: Further arguments of its class. Beams without a width have the largest one of up to
            4 that their number is divisible by; a budget of 1 is not divided at all.
        seed: See `Search`.

    Raises:
        UnknownNameError: There is no such strategy.
        ConfigError: An option is unknown to it, or out of range.
    """
    kind, given = strategy_class(strategy), dict(options or {})
    if budget == 1:  # one plain sample: there is nothing to divide
        given = {name: value for name, value in given.items() if name not in _DIVIDES}
    if issubclass(kind, BeamSearch) and "width" not in given:
        ahead = given.get("lookahead", 0)
        beams = budget // (ahead + 1) if isinstance(ahead, int) and ahead >= 0 else budget
        given["width"] = next(w for w in range(_WIDTH, 0, -1) if beams % w == budget % w == 0)
    try:
        return kind(budget, **{"seed": seed, **given})
    except TypeError as err:
        raise ConfigError(f"The strategy {strategy!r} does not take these options: {err}.") from err


async def athink(
    problem: str,
    engine: Engine,
    verifier: StepScorer | None = None,
    *,
    strategy: str = "auto",
    budget: int = 16,
    options: Mapping[str, Any] | None = None,
    policy: "PolicyTable | None" = None,
    settings: ThinkSettings | None = None,
    read_answer: Callable[[str], Any] = last_answer,
) -> Thought:
    """Answer a problem by a strategy's name.

    "auto" takes the strategy that a policy says is best for the difficulty of the problem, which
    the agreement of a few first answers tells (or their mean score, if the policy was fitted so);
    they are paid for out of the budget. Without a policy it is the adaptive vote.

    Args:
        problem: What is asked.
        engine: Samples solutions.
        verifier: Scores steps, for strategies that need it.
        strategy: A name of `strategy_names()`, or "auto".
        budget: Complete answers' worth of tokens at most.
        options: See `make_search`.
        policy: What `fit_policy` gave for this model, task and template.
        settings: How solutions are sampled.
        read_answer: See `run`.

    Raises:
        ConfigError: A value is out of range, a verifier is missing, or the policy is that of
            another model or template.
        CapabilityError: The engine cannot do what the strategy needs.
    """
    settings = settings or ThinkSettings()
    seed = settings.sampling.seed or 0
    if strategy != "auto":
        search = make_search(strategy, budget, options, seed=seed)
        return await arun(search, engine, verifier, problem, settings, read_answer=read_answer)
    if policy is None:
        search = make_search("adaptive", budget, options, seed=seed)
        thought = await arun(search, engine, verifier, problem, settings, read_answer=read_answer)
        note = "auto: no policy was given, so this is the adaptive vote (fit one: hanol think fit)"
        return replace(thought, note=note)
    policy.check(engine, settings)
    probes = min(_PROBES, max(1, budget // 4))
    probe = Majority(probes, seed=seed)
    first = await arun(probe, engine, None, problem, settings, read_answer=read_answer)
    difficulty = agreement(first)
    if budget - probes < 1:
        return replace(first, note="auto: the budget was spent on telling the difficulty")
    spec = policy.choose(difficulty, budget - probes)
    # Other samples than the first ones: those are paid for already.
    search = make_search(spec["strategy"], spec["budget"], spec.get("options"), seed=seed + probes)
    thought = await arun(search, engine, verifier, problem, settings, read_answer=read_answer)
    note = (
        f"auto: {difficulty:.2f} of {probes} first answers agree, difficulty bin "
        f"{policy.bin_of(difficulty)}: {spec['strategy']} with {spec['budget']} of {budget}"
    )
    ledger = first.ledger + thought.ledger
    return replace(thought, ledger=ledger, note=note)


think = synchronous(athink)


def agreement(thought: Thought) -> float:
    """Share of a vote's samples that gave the winning answer: how easy the problem seems."""
    samples = sum(node.parent == 0 for node in thought.nodes[1:])
    return max(thought.votes.values(), default=0.0) / samples if samples else 0.0


def strategy_names() -> dict[str, str]:
    """Every strategy, with what it spends its budget on."""
    about = {}
    for name, kind in sorted(Search.kinds.items()):
        extra = "; scores cost verifier tokens, which do not count" if kind.needs_scores else ""
        about[name] = kind.spends + extra
    about["auto"] = "what a fitted policy says; without one, the adaptive vote"
    return about
