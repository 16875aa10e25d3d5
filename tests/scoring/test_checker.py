"""Answers compared in processes of their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from hanol.scoring import AnswerChecker, check_answer, parse_verifier

PAIRS = [
    *((f"The answer is {n}.", str(n + n % 3)) for n in range(60)),
    *((rf"So \boxed{{\frac{{{n}}}{{{2 * n}}}}}", "0.5") for n in range(1, 41)),
    *((rf"\boxed{{x^{n} + {n}}}", rf"{n} + x^{n}") for n in range(1, 21)),
    *((text, "5") for text in (r"\boxed{", "", r"\frac{1}{", "((((", "1/0", r"\boxed{\sqrt{}}",
                               "안녕", r"\boxed{2^{9^{9^9}}}", "x" * 5000, "[" * 900)),
]  # fmt: skip


@pytest.mark.timeout(110)
def test_many_threads_find_what_one_finds() -> None:
    expected = [check_answer(*pair) for pair in PAIRS]
    pairs = [PAIRS[i % len(PAIRS)] for i in range(200)]
    with AnswerChecker(processes=2) as checker, ThreadPoolExecutor(64) as pool:
        begun = threading.Barrier(64)

        def all_of_them(_: int) -> list[object]:
            begun.wait()
            return [checker.check(*pair) for pair in pairs]

        found = list(pool.map(all_of_them, range(64)))
    wanted = [expected[i % len(PAIRS)] for i in range(200)]
    assert all(row == wanted for row in found)
    assert checker.late == 0
    assert checker.unparsable == 64 * sum(one.found is None for one in wanted)


def test_what_hangs_or_crashes_is_unparsable_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from hanol.scoring import _checker  # private: its process is made to misbehave

    slow = (
        "import os, time\n"
        "from hanol.scoring import _checker\n"
        "plain = _checker.check_answer\n"
        "def check(text, answer):\n"
        "    if 'hang' in text: time.sleep(60)\n"
        "    if 'crash' in text: os.kill(os.getpid(), 11)\n"
        "    if 'raise' in text: raise RecursionError\n"
        "    return plain(text, answer)\n"
        "_checker.check_answer = check\n"
        "_checker.answer_requests()"
    )
    monkeypatch.setattr(_checker, "_CODE", slow)
    with AnswerChecker(seconds=0.5, processes=1) as checker:
        assert checker.check("7", "7").right  # without a process
        assert checker.check(r"\boxed{x + 1}", "1 + x").right
        for text in ("hang", "crash", "raise"):
            began = time.monotonic()
            found = checker.check(rf"\boxed{{{text}}}", "7")
            assert not found.right
            assert found.found is None
            assert time.monotonic() - began < 20
        assert checker.check(r"\boxed{x + 1}", "1 + x").right  # and it goes on
    assert (checker.late, checker.unparsable) == (3, 3)


@pytest.mark.parametrize(
    ("found", "answer", "right"),
    [
        ("7.0", "7", True), ("1,000", "1000", True), ("-3", "3", False), ("0.75", "3/4", True),
        (r"\boxed{\frac{6}{8}}", "0.75", True), ("007", "7", False), ("1,00", "100", False),
        ("9" * 250, "9" * 250, True), ("-0", "0", True), ("2.50", "2.5", True),
    ],
)  # fmt: skip
def test_numbers_are_compared_without_a_process(
    found: str, answer: str, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hanol.scoring import _checker  # private: no process may be started

    def refuse(*_: object) -> None:
        raise AssertionError

    with AnswerChecker() as checker:
        if found not in ("007", "1,00"):  # those two are no plain numbers
            monkeypatch.setattr(_checker._Checker, "check", refuse)
        assert checker.check(found, answer).right is right
    assert check_answer(found, answer).right is right


def test_verifiers_by_name_compare_formulas_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from hanol.scoring import _checker  # private: whether its process is asked

    asked = []
    check = _checker._Checker.check
    monkeypatch.setattr(
        _checker._Checker, "check", lambda self, *about: asked.append(about) or check(self, *about)
    )
    verify = parse_verifier("arithmetic")
    assert verify("", r"\boxed{2x + 1}", Row("1 + 2x"))
    assert len(asked) == 1


@dataclass
class Row:
    answer: str
    where: str = "here"
