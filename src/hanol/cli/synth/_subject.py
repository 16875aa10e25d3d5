"""The source of `hanol synth`: a folder of documents, or the pages of a generated world."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hanol.cli.documents import open_indexed
from hanol.errors import ConfigError

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
    source: str, index: Path | None, place: Path, made: dict[str, Any]
) -> Iterator[Subject]:
    """Open a folder, indexing it first if nobody has, or make a world with its pages in `place`.

    `made` are options of the world; a folder has none, and a world has no index of its own.
    """
    from hanol.agent_training import WorldEnvironment
    from hanol.synthesis import world_seed

    seed = world_seed(source)
    if seed is None:
        if made:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in made)
            raise ConfigError(f"{source!r} is a folder: {options} is for encyclopedia:SEED.")
        with open_indexed(source, index) as corpus:
            yield Subject(corpus)
        return
    if index is not None:
        raise ConfigError(f"--index is for a folder of documents; {source} keeps its own index.")
    from hanol.worlds import Encyclopedia

    world = Encyclopedia(seed, **made)
    with WorldEnvironment(world, place / "world") as environment:
        assert environment.index is not None
        yield Subject(environment.index, world, list(environment.tools))
