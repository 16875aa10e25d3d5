"""Ranking: BM25 against an own Okapi, Korean and CJK, hostile queries, highlights, fusion."""

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanol.errors import SearchIndexError
from hanol.retrieval import Index, Passage, rank_texts, reciprocal_rank_fusion, word_stems
from hanol.retrieval.index import _cjk, _search  # private: the index's own words and ranking

TITLE_WEIGHT = 2.0


def okapi(passages: list[Passage], query: list[str]) -> dict[int, float]:
    """BM25 with FTS5's constants, written from its formula; passages that score are returned."""
    k1, b = 1.2, 0.75
    columns = {
        p.id: [Counter(re.findall("[a-z0-9]+", text.lower())) for text in (p.title, p.text)]
        for p in passages
    }
    lengths = {i: sum(title.values()) + sum(text.values()) for i, (title, text) in columns.items()}
    average = sum(lengths.values()) / len(lengths)
    scores: dict[int, float] = {}
    for word in query:
        holding = [i for i, (title, text) in columns.items() if title[word] + text[word]]
        idf = math.log((len(columns) - len(holding) + 0.5) / (len(holding) + 0.5))
        idf = idf if idf > 0 else 1e-6
        for i in holding:
            title, text = columns[i]
            tf = TITLE_WEIGHT * title[word] + text[word]
            norm = k1 * (1 - b + b * lengths[i] / average)
            scores[i] = scores.get(i, 0.0) + idf * tf * (k1 + 1) / (tf + norm)
    return scores


VOCABULARY = [f"w{i}" for i in range(60)]


@pytest.fixture(scope="module")
def zipf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """150 documents of words with very different frequencies, some split into passages."""
    rng = random.Random(0)
    folder = tmp_path_factory.mktemp("zipf")
    weights = [1 / (rank + 1) for rank in range(len(VOCABULARY))]
    for i in range(150):
        words = rng.choices(VOCABULARY, weights, k=rng.choice([3, 30, 300, 900]))
        name = " ".join(rng.choices(VOCABULARY, k=2))
        (folder / f"{name} {i}.txt").write_text(" ".join(words))
    with Index.open(folder) as index:
        index.add()
        yield index


def all_passages(index: Index) -> list[Passage]:
    return [p for info in index.documents() for p in index.read(info.address)]


@pytest.mark.parametrize(
    "query",
    [["w59"], ["w0"], ["w3", "w40"], ["w0", "w1", "w2"], ["w9", "w21", "w33", "w58"], ["nothing"]],
    ids=" ".join,
)
def test_scores_are_those_of_okapi_bm25(zipf: Index, query: list[str]) -> None:
    expected = okapi(all_passages(zipf), query)
    hits = zipf.search(" ".join(query), k=10_000, mode="bm25")
    assert {hit.id for hit in hits} == expected.keys()
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.id], rel=1e-9)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_k_cuts_the_same_ranking(zipf: Index) -> None:
    whole = zipf.search("w5 w17", k=10_000)
    assert len(whole) > 60
    for k in (1, 3, 60):
        assert zipf.search("w5 w17", k=k) == whole[:k]


