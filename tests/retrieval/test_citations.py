"""Citations: what is borne out passes, what was changed or made up does not."""

import json
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanol.retrieval import CheckedSentence, SourceList, check_citations, split_sentences

PASSAGES = {
    1: (
        "Kimi Linear report",
        "Kimi Linear interleaves three layers of Kimi Delta Attention with one layer of full "
        "attention, a 3:1 ratio. It was released on October 30, 2025 by Moonshot AI. The key-value "
        "cache shrinks by up to 75%, and decoding is up to 6.3 times faster at a context of "
        '1,048,576 tokens. The authors write: "the model outperforms full atten-\ntion under fair '
        'comparisons". The larger checkpoint, Kimi-Linear-48B-A3B, has 48 billion parameters.',
    ),
    2: (
        "서울 통계",
        "서울특별시의 인구는 약 940만 명이며 면적은 605.2 km²이다. 2024년 3월 5일 기준이다. "
        "예산은 45조 7,405억 원이다.",
    ),
    3: ("東京", "東京都は日本の首都である。人口は約1,400万人。都庁は新宿区にある。"),
    4: (
        "SourceList",
        "Revenue fell from $1.2 million in 2023 to $950,000 in 2024, a change of -20.8 percent. "
        "Temperatures reached -5 degrees. The board met on 3 April 2024 in Geneva.",
    ),
}


@pytest.fixture(scope="module")
def source_list() -> SourceList:
    source_list = SourceList()
    for number, (title, text) in PASSAGES.items():
        source = source_list.cite(
            text, address=f"doc://{number:08}/a", title=title, sha256="0" * 64
        )
        assert source.number == number
    return source_list


def one(answer: str, source_list: SourceList) -> CheckedSentence:
    report = check_citations(answer, source_list)
    assert len(report.sentences) == 1, [sentence.text for sentence in report.sentences]
    return report.sentences[0]


SUPPORTED = [
    "Kimi Linear mixes KDA and full attention at a ratio of 3:1 [1].",
    "The cache shrinks by up to 75 percent [1].",
    "Decoding is up to 6.30 times faster at 1048576 tokens [1].",
    "It was released on 2025-10-30 [1].",
    "Moonshot AI released it on 30 October 2025 [1].",
    "It came out in October 2025 [1].",
    "It was released in 2025 [1].",
    "The authors claim that “the model outperforms full attention” [1].",
    'They say it "outperforms full attention under fair comparisons".[1]',
    "Kimi-Linear-48B-A3B has 48B parameters [1].",
    "Kimi-Linear-48B-A3B has 48,000,000,000 parameters【1】.",
    "It uses 3 layers of delta attention for each layer of full attention [1].",
    "서울의 인구는 약 9,400,000명이다 [2].",
    "서울특별시는 인구가 940만 명이고 면적은 605.2km²입니다 [2].",
    "예산은 45조 7405억 원이다 [2].",
    "2024-03-05 기준으로 서울의 인구는 940만 명이다 [2].",
    "東京都の人口は約1400万人である[3]。",
    "都庁は新宿区にある。[3]",
    "Revenue fell by 20.8% [4].",
    "Revenue was 1,200,000 dollars in 2023 [4].",
    "Temperatures reached −5 degrees [4].",
    "The board met in Geneva on April 3, 2024 [4].",
    "The board met on 3 April [4].",
    "Kimi Linear appeared in 2025 [1], and the board met in Geneva in 2024 [4].",
    "**Kimi Linear** uses a `3:1` ratio [1, 4].",
]


@pytest.mark.parametrize("answer", SUPPORTED)
def test_what_the_passage_says_is_supported(answer: str, source_list: SourceList) -> None:
    sentence = one(answer, source_list)
    assert (sentence.status, sentence.missing) == ("supported", ())
    assert any(citation.supports for citation in sentence.citations)


