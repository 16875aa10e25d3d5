"""Readers of published question sets, and who judged them in arXiv 2510.24701 (section 5).

The sets are not part of hanol. Column names and ciphers follow their publishers' descriptions; no
original file was at hand, so these readers are untested against the originals. The judges' prompts
are ours (`JUDGE_PROMPT`); the official wording can be given to `Judge`.
"""

import base64
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from hanol.errors import DataError, UnknownNameError
from hanol.evaluation._evaluate import Question
from hanol.rows import read_rows

# What the sets call their columns.
_QUESTION = ("question", "Question", "problem", "prompt", "Prompt")
_ANSWER = ("answer", "Answer", "Final answer", "final_answer", "answers")
_ID = ("id", "task_id", "ID")


@dataclass(frozen=True)
class Benchmark:
    """A published question set.

    Args:
        size: Questions that the paper counts; another number of rows is warned about.
        judge: Model that judged it in the paper; None where that is not stated.
        key: Key of question and answer from the row's `canary`; None when they are plain.
        text_only: Rows with an image are left out.
    """

    name: str
    size: int
    judge: str | None
    key: Callable[[bytes], bytes] | None = None
    text_only: bool = False


def _digest(canary: bytes) -> bytes:
    """The key of BrowseComp; that of xbench is the canary itself."""
    return hashlib.sha256(canary).digest()


def _decrypt(text: str, key: bytes) -> str:
    data = base64.b64decode(text, validate=True)
    return bytes(a ^ b for a, b in zip(data, cycle(key), strict=False)).decode("utf-8")


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("gaia", 166, "Qwen2.5-72B-Instruct"),
        Benchmark("webwalkerqa", 680, "Qwen2.5-72B-Instruct"),
        Benchmark("xbench-deepsearch", 100, "Gemini-2.0-Flash-001", bytes),
        Benchmark("xbench-deepsearch-2510", 100, "Gemini-2.0-Flash-001", bytes),
        Benchmark("browsecomp", 1266, "GPT-4o-2024-08-06", _digest),
        Benchmark("browsecomp-zh", 289, "GPT-4o-2024-08-06", _digest),
        Benchmark("hle", 2154, "o3-mini", text_only=True),
        Benchmark("simpleqa", 4326, None),
        Benchmark("frames", 824, None),
    )
}


def read_benchmark(name: str, path: str | Path) -> list[Question]:
    """Read a published question set; a number of rows other than the paper's is warned about.

    Without ids the line numbers are taken, so that equal questions stay apart.

    Args:
        name: One of `BENCHMARKS`.
        path: JSONL, JSON, CSV or TSV file.

    Raises:
        UnknownNameError: There is no such benchmark.
        DataError: A row lacks question or answer, or cannot be deciphered.
    """
    if name not in BENCHMARKS:
        raise UnknownNameError("benchmark", name, BENCHMARKS)
    benchmark = BENCHMARKS[name]
    questions: dict[str, Question] = {}
    for line, row in read_rows(path):
        if benchmark.text_only and row.get("image"):
            continue
        place = f"{str(path)!r}, line {line}"
        item = _question(row, line, place, benchmark)
        if item.id in questions:
            raise DataError(f"{place}: the id {item.id!r} stands there for the second time.")
        questions[item.id] = item
    if len(questions) != benchmark.size:
        warnings.warn(
            f"{str(path)!r} holds {len(questions)} questions, but {name} has {benchmark.size} in "
            "arXiv 2510.24701: scores will not compare.",
            stacklevel=2,
        )
    return list(questions.values())


def _question(row: dict[str, Any], line: int, place: str, benchmark: Benchmark) -> Question:
    question = _column(row, _QUESTION, place)
    answer = _column(row, _ANSWER, place)
    texts = answer if isinstance(answer, list) else [answer]
    texts = [str(text) if isinstance(text, int | float) else text for text in texts]
    if not isinstance(question, str) or not texts or not all(isinstance(t, str) for t in texts):
        raise DataError(f"{place}: question and answer must be texts (the answer may be a list).")
    # Without a canary the row has been deciphered before.
    if benchmark.key and (canary := row.get("canary")):
        key = benchmark.key(str(canary).encode())
        try:
            question = _decrypt(question, key)
            texts = [_decrypt(text, key) for text in texts]
        except ValueError as err:
            raise DataError(f"{place}: could not be deciphered ({err}).") from err
    return Question(
        id=str(next((row[key] for key in _ID if row.get(key) not in (None, "")), line)),
        question=question,
        answer=tuple(texts) if isinstance(answer, list) else texts[0],
    )


def _column(row: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if row.get(name) not in (None, ""):
            return row[name]
    raise DataError(f"{place}: none of the keys {', '.join(names)} has a value.")
