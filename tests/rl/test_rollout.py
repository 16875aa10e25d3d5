"""Turns to token sequences: nothing lost, nothing twice, nothing learned that was only read."""

from hypothesis import given
from hypothesis import strategies as st

from hanol.rl import Rollout, SampledTurn, join_turns
from hanol.runs import RunEnded, Task, Termination

Tokens = tuple[int, ...]
_tokens = st.lists(st.integers(0, 3), max_size=5).map(tuple)  # few kinds: prefixes by chance


@st.composite
def _runs(draw: st.DrawFn) -> list[SampledTurn]:
    """Turns that go on with the sequence so far, begin anew, or repeat only a part of it."""
    turns: list[SampledTurn] = []
    so_far: Tokens = ()
    for _ in range(draw(st.integers(0, 7))):
        kept = draw(st.sampled_from(["all", "none", "part"]))
        if kept == "part":
            so_far = so_far[: draw(st.integers(0, len(so_far)))]
        prompt = draw(_tokens) if kept == "none" else so_far + draw(_tokens)
        written = draw(_tokens)
        logprobs = tuple(-float(len(turns)) - i / 8 for i in range(1, len(written) + 1))
        turns.append(SampledTurn(prompt, written, logprobs))
        so_far = prompt + written
    return turns


@given(_runs())
def test_every_sampled_token_is_learned_once_in_order(turns: list[SampledTurn]) -> None:
    segments = join_turns(turns)
    learned = [
        (token, logprob)
        for segment in segments
        for token, is_action, logprob in zip(
            segment.input_ids, segment.action_mask, segment.logprobs, strict=True
        )
        if is_action
    ]
    drawn = [pair for t in turns for pair in zip(t.token_ids, t.logprobs, strict=True)]
    assert learned == drawn


@given(_runs())
def test_each_token_stands_after_the_context_that_it_was_drawn_in(turns: list[SampledTurn]) -> None:
    contexts = []
    for segment in join_turns(turns):
        for place, is_action in enumerate(segment.action_mask):
            if is_action:
                contexts.append(segment.input_ids[:place])
            else:
                assert segment.logprobs[place] == 0.0
    assert contexts == [
        turn.prompt_ids + turn.token_ids[:i] for turn in turns for i in range(len(turn.token_ids))
    ]


def test_a_conversation_that_grows_is_one_sequence() -> None:
    turns = [
        SampledTurn((1, 2), (3, 4), (-0.5, -0.25)),
        SampledTurn((1, 2, 3, 4, 5), (6,), (-1.0,)),
    ]
    (segment,) = join_turns(turns)
    assert segment.input_ids == (1, 2, 3, 4, 5, 6)
    assert segment.action_mask == (False, False, True, True, False, True)
    assert segment.logprobs == (0.0, 0.0, -0.5, -0.25, 0.0, -1.0)


def test_rounds_of_a_report_and_restarts_are_sequences_of_their_own() -> None:
    turns = [
        SampledTurn((1, 2), (3, 4), (-0.5, -0.5)),
        SampledTurn((1, 2, 9), (5,), (-1.0,)),  # same system prompt, another report
        SampledTurn((1, 2, 9, 5, 7), (6,), (-2.0,)),  # goes on with the one before
    ]
    assert [s.input_ids for s in join_turns(turns)] == [(1, 2, 3, 4), (1, 2, 9, 5, 7, 6)]


def test_only_an_answer_of_its_own_accord_counts_as_one() -> None:
    def rollout(termination: Termination, answer: str | None) -> Rollout:
        ended = RunEnded(
            number=0, time=0.0, step=1, termination=termination, answer=answer, citations=None,
            model_calls=1, tool_calls=0, prompt_tokens=1, completion_tokens=1, seconds=0.0, money=0,
        )  # fmt: skip
        return Rollout(Task("1", "?"), (ended,), (), 0.0)

    assert rollout("answer", "Seoul").has_answer
    assert not rollout("max_calls", "Seoul").has_answer
    assert not Rollout(Task("1", "?"), (), (), None, "broken").has_answer
