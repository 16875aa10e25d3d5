"""Decoding settings compared on a user's own task.

Source: arXiv 2510.26697, section 4: greedy, the default (temperature 1, top-p 1), the best static
pair, each head alone and both. Pass@1 is the mean over problems of the share of right completions.

Shape suffixes: P problems, N completions of a problem, M figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field
from rich import box
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol.autodeco._config import AutoDecoConfig
from hanol.autodeco._data import Row
from hanol.autodeco._likelihood import decoding_bits_per_byte
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco._sample import (
    Completion,
    HeadsSetting,
    Progress,
    Setting,
    StaticSetting,
    Task,
    active_heads,
    part_of,
    sample,
)
from hanol.autodeco._score import (
    Floats,
    Interval,
    Spread,
    bootstrap,
    distinct,
    pass_at_k,
    repetition,
    spread,
    verified,
)
from hanol.autodeco._search import (
    TEMPERATURES,
    TOP_PS,
    Method,
    StaticSearch,
    expert_guided_search,
    search_parts,
)
from hanol.errors import ConfigError, DataError, UnknownNameError, require

_COLOURS = ("black", "tab:gray", "tab:blue", "tab:cyan", "tab:orange", "tab:green", "tab:purple")
_MARKERS = "osD^vPX"
_NGRAMS = (1, 2, 3)  # of distinct-n
_REPEATED = 4  # of the repetition rate

GREEDY, DEFAULT = "greedy", "default"
BEST, ORACLE = "best static", "oracle static"
TEMPERATURE_HEAD, TOP_P_HEAD, AUTODECO = "temperature head", "top-p head", "AutoDeco"


class SettingResult(BaseModel):
    """How one setting did on all problems."""

    name: str
    static: list[StaticSetting] = Field(
        description="Its values: none for heads, two where each half of the problems has its own."
    )
    right: list[int] = Field(description="Right completions of each problem.")
    pass_at: dict[int, Interval] = Field(description="pass@k, by k.")
    pass_at_1_std: float = Field(description="Of pass@1 over the seeds: population.")
    distinct: dict[int, Interval] = Field(
        description="distinct-n, by n: different n-grams over all n-grams of the completions that "
        "a problem got with one seed. Longer outputs have lower values."
    )
    repetition: float = Field(description="Share of 4-grams that stood in the completion before.")
    temperature: Spread = Field(description="Over tokens.")
    top_p: Spread = Field(description="Over tokens.")
    one_token: float = Field(description="Share of tokens where top-p left a single choice.")
    length: Spread = Field(description="Tokens of a completion.")
    cut: float = Field(description="Share of completions cut by `max_new_tokens`.")
    bits_per_byte: float | None = Field(
        description="Of given completions under this setting, with soft top-p; None where none "
        "were given, and for greedy."
    )


class Difference(BaseModel):
    """Setting `a` minus setting `b`, paired over problems."""

    a: str
    b: str
    pass_at: dict[int, Interval]
    distinct: dict[int, Interval]


class Comparison(BaseModel):
    """Settings on one task, with intervals from resampling its problems.

    "best static" is the search split in half: each half of the problems is decoded with the pair
    that did best on the other half. "oracle static" is the pair that did best on all, scored on
    the same problems (and, of the first seed, the same samples): an optimistic bound.
    """

    task: str
    problems: int
    samples: int = Field(description="Completions of a problem with one seed.")
    seeds: int = Field(description="Times the samples were drawn; all are counted together.")
    seed: int
    max_new_tokens: int
    confidence: float = Field(description="Of all intervals.")
    results: list[SettingResult]
    differences: list[Difference] = Field(description="Of each setting to those before it.")
    search: StaticSearch | None = Field(description="None when the settings were given.")

    def result(self, name: str) -> SettingResult:
        """The result of a setting.

        Raises:
            UnknownNameError: There is none of that name.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise UnknownNameError("setting", name, [result.name for result in self.results])

    def difference(self, a: str, b: str) -> Difference:
        """Setting `a` minus setting `b`.

        Raises:
            UnknownNameError: There is no setting of one of the names.
        """
        self.result(a), self.result(b)
        if a == b:
            raise ConfigError(f"A difference needs two settings, but both are {a!r}.")
        for found in self.differences:
            if (found.a, found.b) == (a, b):
                return found
            if (found.a, found.b) == (b, a):
                return Difference(
                    a=a,
                    b=b,
                    pass_at={k: _negated(x) for k, x in found.pass_at.items()},
                    distinct={n: _negated(x) for n, x in found.distinct.items()},
                )
        raise AssertionError((a, b))

    def to_json(self) -> str:
        """One JSON object; `Comparison.model_validate_json` reads it back."""
        return self.model_dump_json(indent=2)

    def table(self) -> Table:
        """The figures as a table for the terminal."""
        last, reference = max(self.results[0].pass_at), self.results[-1].name
        scored = any(result.bits_per_byte is not None for result in self.results)
        table = Table(
            title=f"{self.task}: {self.problems} problems, {self.samples * self.seeds} completions",
            caption=f"Second lines: {self.confidence:.0%} intervals over problems. T, P: means "
            "over tokens. one: tokens for which top-p left one choice. repeated: 4-grams that "
            "stood in the completion before. cut: completions that met the limit.",
            caption_justify="left",
            box=box.SIMPLE,
            padding=0,
        )
        table.add_column("\nsetting", no_wrap=True)
        for heading in (
            "T\nP", "pass@1\n%", *([f"pass@{last}\n%"] if last > 1 else []),
            f"{reference}\nminus it", "distinct\nbigrams %", *(["bits/\nbyte"] if scored else []),
            "\ntokens", "one, repeated,\ncut %",
        ):  # fmt: skip
            table.add_column(heading, justify="right")
        for result in self.results:
            gain = ""
            if result.name != reference:
                gain = _shown(self.difference(reference, result.name).pass_at[1], sign="+")
            shares = (result.one_token, result.repetition, result.cut)
            table.add_row(
                result.name,
                f"{result.temperature.mean:.2f}\n{result.top_p.mean:.2f}",
                _shown(result.pass_at[1]),
                *([_shown(result.pass_at[last])] if last > 1 else []),
                gain,
                _shown(result.distinct[2]),
                *([_number(result.bits_per_byte)] if scored else []),
                f"{result.length.mean:.0f}",
                ", ".join(f"{100 * share:.0f}" for share in shares),
            )
        return table

    def plot(self, path: str | Path) -> Path:
        """Draw accuracy against diversity, and pass@k.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        require("matplotlib", extra="train", feature="The plot of a comparison")
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter

        figure = Figure(figsize=(11, 5.5), layout="constrained")
        figure.suptitle(
            f"{self.task}: {self.problems} problems, {self.samples * self.seeds} completions each"
        )
        left, right = figure.subplots(1, 2)
        if self.search is not None:
            left.scatter(
                [point.distinct_2 for point in self.search.points],
                [point.pass_at_1 for point in self.search.points],
                s=14, color="0.75", label="static settings tried", zorder=1,
            )  # fmt: skip
        for i, result in enumerate(self.results):
            own = result.name == AUTODECO
            style = {
                "color": "crimson" if own else _COLOURS[i % len(_COLOURS)],
                "marker": "*" if own else _MARKERS[i % len(_MARKERS)],
            }
            x, y = result.distinct[2], result.pass_at[1]
            left.errorbar(
                x.value, y.value,
                xerr=_arms(x),
                yerr=_arms(y),
                markersize=14 if own else 7, elinewidth=1, capsize=2, linestyle="none", alpha=0.9,
                label=result.name, zorder=3 if own else 2, **style,
            )  # fmt: skip
            ks = sorted(result.pass_at)
            right.plot(
                ks, [result.pass_at[k].value for k in ks], label=result.name,
                markersize=10 if own else 5, linewidth=2.5 if own else 1.2,
                zorder=3 if own else 2, **style,
            )  # fmt: skip
        left.set(xlabel="diversity (distinct-2)", ylabel="accuracy (pass@1)")
        right.set_xscale("log", base=2)
        right.set(xlabel="k", ylabel="pass@k", xticks=ks, xticklabels=ks)
        for axes in (left, right):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.grid(alpha=0.3)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(path, dpi=120)
        return Path(path)


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    *,
    settings: Mapping[str, Setting] | None = None,
    method: Method = "coarse",
    temperatures: Sequence[float] = TEMPERATURES,
    top_ps: Sequence[float] = TOP_PS,
    samples: int = 16,
    seeds: int = 1,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    confidence: float = 0.95,
    rows: Sequence[Row] = (),
    on_progress: Progress | None = None,
) -> Comparison:
    """Decode a task with every setting and compare.

    Args:
        model: With heads, greedy, default, best static, oracle static, each head alone and both
            are compared; without, the first four.
        tokenizer: As `sample` takes it.
        task: At least two problems.
        settings: Compare these, by name, and run no search.
        method: As `expert_guided_search` takes it, like the next two.
        temperatures: Of the search.
        top_ps: Of the search.
        samples: Completions of a problem with one seed; of the search too.
        seeds: How often to draw them; 8 with 16 samples in the paper.
        ks: Of pass@k; 1 is always among them. The powers of 2 up to samples x seeds when left out.
        seed: The same seed gives the same comparison.
        batch_size: Rows decoded together, at most.
        confidence: Of the intervals, in (0, 1).
        rows: Prompts with completions whose bits per byte are measured under each setting.
        on_progress: Called with the prompts done and all prompts, over all settings.

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
        raise ConfigError(
            f"`samples` is {samples} and `seeds` {seeds}, but both must be at least 1."
        )
    if not 0 < confidence < 1:
        raise ConfigError(f"`confidence` is {confidence}, but must be between 0 and 1.")
    if settings is not None and not settings:
        raise ConfigError("`settings` is empty: leave it out for the usual ones.")
    n = samples * seeds
    ks = sorted({1, *ks}) if ks is not None else [2**i for i in range(n.bit_length())]
    pass_at_k(n, [0], ks[-1])  # refuses a k that is too large before hours of sampling
    pass_at_k(n, [0], ks[0])

    every: dict[str, list[Setting]] = {name: [one] for name, one in (settings or {}).items()}
    second_P = np.zeros(problems, dtype=int)  # which of two settings decodes a problem
    search, searched = None, 0
    if settings is None:
        searched = search_parts(method, temperatures, top_ps)
        every = _usual(model)
    parts = searched + sum(map(len, every.values()))
    if settings is None:
        report = on_progress
        search = expert_guided_search(
            model, tokenizer, task, method=method, temperatures=temperatures, top_ps=top_ps,
            samples=samples, seed=seed, batch_size=batch_size,
            on_progress=None if report is None else lambda done, _: report(done, parts * problems),
        )  # fmt: skip
        every[BEST], every[ORACLE] = list(search.best_of_halves), [search.best]
        second_P[search.halves[0]] = 1  # the pair of the second half decodes the first

    measured: list[_Measured] = []
    part = searched
    for used in every.values():
        drawn = []
        for setting in used:
            drawn.append(
                sample(
                    model, tokenizer, task, setting, n=n, seed=seed, batch_size=batch_size,
                    on_progress=part_of(on_progress, part, parts),
                )
            )  # fmt: skip
            part += 1
        completions_PN = [drawn[which % len(used)][i] for i, which in enumerate(second_P)]
        measured.append(_measure(task, completions_PN, samples, ks))
        measured[-1].rest["bits_per_byte"] = _bits_per_byte(model, tokenizer, rows, used)

    # One set of resamples for the figures of all settings and all differences between them.
    names = list(every)
    pairs = [(a, b) for a in range(len(names)) for b in range(a)]
    figures = [one.figures_PM for one in measured]
    figures += [measured[a].figures_PM - measured[b].figures_PM for a, b in pairs]
    intervals = iter(bootstrap(np.hstack(figures), confidence, seed))
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
        confidence=confidence,
        results=[
            SettingResult(
                name=name,
                static=[setting for setting in used if isinstance(setting, StaticSetting)],
                pass_at=pass_at,
                distinct=diversity,
                **one.rest,
            )
            for (name, used), one, (pass_at, diversity) in zip(
                every.items(), measured, taken[: len(names)], strict=True
            )
        ],
        differences=[
            Difference(a=names[a], b=names[b], pass_at=pass_at, distinct=diversity)
            for (a, b), (pass_at, diversity) in zip(pairs, taken[len(names) :], strict=True)
        ],
        search=search,
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


