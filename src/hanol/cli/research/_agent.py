"""Documents, model and tools of a research run, as its options name them."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hanol.cli._console import confirm, escaped
from hanol.cli._options import ModelOptions, ResearchOptions, ToolOptions, open_engine
from hanol.cli.documents import open_indexed, python_is_isolated
from hanol.errors import RunError, SearchIndexError
from hanol.files import read_text

if TYPE_CHECKING:
    from hanol.engines import Engine
    from hanol.retrieval import Index
    from hanol.tools import Tool


class Workplace(NamedTuple):
    """What a run works with, open."""

    corpus: "Index | None"
    engine: "Engine"
    tools: "Sequence[Tool]"


def _open(
    folder: Path | None,
    model: ModelOptions,
    allowed: ToolOptions,
    python: bool | None = None,
    compact: bool | None = False,
) -> Workplace:
    """Open documents and tools, then the model: errors of the tools come at once."""
    from hanol.research import is_small
    from hanol.tools import agent_tools, compact_tools

    corpus = None if folder is None else open_indexed(folder, allowed.index)
    try:
        tools = agent_tools(
            corpus,
            web=allowed.web,
            web_consent=allowed.web_consent,
            python=python,
            unsafe_python=allowed.unsafe_python,
            compact=compact is True,
        )
        engine = open_engine(model.model, **model.given)
        if compact is None and corpus is not None and not (allowed.web or allowed.unsafe_python):
            tools = [*compact_tools(corpus)] if is_small(engine.context_window) else tools
        return Workplace(corpus, engine, tools)
    except BaseException:
        if corpus is not None:
            corpus.close()
        raise


@contextmanager
def opened(make: Callable[[], Workplace], allowed: ToolOptions) -> Iterator[Workplace]:
    """Open a workplace, and close model and documents at the end, also after Ctrl-C."""
    from hanol.runs import synchronous
    from hanol.tools import CompactSearch

    workplace = make()
    if not any(isinstance(tool, CompactSearch) for tool in workplace.tools):
        python_is_isolated(unsafe=allowed.unsafe_python)
    try:
        yield workplace
    finally:
        synchronous(workplace.engine.aclose)()
        if workplace.corpus is not None:
            workplace.corpus.close()


def new_workplace(folder: Path, options: ResearchOptions) -> Callable[[], Workplace]:
    """Opens what a new run gets, in any process: workers of Ray stand elsewhere."""
    if options.index is not None:
        options = replace(options, index=options.index.absolute())
    return partial(_open, folder.absolute(), options, options, compact=options.compact)


def reopened(run: Path, model: str | None, tools: ToolOptions) -> AbstractContextManager[Workplace]:
    """Open what a run was started with, as its log says, if the log is one of this machine."""
    from hanol.research import Settings
    from hanol.runs import RunFolder, is_begun_here
    from hanol.tools import CompactSearch

    started = RunFolder(run).started()
    settings = Settings.from_dict(started.settings)
    if not is_begun_here(started):
        model = model or _agreed(started.model)
        if settings.web is not None and tools.web is None:
            raise RunError(
                f"The run in {str(run)!r} was begun elsewhere, with the web search of "
                f"{settings.web!r}. Name the provider to use with --web."
            )
    elif tools.web is None:  # the run was begun with consent
        tools = replace(tools, web=settings.web, web_consent=True)
    if started.index is not None and not Path(started.index).is_dir():
        raise RunError(
            f"The documents of this run are gone: {started.index!r} is not a folder. Put them "
            "back, or show what there is with `hanol research replay`."
        )
    if started.index is not None and not is_begun_here(started):
        _check_documents(run, started.index, started.index_version)
    descriptions = [schema["description"] for schema in settings.schemas]
    loading = settings.loading if model in (None, started.model) else None
    make = partial(
        _open,
        None if started.index is None else Path(started.index),
        ModelOptions(model=model or started.model, **(loading or {})),
        tools,
        python="PythonInterpreter" in started.tools,
        compact=CompactSearch.description in descriptions,
    )
    return opened(make, tools)


def _check_documents(run: Path, folder: str, version: str | None) -> None:
    """Refuse documents that a log of elsewhere names, unless their index is the one of the log.

    Nothing is indexed, and so written, where somebody else says.
    """
    from hanol.retrieval import Index

    with suppress(SearchIndexError), Index.open(folder) as index:
        if index.documents() and index.version == version:
            return
    raise RunError(
        f"The run in {str(run)!r} was begun elsewhere, with documents in {folder!r} that are not "
        "those of an index there. Show what there is with `hanol research replay`."
    )


def _agreed(model: str) -> str:
    """The model that a log of elsewhere names, if nothing leaves this machine or the user agrees.

    It would get the key of this user, and passages of whatever folder the log names.
    """
    from hanol.engines import is_local

    if not is_local(model):
        told = f"The run was begun elsewhere, and its log names the model {escaped(model)!r}"
        if not sys.stdin.isatty():
            raise RunError(
                f"{told}: it would get your documents and your key. Agree by naming it with "
                "--model, or leave the run."
            )
        confirm(f"{told}. Send it your documents and your key?")
    return model


def researcher_options(workplace: Workplace, options: ResearchOptions) -> dict[str, Any]:
    """Options of a `Researcher`: the given values over those of its mode."""
    from hanol.research import Researcher

    corpus, engine, tools = workplace
    mode = options.mode or ("markov" if options.heavy else "react")
    own = Researcher(corpus, engine, mode=mode, tools=tools).settings
    drawn = options.sampling(own.sampling)
    return {
        "mode": mode,
        "tools": tools,
        "budget": options.budget(own.budget),
        # Heavy mode has its own, so only what was asked for is passed.
        **({} if drawn == own.sampling else {"sampling": drawn}),
        "system_prompt": _text(options.system_prompt),
        "seed": options.seed,
        "turns": options.turns,
        "loading": options.given or None,
        "web": options.web,
        "today": None if options.today is None else options.today.date(),
    }


def _text(path: Path | None) -> str | None:
    try:
        return None if path is None else read_text(path)
    except (OSError, UnicodeDecodeError) as err:
        raise RunError(f"The system prompt {str(path)!r} cannot be read: {err}") from err
