"""Prompts within a window: cutting texts, fitting conversations, counting only what is new."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.research._context import (
    LEFT_OUT,
    Transcript,
    cut,
    cut_sentences,
    merged,
)  # private: cuts of texts at every length


def words(text: str) -> int:
    """A tokenizer: a token a word, and 4 around each message."""
    return len(text.split()) + 4


TEXTS = st.lists(st.sampled_from(["a", "bb.", "가나", "line\n", "x" * 50, "。"]), max_size=300).map(
    " ".join
)


@given(text=TEXTS, limit=st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_cut_never_exceeds_its_limit_and_keeps_the_beginning(text: str, limit: int) -> None:

    def count(text: str) -> int:  # at most a token a byte, as of every tokenizer
        return len(text.split())

    result = cut(text, limit, count)
    assert count(result) <= limit
    if count(text) <= limit:
        assert result == text
    elif result:
        head, _, note = result.rpartition("\n[Cut:")
        assert text.startswith(head)
        assert f"of a text of {count(text)} tokens" in note


@given(text=TEXTS, limit=st.integers(5, 400))
@settings(max_examples=200, deadline=None)
def test_cut_sentences_keeps_a_beginning_within_the_limit(text: str, limit: int) -> None:
    result = cut_sentences(text, limit, words)
    assert words(result) <= limit
    assert text.startswith(result)


def test_cut_sentences_ends_at_a_sentence() -> None:
    text = "One two three. Four five six. Seven eight nine ten eleven."
    assert cut_sentences(text, 12, words) == "One two three. Four five six."


@given(
    rounds=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 400)), min_size=1, max_size=30),
    limit=st.integers(80, 1500),
    closing=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_fitted_keeps_question_order_roles_and_the_newest(
    rounds: list[tuple[int, int]], limit: int, closing: bool
) -> None:
    transcript = Transcript(words)
    transcript.add("system", "system")
    transcript.add("user", "question")
    for number, (turn, observation) in enumerate(rounds):
        transcript.add("assistant", f"think{number} " + "t " * turn)
        transcript.add("user", f"newest{number} " + "o " * observation)
    order = "ANSWER NOW" if closing else ""
    messages, tokens = transcript.fitted(limit, order)
    assert tokens <= limit
    assert sum(words(message.content) for message in messages) <= limit
    assert [m.content for m in messages[:2]] == ["system", "question"]
    assert [m.role for m in messages[1:]] == ["user", "assistant"] * ((len(messages) - 2) // 2) + [
        "user"
    ]
    assert messages[-1].content.startswith(f"newest{len(rounds) - 1} ")
    assert messages[-1].content.endswith(order)
    if transcript.tokens + words(order) <= limit:
        assert len(messages) == len(transcript.messages)


@given(refused=st.lists(st.integers(1, 200), min_size=1, max_size=6), limit=st.integers(80, 1500))
def test_refused_turns_give_way_before_the_newest_result(refused: list[int], limit: int) -> None:
    transcript = Transcript(words)
    transcript.add("system", "system")
    transcript.add("user", "question")
    for number in range(3):
        transcript.add("assistant", f"think{number}")
        transcript.add("user", f"newest{number} " + "o " * 30)
    for turn in refused:
        transcript.add("assistant", "t " * turn)
        transcript.add("user", "That could not be read.", is_format_error=True)
    messages, tokens = transcript.fitted(limit, "ANSWER NOW")
    assert tokens <= limit
    assert [m.content for m in messages[:2]] == ["system", "question"]
    assert all(a.role != b.role for a, b in pairwise(messages))
    assert messages[-1].content.endswith("ANSWER NOW")
    assert any(message.content.startswith("newest2 " + "o " * 29) for message in messages)


def test_older_results_give_way_first() -> None:
    transcript = Transcript(words)
    transcript.add("system", "s")
    transcript.add("user", "q")
    for number in range(4):
        transcript.add("assistant", f"turn {number}")
        transcript.add("user", f"result {number} " + "o " * 100)
    messages, _ = transcript.fitted(transcript.tokens - 150)
    kept = [message.content for message in messages if message.role == "user"]
    assert kept[1:3] == [LEFT_OUT, LEFT_OUT]
    assert kept[3].startswith("result 2")
    assert kept[4].startswith("result 3")


def test_a_long_conversation_counts_each_text_once() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return words(text)

    transcript = Transcript(count)
    for number in range(100):
        transcript.add("user" if number % 2 else "assistant", f"message {number}")
        assert transcript.tokens
    assert len(counted) == 100


def test_what_the_engine_measured_replaces_the_estimate() -> None:
    transcript = Transcript(words)
    transcript.add("system", "a b c")
    transcript.add("user", "d")
    transcript.measured(6)
    assert transcript.tokens == 6
    transcript.add("assistant", "e f")
    assert transcript.tokens == 6 + words("e f")
    transcript.replace_last("e")
    assert transcript.tokens == 6 + words("e")


def test_merged_joins_neighbours() -> None:
    transcript = Transcript(words)
    for role, text in [("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")]:
        transcript.add_apart(role, text)
    assert [(m.role, m.content) for m in merged(transcript.messages)] == [
        ("user", "a"),
        ("assistant", "b\n\nc"),
        ("user", "d"),
    ]
