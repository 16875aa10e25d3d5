"""Decoding settings compared on a user's own task.

Source: arXiv 2510.26697, section 4: greedy, the default (temperature 1, top-p 1), the best static
pair, each head alone and both. Pass@1 is the mean over problems of the share of right completions.

Shape suffixes: P problems, N completions of a problem, M figures.
"""

import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol.autodeco import AutoDecoForCausalLM, Row
from hanol.errors import ConfigError, DataError
from hanol.evaluation._comparison import AUTODECO, Comparison, Difference, SettingResult
from hanol.evaluation._likelihood import decoding_bits_per_byte
from hanol.evaluation._sample import (
    DecodingTask,
    Drawn,
    HeadsSetting,
    Progress,
    Setting,
    StaticSetting,
    TaskSampler,
    active_heads,
)
from hanol.evaluation._search import TEMPERATURES, TOP_PS, Method, search_parts, static_search
from hanol.runs import Ledger
from hanol.scoring import CONFIDENCE, Summary, bootstrap, distinct_n, pass_at_k, repetition

_NGRAMS = (1, 2, 3)  # of distinct-n
_REPEATED = 4  # of the repetition rate

GREEDY, DEFAULT = "greedy", "default"
BEST, ORACLE = "best static", "oracle static"
TEMPERATURE_HEAD, TOP_P_HEAD = "temperature head", "top-p head"


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: DecodingTask,
    *,
    settings: Mapping[str, Setting] | None = None,
    method: Method = "coarse",
    temperatures: Sequence[float] = TEMPERATURES,
    top_ps: Sequence[float] = TOP_PS,
    samples: int = 16,
    seeds: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    rows: Sequence[Row] = (),
    on_progress: Progress | None = None,
) -> Comparison:
    """Decode a task with every setting and compare.

    Args:
        model: With heads, greedy, default, best static, oracle static, each head alone and both
            are compared; without, the first four.
        task: At least two problems.
        settings: Compare these, by name, and run no search.
        method: How the best static setting is found. "coarse" is the paper's: temperature first,
            then top-p. "grid" tries all pairs.
        temperatures: 0 (greedy) may be among them.
        top_ps: 1 is always tried by "coarse".
        samples: Completions of a problem with one seed; of the search too.
        seeds: How often to draw them; 8 with 16 samples in the paper.
        rows: Prompts with completions whose bits per byte are measured under each setting, if the
            model has heads.

    Raises:
        ConfigError: A value is out of range, or as `sample` raises it.
        DataError: The task has one problem only, or as `sample` raises it.
    """
    problems = len(task.prompts)
    if problems < 2:
        raise DataError(
            f"The task {task.name!r} has 1 problem, but intervals over problems need at least 2."
        )
    if samples < 1 or seeds < 1:
        raise ConfigError(f"`samples` is {samples} and `seeds` {seeds}: both must be at least 1.")
    if settings is not None and not settings:
        raise ConfigError("`settings` is empty: leave it out for the usual ones.")
    began = time.monotonic()
    n = samples * seeds
    ks = [2**i for i in range(n.bit_length())]

    every: dict[str, list[Setting]] = {name: [one] for name, one in (settings or {}).items()}
    second_P = np.zeros(problems, dtype=int)  # which of two settings decodes a problem
    search, searched = None, 0
    if settings is None:
        searched = search_parts(method, temperatures, top_ps)
        every = _usual(model)
    parts = searched + sum(map(len, every.values()))
    draws = TaskSampler(model, tokenizer, task, seed, batch_size, on_progress, parts)
    if settings is None:
        search = static_search(
            draws, method=method, temperatures=temperatures, top_ps=top_ps, samples=samples
        )
        draws.part = searched  # it may have tried fewer
        every[BEST], every[ORACLE] = list(search.best_of_halves), [search.best]
        second_P[search.halves[0]] = 1  # the pair of the second half decodes the first

    measured = []
    for used in every.values():
        drawn = [draws(setting, n) for setting in used]
        completions_PN = [drawn[which % len(used)][i] for i, which in enumerate(second_P)]
        figures_PM, rest = _measure(task, completions_PN, samples, ks)
        rest["bits_per_byte"] = _bits_per_byte(model, tokenizer, rows, used)
        measured.append((figures_PM, rest))

    # One set of resamples for the figures of all settings and all differences between them.
    names = list(every)
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    figures = [figures_PM for figures_PM, _ in measured]
    figures += [figures[a] - figures[b] for a, b in pairs]
    intervals = iter(bootstrap(np.hstack(figures), seed=seed))
    taken = [
        ({k: next(intervals) for k in ks}, {g: next(intervals) for g in _NGRAMS}) for _ in figures
    ]
    return Comparison(
        task=task.name,
        problems=problems,
        samples=samples,
        seeds=seeds,
        seed=seed,
        max_new_tokens=task.max_new_tokens,
        confidence=CONFIDENCE,
        results=[
            SettingResult(
                name=name,
                static=[setting for setting in used if isinstance(setting, StaticSetting)],
                pass_at=pass_at,
                distinct=diversity,
                **rest,
            )
            for (name, used), (_, rest), (pass_at, diversity) in zip(
                every.items(), measured, taken[: len(names)], strict=True
            )
        ],
        differences=[
            Difference(a=names[a], b=names[b], pass_at=pass_at, distinct=diversity)
            for (a, b), (pass_at, diversity) in zip(pairs, taken[len(names) :], strict=True)
        ],
        search=search,
        spent=draws.spent + Ledger(seconds=time.monotonic() - began),
    )


