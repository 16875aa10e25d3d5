"""What the commands of `hanol research` have in common: documents, model and tools of a run."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hanol.errors import ResearchError

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.research import Tool
    from hanol.retrieval import Library

ModelOption = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Checkpoint (name, folder, hub id) or http://host:port/v1#name."
    ),
]
WebOption = Annotated[
    str | None,
    typer.Option("--web", help="Turn the web on: address of a SearXNG instance, or serper."),
]
PrivateOption = Annotated[
    bool,
    typer.Option(
        "--web-consent",
        help="Agree that queries worded after reading the documents go to the web's provider.",
    ),
]
UnsafeOption = Annotated[
    bool, typer.Option("--unsafe-python", help="Run Python even where it cannot be isolated.")
]
IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index, if not FOLDER/.hanol.")
]
CompactOption = Annotated[
    bool,
    typer.Option("--compact", help="Results in few words, for models with a small window."),
]
GreedyOption = Annotated[
    bool, typer.Option("--greedy", help="The likeliest token each time, without a penalty.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


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

    def library(self) -> "Library | None":
        """Open the documents."""
        from hanol.retrieval import Library

        return None if self.folder is None else Library.open(self.folder, index=self.index)

    def engine(self) -> "Engine":
        """Open the model."""
        from hanol.engines import open_engine

        return open_engine(self.model)

    def tools(self, library: "Library | None") -> "Sequence[Tool]":
        """The tools over both."""
        from hanol.research import (
            PythonInterpreter,
            WebPolicy,
            compact_tools,
            local_tools,
            open_provider,
            sandbox_problem,
            web_tools,
        )

        if self.compact:
            if library is None or self.web is not None:
                raise ResearchError("`--compact` is for documents: leave out `--web`.")
            return compact_tools(library)
        tools: list[Tool] = []
        if self.web is not None:
            provider, policy = open_provider(self.web), WebPolicy(consent=self.private)
            tools += web_tools(provider, library, policy=policy)
        elif library is not None:
            tools += local_tools(library)
        python = self.python
        if python is None:
            python = self.unsafe or sandbox_problem() is None
        return [*tools, PythonInterpreter(unsafe=self.unsafe)] if python else tools


@contextmanager
def opened(workshop: Workshop) -> Iterator["tuple[Library | None, Engine, Sequence[Tool]]"]:
    """Open all three, indexing the folder first if nobody has."""
    library = workshop.library()
    try:
        if library is not None and not library.documents():
            index_first(library)
        # Tools before the model: what is wrong with them is known in no time.
        tools = workshop.tools(library)
        yield library, workshop.engine(), tools
    finally:
        if library is not None:
            library.close()


def index_first(library: "Library") -> None:
    """Index a folder that was never indexed, and say so."""
    from hanol.cli.index import _bar

    print(f"{library.folder} is not indexed yet: indexing it first.", file=sys.stderr)
    with _bar() as on_file:
        report = library.add(on_file=on_file)
    unread = f", {len(report.failed)} could not be read" if report.failed else ""
    print(f"{report.documents:,} documents, {report.passages:,} passages{unread}", file=sys.stderr)


def workshop_of(
    run: Path, model: str | None, index: Path | None, web: str | None, private: bool, unsafe: bool
) -> Workshop:
    """What a run was begun with, as its log says.

    Raises:
        ResearchError: There is no run, or its folder of documents is gone.
    """
    from hanol.research import CompactSearch, RunFolder

    started = RunFolder(run).started()
    if started.library is not None and not Path(started.library).is_dir():
        raise ResearchError(
            f"The documents of this run are gone: {started.library!r} is no folder. Put them back, "
            "or look at what there is by `hanol research replay`."
        )
    return Workshop(
        folder=started.library,
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
