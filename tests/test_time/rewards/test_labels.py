"""Labels by sampling: of a Markov process whose values are known."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Choice, Completion, Engine, Message, Request
from hanol.errors import CapabilityError, ConfigError, DataError
from hanol.rows import JsonLines
from hanol.sampling import Sampling
from hanol.test_time import ThinkSettings, monte_carlo_labels, sample_answers
from hanol.worlds import MathProblem

# From each state: what may be written next, with probabilities; "7" is the right answer.
CHAIN: dict[str, list[tuple[str, float]]] = {
    "start": [("good", 0.5), ("bad", 0.5)],
    "good": [("The answer is 7.", 0.9), ("The answer is 8.", 0.1)],
    "bad": [("good", 0.2), ("The answer is 9.", 0.7), ("no idea", 0.1)],
}
VALUES = {"good": 0.9, "bad": 0.18}
SETTINGS = ThinkSettings(Sampling(temperature=1.0, max_tokens=32), separator="\n")


class ChainEngine(Engine):
    """Writes the process."""

    name = "chain"
    capabilities = frozenset({"n", "prefill"})

    def __init__(self) -> None:
        self.calls: list[Request] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 1

    async def complete(self, request: Request) -> Completion:
        self.check(request)
        self.calls.append(request)
        await asyncio.sleep(0)
        seed = request.sampling.seed or 0
        return Completion(tuple(self.walk(request, seed + i) for i in range(request.n)))

    def walk(self, request: Request, seed: int) -> Choice:
        rng = random.Random(seed)
        state = request.prefill.strip().rpartition("\n")[2] or "start"
        written: list[str] = []
        while state in CHAIN:
            texts, weights = zip(*CHAIN[state], strict=True)
            (state,) = rng.choices(texts, weights)
            written.append(state)
        return Choice("\n".join(written), "length" if state == "no idea" else "stop")


def problems(count: int) -> list[MathProblem]:
    return [MathProblem(id=f"p{i}", problem=f"Problem {i}", answer="7") for i in range(count)]


def test_labels_are_the_values_of_the_states() -> None:
    rows = monte_carlo_labels(
        ChainEngine(), problems(40), samples=8, rollouts=50, settings=SETTINGS, seed=1
    )
    found: dict[str, dict[str, float]] = {"good": {}, "bad": {}}
    for row in rows:
        assert len(row["completions"]) == len(row["labels"])
        assert row["labels"][-1] == float(row["right"]) == float("7" in row["completions"][-1])
        known = found[row["completions"][0]].setdefault(row["id"], row["labels"][0])
        assert known == row["labels"][0], "equal beginnings share one label"
    for state, by_problem in found.items():
        value, labels = VALUES[state], list(by_problem.values())
        mean = sum(labels) / len(labels)
        assert mean == pytest.approx(value, abs=0.03)
        # The spread of a label is that of 50 draws.
        spread = (sum((x - mean) ** 2 for x in labels) / len(labels)) ** 0.5
        assert spread == pytest.approx((value * (1 - value) / 50) ** 0.5, rel=0.4)


def test_answers_without_an_end_are_left_out() -> None:
    made = sample_answers(ChainEngine(), problems(30), samples=16, settings=SETTINGS)
    assert sum(row["left_out"] for row in made) > 5
    for row in made:
        assert len(row["answers"]) == len(row["right"]) == 16 - row["left_out"]
        assert not any("no idea" in answer for answer in row["answers"])


def test_a_killed_run_samples_nothing_twice(tmp_path: Path) -> None:
    file, engine = tmp_path / "solutions.jsonl", ChainEngine()
    options: Any = {"samples": 4, "rollouts": 3, "settings": SETTINGS}
    whole = monte_carlo_labels(engine, problems(6), **options)
    first = ChainEngine()
    monte_carlo_labels(first, problems(3), **options, file=file)
    assert len(JsonLines(file).read()) == 3
    second = ChainEngine()
    assert monte_carlo_labels(second, problems(6), **options, file=file) == whole
    assert len(first.calls) + len(second.calls) == len(engine.calls)


def test_an_engine_that_draws_one_at_a_time() -> None:
    engine = ChainEngine()
    engine.capabilities = frozenset({"prefill"})
    made = monte_carlo_labels(engine, problems(2), samples=4, rollouts=3, settings=SETTINGS)
    assert all(request.n == 1 for request in engine.calls)
    assert made == monte_carlo_labels(
        ChainEngine(), problems(2), samples=4, rollouts=3, settings=SETTINGS
    )


def test_what_cannot_be_labelled_is_refused() -> None:
    with pytest.raises(ConfigError, match="`rollouts` is 0"):
        monte_carlo_labels(ChainEngine(), problems(1), rollouts=0)
    with pytest.raises(DataError, match="'p0' has no verifier"):
        monte_carlo_labels(ChainEngine(), [replace(problems(1)[0], verifier="")])
    with pytest.raises(DataError, match='no "answer"'):
        monte_carlo_labels(ChainEngine(), [replace(problems(1)[0], answer="")])
    engine = ChainEngine()
    engine.capabilities = frozenset({"n"})
    with pytest.raises(CapabilityError, match="prefill"):
        monte_carlo_labels(engine, problems(1), settings=SETTINGS)
