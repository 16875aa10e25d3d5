import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hanol.scoring import exact_match, normalise, numeric_match, set_match


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("The Beatles", "beatles"),
        ("Paris.", "paris"),
        ("Paris [3].", "Paris"),
        ("**Paris** [1, 4][2]", "Paris"),
        ("Paris【3】 [1–3][1;3] [1、3]", "Paris"),
        ("ＴＯＫＹＯ　２０２０", "tokyo 2020"),
        ("ﬁne", "fine"),
        ("Straße", "STRASSE"),
        ("서울 특별시", "서울특별시"),
        ("대한 민국의 수도", "대한민국의수도"),
        ("東京 都", "東京都"),
        ("well-known", "well known"),
        ("U.S.", "US"),
        ("Rock ’n’ Roll", "rock n roll"),
        ("1,234,567", "1234567"),
        ("−5", "-5"),
        ("A", "a"),
        ("The The", "the the"),
        ("«Amélie»", "Amélie"),
        ("Ame\u0301lie", "Amélie"),
        ("May 7, 1931", "1931-05-07"),
        ("7 May 1931", "may 7 1931"),
    ],
)
def test_the_same_answer_in_another_form(prediction: str, reference: str) -> None:
    assert exact_match(prediction, reference)
    assert exact_match(reference, prediction)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("Paris, France", "Paris"),
        ("not Paris", "Paris"),
        ("1.5", "15"),
        ("-5", "5"),
        ("5%", "5"),
        ("1,5", "15"),
        ("New York", "Newyork"),
        ("Amelie", "Amélie"),
        ("A", "B"),
        ("서울", "부산"),
        ("theory", "ory"),
        ("C++", "C"),
        ("May 8, 1931", "1931-05-07"),
        ("May 1931", "1931-05"),
    ],
)
def test_another_answer(prediction: str, reference: str) -> None:
    assert not exact_match(prediction, reference)
    assert not exact_match(reference, prediction)


@pytest.mark.parametrize("metric", [exact_match, set_match, numeric_match])
@pytest.mark.parametrize("nothing", [None, "", "  ", "...", "[1]"])
def test_no_answer_matches_nothing(metric, nothing) -> None:
    assert not metric(nothing, "Paris")
    assert not metric(nothing, nothing or "")


def test_one_of_several_references_is_enough() -> None:
    assert exact_match("NYC", ["New York City", "NYC"])
    assert not exact_match("Boston", ["New York City", "NYC"])
    assert numeric_match("3", ["2", "3"])


@settings(max_examples=500, deadline=None)
@example("C.\u0327")
@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("Oslo, Bergen and Narvik", ["Narvik", "Bergen", "Oslo"]),
        ("Oslo, Bergen, and Narvik [2].", "Bergen; Narvik; Oslo"),
        ("- Oslo\n- Bergen", "Oslo & Bergen"),
        ("서울, 부산", ["부산", "서울"]),
        ("東京、大阪", "大阪，東京"),
        ("1,000, 2,000", ["2000", "1000"]),
        (["Oslo", "oslo"], "Oslo"),
        ("1932-01-02 and May 7, 1931", ["7 May 1931", "January 2, 1932"]),
    ],
)
def test_the_same_members(prediction, reference) -> None:
    assert set_match(prediction, reference)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("Oslo", ["Oslo", "Bergen"]),
        ("Oslo, Bergen, Narvik", ["Oslo", "Bergen"]),
        ("Oslo Bergen", ["Oslo", "Bergen"]),
        ("Sandy", ["S", "y"]),
    ],
)
def test_other_members(prediction, reference) -> None:
    assert not set_match(prediction, reference)


def test_other_names_of_members() -> None:
    aliases = {"saint petersburg": "Leningrad", "petrograd": "Leningrad"}
    assert set_match("Oslo, Saint-Petersburg", ["Leningrad", "Oslo"], aliases=aliases)
    assert set_match("Petrograd", "Leningrad", aliases=aliases)
    assert not set_match("Petersburg", "Leningrad", aliases=aliases)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("1,000", "1000"),
        ("1 000", "1000"),
        ("1e3", "1000"),
        ("1.0E+3", "1,000"),
        ("1.5 × 10^3", "1500"),
        ("2*10^-2", "0.02"),
        ("0.10", ".1"),
        ("−7", "-7"),
        ("+7", "7"),
        ("５", "5"),
        ("5%", "5 percent"),
        ("5 %", "0.05"),
        ("42 km [1].", "42km"),
        ("42.", "42"),
        ("42 [3].", "42"),
        ("$3.50.", "$3.5"),
        ("about 42 km", "42 km"),
        ("약 42 km", "42 km"),
        ("$5", "$5.00"),
        ("3 billion dollars", "3  Billion Dollars"),
        ("9,703,892명", "9703892명"),
        ("1e-300", "1e-300"),
    ],
)
def test_the_same_number(prediction: str, reference: str) -> None:
    assert numeric_match(prediction, reference)
    assert numeric_match(reference, prediction)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("5 km", "5"),
        ("5 km", "5 m"),
        ("$5", "€5"),
        ("5%", "5"),
        ("5", "-5"),
        ("1,00", "100"),
        ("1000", "1001"),
        ("0.1", "0.10000000000000001"),
        ("5 or 6", "5"),
        ("five", "5"),
        ("5", "five"),
        ("1e999999999", "1"),
        ("e5", "e5"),
        (".", "."),
        ("9" * 10_000, "9" * 10_000),
        ("1.2.3", "1.2"),
    ],
)
def test_another_number(prediction: str, reference: str) -> None:
    assert not numeric_match(prediction, reference)
    assert not numeric_match(reference, prediction)


def test_tolerance_is_a_share_of_the_reference() -> None:
    assert numeric_match("101", "100", tol=0.01)
    assert not numeric_match("101.1", "100", tol=0.01)
    assert numeric_match("-99", "-100", tol=0.01)
    assert not numeric_match("0.001", "0", tol=0.5)


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12))
def test_every_way_to_write_a_number(value) -> None:
    assert numeric_match(f"{value:,f}", f"{value:f}")
    digits = "".join(map(str, value.as_tuple().digits)).rstrip("0")
    assert numeric_match(f"{value:.30e}", f"{value:f}") == (len(digits) <= 31)


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_a_metric(text: str) -> None:
    for metric in (exact_match, set_match, numeric_match):
        assert isinstance(metric(text, text), bool)
