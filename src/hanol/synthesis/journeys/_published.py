"""Long thoughts of others: the rows of GAIR/o1-journey."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hanol.scoring import check_answer, exact_match

_MARK = "####"


@dataclass(frozen=True)
class LongThought:
    """A published thought.

    Attributes:
        question: What is asked.
        answer: The right answer, as its column has it.
        thought: What is learned, without the final answer's line.
        final: What the thought gives as the answer.
    """

    question: str
    answer: str
    thought: str
    final: str

    def row(self) -> dict[str, Any]:
        """A row that recipes of the kind sft read."""
        said = f"{self.thought}\n{_MARK} {self.final}"
        return {
            "messages": [
                {"role": "user", "content": self.question},
                {"role": "assistant", "content": said},
            ]
        }


def read_long_thoughts(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[list[LongThought], list[str]]:
    """Thoughts of rows with "question", "answer" and "longCOT", as GAIR/o1-journey has them.

    A thought ends with its answer behind "####".

    Returns:
        The thoughts whose answer is that of their column; and of each other row, what is wrong
        with it.
    """
    found, wrong = [], []
    for number, row in enumerate(rows, start=1):
        question, answer, text = (row.get(key) for key in ("question", "answer", "longCOT"))
        if not (isinstance(question, str) and isinstance(text, str)) or answer is None:
            wrong.append(f'row {number}: "question", "answer" or "longCOT" is missing')
            continue
        thought, mark, final = text.rpartition(_MARK)
        final = final.strip()
        if not mark or not final:
            wrong.append(f'row {number}: no answer stands behind "{_MARK}"')
        elif not (
            exact_match(final, str(answer))
            or check_answer(f"\\boxed{{{final}}}", str(answer)).right
        ):
            wrong.append(f"row {number}: the thought's answer is {final!r:.60}, not {answer!r:.60}")
        else:
            found.append(LongThought(question, str(answer), thought.rstrip(), final))
    return found, wrong
