"""The model's uncertainty about its tool calls: where ParallelMuse branches (arXiv 2510.24698)."""

from hanol.engines import Completion


def call_uncertainty(completion: Completion) -> float | None:
    """Mean surprise of the tokens of a turn's tool calls, in nats.

    The paper takes the entropy of the 16 likeliest tokens at each place. Engines tell only the
    log-probability of the token that was drawn, whose negative has the full entropy as its
    expectation: that is averaged instead.

    Returns:
        None when the engine told no log-probabilities, or the turn calls no tool.
    """
    if completion.tokens is None or not completion.logprobs:
        return None
    text = "".join(completion.tokens)
    begin = text.rfind("</think>") + 1  # calls that are only thought about do not count
    begin = text.find("<tool_call>", begin)
    if begin < 0:
        return None
    surprises, place = [], 0
    for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
        place += len(token)
        if place > begin:
            surprises.append(-logprob)
    return sum(surprises) / len(surprises) if surprises else None
