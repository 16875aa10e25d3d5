"""Small real indexes and scripted models, shared by the tests of the agent loop and synthesis."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from socket import socket
from typing import Any

import pytest
from hypothesis import settings
from tests.forked import Forked, start_server

from hanol.engines import Request, ScriptedEngine
from hanol.retrieval import Index
from hanol.retrieval.documents import _reading  # private: how many processes read
from hanol.synthesis import Replies

SLOW_TIMEOUT = 1800  # seconds
settings.register_profile("busy", deadline=None)  # other processes may hold an example up
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests have more time than the limit in pyproject.toml, if they name none themselves."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collections; transformers' trainer makes many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small folders are read in one child process: the start of one is most of the work."""
    monkeypatch.setattr(_reading, "_WORKERS", 1)


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The secret of the tests' user is not that of whoever runs them."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def _server() -> Iterator[socket]:
    process, asking = start_server()
    with asking:
        yield asking
    process.wait()


@pytest.fixture
def forked(_server: socket, tmp_path: Path) -> Iterator[Callable[..., Forked]]:
    """Starts processes that have imported hanol (see `Forked`); none outlives the test."""
    started: list[Forked] = []

    def start(code: str, *arguments: object, **options: Any) -> Forked:
        started.append(Forked(_server, tmp_path, code, *arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.send_signal(SIGKILL)
        one.wait()


PAGES = {
    "seoul.md": "# Seoul\n\nSeoul is the capital of South Korea. It had 9,386,000 people in 2023.",
    "busan.md": "# Busan\n\nBusan is a port in the south. It had 3,300,000 people in 2023.\n",
    "python.md": "# Monty Python\n\nMonty Python was a British comedy group founded in 1969.\n",
}


@pytest.fixture(scope="session")
def city_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three pages, indexed."""
    folder = tmp_path_factory.mktemp("cities")
    for name, text in PAGES.items():
        (folder / name).write_text(text, "utf-8")
    with Index.open(folder) as index:
        index.add()
    return folder


@pytest.fixture
def cities(city_folder: Path) -> Iterator[Index]:
    """The index of three pages."""
    with Index.open(city_folder) as index:
        yield index


@pytest.fixture
def search_turn() -> Callable[..., str]:
    """The text of a turn that searches."""

    def write(*queries: str, think: str = "Look it up.") -> str:
        blocks = [
            json.dumps({"name": "search", "arguments": {"query": [query]}}, ensure_ascii=False)
            for query in queries
        ]
        blocks = [f"<tool_call>\n{block}\n</tool_call>" for block in blocks]
        return f"<think>{think}</think>\n" + "\n".join(blocks)

    return write


WIKI = {
    "people/ada-bel.md": (
        "# Ada Bel\n\nAda Bel was born in [Port Ems](../towns/port-ems.md). She won "
        "[Silver Oar](../silver-oar.md) and [Blue Lamp](../blue-lamp.md). She was born on "
        "May 7, 1931.\n\n## Early years\n\nIt rained.\n"
    ),
    "people/cyr-dun.md": (
        "# Cyr Dun\n\nCyr Dun was born in [Port Ems](../towns/port-ems.md). He won "
        "[Silver Oar](../silver-oar.md). Cyr Dun was born on May 9, 1955.\n"
    ),
    "people/eva-fir.md": (
        "# Eva Fir\n\nEva Fir was born in [Low Gate](../towns/low-gate.md). She won "
        "[Blue Lamp](../blue-lamp.md). See [Ada Bel](ada-bel.md), who knew her.\n"
    ),
    "towns/port-ems.md": (
        "# Port Ems\n\nPort Ems was governed by [Eva Fir](../people/eva-fir.md). Port Ems has "
        "12,400 inhabitants.\n\n```\nEva Fir was governed by [Cyr Dun](../people/cyr-dun.md).\n"
        "```\n"
    ),
    "towns/low-gate.md": (
        "# Low Gate\n\nLow Gate was governed by [Cyr Dun](../people/cyr-dun.md). Low Gate has "
        "1,900 inhabitants.\n"
    ),
    "silver-oar.md": "# Silver Oar\n\nSilver Oar was paid for by Low Gate.\n",
    "blue-lamp.md": "# Blue Lamp\n\nBlue Lamp was paid for by Port Ems. Train is no name here.\n",
    "train.md": "# Train\n\nTrain tokens with Ada Bel. Nothing is said of a train.\n",
}


@pytest.fixture(scope="session")
def wiki_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of linked pages, indexed."""
    folder = tmp_path_factory.mktemp("wiki")
    for name, text in WIKI.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")
    with Index.open(folder) as index:
        index.add(isolated=False)
    return folder


@pytest.fixture
def wiki(wiki_folder: Path) -> Iterator[Index]:
    with Index.open(wiki_folder) as index:
        yield index


class Counting(ScriptedEngine):
    """Counts what it is asked."""

    def __init__(self, script: Callable[[Request], str]) -> None:
        self.asked: list[str] = []

        def answer(request: Request) -> str:
            self.asked.append(request.messages[-1].content)
            return script(request)

        super().__init__(answer)


@pytest.fixture
def model() -> Callable[..., tuple[Replies, Counting]]:
    def make(script: Callable[[str], str], path: Path | None = None) -> tuple[Replies, Counting]:
        engine = Counting(lambda request: script(request.messages[-1].content))
        return Replies(engine, path), engine

    return make