class _Measured(NamedTuple):
    """Figures of one setting: those with intervals by problem, and the rest."""

    figures_PM: Floats  # pass@k for every k, then distinct-n for every n
    rest: dict[str, Any]


def _measure(
    task: Task, completions_PN: Sequence[Sequence[Completion]], samples: int, ks: Sequence[int]
) -> _Measured:
    right_PN = verified(task, completions_PN)
    problems, n = right_PN.shape
    right_P = right_PN.sum(1)
    figures = [pass_at_k(n, right_P, k) for k in ks]
    figures += [
        np.array(
            [
                np.mean([distinct(row[i : i + samples], g) for i in range(0, n, samples)])
                for row in completions_PN
            ]
        )
        for g in _NGRAMS
    ]
    flat = [done for row in completions_PN for done in row]
    top_p = np.concatenate([done.top_p for done in flat])
    nucleus = np.concatenate([done.nucleus_size for done in flat])
    return _Measured(
        np.stack(figures, axis=1),
        {
            "right": right_P.tolist(),
            "pass_at_1_std": right_PN.reshape(problems, -1, samples).mean((0, 2)).std(),
            "repetition": np.mean([repetition(done, _REPEATED) for done in flat]),
            "temperature": spread(np.concatenate([done.temperature for done in flat])),
            "top_p": spread(top_p),
            "one_token": ((nucleus == 1) & (top_p < 1)).mean(),
            "length": spread([len(done.token_ids) for done in flat]),
            "cut": np.mean([not done.stopped for done in flat]),
        },
    )


