"""A trace of what AutoDeco chose, to look at in a terminal, as a page or as an image.

Everywhere a token's background is its temperature, from blue (the lowest of the trace) over white
to red (the highest), and the bar under it is as high as its top-p.
"""

import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from pydantic import BaseModel, Field
from rich.cells import cell_len
from rich.color_triplet import ColorTriplet
from rich.console import Console, ConsoleOptions
from rich.text import Text

from hanol.errors import require

# At the lowest, middle, highest.
_SCALE = ColorTriplet(96, 165, 250), ColorTriplet(243, 244, 246), ColorTriplet(248, 113, 113)
_INK, _BAR, _TRACK, _FAINT = "#111827", "#1e40af", "#e0e7ff", "#6b7280"
_BARS = "▁▂▃▄▅▆▇█"
_NO_TEXT = "◌"
_MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_KEY = f"↵ newline, ⇥ tab, · space, {_NO_TEXT} part of a character or special token"
_PROMPT_SHOWN = 400  # characters at the end of a prompt that a terminal or an image shows

# Characters in a line of an image, lines, and inches.
_COLUMNS, _ROWS = 110, 60
_WIDTH, _LEFT, _RIGHT, _LINE, _PLOT, _GAP = 11.0, 0.75, 0.25, 0.3, 1.15, 0.3
# DejaVu comes with matplotlib but has no Korean, Chinese or Japanese; the first that is installed.
_FONTS = (
    "Noto Sans Mono CJK KR", "Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothicCoding",
    "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "WenQuanYi Zen Hei",
)  # fmt: skip


class TemperatureScale(NamedTuple):
    """Colours of temperatures: blue at the lowest, white between, red at the highest."""

    low: float = 0.0
    high: float = 1.2

    def style(self, temperature: float) -> str:
        """A rich style for a token that was drawn at this temperature."""
        return f"black on {_colour(temperature, *self).rgb}"

    def legend(self) -> Text:
        """One line that says which colour is which temperature."""
        legend = Text("temperature ")
        for i in range(5):
            value = self.low + (self.high - self.low) * i / 4
            legend.append(f" {value:.2f} ", style=self.style(value))
        return legend


class TracedToken(BaseModel):
    """One token and the distribution that it was drawn from."""

    id: int
    text: str = Field(description="Whole characters that it completes; empty when it is a part.")
    temperature: float
    top_p: float
    nucleus_size: int = Field(description="Tokens that could have been drawn.")
    base_logprob: float = Field(description="In nats, under the base.")
    logprob: float = Field(description="In nats, under the distribution it was drawn from.")