UNSUPPORTED = [
    ("Kimi Linear mixes them at a ratio of 4:1 [1].", "4:1"),
    ("The cache shrinks by up to 76% [1].", "76"),
    ("Decoding is up to 6.4 times faster at 1048576 tokens [1].", "6.4"),
    ("Decoding is up to 63 times faster [1].", "63"),
    ("It was released on 2025-10-31 [1].", "2025-10-31"),
    ("It was released in November 2025 [1].", "November 2025"),
    ("It was released on October 30, 2024 [1].", "October 30, 2024"),
    ("Released by DeepMind, Kimi Linear uses a 3:1 ratio [1].", "DeepMind"),
    ("The Kimi model was trained by Alibaba [1].", "Alibaba"),
    ("Kimi-Linear-49B-A3B has 48 billion parameters [1].", "Kimi-Linear-49B-A3B"),
    ("It has 48 million parameters on the larger checkpoint [1].", "48 million"),
    (
        'The authors write: "the model matches full attention" [1].',
        "the model matches full attention",
    ),
    ("서울의 인구는 약 950만 명이다 [2].", "950만"),
    ("서울의 인구는 약 94만 명이다 [2].", "94만"),
    ("부산의 인구는 약 940만 명이다 [2].", "부산"),
    ("2024년 3월 6일 기준으로 서울의 인구는 940만 명이다 [2].", "2024년 3월 6일"),
    ("예산은 45조 7,406억 원이다 [2].", "45조 7,406억"),
    ("東京都の人口は約1500万人である[3]。", "1500万"),
    ("Temperatures reached -6 degrees [4].", "-6"),
    ("The board met in Zurich on April 3, 2024 [4].", "Zurich"),
    ("Revenue was $1.2 billion in 2023 [4].", "1.2 billion"),
]


@pytest.mark.parametrize(("answer", "missing"), UNSUPPORTED)
def test_what_was_changed_is_named(answer: str, missing: str, source_list: SourceList) -> None:
    sentence = one(answer, source_list)
    assert (sentence.status, sentence.missing) == ("unsupported", (missing,))
    assert not any(citation.supports for citation in sentence.citations)


def test_the_right_number_behind_the_wrong_source(source_list: SourceList) -> None:
    assert one("The cache shrinks by up to 75% [4].", source_list).status == "unsupported"
    assert one("The cache shrinks by up to 75% [4][1].", source_list).status == "supported"


def test_other_words_are_unsupported(source_list: SourceList) -> None:
    sentence = one("Penguins hunt small fish in cold southern waters [1].", source_list)
    assert (sentence.status, sentence.missing) == ("unsupported", ())
    assert sentence.overlap is not None
    assert sentence.overlap < 0.2
    sentence = one("Penguins hunt at a ratio of roughly 3:1 [1].", source_list)
    assert (sentence.status, sentence.overlap) == ("unsupported", 0.25)


def test_across_languages_what_reads_the_same_is_compared(source_list: SourceList) -> None:
    assert one("키미 리니어는 캐시를 최대 75% 줄인다 [1].", source_list).status == "supported"
    assert one("키미 리니어는 캐시를 최대 85% 줄인다 [1].", source_list).missing == ("85",)
    assert one("키미 리니어는 캐시를 크게 줄인다 [1].", source_list).status == "unsupported"
    assert one("Seoul has 9.4 million inhabitants [2].", source_list).status == "supported"
    assert one("Seoul has 9.5 million inhabitants [2].", source_list).missing == ("9.5 million",)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_number_is_supported_only_by_itself(stated: int, cited: int) -> None:
    source_list = SourceList()
    source_list.cite(f"There are {stated:,} stars here.", address="a", title="t", sha256="0")
    for form in (str(cited), f"{cited:,}", f"{cited}.0"):
        status = one(f"There are {form} stars here [1].", source_list).status
        assert status == ("supported" if cited == stated else "unsupported")


@settings(max_examples=200, deadline=None)
@given(st.dates(), st.dates(), st.data())
def test_dates_in_any_spelling(stated: object, cited: object, data: st.DataObject) -> None:
    import datetime

    assert isinstance(stated, datetime.date)
    assert isinstance(cited, datetime.date)

    def forms(day: datetime.date) -> list[str]:
        year = f"{day.year:04d}"
        return [
            f"{year}-{day.month:02d}-{day.day:02d}",
            f"{year}.{day.month:02d}.{day.day:02d}",
            f"{year}년 {day.month}월 {day.day}일",
            f"{year}年{day.month}月{day.day}日",
            f"{day:%B} {day.day}, {year}",
            f"{day.day} {day:%b} {year}",
        ]

    source_list = SourceList()
    text = f"The bridge opened on {data.draw(st.sampled_from(forms(stated)))} to traffic."
    source_list.cite(text, address="a", title="t", sha256="0")
    answer = f"The bridge opened on {data.draw(st.sampled_from(forms(cited)))} to traffic [1]."
    assert one(answer, source_list).status == ("supported" if cited == stated else "unsupported")


