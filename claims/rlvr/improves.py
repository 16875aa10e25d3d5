"""rlvr.improves: rewards that a program gives, with arms whose rewards know nothing."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from claims import kept
from claims.figures import Figures, gain
from claims.recipes import AT_ONCE, SMALLEST, opened, trained
from hanol.claims import Claim, Measurement
from hanol.rows import replace_rows
from hanol.sampling import Sampling
from hanol.test_time import ThinkSettings, sample_answers
from hanol.training import read_metrics
from hanol.worlds import open_problems

_ARMS = ("verified", "random", "format")
_WORLD = "chains:level=1-8"
_STEPS, _PROBLEMS, _TOKENS = 100, 500, 128
_STATES = re.compile(r"The answer is \d+\.")

_place = partial(kept.place, "rlvr")


def _improves(seeds: Sequence[int], quick: bool) -> Measurement:
    figures = Figures()
    for seed in seeds:
        start = trained(
            _place(seed, quick, "small"), "think/small.yaml", seed=seed,
            **(SMALLEST if quick else {}),
        )  # fmt: skip
        before = _answered(seed, quick, start, "small")
        _add(figures, "before", before)
        for arm in _ARMS:
            sizes = {"steps": 2, "questions": 2, "rollouts": 2, "max_tokens": 8, "count": 20,
                     "eval_problems": 0}  # fmt: skip
            chosen = sizes if quick else {"steps": _STEPS, "eval_problems": 0}
            folder = _place(seed, quick, arm)
            made = trained(folder, "rlvr/chains.yaml", model=start, seed=seed, reward=arm, **chosen)
            after = _answered(seed, quick, made, arm)
            _add(figures, arm, after)
            figures.add_gain(f"gain, {arm}", gain(before[0], after[0]))
            lines = read_metrics(folder)
            for key, name in (("zero_variance", "groups without a signal"), ("no_answer", "cut")):
                found = [line[key] for line in lines if key in line]
                figures.add(f"{arm}: {name}, %", 100 * sum(found) / max(1, len(found)))
    return figures.only_run() if quick else verdict(figures)


def _answered(
    seed: int, quick: bool, model: Path, name: str
) -> tuple[list[float], list[float], float]:
    """Right answers, answers of the wanted form (1.0 each), and tokens of an answer; greedily."""
    file = _place(seed, quick, f"answers-{name}.jsonl")
    if not file.exists():
        asked = open_problems(_WORLD, count=8 if quick else _PROBLEMS, seed=seed, split="test")
        drawn = ThinkSettings(Sampling(temperature=0.0, max_tokens=_TOKENS), concurrency=AT_ONCE)
        with opened(model) as engine:
            rows = sample_answers(engine, asked, samples=1, settings=drawn)
            texts = [row["answers"][0] if row["answers"] else "" for row in rows]
            tokens = [len(engine.encode(x, begins=False)) if x else _TOKENS for x in texts]
        right = [float(any(row["right"])) for row in rows]
        formed = [float(bool(_STATES.search(text))) for text in texts]
        replace_rows(file, [[right, formed, sum(tokens) / len(tokens)]])
    [[right, formed, length]] = kept.read_lines(file)
    return right, formed, length


def _add(figures: Figures, name: str, found: tuple[list[float], list[float], float]) -> None:
    right, formed, length = found
    figures.add(f"{name}, %", 100 * sum(right) / len(right))
    figures.add(f"{name}: states an answer, %", 100 * sum(formed) / len(formed))
    figures.add(f"{name}: tokens an answer", length)


def verdict(figures: Figures) -> Measurement:
    """Whether verified rewards raise the accuracy, and more than rewards that know nothing."""

    def said(arm: str) -> str:
        low, high = (figures[f"gain, {arm}, {end}"] for end in ("low", "high"))
        return f"{figures[f'gain, {arm}']:+.1f} points ({low:+.1f} to {high:+.1f})"

    shown = (
        figures["gain, verified"] >= 5
        and min(figures.values["gain, verified, low"]) > 0
        and all(figures["gain, verified"] - figures[f"gain, {arm}"] >= 5 for arm in _ARMS[1:])
    )
    return figures.measurement(
        shown,
        f"{figures['before, %']:.1f} % of {_PROBLEMS} unseen chains before; verified rewards "
        f"{said('verified')}, random ones {said('random')}, rewards for any stated answer "
        f"{said('format')}. Answers have {figures['before: tokens an answer']:.0f} tokens before "
        f"and {figures['verified: tokens an answer']:.0f} after, of {_TOKENS} allowed.",
    )


IMPROVES = Claim(
    id="rlvr.improves",
    title="Rewards that a program gives make a model better at what it checks; rewards that know "
    "nothing do not.",
    paper="GSM8K 84.3 to 87.6, MATH 42.0 to 43.7 (Tulu 3, 8 B); random rewards gave +21.4 points, "
    "right ones +29.1 with Qwen2.5-Math (arXiv 2506.10947), so a gain alone proves little.",
    scale="A model of 0.27 M parameters, trained from scratch on chains of 1 to 8 operations "
    f"modulo 11 (`recipes/think/small.yaml`); {_STEPS} steps of 32 problems with 8 answers "
    f"(`recipes/rlvr/chains.yaml`), answers of {_TOKENS} tokens at most; arms with random rewards "
    f"and with rewards for any stated answer. {_PROBLEMS} unseen chains a seed, greedily; "
    "intervals of paired differences from resampling problems.",
    expectation="Shown if verified rewards gain at least 5 points in the mean over seeds, with an "
    "interval above 0 in every seed, and 5 points more than either other arm.",
    larger="`hanol train recipes/rlvr/smollm2.yaml --set model=MODEL --set problems=FILE` on "
    "GSM8K and MATH with a model of 8 B parameters; nobody has run that here.",
    experiment=_improves,
)
