"""What a comparison of decoding settings found, as a table and as a plot."""

from pathlib import Path

from pydantic import BaseModel, Field
from rich import box
from rich.table import Table

from hanol.errors import ConfigError, UnknownNameError, require
from hanol.evaluation._sample import StaticSetting
from hanol.evaluation._search import StaticSearch
from hanol.files import whole_file
from hanol.runs import Ledger
from hanol.scoring import Interval, Summary

_COLOURS = ("black", "tab:gray", "tab:blue", "tab:cyan", "tab:orange", "tab:green", "tab:purple")
_MARKERS = "osD^vPX"

AUTODECO = "AutoDeco"


class SettingResult(BaseModel):
    """How one setting did on all problems."""

    name: str
    static: list[StaticSetting] = Field(
        description="Its values: none for heads, two where each half of the problems has its own."
    )
    right: list[int] = Field(description="Right completions of each problem.")
    pass_at: dict[int, Interval] = Field(description="pass@k, by k.")
    pass_at_1_std: float = Field(description="Standard deviation of pass@1 over the seeds.")
    distinct: dict[int, Interval] = Field(
        description="distinct-n, by n: different n-grams over all n-grams of the completions that "
        "a problem got with one seed. Longer outputs have lower values."
    )
    repetition: float = Field(
        description="Share of 4-grams that occurred in the completion before."
    )
    temperature: Summary = Field(description="Over tokens.")
    top_p: Summary = Field(description="Over tokens.")
    one_token: float = Field(description="Share of tokens where top-p left a single choice.")
    length: Summary = Field(description="Tokens of a completion.")
    cut: float = Field(description="Share of completions cut by `max_new_tokens`.")
    bits_per_byte: float | None = Field(
        description="Bits per byte of given completions, with soft top-p; None where none were "
        "given, for greedy, and without heads."
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
    confidence: float = Field(description="Confidence level of all intervals.")
    results: list[SettingResult]
    differences: list[Difference] = Field(description="Each setting minus those before it.")
    search: StaticSearch | None = Field(description="None when the settings were given.")
    spent: Ledger = Field(description="What everything has cost, the search included.")

    def result(self, name: str) -> SettingResult:
        """The result of a setting.

        Raises:
            UnknownNameError: There is none of that name.
        """
        named = {result.name: result for result in self.results}
        if name not in named:
            raise UnknownNameError("setting", name, named)
        return named[name]

    def difference(self, a: str, b: str) -> Difference:
        """Setting `a` minus setting `b`.

        Raises:
            UnknownNameError: There is no setting of one of the names.
        """
        self.result(a), self.result(b)
        if a == b:
            raise ConfigError(f"A difference needs two settings, but both are {a!r}.")
        [found] = [found for found in self.differences if {found.a, found.b} == {a, b}]
        if found.a == a:
            return found
        pass_at = {k: -x for k, x in found.pass_at.items()}
        distinct = {n: -x for n, x in found.distinct.items()}
        return Difference(a=a, b=b, pass_at=pass_at, distinct=distinct)

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
        with whole_file(path) as part:
            figure.savefig(part, dpi=120, format=Path(path).suffix[1:] or "png")
        return Path(path)


def _arms(interval: Interval) -> list[list[float]]:
    """Lengths of an error bar; of equal values the ends differ from the mean in the last bits."""
    value, low, high = interval.value, interval.low, interval.high
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shown(interval: Interval, sign: str = "") -> str:
    """In percent: the value, and below it the interval."""
    value, low, high = (
        f"{100 * x:{sign}.1f}" for x in (interval.value, interval.low, interval.high)
    )
    return f"{value}\n{low}..{high}"