def test_common_tokens_give_way_to_rare_ones(zipf: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = zipf.search("w0 w1 w59", k=3)
    monkeypatch.setattr(_search, "_POSTINGS", 50)
    tokens, _ = _search.choose_tokens(zipf._db, "w0 w59 w1")
    assert tokens[0] == ("w59", False)
    assert ("w0", False) not in tokens
    assert zipf.search("w0 w1 w59", k=1)[0].id in {hit.id for hit in exact}
    assert zipf.search("w0", k=5), "the rarest token stays, however common"


CJK = {
    "seoul.txt": "서울특별시의 인구는 약 940만 명이다. 한강이 도시를 가로지른다.",
    "busan.txt": "부산광역시에는 항구가 있다. 바다가 가깝다.",
    "tokyo.txt": "東京都は日本の首都である。人口は約1400万人。",
    "beijing.txt": "北京是中国的首都，人口两千多万。",
    "mixed.txt": "GPT모델을 2024년에 학습했다. カメラのテスト。",
    "nfd.txt": unicodedata.normalize("NFD", "대구광역시의 사과"),
    "half.txt": "ｶﾞｲﾄﾞﾌﾞｯｸ と ＡＢＣ１２３",
    "latin.txt": "Die Größe der Façade in São Paulo; naïve Ångström.",
}


@pytest.fixture(scope="module")
def cjk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("cjk")
    for name, text in CJK.items():
        (folder / name).write_text(text, "utf-8")
    with Index.open(folder) as index:
        index.add()
        yield index


@pytest.mark.parametrize(
    ("query", "document", "highlighted"),
    [
        ("서울", "seoul.txt", "서울"),
        ("인구", "seoul.txt", "인구"),
        ("서울의 인구", "seoul.txt", "서울"),
        ("강", "seoul.txt", "강"),  # one syllable, at the end of its word's stem
        ("한", "seoul.txt", "한"),
        ("광역시 항구", "busan.txt", "광역시"),
        ("東京", "tokyo.txt", "東京"),
        ("日本", "tokyo.txt", "日本"),
        ("中国", "beijing.txt", "中国"),
        ("GPT", "mixed.txt", "GPT"),
        ("2024", "mixed.txt", "2024"),
        ("モデルテスト", "mixed.txt", "テスト"),
        ("대구", "nfd.txt", "대구"),
        (unicodedata.normalize("NFD", "사과"), "nfd.txt", "사과"),
        ("ガイドブック", "half.txt", "ｶﾞｲﾄﾞﾌﾞｯｸ"),
        ("abc123", "half.txt", "ＡＢＣ１２３"),
        ("FACADE", "latin.txt", "Façade"),
        ("grosse größe", "latin.txt", "Größe"),
        ("sao angstrom", "latin.txt", "São"),
    ],
)
def test_finds_words_in_any_script(cjk: Index, query: str, document: str, highlighted: str) -> None:
    hit = cjk.search(query)[0]
    assert hit.document == document
    assert highlighted in [hit.text[start:end] for start, end in hit.highlights]


# A query, a text that has it, and one with the same pieces in another order or as other words.
FOUND_BEFORE = {
    "no spaces": [
        ("ข้าวผัด", "ฉันชอบกินข้าวผัดกุ้งที่ร้านนี้", "ร้านนี้ขายผ้าและข้าว"),
        ("น้ำ", "เขาดื่มน้ำเย็นทุกเช้า", "เขาวิ่งทุกเช้า"),
        ("ประเทศไทย", "ประเทศไทยมีประชากรมาก", "ไทประเทย"),
        ("ວຽງຈັນ", "ນະຄອນຫຼວງວຽງຈັນເປັນເມືອງໃຫຍ່", "ເມືອງນ້ອຍ"),
        ("កម្ពុជា", "ខ្ញុំរស់នៅក្នុងប្រទេសកម្ពុជា", "ឆ្មាដេកនៅលើតុ"),
        ("ភាសាខ្មែរ", "ខ្ញុំ\u200bស្រឡាញ់\u200bភាសា\u200bខ្មែរ", "ឆ្មាខ្មែរ"),
        ("ရန်ကုန်", "ကျွန်တော်ရန်ကုန်မြို့မှာနေပါတယ်", "ကျွန်တော်မန္တလေးမှာနေပါတယ်"),
        ("བོད་ལ", "མི་རྣམས་བོད་ལ་གནས", "ལ་བོད ཆེན"),
    ],
    "marks": [
        ("हिन्दी", "वह हिन्दी पढ़ता है", "हिन दी हद न द"),
        ("सडक", "सड़क पर गाड़ी", "सर पर डक स"),
        ("தமிழ்நாடு", "தமிழ்நாடு மாநிலம்", "தமழ நட த ம"),
        ("বাংলাদেশের", "ঢাকা বাংলাদেশের রাজধানী", "ঢক বলদশ ব ল"),
        ("ශ්රී", "ශ්\u200dරී ලංකාව", "ශ රී ලකව"),
        ("الكِتَابُ", "الكتاب على الطاولة", "القلم"),
        ("محمد", "مُحَمَّدٌ رَسُولٌ", "حمد"),
        ("محمد", "ﻣـــﺤﻤﺪ هنا", "حمد"),
        ("اسلام", "إسلام آباد", "سلم"),
        ("میخواهم", "می\u200cخواهم بروم", "می رود"),
        ("كتاب", "کتاب فارسی", "فارس"),
        ("צהל", 'צה"ל הודיע', "צה ל"),
        ("צה״ל", 'צה"ל הודיע', "צה ל"),
        ("בְּרֵאשִׁית", "בראשית ברא", "ראש"),
    ],
    "identifiers": [
        ("1.2.3", "released 1.2.3 today", "3 2 1 1 2 2 3 3 1"),
        ("1.2.3", "fixed in v1.2.3.", "2 3 1 items"),
        ("v1.2.3", "fixed in v1.2.3.", "v3 v2 v1 of 1, 3 and 2 v"),
        ("v4.5.6", "fixed in 4.5.6", "v 5 6 4 items"),
        ("AT&T", "the AT&T merger", "t, at"),
        ("2,75", "a rate of 2,75 %", "75 75 2 2"),
        ("192.168.0.1", "the host 192.168.0.1 is up", "0 1 168 192 0 1 168"),
        ("read_document", "call read_document here", "read the document, document read, read"),
        ("os.path", "import os.path now", "path path of os os"),
        ("std::vector", "a std::vector of ints", "vector vector of std std"),
        ("ann@example.com", "mail to ann@example.com", "example com ann ann"),
        ("/etc/hosts.allow", "open /etc/hosts.allow", "hosts allow etc"),
        ("list->next", "p = list->next now", "next next of a list, list"),
        ("UTF-8", "written in UTF-8 text", "8 8 utf utf"),
        ("2024-03-05", "on 2024-03-05 we met", "05 2024 03 2024 05"),
        ("C++", "Learn C++ today", "Vitamin C is in fruit. C C C"),
        ("c#", "Visual C#.", "C C"),
        ("C++17", "C++17 and C++20", "C C 17 20"),
        ("C#", "우리는 C#으로 씁니다", "C는 C이고 C"),
        (".NET", "マイクロソフトの「.NET」", "net net net"),
        (".NET", "the .NET runtime", "net fishing net net"),
        ("ASP.NET", "ASP.NET Core", "net asp core net"),
        ("Notepad++", "Notepad++ is an editor", "a notepad, notepad notepad"),
    ],
    "spellings": [
        ("123mm", "length １２３ｍｍ", "12 3"),
        ("2024", "في عام ٢٠٢٤", "20 24"),
        ("२०२४", "the year 2024", "20 24"),
        ("123", "ราคา๑๒๓บาท", "12 3"),
        ("123", "bold 𝟏𝟐𝟑", "12 3"),
        ("final", "the ﬁnal oﬀer", "nal o"),
        ("1234567", "a population of 1,234,567", "1 234 567 1"),
        ("1,234,567", "a population of 1\u00a0234\u202f567", "1 234 567"),
        ("1234567", "12,34,567 rupees", "12 34 567"),
        ("STRASSE", "die Straße", "strae"),
        ("istanbul", "İstanbul", "stanbul"),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος", "Σισ"),
        ("lodz", "Łódź", "dz"),
        ("softhyphen", "soft\u00adhyphen", "soft"),
        ("C++", "the language Ｃ＋＋", "C C C"),
    ],
}


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [pytest.param(*case, id=f"{kind} {i}") for kind, cases in FOUND_BEFORE.items()
     for i, case in enumerate(cases)],
)  # fmt: skip
def test_words_are_found_as_what_they_are(query: str, right: str, wrong: str) -> None:
    assert rank_texts([right, wrong], query)[:1] == [0]
    assert rank_texts([wrong, right], query)[:1] == [1]
    assert _cjk.highlight_spans(right, _cjk.query_tokens(query))


