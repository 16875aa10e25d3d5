"""A small real index and texts of a model, shared by the tests of the agent loop."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanol.retrieval import Index

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