def test_invented_sources(source_list: SourceList) -> None:
    report = check_citations(
        "The ratio is 3:1 [1][7]. It is fast [99]. Full attention [1].", source_list
    )
    assert report.invented == (7, 99)
    assert [sentence.status for sentence in report.sentences] == [
        "invented",
        "invented",
        "supported",
    ]
    first = report.sentences[0]
    assert [(c.number, c.known, c.supports) for c in first.citations] == [
        (1, True, True),
        (7, False, False),
    ]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[1]", [1]),
        ("[1, 3]", [1, 3]),
        ("[1][2]", [1, 2]),
        ("[1-3]", [1, 2, 3]),
        ("[1–3, 4]", [1, 2, 3, 4]),
        ("[ 2 ; 3 ]", [2, 3]),
        ("【4】", [4]),
        ("[1, 1]", [1]),
        ("[3-1]", [3, 1]),
        ("[1-999999999]", [1, 999999999]),
        ("【1†source】【3†L1-L3】", [1, 3]),
        ("【2:0†notes.pdf】", [2]),
        ("[3†L12-L40]", [3]),
        ("[^1][^3]", [1, 3]),
        ("[^1, ^3]", [1, 3]),
        ("[^1^]", [1]),
        (r"\[1, 3\]", [1, 3]),
        ("[Source 1]", [1]),
        ("[Sources 1 and 2]", [1, 2]),
        ("[source 1; source 3]", [1, 3]),
        ("[Ref. 2]", [2]),
        ("[Reference #2]", [2]),
        ("[citation:1][citation:3]", [1, 3]),
        ("[cite: 1, 3]", [1, 3]),
        ("[doc1]", [1]),
        ("[web:4]", [4]),
        ("[출처 1, 2]", [1, 2]),
        ("【来源3】", [3]),
        ("（出典1）", [1]),
        ("(Source: 1)", [1]),
        ("[[2]](https://example.org/a_7)", [2]),
        ("[2](doc://0a1b2c3d/x.pdf#p3)", [2]),
        ("[1, p. 30]", [1]),
        ("[1: Kimi Linear report]", [1]),
        ("[see note 3]", [3]),
        ("<ref>1</ref>", [1]),
        ("<cite>[1, 3]</cite>", [1, 3]),
        (r"\cite{1,3}", [1, 3]),
        ("¹", [1]),
        ("<sup>1</sup>", [1]),
        ("⁽²⁾", [2]),
        ("［１，３］", [1, 3]),
        ("[١, ٣]", [1, 3]),
        ("〔1〕〖2〗", [1, 2]),
        ("[1~3]", [1, 2, 3]),
        ("[1 to 3]", [1, 2, 3]),
        ("[1 & 3]", [1, 3]),
    ],
)
def test_forms_of_citations(text: str, numbers: list[int], source_list: SourceList) -> None:
    sentence = one(f"Attention matters {text}.", source_list)
    assert [citation.number for citation in sentence.citations] == numbers


@pytest.mark.parametrize(
    "mark",
    ["[1번]", "[1번 문서]", "(1번 자료)", "[출처: 1번]", "[참고 1]", "[검색결과 1]", "[No. 1]",
     "[S1]", "[1.]", "【1 source】", "[webpage 1 end]"],
)  # fmt: skip
def test_marks_of_other_prompts(mark: str, source_list: SourceList) -> None:
    for text in ("Attention matters {}.", "Attention matters. {}"):
        sentence = one(text.format(mark), source_list)
        assert [citation.number for citation in sentence.citations] == [1]


@pytest.mark.parametrize("mark", ["¹", "¹,³", "¹⁻³", "<sup>1</sup>", "<sup>[1]</sup>"])
@pytest.mark.parametrize("text", ["Attention matters{}.", "Attention matters.{}", "중요하다.{}"])
def test_raised_citations(mark: str, text: str, source_list: SourceList) -> None:
    sentence = one(text.format(mark), source_list)
    numbers = {"¹,³": [1, 3], "¹⁻³": [1, 2, 3]}.get(mark, [1])
    assert [citation.number for citation in sentence.citations] == numbers


