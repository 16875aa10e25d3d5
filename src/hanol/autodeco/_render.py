"""A trace to look at: in a terminal, as a page, as an image.

Everywhere a token's background is its temperature, from blue (the lowest of the trace) over white
to red (the highest), and the bar under it is as high as its top-p.
"""

import html
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

if TYPE_CHECKING:
    from hanol.autodeco._trace import DecodingTrace, TracedToken

_SCALE = ((96, 165, 250), (243, 244, 246), (248, 113, 113))  # at the lowest, middle, highest
_INK, _BAR, _TRACK, _FAINT = "#111827", "#1e40af", "#e0e7ff", "#6b7280"
_BARS = "▁▂▃▄▅▆▇█"
_NO_TEXT = "◌"
_MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
_KEY = f"↵ newline, ⇥ tab, · space, {_NO_TEXT} part of a character or special token"
_PROMPT_SHOWN = 400  # characters at the end of a prompt that a terminal or an image shows

# Of an image: characters in a line, lines, and inches.
_COLUMNS, _ROWS = 110, 60
_WIDTH, _LEFT, _RIGHT, _LINE, _PLOT, _GAP = 11.0, 0.75, 0.25, 0.3, 1.15, 0.3
# DejaVu comes with matplotlib but has no Korean, Chinese or Japanese; the first that is installed.
_FONTS = (
    "Noto Sans Mono CJK KR", "Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothicCoding",
    "NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "WenQuanYi Zen Hei",
)  # fmt: skip


class _Piece(NamedTuple):
    """Part of a token that stands in one line; the prompt has no token."""

    token: "TracedToken | None"
    text: str
    column: int
    width: int


class TraceText:
    """The text in a terminal, each line of tokens above a line of their top-p."""

    def __init__(self, trace: "DecodingTrace") -> None:
        self._trace = trace

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        low, high = _range(self._trace.tokens)
        for row in _rows(self._trace, options.max_width):
            text, bars = Text(no_wrap=True), Text(no_wrap=True)
            for token, shown, _, width in row:
                if token is None:
                    text.append(shown, style="dim")
                    bars.append(" " * width)
                else:
                    colour = _css(_rgb(token.temperature, low, high))
                    text.append(shown, style=f"black on {colour}")
                    bars.append(_bar(token.top_p) * width, style="blue")
            yield text
            if bars.plain.strip():
                yield bars
        legend = Text("temperature ")
        for value in (low + (high - low) * i / 4 for i in range(5)):
            legend.append(f" {value:.2f} ", style=f"black on {_css(_rgb(value, low, high))}")
        legend.append("  top-p ")
        legend.append(_BARS, style="blue")
        legend.append(" 0 to 1")
        yield Text()
        yield legend
        yield Text(_KEY, style="dim")
        yield Text(_summary(self._trace.tokens), style="dim")


def to_html(trace: "DecodingTrace") -> str:
    """A page without scripts that needs nothing else. All text is escaped."""
    low, high = _range(trace.tokens)
    spans = "".join(
        f'<span style="--c:{_css(_rgb(token.temperature, low, high))};'
        f'--p:{_share(token.top_p):.3f}" '
        f'title="{html.escape(_values(token))}">{html.escape(_shown(token.text))}</span>'
        for token in trace.tokens
    )
    prompt = html.escape(_shown(trace.prompt)) if trace.prompt else ""
    curves = _curve("temperature", [token.temperature for token in trace.tokens], 2.0, "#dc2626")
    curves += _curve("top-p", [token.top_p for token in trace.tokens], 1.0, _BAR)
    blue, white, red = (_css(colour) for colour in _SCALE)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>AutoDeco trace</title>
