"""Worlds as sources of questions: their facts as a graph, their pages as an index."""

import re
from typing import TYPE_CHECKING

from hanol.errors import DataError
from hanol.retrieval import Index
from hanol.synthesis._graph import Edge, KnowledgeGraph
from hanol.synthesis._questions import SynthQuestion

if TYPE_CHECKING:  # they bring torch with them
    from hanol.worlds import Encyclopedia, Question

_SPEC = re.compile(r"encyclopedia:(\d+)")


def world_seed(spec: str) -> int | None:
    """The seed in "encyclopedia:SEED"; None for anything else."""
    match = _SPEC.fullmatch(spec)
    return None if match is None else int(match[1])


def world_graph(world: "Encyclopedia", index: Index) -> KnowledgeGraph:
    """The facts that the pages of a world state, and the spans of its numbers and dates.

    Args:
        world: The world.
        index: Of its pages; gives the addresses.
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
    sentences = {
        (page.title, fact.relation): fact.sentence for page in world.pages for fact in page.facts
    }
    stated = [
        Edge(head, relation, tail, pages[head], sentences[head, relation])
        for head, relation, tail in world.triples
    ]
    spans = [
        Edge(head, relation, tail, pages[head], "", is_span=True)
        for head, relation, tail in world.fuzzy_triples
    ]
    return KnowledgeGraph([*stated, *spans], pages)


def world_question(question: SynthQuestion) -> "Question":
    """A row about a world, as the world and its expert know it."""
    from hanol.worlds import Question

    described = [triple for triple in question.formalization if triple[2].startswith("C@")]
    return Question(
        text=question.question,
        answers=frozenset(question.answers),
        triples=question.formalization,
        hops=question.hops,
        is_described=bool(described),
        level=question.level,  # type: ignore[arg-type]  # as the row says
        entities=question.entities,
        path=tuple(question.details.get("path", ())),
        relations=tuple(question.details.get("relations", ())),
        clauses=tuple(described),
    )
