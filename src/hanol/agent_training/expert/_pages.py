"""The pages of a world in a folder, with the index of exactly these pages."""

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hanol.errors import SearchIndexError
from hanol.files import whole_folder
from hanol.retrieval import Index

if TYPE_CHECKING:
    from hanol.worlds import Encyclopedia  # brings torch


def indexed_pages(world: "Encyclopedia", folder: Path) -> Index:
    """The index of a world's pages, which are written where the folder is missing or empty.

    Raises:
        SearchIndexError: The folder or its index holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise SearchIndexError(f"{str(folder)!r} is a file. Name a folder for the pages.")
    if not folder.exists() or not any(folder.iterdir()):
        _write_whole(world, folder)
    files = (file for file in folder.iterdir() if not file.name.startswith("."))
    _check_pages(world, folder, {file.name: _sha256(file) for file in files})
    with ExitStack() as stack:
        index = stack.enter_context(Index.open(folder))
        if _documents(index).keys() != {page.file_name for page in world.pages}:
            index.add(isolated=False)
        _check_pages(world, folder, _documents(index))
        stack.pop_all()
    return index


def _documents(index: Index) -> dict[str, str | None]:
    return {info.document: info.sha256 for info in index.documents()}


def _write_whole(world: "Encyclopedia", folder: Path) -> None:
    """All pages and their index or nothing, for other processes and after a kill."""
    # Where another process is quicker, what it wrote is checked like any other folder.
    with whole_folder(folder, replace=False) as pages:
        world.write(pages)
        with Index.open(pages) as index:
            index.add(isolated=False)


def _check_pages(world: "Encyclopedia", folder: Path, found: dict[str, str | None]) -> None:
    pages = {
        page.file_name: hashlib.sha256(page.markdown.encode()).hexdigest() for page in world.pages
    }
    if found == pages:
        return
    foreign = sorted(name for name in found if found[name] != pages.get(name))
    missing = sorted(pages.keys() - found.keys())
    raise SearchIndexError(
        f"{str(folder)!r} does not hold the pages of this world (seed {world.seed}, "
        f"{world.num_entities} entities, {world.setting!r}, {world.split!r}): "
        f"{len(foreign)} of its {len(found)} documents are others (such as {foreign[:3]}), "
        f"{len(missing)} pages are missing. Name another folder, or make the world that it is of."
    )


def _sha256(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
