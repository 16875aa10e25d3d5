"""A small folder of linked pages, and what a model says about them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanol.engines import Request, ScriptedEngine
from hanol.retrieval import Index
from hanol.synthesis import Replies

PAGES = {
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
    folder = tmp_path_factory.mktemp("wiki")
    for name, text in PAGES.items():
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
