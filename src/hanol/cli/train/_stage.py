"""One stage of training, as far as its lines of metrics have told of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

Facts = Mapping[str, Any]

_COLUMNS = 4  # evaluations in the table, before the bar of the newest
_TREND = 12  # evaluations in the line beside them
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_PLAIN_SECONDS = 60.0  # between two plain lines

# What is counted: tokens that are learned, batches of rollouts, attempts at questions.
_COUNTED = {"grpo": "step", "reject": "attempts"}
_FIRST = {
    "midtrain": "making the data",
    "sft": "making the data",
    "reject": "attempting questions",
    "grpo": "trying out questions",
    "merge": "averaging",
}
_JUDGING = "answering unseen questions"


class StageView:
    """What a stage has come to.

    Args:
        stage: Of the recipe.
        now: Seconds of the clock.

    Attributes:
        skills: Share of each skill, 0 to 1, by what was counted at the evaluation.
    """

    def __init__(self, stage: Any, now: float) -> None:
        self.skills: dict[int, dict[str, float | None]] = {}
        self._kind: str = stage.kind
        self._key = _COUNTED.get(stage.kind, "tokens")
        self._unit = "steps" if self._key == "step" else self._key
        self._total: int | None = getattr(stage, self._unit, None)
        if stage.kind == "reject":  # `attempts` of the stage are those at one question
            self._total = None
        self._done = 0
        self._facts: dict[str, Any] = {}
        self._judged: tuple[int, int] | None = None
        self._first: tuple[float, int] | None = None
        self._mark: tuple[float, int] | None = None
        self._now, self._told = now, now
        self._rate: float | None = None
        self._is_news = False

    def take(self, line: Facts, now: float) -> None:
        """Take a line of metrics at a time of the clock."""
        self._now = now
        if "judged" in line:
            self._judged = line["judged"], line["of"]
            return
        self._total = line.get("total", self._total)
        self._done = line.get(self._key, self._done)
        self._facts |= line
        if self._first is None:
            self._first = now, self._done
        if "skills" in line:
            # The last evaluation of a stage comes once more with its last line.
            self._is_news = self.skills.get(self._done) != line["skills"]
            self.skills[self._done] = dict(line["skills"])
            self._mark = None  # the time of an evaluation is not the training's
            return
        if self._mark is not None and self._done > self._mark[1] and now > self._mark[0]:
            self._rate = (self._done - self._mark[1]) / (now - self._mark[0])
        self._mark = now, self._done

    def plain_line(self) -> str | None:
        """The state in one line; None while it is too early for another one."""
        if not self._is_news and self._now - self._told < _PLAIN_SECONDS:
            return None
        self._told = self._now
        if self._judged is not None:
            return "  {}: {:,} of {:,}".format(_JUDGING, *self._judged)
        text = ", ".join([self._counted(), *self._figures()])
        if self._is_news:
            rates = self.skills[max(self.skills)]
            text += ": " + ", ".join(f"{name} {percent(rate)}" for name, rate in rates.items())
        self._is_news = False
        return f"  {text}"

    def render(self, console: Console) -> Iterator[RenderableType]:
        """The state for a terminal."""
        row = Table.grid(padding=(0, 2))
        if self._judged is not None or self._done == 0 or self._done == self._total:
            waiting = self._done == 0 and self._judged is None
            said = _FIRST[self._kind] if waiting else _JUDGING
            done, total = self._judged or (0, None)
            spinner = Spinner("line" if console.options.ascii_only else "dots")
            row.add_row(spinner, _bar(done, total), f"{done:,} of {total:,}" if total else "", said)
        else:
            row.add_row(_bar(self._done, self._total), self._counted(), self._left())
        yield row
        yield Text("   ".join(self._figures()))
        if self.skills:
            yield self.table(console)

    def table(self, console: Console) -> Table:
        """Every skill at the last evaluations, and its course."""
        seen = sorted(self.skills)
        last = seen[-_COLUMNS:]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("skill")
        table.add_column("", no_wrap=True)
        for place in last:
            table.add_column(short(place), justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        blocks = _ASCII_BLOCKS if console.options.ascii_only else _BLOCKS
        for name, now in self.skills[seen[-1]].items():
            course = [self.skills[place].get(name) for place in seen[-_TREND:]]
            figures = [percent(self.skills[place].get(name)) for place in last]
            table.add_row(name, trend(course, blocks), *figures, _bar(now or 0.0, 1.0, width=20))
        return table

    def _counted(self) -> str:
        of = "" if self._total is None else f" of {short(self._total)}"
        return f"{short(self._done)}{of} {self._unit}"

    def _left(self) -> str:
        """Time to the end of the stage at its pace so far, with its evaluations."""
        if self._total is None or self._first is None or self._done <= self._first[1]:
            return ""
        pace = (self._now - self._first[0]) / (self._done - self._first[1])
        minutes, seconds = divmod(round(pace * max(0, self._total - self._done)), 60)
        return f"{minutes}:{seconds:02} left"

    def _figures(self) -> list[str]:
        shown = {
            "loss": "loss {:.3f}",
            "reward": "reward {:.3f}",
            "no_answer": "without answer {:.2f}",
            "error_turns": "error turns {:.2f} a rollout",
            "right": "{:,} right",
        }
        found = [text.format(self._facts[key]) for key, text in shown.items() if key in self._facts]
        if self._rate is not None:
            unit = self._unit
            fast = self._rate >= 1
            found.append(
                f"{self._rate:,.0f} {unit}/s" if fast else f"{1 / self._rate:.1f} s a {self._key}"
            )
        return found


def short(number: int) -> str:
    """A count in few letters: 6.0 M, 200 k, 950."""
    if number >= 1_000_000:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 10_000 else f"{number:,}"


def percent(share: float | None) -> str:
    """A share as a figure; "-" without trials."""
    return "-" if share is None else f"{100 * share:.0f} %"


def trend(course: Sequence[float | None], blocks: str = _BLOCKS) -> str:
    """Shares from 0 to 1 as a line of blocks, a space where there were no trials."""
    return "".join(
        " " if share is None else blocks[min(len(blocks) - 1, int(share * len(blocks)))]
        for share in course
    )


def _bar(done: float, total: float | None, width: int = 36) -> ProgressBar:
    return ProgressBar(total=total, completed=done, width=width)
