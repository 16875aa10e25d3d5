"""Tokens of growing conversations, texts of single tokens, and prefixes worth keeping."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from hanol.engines import Message
from hanol.engines.checkpoint._chat import (  # private: pieces against the whole
    ChatTokens,
    common_prefix,
)
from hanol.engines.checkpoint._prefixes import (  # private: what is kept and what is dropped
    KeptPrefix,
    PrefixStore,
)
from hanol.sampling import TextStream, token_texts

from .conftest import LLAMA, QWEN3, tokenizer

CONTENT = st.text(st.sampled_from("ab the\n0<|endsr>"), max_size=30)


def fresh(made: PreTrainedTokenizerFast, text: str) -> list[int]:
    ids: list[int] = made(text, add_special_tokens=False).input_ids
    return ids


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(CONTENT, min_size=1, max_size=6), min_size=1, max_size=5))
@pytest.mark.parametrize("template", [LLAMA, QWEN3])
def test_remembered_tokens_are_those_of_the_whole_text(
    template: str, conversations: list[list[str]]
) -> None:
    made = tokenizer(template)
    chat = ChatTokens(made, None, "m")
    for contents in conversations:
        messages: list[Message] = []
        for i, content in enumerate(contents):
            messages.append(Message("assistant" if i % 2 else "user", content))
            for answer in (True, False):
                text = chat.render(messages, answer=answer)
                assert chat.encode(text).ids == fresh(made, text)


def test_only_the_new_part_of_a_conversation_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenizer(LLAMA)
    chat = ChatTokens(made, None, "m")
    chat.encode(chat.render([Message("user", "the " * 500)]))
    seen: list[str] = []
    call = type(made).__call__

    def spied(self: object, texts: list[str], **options: object) -> object:
        seen.extend(texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(made), "__call__", spied)
    said = [Message("user", "the " * 500), Message("assistant", "a"), Message("user", "more")]
    chat.encode(chat.render(said))
    assert sum(map(len, seen)) < 100


@pytest.mark.parametrize("wrong", ["lstrip", "rstrip", "longer"])
def test_a_special_token_that_takes_from_its_neighbours_is_no_border(wrong: str) -> None:
    """Text before it may grow into another token when the text after it changes."""
    made = tokenizer(None)
    if wrong == "longer":
        made.add_tokens([AddedToken("<|end|>aa", special=True, normalized=False)])
    else:
        made.add_tokens([AddedToken("<|x|>", special=True, normalized=False, **{wrong: True})])
    chat = ChatTokens(made, None, "m")
    for text in ("one <|end|>a <|x|> a", "one <|end|>aa<|x|>  a", "one <|end|>aab <|x|>\n\nb"):
        assert chat.encode(text).ids == fresh(made, text)


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_the_common_prefix_is_the_longest(a: list[int], b: list[int]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


def test_text_appears_in_whole_characters() -> None:
    made = tokenizer(None, ascii_only=False)
    ids = fresh(made, "a 서울 b")
    stream = TextStream(token_texts(made), fresh(made, "prompt"), ())
    shown = []
    for token in ids:
        stream.push(token)
        shown.append(stream.text)
    stream.end()
    assert stream.text == "a 서울 b"
    assert len(ids) > 8
    assert not any("\ufffd" in text for text in shown)
    assert "".join(stream.pieces()) == stream.text
    assert stream.kept_tokens == len(ids)
    half = TextStream(token_texts(made), [], ())
    for token in ids[:3]:
        half.push(token)
    half.end()
    assert half.text.startswith("a ")  # what is left of a letter is not lost


@given(CONTENT, st.lists(st.text("ab the", min_size=1, max_size=4), max_size=3))
def test_a_text_is_cut_at_the_first_stop_that_is_complete(text: str, stop: list[str]) -> None:
    made = tokenizer(None)
    ids = fresh(made, text)
    stream = TextStream(token_texts(made), [], tuple(stop))
    for token in ids:
        stream.push(token)
        if stream.stopped:
            break
    stream.end()
    expected = text
    for n in range(1, len(ids) + 1):
        so_far = made.decode(ids[:n])
        if places := [so_far.find(word) for word in stop if word in so_far]:
            expected = so_far[: min(places)]
            break
    assert stream.text == expected
    assert stream.stopped == any(word in text for word in stop)
    assert "".join(stream.pieces()) == stream.text


def entry(ids: list[int], points: list[int] | None = None, width: int = 250) -> KeptPrefix:
    states = None if points is None else {n: [torch.zeros(1)] for n in points}
    return KeptPrefix(ids, [torch.zeros(1, len(ids), width)], states)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    assert entry([1, 2, 3, 4]).usable([1, 2, 3, 4]) == 3
    assert entry([1, 2, 3, 4]).usable([1, 2, 9]) == 2
    assert entry([1, 2, 3, 4], [2, 4]).usable([1, 2, 3, 4]) == 2
    assert entry([1, 2, 3, 4], [2, 4]).usable([1, 2, 3, 4, 5]) == 4
    assert entry([1, 2, 3, 4], [4]).usable([1, 2, 3, 9]) == 0


def test_the_store_holds_the_most_recent_within_its_memory() -> None:
    store = PrefixStore(max_bytes=3 * 4 * 1100)
    for first in range(3):
        store.put(entry([first, 1, 1, 1]))
    assert store.longest([0, 1, 1, 1, 1])[1] == 4  # and is now the most recent
    store.put(entry([9, 1, 1, 1]))
    assert store.longest([0, 1, 1, 1, 1])[1] == 4
    assert store.longest([1, 1, 1, 1, 1])[1] == 0
    store.put(entry([8], width=10**6))
    assert store.longest([0, 1, 1, 1, 1]) == (None, 0)


def test_a_conversation_that_grows_is_kept_once() -> None:
    store = PrefixStore(max_bytes=10**6)
    store.put(entry([1, 2], [2]))
    store.put(entry([1, 2, 3, 4], [4]))
    [kept] = store.entries
    assert kept.points is not None
    assert sorted(kept.points) == [2, 4]
    store.put(entry([1, 2, 3], [3]))  # a shorter one adds where it ends
    [kept] = store.entries
    assert len(kept.ids) == 4
    assert sorted(kept.points or {}) == [2, 3, 4]
    for length in range(5, 40):
        store.put(entry([1, 2, 3, 4, *range(5, length + 1)], [length]))
    points = sorted(store.entries[0].points or {})
    assert points[0] == 2  # where other conversations part
    assert points[1:] == list(range(33, 40))


IDS = st.lists(st.integers(0, 1), min_size=1, max_size=10)


@settings(max_examples=200, deadline=None)
@given(st.lists(IDS, max_size=8), IDS)
def test_the_store_finds_what_saves_the_most(sequences: list[list[int]], ids: list[int]) -> None:
    store = PrefixStore(max_bytes=10**6)
    for sequence in sequences:
        store.put(entry(list(sequence)))
    found, tokens = store.longest(ids)
    assert tokens == max((entry(one).usable(ids) for one in sequences), default=0)
    assert (found is None) == (tokens == 0)
    kept = [one.ids for one in store.entries]
    assert not any(a != b and b[: len(a)] == a for a in kept for b in kept)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(IDS, st.integers(1, 10)), max_size=8), IDS)
def test_the_store_finds_the_last_usable_point(
    sequences: list[tuple[list[int], int]], ids: list[int]
) -> None:
    store = PrefixStore(max_bytes=10**6)
    entries = [entry(one, sorted({min(point, len(one)), len(one)})) for one, point in sequences]
    most = max((one.usable(ids) for one in entries), default=0)
    for one in entries:
        store.put(one)
    assert store.longest(ids)[1] == most


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(IDS, IDS), max_size=20))
def test_a_full_store_keeps_its_books(steps: list[tuple[list[int], list[int]]]) -> None:
    """Nothing that was forgotten is found, and memory is counted rightly."""
    store = PrefixStore(max_bytes=12_000)
    for new, asked in steps:
        store.put(entry(new, [len(new)]))
        found, tokens = store.longest(asked)
        kept = store.entries
        assert sum(one.nbytes for one in kept) == sum(store._sizes.values()) <= 12_000
        assert tokens == max((one.usable(asked) for one in kept), default=0)
        assert found is None or any(found is one for one in kept)
        assert set(store._through.values()) | set(store._points.values()) <= set(kept)
