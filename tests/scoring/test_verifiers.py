"""Verifiers on right, wrong and hostile answers."""

import sys
import time
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanol.autodeco import Row
from hanol.errors import ConfigError, DataError
from hanol.scoring import check_answer, parse_verifier


def judge(spec: str, completion: str, *, prompt: str = "", answer: str | None = None) -> bool:
    return parse_verifier(spec)(prompt, completion, Row(prompt, answer=answer))


# -- arithmetic


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, then \boxed{\frac{3}{4}}", r"\dfrac34"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{\sqrt2}{2}"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{50\%}", "50"),
        (r"\boxed{5\text{ cm}}", "5"),
        (r"\boxed{x = 3}", "3"),
        (r"\boxed{\left(1, 2\right)}", "(1,2)"),
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{3/4}", r"\frac{3}{4}"),
        (r"\boxed{\text{Tuesday}}", "Tuesday"),
        ("17 + 25 = 42", "42"),
        ("the difference is -5", "-5"),
    ],
)
def test_right_by_the_official_string_check(completion: str, answer: str) -> None:
    assert check_answer(completion, answer).string
    assert judge("arithmetic", completion, answer=answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"\boxed{1,000}", "1000"),
        ("that makes 1,234,567", "1234567"),
        (r"\boxed{7.0}", "7"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
        (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}"),
        (r"\boxed{2^{10}}", "1024"),
        (r"\boxed{(x+1)^2}", "x^2+2x+1"),
        (r"\boxed{\frac{\pi}{2}}", r"0.5\pi"),
        (r"\boxed{\frac{1}{1+\sqrt{2}}}", r"\sqrt{2}-1"),
        (r"\boxed{(1, 4/2)}", "(1,2)"),
    ],
)
def test_right_by_value_only(completion: str, answer: str) -> None:
    check = check_answer(completion, answer)
    assert (check.string, check.symbolic) == (False, True)
    assert judge("arithmetic", completion, answer=answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"\boxed{41}", "42"),
        (r"\boxed{42} no, \boxed{41}", "42"),
        (r"\boxed{3.14159265358979}", r"\pi"),
        (r"\boxed{x+1}", "y+1"),
        (r"\boxed{(1,2,3)}", "(1,2)"),
        (r"\boxed{1/0}", "1"),
        ("no number", "1"),
        ("", "1"),
    ],
)
def test_wrong_answers(completion: str, answer: str) -> None:
    assert not judge("arithmetic", completion, answer=answer)


@pytest.mark.parametrize(
    "answer",
    [
        r"9^{9^{9^{9}}}",
        "9**9**9**9",
        r"(x+y+1)^{999}",
        r"((((x+1)^{20})^{20})^{20})",
        "__import__('os').system('echo owned')",
        r"().__class__.__bases__[0].__subclasses__()",
        "lambda: 0",
        "[0]*10**10",
        "1e999",
        "(" * 5000 + "1",
        "9" * 5000,
        r"\frac{" * 60,
        r"\sqrt{" * 40 + "2" + "}" * 40,
        "1," * 4000 + "1",
        "\x00",
        "x" * 200_000,
        "111,111," * 12_000,
    ],
)
def test_hostile_answers_are_only_wrong(answer: str) -> None:
    begin = time.process_time()
    assert not judge("arithmetic", rf"\boxed{{{answer}}}", answer="1")
    assert not judge("arithmetic", answer.replace("1", "2"), answer="1")
    assert time.process_time() - begin < 5


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_a_verdict(completion: str, answer: str) -> None:
    for text in (completion, rf"\boxed{{{completion}}}"):
        assert check_answer(text, answer).right in (False, True)


@given(st.integers(-(10**12), 10**12))
def test_integers_are_found_however_they_are_written(number: int) -> None:
    for text in (f"It is {number}.", f"It is {number:,}.", rf"\boxed{{{number}.0}}"):
        assert judge("arithmetic", text, answer=str(number))