def _bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    rows: Sequence[Row],
    settings: Sequence[Setting],
) -> float | None:
    """Of two settings that share the problems, the mean."""
    greedy = any(isinstance(one, StaticSetting) and one.temperature == 0 for one in settings)
    if greedy or tokenizer is None or not any(row.completion for row in rows):
        return None
    if not isinstance(model, AutoDecoForCausalLM):
        # Not `from_base`, which would freeze the user's model.
        without = AutoDecoConfig(
            base_config=model.config, enable_temperature_head=False, enable_top_p_head=False
        )
        model = AutoDecoForCausalLM(without, llm=model).train(model.training)
    return fmean(decoding_bits_per_byte(model, tokenizer, rows, one) for one in settings)


def _negated(interval: Interval) -> Interval:
    return Interval(value=-interval.value, low=-interval.high, high=-interval.low)


def _arms(interval: Interval) -> list[list[float]]:
    """Lengths of an error bar; of equal values the ends differ from the mean in the last bits."""
    value, low, high = interval.value, interval.low, interval.high
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shown(interval: Interval, sign: str = "") -> str:
    """In percent: the value, and below it the interval."""
    value, low, high = (f"{100 * x:{sign}.1f}" for x in interval.model_dump().values())
    return f"{value}\n{low}..{high}"
