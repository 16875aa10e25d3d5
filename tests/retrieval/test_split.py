"""Passages: every character is in one, in windows of the promised size, cut where it reads well."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.retrieval import split_passages

# sentences, paragraphs and scripts in random order, next to arbitrary characters
PIECES = st.sampled_from(
    [
        "word ",
        "other words, ",
        "end. ",
        "문장이다. ",
        "다음",
        "漢字",
        "かな。",
        "\n",
        "\n\n",
        "  ",
        "---",
        "…",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(PIECES, st.just("a" * 99), st.text(max_size=3)), max_size=1500).map("".join),
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_spans_cover_all_text_once_or_twice_in_order(text) -> None:
    spans = split_passages(text)
    covered = [0] * len(text)
    for start, end in spans:
        assert 0 <= start < end <= len(text)
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        for i in range(start, end):
            covered[i] += 1
    for char, times in zip(text, covered, strict=True):
        assert times in (1, 2) or (times == 0 and char.isspace())
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start < end < next_end


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["one ", "two. ", "three\n", "four.\n\n"]), max_size=2000))
def test_sizes_and_overlaps_in_words(words) -> None:
    text = "".join(words)
    spans = split_passages(text)
    sizes = [len(re.findall(r"\w+|\.", text[start:end])) for start, end in spans]
    assert all(size <= 220 for size in sizes)
    assert all(size >= 120 for size in sizes[:-1])
    for (_, end), (start, _) in pairwise(spans):
        assert 20 <= len(re.findall(r"\w+|\.", text[start:end])) <= 60


def test_short_and_blank_texts() -> None:
    assert split_passages("") == []
    assert split_passages(" \n\t\u3000") == []
    assert split_passages("  one passage. \n") == [(2, 14)]


@pytest.mark.parametrize(
    "sentence",
    ["This is sentence number {}. ", "{}번째 문장은 이렇게 끝난다. ", "第{}句话就是这样结束的。"],
)
def test_passages_begin_and_end_with_sentences(sentence) -> None:
    text = "".join(sentence.format(i) for i in range(300))
    spans = split_passages(text)
    assert len(spans) > 5
    for start, end in spans:
        assert text[end - 1] in ".。"
        assert start == 0 or text[:start].rstrip()[-1] in ".。"


def test_paragraphs_go_before_sentences() -> None:
    paragraph = "A sentence of seven words is here. " * 20
    text = "\n\n".join([paragraph.strip()] * 10)
    for start, end in split_passages(text)[:-1]:
        assert text[end : end + 2] == "\n\n"
        assert text[start:end].count("\n\n") <= 1


def test_korean_and_chinese_passages_hold_as_much_as_english_ones() -> None:
    english = split_passages("Seven words are written in this sentence. " * 200)
    korean = split_passages("이 문장에는 일곱 개의 낱말이 적혀 있습니다. " * 200)
    chinese = split_passages("这个句子里写着差不多同样多的内容。" * 200)
    sizes = [sum(end - start for start, end in s) / len(s) for s in (english, korean, chinese)]
    assert 800 < sizes[0] < 1300
    assert 300 < sizes[1] < 600
    assert 250 < sizes[2] < 450


@pytest.mark.parametrize(
    ("piece", "count", "size"),
    [
        ("word ", 300_000, 5 * 200),
        ("가", 500_000, 400),
        ("-", 800_000, 800),
        ("x", 2_000_000, 2400),
    ],
)
def test_megabytes_without_any_boundary(piece, count, size) -> None:
    text = piece * count  # hours, were any step quadratic
    spans = split_passages(text)
    assert all(end - start <= size for start, end in spans[:-1])
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text.rstrip())
    assert len(spans) == pytest.approx(len(text) / (0.8 * size), rel=0.01)