FORMS = {
    "a.txt": "Dogs are walked in the parks.",
    "b.txt": "The policy of the company was rotated away.",
    "c.txt": "New copies are made.",
    "d.txt": "A dog is seen there.",
}


@pytest.mark.parametrize(
    ("query", "best", "highlighted"),
    [
        ("policies", "b.txt", "policy"),
        ("rotate", "b.txt", "rotated"),
        ("walking", "a.txt", "walked"),
        ("copy", "c.txt", "copies"),
        ("parks", "a.txt", "parks"),
        ("dog", "d.txt", "dog"),
        ("dogs", "a.txt", "Dogs"),
    ],
)
def test_other_forms_of_a_word_are_found(
    tmp_path: Path, query: str, best: str, highlighted: str
) -> None:
    for name, text in FORMS.items():
        (tmp_path / name).write_text(text)
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        hit = index.search(query)[0]
        both = {hit.document for hit in index.search("dog")}
    assert hit.document == best
    start, end = hit.highlights[0]
    assert hit.text[start:end] == highlighted
    assert both == {"a.txt", "d.txt"}
    assert rank_texts(list(FORMS.values()), query)[0] == list(FORMS).index(best)


def test_forms_are_of_words_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The news of 1990s is in bes and x1s.")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        for query in ("1990", "be", "x1", "as", "ing"):
            assert not index.search(query), query