<style>
:root{{color-scheme:light}}
body{{font:15px/1.5 system-ui,sans-serif;color:{_INK};background:#fff;
max-width:64rem;margin:2rem auto;padding:0 1rem}}
pre{{font:14px/2.1 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;
overflow-wrap:anywhere}}
pre i{{font-style:normal;color:{_FAINT}}}
pre span{{padding:2px 0 10px;border-right:1px solid #fff;-webkit-box-decoration-break:clone;
box-decoration-break:clone;
background:linear-gradient({_BAR},{_BAR}) 0 100%/100% calc(var(--p)*9px) no-repeat,
linear-gradient({_TRACK},{_TRACK}) 0 100%/100% 9px no-repeat,var(--c)}}
pre span:hover{{outline:2px solid {_INK}}}
.scale{{display:inline-block;width:14rem;height:.9rem;margin:0 .5rem;vertical-align:middle;
border:1px solid #d1d5db;background:linear-gradient(90deg,{blue},{white},{red})}}
.key{{color:{_FAINT}}}
svg{{width:100%;height:auto;display:block;margin-top:1rem}}
svg text{{font:12px system-ui,sans-serif;fill:{_FAINT}}}
</style></head><body>
<p>temperature: {low:.2f}<b class="scale"></b>{high:.2f}. The bar under a token is its top-p.<br>
<span class="key">{html.escape(_KEY)}. Point at a token for its values.<br>
{html.escape(_summary(trace.tokens))}</span></p>
<pre><i>{prompt}</i>{spans}</pre>
{curves}
</body></html>
"""


def to_png(trace: "DecodingTrace", path: Path) -> None:
    """The coloured text, and temperature, top-p and nucleus size over the tokens."""
    from matplotlib import font_manager
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.figure import Figure

    installed = set(font_manager.get_font_names())
    families = ["DejaVu Sans Mono", *(name for name in _FONTS if name in installed)]
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families]
    rows = list(_rows(trace, _COLUMNS))
    lines = max(1, min(len(rows), _ROWS + 1))
    height = 0.6 + lines * _LINE + 3 * (_PLOT + _GAP) + 0.8
    width = _WIDTH - _LEFT - _RIGHT
    figure = Figure(figsize=(_WIDTH, height))
    top = height - 0.6

    def place(inches: float) -> Any:
        nonlocal top
        top -= inches
        axes = figure.add_axes((_LEFT / _WIDTH, top / height, width / _WIDTH, inches / height))
        top -= _GAP
        return axes

    page = place(lines * _LINE)
    _draw_text(page, rows, families, fonts, _range(trace.tokens))

    scale = figure.add_axes((_LEFT / _WIDTH, (height - 0.32) / height, 2.4 / _WIDTH, 0.13 / height))
    colours = LinearSegmentedColormap.from_list(
        "temperature", [[part / 255 for part in colour] for colour in _SCALE]
    )
    low, high = _range(trace.tokens)
    figure.colorbar(
        ScalarMappable(Normalize(low, high), colours), cax=scale, orientation="horizontal",
        ticks=[low, (low + high) / 2, high], format="%.2f",
    )  # fmt: skip
    scale.tick_params(labelsize=7, length=2, pad=1)
    key = f"background: temperature    bar below: top-p, 0 to 1\n{_KEY}"
    figure.text(
        (_LEFT + 2.65) / _WIDTH, (height - 0.3) / height, key, fontsize=8, color=_FAINT,
        va="center", linespacing=1.5, family=families,
    )  # fmt: skip

    numbers = range(len(trace.tokens))
    for name, values, limits, colour in (
        ("temperature", [token.temperature for token in trace.tokens], (0.0, 2.0), "#dc2626"),
        ("top-p", [token.top_p for token in trace.tokens], (0.0, 1.0), _BAR),
        ("nucleus size", [token.nucleus_size for token in trace.tokens], None, "#15803d"),
    ):
        axes = place(_PLOT)
        axes.step(numbers, values, where="mid", color=colour, linewidth=1.2)
        axes.plot(numbers, values, ".", color=colour, markersize=3)
        axes.set_ylabel(name, fontsize=9)
        axes.set_xlim(-0.5, max(len(trace.tokens), 1) - 0.5)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if limits is None:
            axes.set_yscale("log")
            axes.set_ylim(0.8, 1.25 * max([1, *values]))
            axes.set_xlabel(f"token          {_summary(trace.tokens)}", fontsize=9)
        else:
            axes.set_ylim(limits[0] - 0.03 * limits[1], 1.05 * limits[1])
            axes.tick_params(labelbottom=False)
    figure.savefig(path, dpi=130, format="png")


def _draw_text(
    axes: Any,
    rows: list[list[_Piece]],
    families: list[str],
    fonts: list[Any],
    scale: tuple[float, float],
) -> None:
    from matplotlib.patches import Rectangle

    shown = rows if len(rows) <= _ROWS + 1 else rows[:_ROWS]
    axes.set_xlim(0, _COLUMNS)
    axes.set_ylim(max(1, len(shown) + (len(shown) < len(rows))), 0)
    axes.axis("off")

    def has(font: Any, character: str) -> bool:
        return bool(font.get_char_index(ord(character)))

    # A character of DejaVu Sans Mono is 0.602 of its size wide.
    size = (_WIDTH - _LEFT - _RIGHT) * 72 / _COLUMNS / 0.602

    def write(column: int, row: float, text: str, colour: str) -> None:
        # Other fonts have other widths: their characters are placed one by one.
        for is_first, group in groupby(text, lambda c: has(fonts[0], c) and cell_len(c) == 1):
            run = list(group)
            for part in ["".join(run)] if is_first else run:
                glyph = part if is_first or any(has(font, part) for font in fonts) else "□"
                axes.text(
                    column, row, glyph, fontsize=size, family=families, color=colour, va="center",
                    parse_math=False,  # a dollar sign begins no formula
                )  # fmt: skip
                column += cell_len(part)

    for number, row in enumerate(shown):
        for token, text, column, width in row:
            write(column, number + 0.33, text, _FAINT if token is None else _INK)
            if token is not None:
                colour = [part / 255 for part in _rgb(token.temperature, *scale)]
                bar = 0.26 * _share(token.top_p)
                for bottom, height, face in (
                    (number, 0.64, colour), (number + 0.66, 0.26, _TRACK),
                    (number + 0.92 - bar, bar, _BAR),
                ):  # fmt: skip
                    # A gap between tokens, which may have the same colour.
                    axes.add_patch(
                        Rectangle((column, bottom), width - 0.12, height, facecolor=face, lw=0)
                    )
    if len(shown) < len(rows):
        write(0, len(shown) + 0.33, f"... and {len(rows) - len(shown)} more lines", _FAINT)


def _rows(trace: "DecodingTrace", columns: int) -> Iterator[list[_Piece]]:
    """Prompt and tokens in lines that are at most so many cells wide."""
    prompt = trace.prompt
    if len(prompt) > _PROMPT_SHOWN:
        prompt = f"...{prompt[-_PROMPT_SHOWN:]}"
    parts: list[tuple[TracedToken | None, str]] = [(None, _printable(prompt))]
    parts += [(token, _shown(token.text)) for token in trace.tokens]
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


def _summary(tokens: Sequence["TracedToken"]) -> str:
    if not tokens:
        return "no tokens"
    return (
        f"{len(tokens)} tokens: mean temperature {mean(t.temperature for t in tokens):.2f}, "
        f"mean top-p {mean(t.top_p for t in tokens):.2f}, "
        f"median nucleus {median(t.nucleus_size for t in tokens):,.0f} tokens"
    )


def _values(token: "TracedToken") -> str:
    return (
        f"temperature {token.temperature:.2f}, top-p {token.top_p:.2f}, "
        f"{token.nucleus_size} tokens in the nucleus, "
        f"log-probability {token.logprob:.2f} (base {token.base_logprob:.2f})"
    )


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def _bar(top_p: float) -> str:
    return _BARS[min(len(_BARS) - 1, int(_share(top_p) * len(_BARS)))]


def _range(tokens: "Sequence[TracedToken]") -> tuple[float, float]:
    """Lowest and highest temperature, apart enough that noise has no colours."""
    values = [token.temperature for token in tokens] or [1.0]
    low, high = min(values), max(values)
    wider = max(0.0, 0.1 - (high - low)) / 2
    return low - wider, high + wider


def _rgb(temperature: float, low: float, high: float) -> tuple[int, int, int]:
    place = 2 * _share((temperature - low) / (high - low))
    first, second = _SCALE[:2] if place < 1 else _SCALE[1:]
    share = place if place < 1 else place - 1
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _css(colour: tuple[int, int, int]) -> str:
    return f"rgb({colour[0]},{colour[1]},{colour[2]})"


def _curve(name: str, values: Sequence[float], top: float, colour: str) -> str:
    """Steps over the tokens as SVG, with a scale."""
    wide, tall, left = 960, 110, 46
    step = (wide - left - 4) / max(1, len(values))

    def y(value: float) -> float:
        return tall - 6 - value / top * (tall - 26)

    grid = "".join(
        f'<line x1="{left}" x2="{wide}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e5e7eb"/>'
        f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0.0, top / 2, top)
    )
    points = " ".join(
        f"{left + step * i:.1f},{y(v):.1f} {left + step * (i + 1):.1f},{y(v):.1f}"
        for i, v in enumerate(values)
    )
    return (
        f'<svg viewBox="0 0 {wide} {tall}" role="img" aria-label="{name} of each token">'
        f'<text x="{left}" y="11">{name}</text>{grid}'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/></svg>'
    )