def _usual(model: PreTrainedModel) -> dict[str, list[Setting]]:
    """What is compared when the user names nothing, in the order of the table."""
    found: dict[str, list[Setting]] = {
        GREEDY: [StaticSetting(0.0)],
        DEFAULT: [StaticSetting()],
        BEST: [StaticSetting()] * 2,  # these two are found by the search
        ORACLE: [StaticSetting()],
    }
    temperature, top_p = active_heads(model)
    if temperature:
        found[TEMPERATURE_HEAD] = [HeadsSetting(top_p=False)]
    if top_p:
        found[TOP_P_HEAD] = [HeadsSetting(temperature=False)]
    if temperature and top_p:
        found[AUTODECO] = [HeadsSetting()]
    return found


def _measure(
    task: DecodingTask, completions_PN: Drawn, samples: int, ks: Sequence[int]
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Pass@k for every k and distinct-n for every n, by problem, [P, M]; and other figures."""
    right_PN = task.check(completions_PN)
    problems, n = right_PN.shape
    right_P = right_PN.sum(1)
    tokens_PN = [[done.token_ids for done in row] for row in completions_PN]

    def distinct_P(g: int) -> NDArray[np.float64]:
        starts = range(0, n, samples)
        return np.array(
            [np.mean([distinct_n(row[i : i + samples], g) for i in starts]) for row in tokens_PN]
        )

    figures = [pass_at_k(n, right_P, k) for k in ks] + [distinct_P(g) for g in _NGRAMS]
    flat = [done for row in completions_PN for done in row]
    top_p = np.concatenate([done.top_p for done in flat])
    nucleus = np.concatenate([done.nucleus_size for done in flat])
    return (
        np.stack(figures, axis=1),
        {
            "right": right_P.tolist(),
            "pass_at_1_std": right_PN.reshape(problems, -1, samples).mean((0, 2)).std(),
            "repetition": np.mean([repetition(done.token_ids, _REPEATED) for done in flat]),
            "temperature": Summary.of(np.concatenate([done.temperature for done in flat])),
            "top_p": Summary.of(top_p),
            "one_token": ((nucleus == 1) & (top_p < 1)).mean(),
            "length": Summary.of([len(done.token_ids) for done in flat]),
            "cut": np.mean([not done.stopped for done in flat]),
        },
    )


def _bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Sequence[Row],
    settings: Sequence[Setting],
) -> float | None:
    """Mean over the settings that share the problems; None where there is nothing to measure."""
    greedy = any(isinstance(one, StaticSetting) and one.temperature == 0 for one in settings)
    if greedy or tokenizer is None or not any(row.completion for row in rows):
        return None
    if not isinstance(model, AutoDecoForCausalLM):
        return None
    return fmean(decoding_bits_per_byte(model, tokenizer, rows, one) for one in settings)