def test_an_index_finds_them_too(tmp_path: Path) -> None:
    cases = [case for cases in FOUND_BEFORE.values() for case in cases[::3]]
    for i, (_, right, wrong) in enumerate(cases):
        (tmp_path / f"{i} right.txt").write_text(right, "utf-8")
        (tmp_path / f"{i} wrong.txt").write_text(wrong, "utf-8")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        for query, right, _ in cases:
            assert index.search(query, k=1)[0].text == right


def test_fast_and_general_words_are_the_same() -> None:
    """The pattern of plain texts is taken only where nothing needs the general one."""
    marks = [c for c in map(chr, range(0x110000)) if unicodedata.category(c)[0] == "M"]
    assert len(marks) > 2000
    assert [c for c in marks if not _cjk._NOT_PLAIN.search(c)] == []
    plain = [c for c in map(chr, range(0x30000)) if not _cjk._NOT_PLAIN.search(c)]
    runs = [c for c in plain if _cjk.is_run(c)]
    assert runs == [c for c in plain if (found := _cjk._PLAIN_TOKEN.fullmatch(c)) and found[1]]
    assert len(runs) > 80_000
    texts = [right for cases in FOUND_BEFORE.values() for _, right, _ in cases]
    for text in [*CJK.values(), *texts, "v1.2 C++ 서울시의 GPU를 1,000 km² don't x_y .NET ①"]:
        normal = _cjk.normalize(text)
        if not _cjk._NOT_PLAIN.search(normal):
            general, fast = (
                [match.span() for match in pattern.finditer(normal)]
                for pattern in (_cjk._TOKEN, _cjk._PLAIN_TOKEN)
            )
            assert general == fast


def test_an_identifier_counts_by_its_share_of_the_query() -> None:
    long = "results of machine translation from Korean, measured in UTF-8"
    texts = ["a kitchen in UTF-8", "machine translation from Korean: results measured"]
    assert rank_texts(texts, long)[0] == 1
    assert rank_texts(texts, "UTF-8") == [0]


def test_stems_of_scripts_with_marks_and_without_spaces() -> None:
    assert dict(word_stems("दिल्ली C++ 1,000")) == {
        "दिल्ली": ("दिल्ली",), "c＋＋": ("c＋＋",), "1000": ("1000",),
    }  # fmt: skip
    assert dict(word_stems("ไทย")) == {"ไทย": ("ไท", "ทย")}


@pytest.mark.parametrize(
    "forms",
    ["decay decays decayed decaying", "stop stops stopped stopping", "fee fees", "add added",
     "member members membership", "employee employees employ", "library libraries", "bus buses"],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem for _, stem in word_stems(forms)}) == 1


def test_what_is_not_there_is_not_found(cjk: Index) -> None:
    for query in ("인천", "京都", "솔", "paul", "GP", "202"):
        assert all(hit.document != "nfd.txt" for hit in cjk.search(query))
        assert cjk.search(query) == [] or query == "京都"
    # 京都 is within 東京都: bigrams cannot tell, and rank it all the same.
    assert [hit.document for hit in cjk.search("京都")] == ["tokyo.txt"]


HOSTILE = [
    "",
    "   ",
    '"unclosed',
    "a AND",
    "NEAR(w1 w2, w3)",
    "w1 NOT w2",
    "title : w1",
    "w1*",
    "-w1",
    "^w1",
    "'; DROP TABLE passages; --",
    "{w1} + (w2",
    "😀🎉",
    "!?.,;:…",
    "\x00\x01",
    "\ud800",
    "a\u0301\u0301\u0301",
    "w1 " * 5000,
    "긴" * 10_000,
    " ".join(f"x{i}" for i in range(10_000)),
    "%s %d {} \\",
]


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("mode", ["bm25", "hybrid"])
def test_user_text_is_never_syntax(zipf: Index, query: str, mode: str) -> None:
    words = set(re.findall(r"w\d+", query))
    hits = zipf.search(query, mode=mode)  # type: ignore[arg-type]
    assert bool(hits) == bool(words)
    if words:
        plain = zipf.search(" ".join(sorted(words)), k=10)
        assert [hit.id for hit in hits] == [hit.id for hit in plain]
    assert zipf.documents(), "nothing was dropped"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
