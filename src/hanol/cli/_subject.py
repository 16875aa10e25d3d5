"""What `hanol synth` asks about: a folder of documents, or the pages of a generated world."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hanol.cli._agent import index_first

if TYPE_CHECKING:
    from hanol.cli._options import Split
    from hanol.retrieval import Library
    from hanol.tools import Tool
    from hanol.worlds import Encyclopedia


@dataclass(frozen=True)
class Subject:
    """The documents, open, and what else there is.

    Args:
        library: The documents.
        world: Whose pages they are; None for a folder.
        tools: For its agents, if they are not the usual ones.
    """

    library: "Library"
    world: "Encyclopedia | None" = None
    tools: "list[Tool] | None" = None


@contextmanager
def opened_subject(
    source: str, index: Path | None, place: Path, entities: int, split: "Split"
) -> Iterator[Subject]:
    """Open a folder, indexing it first if nobody has, or make a world with its pages in `place`."""
    from hanol.agent_training import WorldEnvironment
    from hanol.retrieval import Library
    from hanol.synthesis import world_seed

    seed = world_seed(source)
    if seed is None:
        with Library.open(source, index=index) as library:
            if not library.documents():
                index_first(library)
            yield Subject(library)
        return
    from hanol.worlds import Encyclopedia

    world = Encyclopedia(seed, entities, split=split)
    with WorldEnvironment(world, place / "world") as environment:
        assert environment.library is not None
        yield Subject(environment.library, world, list(environment.tools))