MARKED = [
    "The answer is {}.",
    "The answer is: **{}**.",
    "So the answer to the question of 7 and 3 is {}",
    "Answer: {} apples",
    "**Answer:** {}",
    "The final answer is $\\boxed{{{}}}$.",
    "\\[ \\boxed{{{}}} \\]",
    "He counts.\n#### {}\nDone.",
    "There are **{} coins** left.",
    "So **3 + 4 = {}** holds.",
    "The answer would be 3 + 4 = {}.",
    "정답은 {}입니다.",
    "答案是{}。",
]  # fmt: skip


@pytest.mark.parametrize("form", MARKED)
@given(number=st.integers(-(10**6), 10**6), later=st.integers(0, 10**4))
def test_a_marked_answer_wins_over_the_last_number(form: str, number: int, later: int) -> None:
    text = f"First 12 and 7. {form.format(number)} That was in {later}."
    assert judge("arithmetic", text, answer=str(number))
    assert judge("arithmetic", text, answer=str(later)) == (number == later)


@pytest.mark.parametrize("sign", ["+", "-", "*", "x", "/", "\\times"])
@given(a=st.integers(0, 99), b=st.integers(0, 99))
def test_a_calculation_that_is_not_carried_out_is_no_answer(sign: str, a: int, b: int) -> None:
    for text in (f"The answer is {a} {sign} {b}.", f"The answer is {a} pens {sign} {b} pens"):
        assert check_answer(text, str(a)).found is None
    assert check_answer(f"The answer is {a} {sign} {b} = 1234.", "1234").right
    assert check_answer(f"The answer is {a} pens {sign} {b} pens = 1234 pens.", "1234").right


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("2 coins * 2 coins = 4 coins", "4"),
        ("The answer is 5. So he has 5 pens in 2024.", "5"),
        ("The answer is 7, which is the sum of 3 and 4.", "7"),
        ("The answer is 5 because 2 + 2 = 4.", "5"),
        ("The answer is 1. No, the answer is 2. I saw 3.", "2"),
        (r"The answer is 1, or \boxed{2}", "2"),
        ("The answer is 4.\n#### 5", "5"),
        ("The answer is not 4. I count 5", "5"),
        ("The answer is 4, 5 or 6.", None),
        ("The answer is Seoul. It has 25 districts", "25"),
        ("**Step 1** Add 2 and 3.\n**Step 2** That is 5", "5"),
        ("1 way:\n**1.** Add.\n**2.** Have 7", "7"),
        ("#### 1. First, add\nThat gives 9", "9"),
        (r"The answer is $\frac{3}{4}$ of 100.", r"\frac{3}{4}"),
        ("The price is **$1,200.50** in 2024", "1,200.50"),
        ("10-3 is 7, so 8-5", "5"),
        ("it is \u22125", "\u22125"),
    ],
)
def test_what_counts_as_the_answer(completion: str, found: str | None) -> None:
    assert check_answer(completion, "1").found == found