@pytest.mark.parametrize(
    "text",
    ["605.2 km²", "E = mc²", "10<sup>3</sup> m", "H₂O", "see (1) and (2)", "[Fig. 1]", "[Table 2]",
     "t in [1, T]", "x[1:n]",
     "a[i]", "[in 2019]", "(No. 5)", "[No. 5 of 9]", "(1번)", "[5 ends]", "[2 results]",
     "a document (3 pages)"],
)  # fmt: skip
def test_what_is_no_citation(text: str, source_list: SourceList) -> None:
    assert check_citations(f"Attention matters {text}.", source_list).citations == ()


@pytest.mark.parametrize("mark", ["【1†L1-L3】", "[^1]", r"\[1\]", "[Source 1]", "(ref. 1)", "¹"])
def test_other_marks_are_no_facts_of_their_sentence(mark: str, source_list: SourceList) -> None:
    space = "" if mark == "¹" else " "
    assert one(f"The ratio is 3:1 of layers{space}{mark}.", source_list).status == "supported"
    assert one(f"The ratio is 4:1 of layers{space}{mark}.", source_list).missing == ("4:1",)
    assert one(f"It is a ratio of layers{space}{mark.replace('1', '9', 1)}.", source_list)


@pytest.mark.parametrize(
    ("said", "other"),
    [
        ("मीनार 330 मीटर ऊँची है", "नदी 330 दिन सूखी रहती थी"),
        ("หอคอยสูงสามร้อยเมตรและสร้างในปี ๒๔๗๔", "แมวนอนอยู่บนโต๊ะทั้งวัน ๒๔๗๔"),
        ("البرج ارتفاعه ٣٣٠ مترا", "النهر أزرق جدا ٣٣٠"),
        ("ប៉មនេះមានកម្ពស់ ៣៣០ ម៉ែត្រ", "ឆ្មាដេកនៅលើតុ ៣៣០ ថ្ងៃ"),
    ],
)
def test_scripts_with_marks_and_without_spaces(said: str, other: str) -> None:
    source_list = SourceList()
    source_list.cite(said, address="a", title="t", sha256="0")
    assert one(f"{said} [1]", source_list).status == "supported"
    assert one(f"{other} [1]", source_list).status == "unsupported"
    plain = unicodedata.normalize("NFD", said).translate(str.maketrans("๒๔๗٣٠៣០", "2473030"))
    assert one(f"{plain} [1]", source_list).status == "supported"


def test_footnotes_are_a_list_of_sources(source_list: SourceList) -> None:
    answer = "The ratio is 3:1 [^1].\n\n[^1]: The report of 2019, page 7.\n[^2]: Another, 2020."
    statuses = [sentence.status for sentence in check_citations(answer, source_list).sentences]
    assert statuses == ["supported", "not_a_claim"]


def test_citations_are_found_where_they_stand(source_list: SourceList) -> None:
    answer = "서울의 인구는 940만 명이다 [2]. The ratio is 3:1 [1, 4]."
    for citation in check_citations(answer, source_list).citations:
        shown = answer[citation.start : citation.end]
        assert shown.startswith("[")
        assert shown.endswith("]")
        assert str(citation.number) in shown


@pytest.mark.parametrize(
    "text",
    [
        "# Results of 2025",
        "In summary:",
        "요약하면:",
        "The report names three reasons:",
        "What is the ratio?",
        "비율은 얼마인가요?",
        "---",
        "However,",
        "The documents do not mention this.",
        "문서에서 관련 내용을 찾을 수 없습니다.",
        "```python\nx = data[7]\n```",
        "**",
    ],
)
def test_no_claims(text: str, source_list: SourceList) -> None:
    assert all(s.status == "not_a_claim" for s in check_citations(text, source_list).sentences)


