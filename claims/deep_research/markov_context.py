"""deep-research.markov-context: rounds with a report against a growing conversation.

The bundled model is asked; nothing is trained. Seeds are worlds.
"""

from collections.abc import Sequence
from typing import Literal

from claims.deep_research import lab
from claims.deep_research.lab import (
    BENCHMARKS,
    PAPER,
    WINDOW,
    Attempt,
    add_attempts,
    attempted,
    place,
    unseen,
)
from claims.figures import Figures
from claims.small import one_thread, slope
from hanol.claims import Claim, Measurement, Verdict

_NARROW, _FEW, _MANY = 512, 2, 5
_ARMS: dict[str, tuple[Literal["react", "markov"], int]] = {
    "ReAct": ("react", WINDOW),
    f"ReAct, {_NARROW} tokens": ("react", _NARROW),
    "Markov": ("markov", WINDOW),
    f"Markov, {_NARROW} tokens": ("markov", _NARROW),
}


def _markov(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        world, kinds = unseen(seed, quick, (_FEW, _MANY), 60)
        for name, (mode, tokens) in _ARMS.items():
            file = place(seed, quick, "markov") / f"{mode}-{tokens}.jsonl"
            with one_thread():
                attempts = attempted(
                    lab.MODEL, world, kinds, file, mode=mode, context_tokens=tokens, max_calls=16
                )
            add_attempts(figures, name, attempts)
            many = [attempt for attempt in attempts if attempt.kind == str(_MANY)]
            figures.add(f"{name}: longest prompt", max(max(one.prompts) for one in many))
            figures.add(f"{name}: tokens a round", prompt_growth(many))
    return markov_verdict(figures)


def prompt_growth(attempts: Sequence[Attempt]) -> float:
    """Tokens by which prompts grow from round to round, from the second on."""
    points = [
        (number, tokens)
        for one in attempts
        for number, tokens in enumerate(one.prompts[1:], start=2)
    ]
    rounds, tokens = zip(*points, strict=True) if points else ((), ())
    return slope(rounds, tokens) if len(set(rounds)) > 1 else 0.0


def markov_verdict(figures: Figures) -> Measurement:
    """Whether rounds keep prompts short and the accuracy up where a conversation overflows."""
    narrow = f"{_NARROW} tokens"
    kept, few = figures[f"Markov, {narrow}: {_MANY}"], figures[f"Markov, {narrow}: {_FEW}"]
    lost = figures[f"ReAct, {narrow}: {_MANY}"]
    grows, flat = figures["ReAct: tokens a round"], figures[f"Markov, {narrow}: tokens a round"]
    verdict: bool | Verdict = few >= 40 and kept >= 0.8 * few and lost < 40 and flat <= 0.2 * grows
    if max(figures[f"ReAct: {_MANY}"], figures[f"Markov: {_MANY}"]) < 40:
        verdict = "cannot be shown at this scale"  # it is the model that cannot, in any window
    return figures.measurement(
        verdict,
        f"With prompts of at most {narrow}, Markov mode gets {kept:.1f} % of the {_MANY}-hop "
        f"questions right ({few:.1f} % at {_FEW} hops), ReAct {lost:.1f} % (with room for all "
        f"{figures[f'ReAct: {_MANY}']:.1f} %, Markov {figures[f'Markov: {_MANY}']:.1f} %). A round "
        f"adds {grows:.0f} tokens to a prompt of ReAct and {flat:.0f} to one of Markov mode, whose "
        f"longest has {figures[f'Markov, {narrow}: longest prompt']:.0f}.",
    )


MARKOV_CONTEXT = Claim(
    id="deep-research.markov-context",
    title="Rounds with a report keep prompts short, and the accuracy where a conversation "
    "overflows.",
    paper="IterResearch: +14.5 points on average over six benchmarks, prompts of constant length "
    f"over up to 2,048 rounds (arXiv 2511.07327); the context mode of Tongyi DeepResearch "
    f"({PAPER}).",
    scale=f"The bundled `{lab.MODEL}`, of which a share of the training rows was in Markov mode, "
    f"greedy, on 60 questions each of {_FEW} and {_MANY} hops in an unseen world, one world a "
    f"seed; prompts of at most {_NARROW} tokens, which a conversation about {_FEW} hops fits and "
    f"one about {_MANY} does not, and of {WINDOW}.",
    expectation=f"Shown if within {_NARROW} tokens Markov mode keeps at least 80 % of its accuracy "
    f"from {_FEW} to {_MANY} hops (and has at least 40 % there), ReAct falls below 40 % at {_MANY} "
    "hops, and Markov prompts grow at most a fifth as much a round (means over seeds; they grow a "
    "little, because the report does). Cannot be shown at this scale if the model gets less than "
    f"40 % of the {_MANY}-hop questions right in either mode with room for everything.",
    larger="`hanol research batch --mode markov` and `--mode react` on BrowseComp with the context "
    f"of the model. {BENCHMARKS}.",
    experiment=_markov,
)