@pytest.mark.parametrize(
    "piece", ["answer to ", "the answer is ", "**1", "#### ", "**1 a** ", "answer to 1.1,1 "]
)
def test_many_marks_take_no_time(piece: str) -> None:
    begin = time.process_time()
    check_answer(piece * (100_000 // len(piece)), "1")
    assert time.process_time() - begin < 2


def test_without_sympy_the_string_check_is_left(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)
    assert check_answer("7", "7").string
    assert check_answer("7.0", "7").symbolic  # numbers need none
    assert check_answer(r"\boxed{x + 1}", "1 + x").symbolic is None
    assert not check_answer(r"\boxed{x + 1}", "1 + x").right


# -- Python

FUNCTION = "def double(x):\n"


def test_python_is_what_ast_parses() -> None:
    assert judge("python", "    return 2 * x\n", prompt=FUNCTION)
    assert not judge("python", "    return 2 *\n", prompt=FUNCTION)
    assert not judge("python", "", prompt="x = 1\n")
    assert not judge("python", "    return x\ndef broken(:", prompt=FUNCTION)


@pytest.mark.parametrize(
    ("completion", "part"),
    [
        ("    return 2 * x\ndef broken(:", "    return 2 * x\n"),
        ("    y = 2\n\n    return y * x\n", "    y = 2\n\n    return y * x\n"),
        ('    """A\nmargin"""\n    return x\nclass (', '    """A\nmargin"""\n    return x\n'),
        ("    return [\n1\n]\nbroken(", "    return [\n1\n]\n"),
        ("    return (\n", None),
        ("\nbroken", None),
        ("x = 1\n", None),
    ],
)
def test_a_body_ends_where_the_function_does(completion: str, part: str | None) -> None:
    verifier: Any = parse_verifier("python:body")
    assert verifier.cut(FUNCTION, completion) == part
    assert verifier(FUNCTION, completion, Row()) == (part is not None)


def test_a_def_inside_a_string_is_no_function() -> None:
    verifier: Any = parse_verifier("python:body")
    prompt = 'class A:\n    def f(self):\n        """Write\n\ndef g():\n    ...\n        """\n'
    assert verifier.cut(prompt, "        return 1\n    x = 2\n") == "        return 1\n"
    assert verifier.cut('text = """\ndef g():\n', "    return 1\n") is None


def test_the_body_of_an_inner_function_ends_at_its_indentation() -> None:
    verifier: Any = parse_verifier("python:body")
    prompt = "class A:\n    def f(self):\n"
    assert verifier.cut(prompt, "        return 1\n    broken(") == "        return 1\n"


@pytest.mark.parametrize(
    "completion",
    [
        "\x00",
        "(" * 50_000,
        "-" * 99_000 + "1",
        "x" * 1_000_000,
        "f'{" * 5000,
        "\\",
        "'\\d'\n" * 9 + "(",
    ],
)
def test_hostile_programs_are_only_wrong(completion: str) -> None:
    for spec in ("python", "python:body"):
        assert not judge(spec, completion, prompt="")


def test_a_program_is_not_run(tmp_path) -> None:
    trap = tmp_path / "trap"
    assert judge("python", f"open({str(trap)!r}, 'w')\n")
    assert not trap.exists()


# -- patterns and functions


def test_the_last_match_counts() -> None:
    assert judge("regex:answer: (\\w+)", "answer: no\nanswer: yes", answer="yes")
    assert not judge("regex:answer: (\\w+)", "answer: yes\nanswer: no", answer="yes")
    assert judge("regex:yes|no", "yes it is", answer="yes")
    assert not judge("regex:(a)|b", "b", answer="a")
    with pytest.raises(DataError, match='"answer"'):
        judge("regex:a", "a")


def test_a_function_of_the_user_gets_everything(monkeypatch) -> None:
    module: Any = ModuleType("my_checks")
    seen = []
    module.check = lambda prompt, completion, row: seen.append((prompt, completion, row)) is None
    module.wrong = lambda prompt, completion, row: "yes"
    module.constant = 3
    monkeypatch.setitem(sys.modules, "my_checks", module)
    row = Row("p", answer="a")
    assert parse_verifier("my_checks:check")("p", "c", row)
    assert seen == [("p", "c", row)]
    with pytest.raises(DataError, match="'yes'"):
        parse_verifier("my_checks:wrong")("p", "c", row)
    with pytest.raises(ConfigError, match="no function 'constant'"):
        parse_verifier("my_checks:constant")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "No verifier"),
        ("maths", "No verifier is named 'maths'"),
        ("arithmetic:x", "cannot be imported"),
        ("python:head", "cannot be imported"),
        ("regex:", "needs a pattern"),
        ("regex:(", "not valid"),
        ("no_such_module_here:f", "cannot be imported"),
        ("os:system('x')", "No verifier"),
        ("../x:f", "No verifier"),
    ],
)
def test_what_is_no_verifier_is_said(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_verifier(spec)