class DecodingTrace(BaseModel):
    """A completion with what was chosen for each of its tokens.

    rich prints it (`rich.print(trace)`): text on the colours of its temperatures, with bars for
    top-p below, and a legend. Lines end where the terminal does; without colour the bars remain.
    """

    prompt: str
    text: str
    finish_reason: str = Field(description='"stop" at the end token, "length" at the limit.')
    tokens: list[TracedToken]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        scale = TemperatureScale(*self._range())
        for row in self._rows(options.max_width):
            text, bars = Text(no_wrap=True), Text(no_wrap=True)
            for token, shown, _, width in row:
                if token is None:
                    text.append(shown, style="dim")
                    bars.append(" " * width)
                else:
                    text.append(shown, style=scale.style(token.temperature))
                    height = min(len(_BARS) - 1, int(_share(token.top_p) * len(_BARS)))
                    bars.append(_BARS[height] * width, style="blue")
            yield text
            if bars.plain.strip():
                yield bars
        legend = scale.legend()
        legend.append("  top-p ")
        legend.append(_BARS, style="blue")
        legend.append(" 0 to 1")
        yield Text()
        yield legend
        yield Text(_KEY, style="dim")
        yield Text(self._summary(), style="dim")

    def to_html(self) -> str:
        """A page without scripts: coloured text, values on hover, both curves below.

        It needs no other file. Text is escaped: a token that looks like markup is shown, not run.
        """
        from jinja2 import Environment, StrictUndefined  # slow to import

        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        page = (files("hanol.autodeco") / "trace.html.jinja").read_text("utf-8")
        low, high = self._range()
        return environment.from_string(page).render(
            prompt=_shown(self.prompt) if self.prompt else "",
            tokens=[
                (t, _colour(t.temperature, low, high).rgb, _share(t.top_p), _shown(t.text))
                for t in self.tokens
            ],
            summary=self._summary(), scale=[colour.rgb for colour in _SCALE], low=low, high=high,
            key=_KEY, ink=_INK, bar=_BAR, track=_TRACK, faint=_FAINT,
        )  # fmt: skip

    def to_png(self, path: str | Path) -> Path:
        """Draw the coloured text, and temperature, top-p and nucleus size over the tokens.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        require("matplotlib", extra="train", feature="The trace as an image")
        from matplotlib import font_manager
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.figure import Figure

        installed = set(font_manager.get_font_names())
        families = ["DejaVu Sans Mono", *(name for name in _FONTS if name in installed)]
        rows = list(self._rows(_COLUMNS))
        inches = [max(1, min(len(rows), _ROWS + 1)) * _LINE, _PLOT, _PLOT, _PLOT]
        height = 0.6 + sum(inches) + 3 * _GAP + 0.8
        figure = Figure(figsize=(_WIDTH, height))
        grid = {
            "left": _LEFT / _WIDTH, "right": 1 - _RIGHT / _WIDTH, "top": 1 - 0.6 / height,
            "bottom": 0.8 / height, "hspace": _GAP / mean(inches), "height_ratios": inches,
        }  # fmt: skip
        page, *plots = figure.subplots(4, 1, gridspec_kw=grid)
        low, high = self._range()
        _draw_text(page, rows, families, (low, high))

        scale = figure.add_axes((_LEFT / _WIDTH, 1 - 0.32 / height, 2.4 / _WIDTH, 0.13 / height))
        colours = LinearSegmentedColormap.from_list(
            "temperature", [colour.normalized for colour in _SCALE]
        )
        figure.colorbar(
            ScalarMappable(Normalize(low, high), colours), cax=scale, orientation="horizontal",
            ticks=[low, (low + high) / 2, high], format="%.2f",
        )  # fmt: skip
        scale.tick_params(labelsize=7, length=2, pad=1)
        key = f"background: temperature    bar below: top-p, 0 to 1\n{_KEY}"
        figure.text(
            (_LEFT + 2.65) / _WIDTH, 1 - 0.3 / height, key, fontsize=8, color=_FAINT, va="center",
            linespacing=1.5, family=families,
        )  # fmt: skip

        curves: tuple[tuple[str, Sequence[float], float | None, str], ...] = (
            ("temperature", [token.temperature for token in self.tokens], 2.0, "#dc2626"),
            ("top-p", [token.top_p for token in self.tokens], 1.0, _BAR),
            ("nucleus size", [token.nucleus_size for token in self.tokens], None, "#15803d"),
        )
        for axes, (name, values, highest, colour) in zip(plots, curves, strict=True):
            axes.step(range(len(values)), values, where="mid", color=colour, linewidth=1.2)
            axes.plot(values, ".", color=colour, markersize=3)
            axes.set_ylabel(name, fontsize=9)
            axes.set_xlim(-0.5, max(len(values), 1) - 0.5)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            if highest is None:
                axes.set_yscale("log")
                axes.set_ylim(0.8, 1.25 * max([1, *values]))
                axes.set_xlabel(f"token          {self._summary()}", fontsize=9)
            else:
                axes.set_ylim(-0.03 * highest, 1.05 * highest)
                axes.tick_params(labelbottom=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as a box
            figure.savefig(path, dpi=130, format="png")
        return Path(path)

    def _range(self) -> tuple[float, float]:
        """Lowest and highest temperature, apart enough that noise has no colours."""
        values = [token.temperature for token in self.tokens] or [1.0]
        low, high = min(values), max(values)
        wider = max(0.0, 0.1 - (high - low)) / 2
        return low - wider, high + wider

    def _summary(self) -> str:
        tokens = self.tokens
        if not tokens:
            return "no tokens"
        return (
            f"{len(tokens)} tokens: mean temperature {mean(t.temperature for t in tokens):.2f}, "
            f"mean top-p {mean(t.top_p for t in tokens):.2f}, "
            f"median nucleus {median(t.nucleus_size for t in tokens):,.0f} tokens"
        )

    def _rows(self, columns: int) -> "Iterator[list[_Piece]]":
        """Prompt and tokens in lines that are at most so many cells wide."""
        prompt = self.prompt
        if len(prompt) > _PROMPT_SHOWN:
            prompt = f"...{prompt[-_PROMPT_SHOWN:]}"
        parts: list[tuple[TracedToken | None, str]] = [(None, _printable(prompt))]
        parts += [(token, _shown(token.text)) for token in self.tokens]
        row: list[_Piece] = []
        column = 0
        for token, text in parts:
            start, kept = column, ""
            for character in text:
                width = cell_len(character)
                if character == "\n" or column + width > columns:
                    if kept:
                        row.append(_Piece(token, kept, start, column - start))
                    yield row
                    row, column, start, kept = [], 0, 0, ""
                if character != "\n":
                    kept += character
                    column += width
            if kept:
                row.append(_Piece(token, kept, start, column - start))
        if row:
            yield row


class _Piece(NamedTuple):
    """Part of a token that stands in one line; the prompt has no token."""

    token: TracedToken | None
    text: str
    column: int
    width: int


def _draw_text(
    axes: Any, rows: list[list[_Piece]], families: list[str], scale: tuple[float, float]
) -> None:
    from matplotlib.patches import Rectangle

    shown = rows if len(rows) <= _ROWS + 1 else rows[:_ROWS]
    axes.set_xlim(0, _COLUMNS)
    axes.set_ylim(max(1, len(shown) + (len(shown) < len(rows))), 0)
    axes.axis("off")
    # A character of DejaVu Sans Mono is 0.602 of its size wide.
    size = (_WIDTH - _LEFT - _RIGHT) * 72 / _COLUMNS / 0.602

    def write(column: int, row: int, text: str, colour: str) -> None:
        # Other fonts have other widths: characters that may need them are placed one by one.
        for part in [text] if text.isascii() else text:
            axes.text(
                column, row + 0.33, part, fontsize=size, family=families, color=colour, va="center",
                parse_math=False,  # a dollar sign begins no formula
            )  # fmt: skip
            column += cell_len(part)

    for number, row in enumerate(shown):
        for token, text, column, width in row:
            write(column, number, text, _FAINT if token is None else _INK)
            if token is None:
                continue
            colour = _colour(token.temperature, *scale).normalized
            bar = 0.26 * _share(token.top_p)
            for bottom, height, face in (
                (number, 0.64, colour), (number + 0.66, 0.26, _TRACK),
                (number + 0.92 - bar, bar, _BAR),
            ):  # fmt: skip
                # A gap between tokens, which may have the same colour.
                box = Rectangle((column, bottom), width - 0.12, height, facecolor=face, lw=0)
                axes.add_patch(box)
    if len(shown) < len(rows):
        write(0, len(shown), f"... and {len(rows) - len(shown)} more lines", _FAINT)


def _shown(text: str) -> str:
    """A token's text with marks for what one would not see; line breaks stay, after their mark."""
    if not text:
        return _NO_TEXT
    if text.isspace():
        text = text.replace(" ", "·")
    return _printable("".join(f"{_MARKS[c]}\n" if c == "\n" else _MARKS.get(c, c) for c in text))


def _printable(text: str) -> str:
    """Text without what could control a terminal or reorder a page."""
    return "".join(
        c
        if c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else "\ufffd"
        for c in text.replace("\t", "    ")
    )


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _colour(temperature: float, low: float, high: float) -> ColorTriplet:
    place = 2 * _share((temperature - low) / (high - low))
    first, second = _SCALE[:2] if place < 1 else _SCALE[1:]
    share = place if place < 1 else place - 1
    return ColorTriplet(*(round(a + (b - a) * share) for a, b in zip(first, second, strict=True)))
