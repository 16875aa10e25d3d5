"""What the commands of `hanol think` share: the verifier, values of options, settings."""

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hanol.cli._command import option
from hanol.cli._options import LoadOptions, SamplingOptions, open_engine

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.test_time import ThinkSettings

ModelArgument = Annotated[
    str,
    typer.Argument(help="Bundled name, checkpoint folder, hub id, or http://host:port/v1#name."),
]
VerifierOption = Annotated[
    str | None,
    typer.Option(
        help="What scores steps: folder or hub id of a process reward model, or judge:MODEL for a "
        "model that is asked whether the solution is right so far. Omitted: none."
    ),
]
LogOption = Annotated[
    Path | None,
    typer.Option(help="File that keeps finished generations: none is repeated. Omitted: none."),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Option of the strategy, as width=4 or rule=beta; repeatable. Omitted: none.",
        metavar="NAME=VALUE",
    ),
]


@dataclass(frozen=True, kw_only=True)
class SolutionOptions(SamplingOptions):
    """How a problem is put, and how solutions to it are drawn."""

    system: str | None = option(None, "System prompt. Omitted: the chat template's own.")
    template: str = option("{problem}", "What is asked, with {problem} in place of the problem.")
    separator: str = option("\\n\\n", "Text that ends a step; \\n is a line end.")

    @property
    def settings(self) -> "ThinkSettings":
        """What `hanol.test_time` samples by."""
        from hanol.sampling import Sampling
        from hanol.test_time import ThinkSettings

        drawn = replace(self.over(Sampling()), seed=self.seed)
        return ThinkSettings(
            sampling=drawn,
            separator=self.separator.replace("\\n", "\n"),
            system=self.system,
            template=self.template.replace("\\n", "\n"),
        )


SOLUTIONS = SolutionOptions(temperature=0.8, max_tokens=512)


def values_of(settings: Sequence[str] | None) -> dict[str, Any]:
    """Options of a strategy, from NAME=VALUE."""
    found: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not (equals and name):
            raise typer.BadParameter(f"{setting!r}: write NAME=VALUE, as in width=4.")
        try:
            found[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError):
            found[name] = value
    return found


@contextmanager
def opened(
    model: str, loading: LoadOptions, log: Path | None, verifier: str | None
) -> "Iterator[tuple[Engine, Any]]":
    """The engine, with a log of finished calls if one is named, and the verifier."""
    from hanol.engines import CachedEngine
    from hanol.runs import synchronous
    from hanol.test_time import open_verifier

    engines = [open_engine(model, **loading.given)]
    try:
        judged = verifier is not None and verifier.startswith("judge:")
        if judged:
            judge = str(verifier).removeprefix("judge:")
            if judge != model:
                engines.append(open_engine(judge, **loading.given))
        scorer = None if verifier is None else open_verifier(verifier, engines[-1])
        yield engines[0] if log is None else CachedEngine(engines[0], log), scorer
    finally:
        for engine in engines:
            synchronous(engine.aclose)()
