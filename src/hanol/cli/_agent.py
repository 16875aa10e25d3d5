"""What the commands of `hanol research` have in common: documents, model and tools of a run."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hanol.errors import RunError

if TYPE_CHECKING:
    from hanol.cli._options import Mode
    from hanol.engines import Engine
    from hanol.retrieval import Index
    from hanol.sampling import Sampling
    from hanol.tools import Tool


@dataclass(frozen=True)
class Workshop:
    """How to open documents, model and tools; plain values, so that other processes can too.

    Args:
        folder: The documents; None for a run without.
        index: Folder of its index; None for the usual place.
        model: What `open_engine` opens.
        web: Provider of the web search; None leaves the web off.
        private: The web may be used next to the documents.
        unsafe: Python may run without isolation.
        python: Whether to offer Python; None offers it where it can be isolated.
        compact: Only search and visit, in few words.
    """

    folder: str | None
    index: str | None
    model: str
    web: str | None = None
    private: bool = False
    unsafe: bool = False
    python: bool | None = None
    compact: bool = False

    def corpus(self) -> "Index | None":
        """Open the documents."""
        from hanol.retrieval import Index

        return None if self.folder is None else Index.open(self.folder, index_folder=self.index)

    def engine(self) -> "Engine":
        """Open the model."""
        from hanol.engines import open_engine

        return open_engine(self.model)

    def tools(self, corpus: "Index | None") -> "Sequence[Tool]":
        """The tools over both."""
        from hanol.tools import (
            PythonInterpreter,
            WebPolicy,
            compact_tools,
            local_tools,
            open_provider,
            sandbox_problem,
            web_tools,
        )

        if self.compact:
            if corpus is None or self.web is not None:
                raise RunError("`--compact` is for documents: leave out `--web`.")
            return compact_tools(corpus)
        tools: list[Tool] = []
        if self.web is not None:
            provider, policy = open_provider(self.web), WebPolicy(consent=self.private)
            tools += web_tools(provider, corpus, policy=policy)
        elif corpus is not None:
            tools += local_tools(corpus)
        python = self.python
        if python is None:
            python = self.unsafe or sandbox_problem() is None
        return [*tools, PythonInterpreter(unsafe=self.unsafe)] if python else tools


@contextmanager
def opened(workshop: Workshop) -> Iterator["tuple[Index | None, Engine, Sequence[Tool]]"]:
    """Open all three, indexing the folder first if nobody has."""
    corpus = workshop.corpus()
    try:
        if corpus is not None and not corpus.documents():
            index_first(corpus)
        # Tools before the model: what is wrong with them is known in no time.
        tools = workshop.tools(corpus)
        yield corpus, workshop.engine(), tools
    finally:
        if corpus is not None:
            corpus.close()


def index_first(corpus: "Index") -> None:
    """Index a folder that was never indexed, and say so."""
    from hanol.cli.index import _bar

    print(f"{corpus.folder} is not indexed yet: indexing it first.", file=sys.stderr)
    with _bar() as on_file:
        report = corpus.add(on_file=on_file)
    unread = f", {len(report.failed)} could not be read" if report.failed else ""
    print(f"{report.documents:,} documents, {report.passages:,} passages{unread}", file=sys.stderr)


def reopened(
    run: Path, model: str | None, index: Path | None, web: str | None, private: bool, unsafe: bool
) -> AbstractContextManager["tuple[Index | None, Engine, Sequence[Tool]]"]:
    """Open what a run was begun with, as its log says.

    Raises:
        RunError: There is no run, or its folder of documents is gone.
    """
    from hanol.runs import RunFolder
    from hanol.tools import CompactSearch

    started = RunFolder(run).started()
    if started.index is not None and not Path(started.index).is_dir():
        raise RunError(
            f"The documents of this run are gone: {started.index!r} is no folder. Put them back, "
            "or look at what there is by `hanol research replay`."
        )
    workshop = Workshop(
        folder=started.index,
        index=None if index is None else str(index),
        model=model or started.model,
        web=web,
        private=private,
        unsafe=unsafe,
        python="PythonInterpreter" in started.tools,
        compact=any(
            schema["description"] == CompactSearch.description
            for schema in started.settings["schemas"]
        ),
    )
    return opened(workshop)


def workshop_over(
    folder: Path,
    index: Path | None,
    model: str,
    web: str | None,
    private: bool,
    unsafe: bool,
    compact: bool,
) -> Workshop:
    """What a new run is to have."""
    # Absolute, because workers of Ray stand elsewhere.
    place = None if index is None else str(index.absolute())
    return Workshop(str(folder.absolute()), place, model, web, private, unsafe, compact=compact)


def given_limits(
    calls: int | None,
    tokens: int | None,
    seconds: float | None,
    money: float | None,
    prompt_price: float,
    completion_price: float,
) -> dict[str, Any]:
    """The fields of a `Budget` that were given; for the others, each mode has its own."""
    given = {"model_calls": calls, "tokens": tokens, "seconds": seconds, "money": money}
    prices = {"prompt_price": prompt_price, "completion_price": completion_price}
    return {name: value for name, value in given.items() if value is not None} | prices


def given_sampling(greedy: bool, own_sampling: bool) -> "Sampling | None":
    """How turns are drawn; None is as the paper does."""
    from hanol.research import GREEDY, OWN_SAMPLING

    if greedy and own_sampling:
        raise typer.BadParameter("give either --greedy or --own-sampling, not both.")
    return GREEDY if greedy else OWN_SAMPLING if own_sampling else None


def researcher_options(
    corpus: "Index | None",
    engine: "Engine",
    tools: "Sequence[Tool]",
    mode: "Mode | None",
    heavy: int | None,
    limits: dict[str, Any],
    sampling: "Sampling | None",
    system_prompt_file: Path | None,
) -> dict[str, Any]:
    """Options of a `Researcher`: the mode's own budget with the given limits."""
    from hanol.research import Researcher

    mode = mode or ("markov" if heavy else "react")
    budget = Researcher(corpus, engine, mode=mode, tools=tools).settings.budget
    options: dict[str, Any] = {"mode": mode, "tools": tools}
    options["budget"] = replace(budget, **limits)
    options["system_prompt"] = _text(system_prompt_file)
    if sampling is not None:
        options["sampling"] = sampling
    return options


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise RunError(f"The system prompt {str(path)!r} cannot be read: {err}") from err
