"""The source of `hanol synth`: a folder of documents, or the pages of a generated world."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hanol.cli._options import WorldOptions
from hanol.cli.documents import open_indexed

if TYPE_CHECKING:
    from hanol.retrieval import Index
    from hanol.tools import Tool
    from hanol.worlds import Encyclopedia


class Subject(NamedTuple):
    """The documents, open; in a world also the world whose pages they are, and its tools."""

    corpus: "Index"
    world: "Encyclopedia | None" = None
    tools: "list[Tool] | None" = None


@contextmanager
def opened_subject(
    source: str, index: Path | None, place: Path, made: WorldOptions
) -> Iterator[Subject]:
    """Open a folder, indexing it first if nobody has, or make a world with its pages in `place`."""
    from hanol.agent_training import WorldEnvironment
    from hanol.synthesis import world_seed

    seed = world_seed(source)
    if seed is None:
        with open_indexed(source, index) as corpus:
            yield Subject(corpus)
        return
    from hanol.worlds import Encyclopedia

    world = Encyclopedia(seed, made.num_entities, split=made.split)
    with WorldEnvironment(world, place / "world") as environment:
        assert environment.index is not None
        yield Subject(environment.index, world, list(environment.tools))
