"""Worlds as sources of questions: their facts with the addresses of indexed pages."""

import re
from dataclasses import replace

from hanol.errors import DataError
from hanol.retrieval import Index
from hanol.synthesis._questions import SynthQuestion
from hanol.worlds import Encyclopedia, GraphQuestion, KnowledgeGraph

_SPEC = re.compile(r"encyclopedia:(\d+)")


def world_seed(spec: str) -> int | None:
    """The seed in "encyclopedia:SEED"; None for anything else."""
    match = _SPEC.fullmatch(spec)
    return None if match is None else int(match[1])


def world_graph(world: Encyclopedia, index: Index) -> KnowledgeGraph:
    """The graph of a world, with the addresses of its pages in an index.

    Args:
        world: The world.
        index: The index of its pages, which gives the addresses.

    Raises:
        DataError: The index lacks pages of this world.
    """
    of_file = {info.document: info.address for info in index.documents()}
    missing = [page.file_name for page in world.pages if page.file_name not in of_file]
    if missing:
        raise DataError(
            f"The index {str(index.folder)!r} does not belong to this world: it has no "
            f"{missing[0]!r} and {len(missing)} pages in all are missing. Write the world to a "
            "folder of its own."
        )
    pages = {page.title: of_file[page.file_name] for page in world.pages}
    edges = [replace(edge, address=pages[edge.head]) for edge in world.graph.edges]
    return KnowledgeGraph(edges, pages)


def world_question(question: SynthQuestion) -> GraphQuestion:
    """A question about a world in the form that the world and its expert use."""
    described = [triple for triple in question.formalization if triple[2].startswith("C@")]
    leading = [triple for triple in question.formalization if triple not in described]
    return GraphQuestion(
        text=question.question,
        answers=frozenset(question.answers),
        triples=question.formalization,
        hops=question.hops,
        level=question.level,
        entities=question.entities,
        relations=tuple(relation for _, relation, _ in leading),
        clauses=tuple(described),
    )
