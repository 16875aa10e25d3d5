"""The expert for questions that were written to a file."""

from collections.abc import Iterable

from hanol.agent_training.expert._expert import Expert
from hanol.engines import Engine
from hanol.errors import DataError
from hanol.synthesis import SynthQuestion, world_question
from hanol.worlds import Encyclopedia


def world_expert(world: Encyclopedia, questions: Iterable[SynthQuestion]) -> Engine:
    """The policy that knows the world; it makes no detours, which nobody should learn.

    Args:
        world: In the hard setting.
        questions: Of level 0; it does not know how to look for starts described by several facts.

    Raises:
        DataError: A question has a higher level, or does not say which relations to follow.
    """
    known = [world_question(question) for question in questions]
    for question in known:
        if question.level or len(question.relations) != question.hops or not question.hops:
            raise DataError(
                f"The expert cannot answer {question.text!r}: it knows questions of level 0 that "
                "`hanol synth questions` made from a world. Name another model."
            )
    if world.setting != "hard":
        raise DataError("The expert follows links, which only the hard setting has.")
    return Expert(world, known, detours=0.0)
