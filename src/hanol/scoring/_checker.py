"""Answers compared in processes of their own, with a time limit each.

A formula of a model may take for ever to parse or to compare. Limits by signals, as math-verify
sets them, hold in the main thread alone: in others they raise, or answers are wrong without a word
(huggingface/Math-Verify#50).
"""

import os
import threading
from functools import cache
from typing import Any

from hanol.process import HelperProcess, serve_requests, start_helper
from hanol.scoring._formulas import AnswerCheck, check_answer, compare_numbers

SECONDS = 5.0  # for one comparison; an ordinary one takes 0.001, the first of a process 0.5
_START = 20.0  # seconds more for the first one, which imports sympy
_MEMORY = 2 << 30  # bytes of address space
_CODE = "from hanol.scoring._checker import answer_requests; answer_requests()"


class AnswerChecker:
    """`check_answer` for untrusted answers and many threads.

    Formulas are compared in the processes, numbers at once. What takes longer than its time, or
    brings its process down, counts as unparsable: it is never right. Close it, or use it as a
    context, when it is not needed any more.

    Args:
        seconds: For one comparison. Waiting for a free process does not count.
        processes: Comparisons at a time.

    Attributes:
        unparsable: Comparisons so far without an answer that could be read, late ones included.
        late: Comparisons so far that took too long or failed.

    Example:
        >>> with AnswerChecker() as checker:  # doctest: +SKIP
        ...     checker.check("The answer is 0.5", "1/2").right
        True
    """

    def __init__(self, *, seconds: float = SECONDS, processes: int = 2) -> None:
        self._seconds = seconds
        self._idle = [_Checker() for _ in range(processes)]
        self._free = threading.BoundedSemaphore(processes)
        self._lock = threading.Lock()
        self.unparsable = self.late = 0

    def check(self, completion: str, answer: str) -> AnswerCheck:
        """Compare the answer of a completion with the right one; from any thread."""
        found = compare_numbers(completion, answer)
        if found is None:
            with self._free:
                helper = self._idle.pop()
                try:
                    found = helper.check(completion, answer, self._seconds)
                finally:
                    self._idle.append(helper)
        with self._lock:
            self.late += found is None
            self.unparsable += found is None or found.found is None
        return found or AnswerCheck(None, False, None)

    def close(self) -> None:
        """End the processes."""
        for helper in self._idle:
            helper.close()

    def __enter__(self) -> "AnswerChecker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Checker(HelperProcess):
    def __init__(self) -> None:
        super().__init__(lambda: start_helper(_CODE))
        self._pid = os.getpid()

    def check(self, completion: str, answer: str, seconds: float) -> AnswerCheck | None:
        """None when it took too long or failed."""
        if self._pid != os.getpid():  # a fork: the process is the parent's
            self._process, self._pid = None, os.getpid()
        if self._process is None:
            self.exchange("warm", (), b"", _START)
        found = self.exchange("check", (completion, answer), b"", seconds)
        if isinstance(found, int) or "error" in found:
            return None
        return AnswerCheck(found["found"], found["string"], found["symbolic"])


@cache
def shared_checker() -> AnswerChecker:
    """The one of this process; its own processes begin with the first formula, and end with it."""
    return AnswerChecker(processes=1)


def answer_requests() -> None:
    """Main function of a checking process."""

    def check(completion: str, answer: str) -> dict[str, Any]:
        try:
            return dict(vars(check_answer(completion, answer)))
        except Exception as err:  # whatever a parser or sympy raises
            return {"error": repr(err)}

    def warm() -> dict[str, Any]:
        return dict(vars(check_answer("2 + x", "x + 2")))

    serve_requests({"check": check, "warm": warm}, memory=_MEMORY, seconds=_START)
