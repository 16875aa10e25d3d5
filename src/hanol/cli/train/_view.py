"""What a person sees while a research agent is trained: the stage, its loss, its skills.

Skills of an agent come one after another and some of them in a jump, so the table shows each at
the last evaluations, with its whole course beside it.
"""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hanol.cli.train._stage import StageView

if TYPE_CHECKING:
    from hanol.agent_training import ResearcherRecipe, StageResult


class TrainingView:
    """Follows a run on a terminal, or in plain lines where there is none.

    Args:
        recipe: Of the run.
        console: Where it is shown; None is standard error.
        clock: Tells seconds.
    """

    def __init__(
        self,
        recipe: "ResearcherRecipe",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recipe, self._clock = recipe, clock
        self._console = console or Console(stderr=True)
        self._number = 0
        self._stage: StageView | None = None
        self._live: Live | None = None
        # What is no terminal, or a simple one, cannot take a line back.
        if self._console.is_interactive and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, transient=True,
                refresh_per_second=4,
            )  # fmt: skip

    def __enter__(self) -> Self:
        self._begin_stage()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            if kind is not None:  # what the run had come to stays on the screen
                self._console.print(self._render())

    def on_step(self, line: Mapping[str, Any]) -> None:
        """Take a line of metrics."""
        if self._stage is None:
            return
        self._stage.take(line, self._clock())
        if self._live is None and (text := self._stage.plain_line()) is not None:
            self._say(text)

    def on_stage(self, result: "StageResult") -> None:
        """Take a finished stage: it stays on the screen, and the next one begins."""
        if self._live is not None and self._stage is not None and self._stage.skills:
            self._console.print(self._stage.table(self._console))
        for text in stage_lines(result):
            self._say(text)
        self._number += 1
        self._begin_stage()

    def _begin_stage(self) -> None:
        if self._number == len(self._recipe.stages):
            self._stage = None
            return
        self._stage = StageView(self._recipe.stages[self._number], self._clock())
        if self._live is None:
            self._say(self._title())

    def _title(self) -> str:
        stages = self._recipe.stages
        stage = stages[self._number]
        kind = "" if stage.name == stage.kind else f" ({stage.kind})"
        return f"{self._recipe.name}: stage {self._number + 1} of {len(stages)}, {stage.name}{kind}"

    def _render(self) -> RenderableType:
        if self._stage is None:
            return Text()
        return Group(Text(self._title(), style="bold"), *self._stage.render(self._console))

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def stage_lines(result: "StageResult") -> list[str]:
    """What a stage made, and how well its model answers."""
    parts = [f"{result.minutes:.1f} minutes"]
    for key, value in result.facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else f"{value:,}"
        parts.append(f"{key.replace('_', ' ')} {shown}")
    lines = [f"{result.name}: {', '.join(parts)}"]
    if result.accuracy:
        lines.append("  " + result.accuracy_text())
    return lines
