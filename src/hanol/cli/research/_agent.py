"""Documents, model and tools of a research run, as its options name them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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

    def open(self) -> "Workplace":
        """Open all three: the tools before the model, so that their errors come at once."""
        from hanol.engines import open_engine
        from hanol.retrieval import Index
        from hanol.tools import agent_tools

        corpus = None
        if self.folder is not None:
            corpus = Index.open(self.folder, index_folder=self.index)
            if not corpus.documents():
                index_first(corpus)
        try:
            tools = agent_tools(
                corpus,
                web=self.web,
                web_consent=self.web_consent,
                python=self.python,
                unsafe_python=self.unsafe_python,
                compact=self.compact,
            )
            return Workplace(corpus, open_engine(self.model, **self.load), tools)
        except BaseException:
            if corpus is not None:
                corpus.close()
            raise


class Workplace(NamedTuple):
    """What a run works with, open."""

    corpus: "Index | None"
    engine: "Engine"
    tools: "Sequence[Tool]"


@contextmanager
def opened(workshop: Workshop) -> Iterator[Workplace]:
    """Open all three, and close the documents at the end."""
    workplace = workshop.open()
    try:
        yield workplace
    finally:
        if workplace.corpus is not None:
            workplace.corpus.close()


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


def reopened(run: Path, model: str | None, tools: ToolOptions) -> AbstractContextManager[Workplace]:
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
    workplace: Workplace,
    agent: AgentOptions,
    budget: BudgetOptions,
    sampling: AgentSamplingOptions,
) -> dict[str, Any]:
    """Options of a `Researcher`: the given values over those of its mode."""
    from hanol.research import Researcher

    corpus, engine, tools = workplace
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