@pytest.mark.parametrize(
    "text",
    [
        "The ratio is 3:1.",
        "서울의 인구는 940만 명이다.",
        "東京は首都である。",
        "Attention is fast.",
    ],
)
def test_claims_need_a_source(text: str, source_list: SourceList) -> None:
    assert one(text, source_list).status == "uncited"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Ends.[1] Next.", ["Ends.[1]", "Next."]),
        ("Ends. [1] Next [2]. Last", ["Ends. [1]", "Next [2].", "Last"]),
        ("Dr. Kim met Prof. Lee. They left.", ["Dr. Kim met Prof. Lee.", "They left."]),
        ("J. K. Rowling wrote it. Yes.", ["J. K. Rowling wrote it.", "Yes."]),
        ("It costs 3.5 dollars. Cheap.", ["It costs 3.5 dollars.", "Cheap."]),
        ("See Fig. 3 and e.g. Sec. 2.1. Done.", ["See Fig. 3 and e.g. Sec. 2.1.", "Done."]),
        ("By Lee et al. [1] it holds. Yes.", ["By Lee et al. [1] it holds.", "Yes."]),
        ("Read https://a.b/c.d?e=f. Then stop.", ["Read https://a.b/c.d?e=f.", "Then stop."]),
        ("Use `a. B` here. Done.", ["Use `a. B` here.", "Done."]),
        ('He said "It works. It does." Then left.', ['He said "It works. It does."', "Then left."]),
        ("Acme Inc. was sold. Acme Inc. grew.", ["Acme Inc. was sold.", "Acme Inc. grew."]),
        ("인구는 940만 명이다. 면적은 605.2다.", ["인구는 940만 명이다.", "면적은 605.2다."]),
        ("首都である。人口は多い！本当？", ["首都である。", "人口は多い！", "本当？"]),
        ("彼は「雨だ。」と言った。次。", ["彼は「雨だ。」と言った。", "次。"]),
        ("首都です[1]。次です。[2]終わり", ["首都です[1]。", "次です。[2]", "終わり"]),
        ("यह ऊँची है [1]। वह नहीं है।[2] क्यों", ["यह ऊँची है [1]।", "वह नहीं है।[2]", "क्यों"]),
        ("နေပါတယ်။ သွားပါတယ်။", ["နေပါတယ်။", "သွားပါတယ်။"]),
        ("متى؟ غدا۔ نعم", ["متى؟", "غدا۔", "نعم"]),
        ("Wait... no. Yes", ["Wait... no.", "Yes"]),
        ("- First. Second.\n- Third", ["First.", "Second.", "Third"]),
        ("1. One\n2) Two\n   goes on", ["One", "Two\n   goes on"]),
        ("> Quoted. More.", ["Quoted.", "More."]),
        ("| a. B | c |\n|---|---|\n| d. E | f |", ["| a. B | c |", "| d. E | f |"]),
        ("Lines\nthat go on. And\nmore", ["Lines\nthat go on.", "And\nmore"]),
        ("# A. B\nText.", ["# A. B", "Text."]),
        ("```\na. B\n\nc. D\n```\nText", ["```\na. B\n\nc. D\n```", "Text"]),
        ("~~~\nunclosed. Code", ["~~~\nunclosed. Code"]),
        ("**Bold.** Next.", ["**Bold.**", "Next."]),
        ("In the U.S. it rose. Fine.", ["In the U.S. it rose.", "Fine."]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert [text[unit.start : unit.end] for unit in split_sentences(text)] == sentences


def test_list_of_sources(source_list: SourceList) -> None:
    answer = "The ratio is 3:1 [1].\n\n## Sources\n[1] Some paper, 1999\n[8] Another, 2001\n"
    report = check_citations(answer, source_list)
    assert [sentence.status for sentence in report.sentences][:2] == ["supported", "not_a_claim"]
    assert report.invented == (8,), "an invented source is found in the list as well"


def test_totals(source_list: SourceList) -> None:
    answer = (
        "# Answer\nThe ratio is 3:1 [1, 2]. The cache shrinks by 80% [1]. It is fast. "
        "It is new [50]."
    )
    report = check_citations(answer, source_list)
    assert report.counts == {
        "supported": 1,
        "unsupported": 1,
        "invented": 1,
        "uncited": 1,
        "not_a_claim": 1,
    }
    assert report.precision == pytest.approx(1 / 4)  # [1] of the first; not [2], [1], [50]
    assert report.recall == pytest.approx(1 / 4)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["invented"] == [50]
    assert data["sentences"][2]["missing"] == ["80"]
    empty = check_citations("", source_list)
    assert (empty.precision, empty.recall, empty.sentences) == (None, None, ())


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(
                [
                    "[1]",
                    "[1",
                    "1]",
                    ". ",
                    "。",
                    '"',
                    "“",
                    "”",
                    "「",
                    "```",
                    "\n",
                    "\n\n",
                    "# ",
                    "| ",
                    "- ",
                    "3,",
                    "45",
                    "억",
                    "만 ",
                    "2024-",
                    "March ",
                    "0.",
                    "[1-",
                    "https://",
                    "`",
                    "**",
                ]
            ),
        ),
        max_size=40,
    )
)
def test_any_answer_is_covered_in_order(source_list: SourceList, pieces: list[str]) -> None:
    answer = "".join(pieces)
    report = check_citations(answer, source_list)
    end = 0
    for sentence in report.sentences:
        assert end <= sentence.start < sentence.end <= len(answer)
        assert answer[sentence.start : sentence.end] == sentence.text
        end = sentence.end
    json.dumps(report.to_dict())


