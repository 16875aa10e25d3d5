"""Documents, model and tools of a research run, as its options name them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanol.cli._options import (
    AgentOptions,
    AgentSamplingOptions,
    BudgetOptions,
    ModelOptions,
    ToolOptions,
)
from hanol.errors import RunError

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.retrieval import Index
    from hanol.tools import Tool


@dataclass(frozen=True)
class Workshop:
    """How to open documents, model and tools; plain values, so that other processes can too.

    Args:
        folder: The documents; None for a run without.
        index: Folder of its index; None for the usual place.
        model: What `open_engine` opens.
        load: Options of `open_engine`.
        web: Provider of the web search; None leaves the web off.
        web_consent: Whether the web may be used next to the documents.
        unsafe_python: Whether Python may run without isolation.
        python: Whether to offer Python; None offers it where it can be isolated.
        compact: Only search and visit, with short results.
    """

    folder: str | None
    index: str | None
    model: str
    load: dict[str, Any] = field(default_factory=dict)
    web: str | None = None
    web_consent: bool = False
    unsafe_python: bool = False
    python: bool | None = None
    compact: bool = False

    def corpus(self) -> "Index | None":
        """Open the documents."""
        from hanol.retrieval import Index

        return None if self.folder is None else Index.open(self.folder, index_folder=self.index)

    def engine(self) -> "Engine":
        """Open the model."""
        from hanol.engines import open_engine

        return open_engine(self.model, **self.load)

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
            provider, policy = open_provider(self.web), WebPolicy(consent=self.web_consent)
            tools += web_tools(provider, corpus, policy=policy)
        elif corpus is not None:
            tools += local_tools(corpus)
        python = self.python
        if python is None:
            python = self.unsafe_python or sandbox_problem() is None
        return [*tools, PythonInterpreter(unsafe=self.unsafe_python)] if python else tools


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
    from hanol.cli.index import files

    print(f"{corpus.folder} is not indexed yet: indexing it first.", file=sys.stderr)
    with files() as on_file:
        report = corpus.add(on_file=on_file)
    unread = f", {len(report.failed)} could not be read" if report.failed else ""
    print(f"{report.documents:,} documents, {report.passages:,} passages{unread}", file=sys.stderr)


def new_workshop(folder: Path, model: ModelOptions, tools: ToolOptions, compact: bool) -> Workshop:
    """What a new run gets."""
    # Absolute, because workers of Ray stand elsewhere.
    return Workshop(
        str(folder.absolute()),
        None if tools.index is None else str(tools.index.absolute()),
        model.model,
        model.given,
        tools.web,
        tools.web_consent,
        tools.unsafe_python,
        compact=compact,
    )


def reopened(
    run: Path, model: str | None, tools: ToolOptions
) -> AbstractContextManager["tuple[Index | None, Engine, Sequence[Tool]]"]:
    """Open what a run was started with, as its log says.

    Raises:
        RunError: There is no run, or its folder of documents is gone.
    """
    from hanol.runs import RunFolder
    from hanol.tools import CompactSearch

    started = RunFolder(run).started()
    if started.index is not None and not Path(started.index).is_dir():
        raise RunError(
            f"The documents of this run are gone: {started.index!r} is not a folder. Put them "
            "back, or show what there is with `hanol research replay`."
        )
    workshop = Workshop(
        folder=started.index,
        index=None if tools.index is None else str(tools.index),
        model=model or started.model,
        web=tools.web,
        web_consent=tools.web_consent,
        unsafe_python=tools.unsafe_python,
        python="PythonInterpreter" in started.tools,
        compact=any(
            schema["description"] == CompactSearch.description
            for schema in started.settings["schemas"]
        ),
    )
    return opened(workshop)


def researcher_options(
    opened: "tuple[Index | None, Engine, Sequence[Tool]]",
    agent: AgentOptions,
    budget: BudgetOptions,
    sampling: AgentSamplingOptions,
) -> dict[str, Any]:
    """Options of a `Researcher`: the given values over those of its mode."""
    from hanol.research import Researcher

    corpus, engine, tools = opened
    mode = agent.mode or ("markov" if agent.heavy else "react")
    own = Researcher(corpus, engine, mode=mode, tools=tools).settings
    drawn = sampling.sampling(own.sampling)
    return {
        "mode": mode,
        "tools": tools,
        "budget": budget.over(own.budget),
        # Heavy mode has its own, so only what was asked for is passed.
        **({} if drawn == own.sampling else {"sampling": drawn}),
        "system_prompt": _text(agent.system_prompt),
        "seed": sampling.seed,
        "today": None if agent.today is None else agent.today.date(),
    }


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise RunError(f"The system prompt {str(path)!r} cannot be read: {err}") from err