@example("ﬁ ㎏ ½ ⅷ ㋿ ﷺ")
@example("각\u11a8\u11a8 e\u0301")
def test_any_query_and_its_highlights(cjk: Index, query: str) -> None:
    for hit in cjk.search(query):
        end = 0
        assert hit.highlights or _cjk.highlight_spans(hit.title, _cjk.query_tokens(query))
        for start, stop in hit.highlights:
            assert end <= start < stop <= len(hit.text)
            end = stop


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_text_is_found_by_each_of_its_own_words(text: str) -> None:
    """Index and query agree on tokens, and a highlight covers each."""
    indexed = _cjk.index_text(text).split(" ")
    for word in text.split():
        for token, prefix in _cjk.query_tokens(word):
            if prefix:
                assert any(entry.startswith(token) for entry in indexed)
            else:
                assert token in indexed
            assert _cjk.highlight_spans(text, [(token, prefix)])


def test_signs_that_stand_for_many_letters_do_not_make_an_index_of_nothing_else() -> None:
    """U+FDFA is 18 letters when it is written out; a text of two million took a minute."""
    sign = "\ufdfa"
    assert len(_cjk.index_text(sign * 2400)) < 5 * 2400
    assert _cjk.index_text(sign) == " ".join(token for token, _ in _cjk.query_tokens(sign))
    assert (
        _cjk.index_text(f"{'العلم نور ' * 20}{sign}").split()[-4:] == _cjk.index_text(sign).split()
    )


def test_the_index_splits_tokens_only_at_spaces(cjk: Index, tmp_path: Path) -> None:
    """The full-text table holds exactly the tokens that were given to it."""
    (tmp_path / "a.txt").write_text(
        "Zähler über 3.5 km², don't; e-mail_x ½ 서울 東京 ٣٤ हिन्दी", "utf-8"
    )
    with Index.open(tmp_path) as index:
        index.add()
        text = all_passages(index)[0].text
        terms = {row[0] for row in index._db.execute("SELECT term FROM vocabulary")}
    assert terms == set(_cjk.index_text(text).split(" ")) | {"a"}


def test_highlights_of_decomposed_text() -> None:
    """A passage may come from elsewhere than our readers, which compose."""
    text = unicodedata.normalize("NFD", "대구의 café") + " ｶﾞｲﾄﾞ"
    for query in ("대구", "cafe", "ガイド"):
        [(start, end)] = _cjk.highlight_spans(text, _cjk.query_tokens(query))
        shown = unicodedata.normalize("NFKC", text[start:end])
        assert shown in ("대구", "café", "ガイド")


def test_values_out_of_range(zipf: Index) -> None:
    with pytest.raises(SearchIndexError, match="`k` is 0"):
        zipf.search("w1", k=0)
    with pytest.raises(SearchIndexError, match="'hybrid', 'bm25' or 'dense'"):
        zipf.search("w1", mode="fuzzy")  # type: ignore[arg-type]
    with pytest.raises(SearchIndexError, match="has no vectors.*--embedder minilm"):
        zipf.search("w1", mode="dense")
    assert zipf.search("w1", k=10**6)


def test_fusion_by_hand() -> None:
    fused = reciprocal_rank_fusion([[7, 8, 9], [9, 7], [5]])
    assert fused == [
        (7, pytest.approx(1 / 6 + 1 / 7)),
        (9, pytest.approx(1 / 8 + 1 / 6)),
        (5, pytest.approx(1 / 6)),
        (8, pytest.approx(1 / 7)),
    ]
    assert reciprocal_rank_fusion([[7, 8], [9, 8]], [1.0, 0.5]) == [
        (8, pytest.approx(1.5 / 7)),
        (7, pytest.approx(1 / 6)),
        (9, pytest.approx(0.5 / 6)),
    ]
    assert reciprocal_rank_fusion([]) == []
    assert reciprocal_rank_fusion([[], [3, 1]]) == [(3, 1 / 6), (1, 1 / 7)]


def test_excerpt_is_where_the_most_matches_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("amber. " + "filler " * 60 + "amber and amber again. The end.")
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        (hit,) = index.search("amber")
    start, end = hit.excerpt(100)
    assert end - start == 100
    assert hit.text[start:end].count("amber") == 2
    assert hit.excerpt(10_000) == (0, len(hit.text))