@pytest.mark.parametrize(
    "piece",
    [
        "a. ",
        "[",
        "1,",
        '"',
        "| a ",
        "A",
        "천",
        "1억 ",
        "b-1.",
        "「",
        "(",
        "[1 ",
        "(ref ",
        "a¹",
        "¹",
        "†",
    ],
)
def test_long_answers_take_no_longer_than_their_length(piece: str, source_list: SourceList) -> None:
    """No pattern backtracks: this would take minutes, not a second."""
    check_citations(piece * (40_000 // len(piece)) + " [1]", source_list)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("The errors were 1e-5 and 0.01 [1].", "supported"),
        ("The errors were 1E-05 and 1e-2 [1].", "supported"),
        ("The errors were 1e-5 and 1e-3 [1].", "unsupported"),
        ("The errors were 1e5 and 1e-2 [1].", "unsupported"),
        ("The errors were 1e999999999 and 1e-2 [1].", "unsupported"),
    ],
)
def test_exponents_are_part_of_a_number(answer: str, status: str) -> None:
    source_list = SourceList()
    source_list.cite("The errors were 1e-5 and 1e-2.", address="a", title="t", sha256="0")
    assert one(answer, source_list).status == status


def test_a_quotation_of_a_broken_tag_is_found() -> None:
    source_list = SourceList()
    source_list.cite("Calls stand between <tool_call> tags.", address="a", title="t", sha256="0")
    answer = 'It says "calls stand between <\u200btool_call> tags" [1].'
    assert one(answer, source_list).status == "supported"


HONEY = "The hives made 300 kg of honey in 2023 and 260 kg in 2024."
APART = "In 2023 the hives made 300 kg of honey. In 2024 they made 260 kg."
ROW = "Region: North; 2022: 14; 2023: 300; 2024: 260"
CITIES = "Berlin has 3.6 million inhabitants, Madrid 3.3 million."
RESPECTIVELY = "2023년과 2024년의 생산량은 각각 300kg과 260kg이다."


@pytest.mark.parametrize(
    ("passage", "sentence", "status"),
    [
        (HONEY, "It was 300 kg in 2023 and 260 kg in 2024.", "supported"),
        (HONEY, "It was 260 kg in 2023 and 300 kg in 2024.", "unsupported"),
        (HONEY, "In 2024 the hives made 260 kg, after 300 kg in 2023.", "supported"),
        (HONEY, "From 2023 to 2024 the honey fell from 300 kg to 260 kg.", "supported"),
        (HONEY, "From 2023 to 2024 the honey rose from 260 kg to 300 kg.", "unsupported"),
        (APART, "The hives made 300 kg in 2023 and 260 kg in 2024.", "supported"),
        (APART, "In 2024 the hives made 300 kg of honey, in 2023 260 kg.", "unsupported"),
        (ROW, "North: 260 in 2024, 14 in 2022.", "supported"),
        (ROW, "North had 260 in 2023 and 300 in 2024.", "unsupported"),
        (CITIES, "Madrid has 3.3 million inhabitants and Berlin 3.6 million.", "supported"),
        (CITIES, "Berlin has 3.3 million inhabitants and Madrid 3.6 million.", "unsupported"),
        (RESPECTIVELY, "생산량은 2023년 300kg, 2024년 260kg이다.", "supported"),
        (RESPECTIVELY, "생산량은 2023년 260kg, 2024년 300kg이다.", "unsupported"),
    ],
)
def test_numbers_given_to_each_others_years(passage: str, sentence: str, status: str) -> None:
    sources = SourceList()
    sources.cite(passage, address="a", title="T", sha256="0")
    assert check_citations(f"{sentence} [1]", sources).sentences[0].status == status


def status_of(sentence: str, source: str) -> str:
    sources = SourceList()
    sources.cite(source, address="a", title="T", sha256="0")
    (checked,) = check_citations(sentence, sources).sentences
    return checked.status


