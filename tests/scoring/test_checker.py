"""Answers compared in processes of their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hanol.scoring import AnswerChecker, check_answer

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
        "    if text == 'hang': time.sleep(60)\n"
        "    if text == 'crash': os.kill(os.getpid(), 11)\n"
        "    if text == 'raise': raise RecursionError\n"
        "    return plain(text, answer)\n"
        "_checker.check_answer = check\n"
        "_checker.answer_requests()"
    )
    monkeypatch.setattr(_checker, "_CODE", slow)
    with AnswerChecker(seconds=0.5, processes=1) as checker:
        assert checker.check("7", "7").right
        for text in ("hang", "crash", "raise"):
            began = time.monotonic()
            found = checker.check(text, "7")
            assert not found.right
            assert found.found is None
            assert time.monotonic() - began < 20
        assert checker.check("7", "7").right  # and it goes on
    assert (checker.late, checker.unparsable) == (3, 3)