# Numbers with one unit each: a source with any of a row supports a sentence with any of it, and
# none with one of another row.
SAME = [
    ["330 km", "330km", "330 kilometres", "330 kilometers", "330 킬로미터", "330킬로미터"],
    ["330 m", "330m", "330 metres", "330-metre", "330미터", "330 미터"],
    ["330 %", "330%", "330 percent", "330 per cent", "330퍼센트"],
    ["330 kg", "330 kilograms", "330킬로그램"],
    ["330 km²", "330 square kilometres", "330제곱킬로미터"],
    ["330 hours", "330 h", "330시간"],
    ["330 GB", "330GB", "330 gigabytes", "330기가바이트"],
    ["$330", "330 dollars", "US$330", "USD 330", "330달러", "330 달러"],
    ["€330", "330 euros", "EUR 330", "330유로"],
    ["330원", "₩330", "KRW 330"],
    ["330만 달러", "$3.3 million", "3.3 million dollars", "$3,300,000", "330만달러"],
    ["330억 원", "330억원", "₩33 billion", "33,000,000,000원"],
]


@pytest.mark.parametrize("row", range(len(SAME)))
def test_numbers_carry_their_unit(row: int) -> None:
    for written in SAME[row]:
        source = f"The thing at the place has {written} according to the survey."
        for number, others in enumerate(SAME):
            for other in others:
                claim = f"The thing at the place has {other} according to the survey [1]."
                wanted = "supported" if number == row else "unsupported"
                assert status_of(claim, source) == wanted, (written, other)


@pytest.mark.parametrize(
    ("sentence", "source"),
    [
        ("The tower is 330 m high [1].", "Name: tower; Height in m: 330; Built: 1889"),
        ("The tower is 330 high [1].", "The tower is 330 m high."),
        ("It grew by 5 percentage points [1].", "It grew by 5 points."),
        ("The firm earned $330m [1].", "The firm earned 330 million dollars."),
        ("Sales rose in the 3rd quarter [1].", "3분기 sales rose in the 3rd quarter."),
        ("The wall is 3 m and 5 km long [1].", "The wall is 3 metres and 5 kilometres long."),
        ("인구는 330만 명이다 [1].", "인구는 3,300,000명이다."),
        ("The file has 16 GB in 2019 [1].", "In 2019 a file had 16 gigabytes."),
    ],
)
def test_units_that_are_left_out_or_said_elsewhere_refuse_nothing(sentence, source) -> None:
    assert status_of(sentence, source) == "supported"


@pytest.mark.parametrize("number", ["330", "999"])
@pytest.mark.parametrize(
    "answer", ["### The tower is {} m high [1]", "```\nThe tower is {} m high [1].\n```"]
)
def test_claims_in_headings_and_code_are_checked(answer: str, number: str) -> None:
    wanted = "supported" if number == "330" else "unsupported"
    assert status_of(answer.format(number), "The tower is 330 m high.") == wanted


@pytest.mark.parametrize(
    "answer",
    ["### Results of 2024", "## Heights [1]", "```python\nx = heights[1] + 999\n```",
     "```\ny = [999, 1][1]\n```"],
)  # fmt: skip
def test_headings_and_code_without_claims_are_none(answer: str) -> None:
    assert status_of(answer, "The tower is 330 m high.") == "not_a_claim"


STORMS = [
    "[[[[1](", "[1](#", "[1](https://a", "[1, ", "(1, ", "A-", "Ab ", "Ab Cd [1]", "‘a ", "“a. ",
    "a. ", "e.g. ", "`a", "a__b", "_", "|-", "- ", "> ", "1:", "1,000,", "3억 ", "330 km ", "$1 ",
    "\"a", "서울은 ", "\t", "¹,", "<sup>1", "March ", "...\"",
]  # fmt: skip


def seconds_of(answer: str, sources: SourceList) -> float:
    """Least processor time of three checks."""
    times = []
    for _ in range(3):
        began = time.process_time()
        check_citations(answer, sources)
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize("storm", STORMS)
def test_the_check_is_linear_in_the_answer(storm: str) -> None:
    """Four times the text takes four times as long, not 16 times: bounds of growth, not of time."""
    sources = SourceList()
    sources.cite("The tower is 330 m high.", address="a", title="T", sha256="0")
    few, many = (
        seconds_of(f"Tower x{storm * (size // len(storm))}y_ [1] z", sources)
        for size in (10_000, 40_000)
    )
    assert many < 10 * few + 0.05
