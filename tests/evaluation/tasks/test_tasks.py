"""Tasks by name, solvers and scorers, on scripted engines."""

import json
import re
import sys
import warnings
from pathlib import Path

import pytest

from hanol.engines import Reply, Request, Sampling, ScriptedEngine
from hanol.errors import ConfigError, DataError, EngineError, UnknownNameError
from hanol.evaluation import (
    Answered,
    Ask,
    EvalTask,
    Judge,
    TaskItem,
    judge_scorer,
    open_scorer,
    open_solver,
    open_task,
    run_task,
)
from hanol.runs import Budget


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def calculate(request: Request) -> str:
    """The right answer to a question of `sums`."""
    found = re.search(r"What is ([\d +\-*]+)\?", request.messages[-1].text)
    assert found
    terms = re.findall(r"[+-]?\d+", found[1].replace(" ", ""))
    return f"The answer is {sum(map(int, terms))}."


class Counting(ScriptedEngine):
    """Counts its calls, and fails at those whose question has a word."""

    calls = 0
    broken = "no such word"

    async def complete(self, request: Request):
        self.calls += 1
        if self.broken in request.messages[-1].text:
            raise EngineError("server error 500")
        return await super().complete(request)


def test_a_task_of_a_world_has_its_verifiers() -> None:
    report = run_task(open_task("sums", count=12), ScriptedEngine(calculate))
    assert report.score.value == 1.0
    assert report.score.low < 0.8, "12 right answers do not show an accuracy of 100 %"
    assert set(report.groups) >= {"level 2", "level 3"}
    assert (report.scored, report.coverage, report.spent["model_calls"]) == (12, 1.0, 12)


def test_the_pages_of_a_world_are_in_the_question() -> None:
    task = open_task("encyclopedia:5", count=4)
    assert [item.group for item in task.items] == ["1 hops", "1 hops", "2 hops", "3 hops"]
    answers = {item.question: item.answers for item in task.items}
    engine = ScriptedEngine(lambda request: " and ".join(answers[request.messages[-1].text]))
    assert run_task(task, engine).score.value == 1.0
    assert run_task(task, ScriptedEngine(lambda request: "Nobody")).score.value == 0.0
    assert all(item.answers[0] in item.question for item in task.items), "open book"


def test_rows_of_a_user(tmp_path: Path) -> None:
    rows = [
        {"question": "Capital of Korea?", "answer": ["Seoul", "서울"], "group": "asia"},
        {"id": "b", "prompt": "1 + 1?", "target": 2, "group": "sums"},
    ]
    task = open_task(write_lines(tmp_path / "own.jsonl", rows))
    assert [item.id for item in task.items] == ["own-1", "b"]
    script = [Reply("So the answer is 서울.", "Korea"), Reply("2", "1")]
    report = run_task(task, ScriptedEngine(script))
    assert report.score.value == 1.0
    assert list(report.groups) == ["asia", "sums"]


def test_a_row_chooses_no_module(tmp_path: Path) -> None:
    row = {"question": "x", "answer": "y", "verifier": "antigravity:fly"}
    with pytest.raises(DataError, match="would be imported"):
        open_task(write_lines(tmp_path / "own.jsonl", [row]))
    assert "antigravity" not in sys.modules
    row["verifier"] = "regex:(y)"
    assert open_task(write_lines(tmp_path / "own.jsonl", [row])).items[0].verifier == "regex:(y)"


def test_choices_are_lettered(tmp_path: Path) -> None:
    rows = [
        {"question": "Which is a metal?", "choices": ["tea", "iron"], "answer": "iron"},
        {"question": "Which is a drink?", "choices": ["tea", "iron"], "answer": 0},
    ]
    path = write_lines(tmp_path / "own.jsonl", rows)
    task = open_task(path)
    assert "A. tea\nB. iron" in task.items[0].question
    assert [item.answers for item in task.items] == [("B",), ("A",)]
    engine = ScriptedEngine([Reply("B. iron", "metal"), Reply("I think (B)", "drink")])
    assert run_task(task, engine).score.value == 0.5
    mixed = [*rows, {"question": "1 + 1?", "answer": 2}, {"question": "Who?", "answer": "Kim",
             "verifier": "regex:K.m"}]  # fmt: skip
    engine = ScriptedEngine([Reply("B", "metal"), Reply("A", "drink"), Reply("2", "1"),
                             Reply("Kim or Kam", "Who")])  # fmt: skip
    task = open_task(write_lines(tmp_path / "mixed.jsonl", mixed))
    assert run_task(task, engine).score.value == 0.75, "each row by what it is for"
    with pytest.raises(DataError, match="none of the choices"):
        open_task(write_lines(tmp_path / "x.jsonl", [rows[0] | {"answer": "gold"}]))


def test_published_sets_are_tasks(tmp_path: Path) -> None:
    rows = [
        {"task_id": "g1", "Question": "How much?", "Final answer": "$1,200"},
        {"task_id": "g2", "Question": "Which?", "Final answer": "b, a"},
        {"task_id": "g3", "Question": "Who?", "Final answer": "St. John's"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the number of rows
        task = open_task("gaia:" + write_lines(tmp_path / "g.jsonl", rows))
    assert task.scorer.name == "gaia"
    right = [Reply("1200", "much"), Reply("The answer is B,a", "Which"), Reply("St Johns", "Who")]
    assert run_task(task, ScriptedEngine(right)).score.value == 1.0
    wrong = [Reply("1201", "much"), Reply("a, b", "Which"), Reply("John", "Who")]
    assert run_task(task, ScriptedEngine(wrong)).score.value == 0.0


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("no-such-task", ConfigError, "names no problems"),
        ("gaya:x.jsonl", UnknownNameError, "Did you mean 'gaia'"),
        ("no_such_module:task", ConfigError, "cannot be imported"),
        ("missing.jsonl", DataError, "could not be read"),
    ],
)
def test_unknown_tasks_are_told(spec: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        open_task(spec)


def test_unknown_solvers_and_scorers_are_told(tmp_path: Path) -> None:
    for spec in ("guess", "vote:0", "prompt:", "json:loads"):
        with pytest.raises(ConfigError):
            open_solver(spec)
    for spec in ("close", "judge:", "json:no_such"):
        with pytest.raises(ConfigError):
            open_scorer(spec)
    (tmp_path / "p.txt").write_text("no field")
    with pytest.raises(DataError, match="{question}"):
        open_solver(f"prompt:{tmp_path / 'p.txt'}")


def test_a_second_run_makes_no_call_and_another_scorer_none(tmp_path: Path) -> None:
    engine = Counting(calculate)
    first = run_task(open_task("sums", count=6), engine, folder=tmp_path / "run", runs=2)
    assert engine.calls == 12
    again = run_task(open_task("sums", count=6), engine, folder=tmp_path / "run", runs=2)
    assert engine.calls == 12
    assert again.new_answers == 0
    assert again.score == first.score
    assert again.spent == first.spent
    # More items are drawn on top, in any order; only they are asked.
    more = run_task(open_task("sums", count=8), engine, folder=tmp_path / "run", runs=2)
    assert (engine.calls, more.new_answers) == (16, 4)
    other = open_task("sums", count=8, scorer="contains")
    assert run_task(other, engine, folder=tmp_path / "run", runs=2).score.value == 1.0
    assert engine.calls == 16
    lines = (tmp_path / "run" / "outputs.jsonl").read_text("utf-8").splitlines()
    outputs = [json.loads(line) for line in lines]
    assert len(outputs) == 16
    assert outputs[0].keys() >= {"id", "source", "candidate", "reference", "system"}
    assert json.loads((tmp_path / "run" / "report.json").read_text())["coverage"] == 1.0


def test_a_torn_log_and_other_sampling(tmp_path: Path) -> None:
    engine = Counting(calculate)
    task = open_task("sums", count=3)
    run_task(task, engine, folder=tmp_path)
    log = tmp_path / "answers.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    report = run_task(task, engine, folder=tmp_path)
    assert (engine.calls, report.new_answers, report.scored) == (4, 1, 3)
    warm = Sampling(temperature=0.7, seed=1)
    assert run_task(task, engine, folder=tmp_path, sampling=warm).new_answers == 3


def test_a_failed_item_is_counted_and_asked_again(tmp_path: Path) -> None:
    task = open_task("sums", count=4)
    engine = Counting(calculate)
    engine.broken = task.items[0].question
    report = run_task(task, engine, folder=tmp_path)
    assert report.failed == {"server error 500": 1}
    assert (report.scored, report.coverage, report.score.value) == (3, 0.75, 1.0)
    engine.broken = "no such word"
    assert run_task(task, engine, folder=tmp_path).coverage == 1.0
    assert engine.calls == 5
    engine.broken = "What"
    with pytest.raises(EngineError, match="None of the 4 items"):
        run_task(task, engine)


def test_limits_end_a_run_with_what_there_is() -> None:
    budget = Budget(model_calls=2, seconds=None)
    report = run_task(open_task("sums", count=5), ScriptedEngine(calculate), budget=budget)
    assert (report.scored, report.failed) == (2, {"the limit of calls was met": 3})
    with pytest.raises(ConfigError, match="runs"):
        run_task(open_task("sums", count=1), ScriptedEngine(calculate), runs=0)


def test_votes_and_prompts(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        seed = request.sampling.seed or 0
        return "The answer is 7." if seed % 3 else "The answer is 8."

    class Single(ScriptedEngine):
        capabilities = frozenset()

    item = TaskItem("a", "3 + 4?", ("7",))
    task = EvalTask("own", [item], open_solver("vote:3"), open_scorer("numeric"))
    one_by_one = run_task(task, Single(answer), sampling=Sampling(seed=0))
    assert one_by_one.score.value == 1.0
    assert one_by_one.spent["model_calls"] == 3
    (tmp_path / "p.txt").write_text("Say {question}")
    solver = open_solver(f"prompt:{tmp_path / 'p.txt'}")
    echo = ScriptedEngine(lambda request: request.messages[-1].text)
    task = EvalTask("own", [item], solver, open_scorer("contains"))
    assert run_task(task, echo).runs == (0.0,)


async def own_solver(item: TaskItem, ask: Ask) -> str:
    draft = (await ask(item.question)).text
    return draft.upper()


def own_scorer(item: TaskItem, text: str) -> float:
    return len(text) / 10


def own_task() -> EvalTask:
    items = [TaskItem("a", "x", ("y",)), TaskItem("b", "z", ("z",))]
    return EvalTask("own", items, open_solver(), open_scorer("exact"))


def test_functions_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    task = open_task("mine:own_task")
    echo = ScriptedEngine(lambda request: request.messages[-1].text)
    assert run_task(task, echo).score.value == 0.5
    task = EvalTask(
        "own", task.items, open_solver("mine:own_solver"), open_scorer("mine:own_scorer")
    )
    report = run_task(task, echo)
    assert not report.is_share
    assert report.any_of_k is None
    assert report.score.value == pytest.approx(0.1)
    assert "0.10 [0.10, 0.10]" in "\n".join(report.lines())


def test_verdicts_of_a_judge_are_kept(tmp_path: Path) -> None:
    verdict = {"extracted_final_answer": "x", "reasoning": "", "confidence": 100}
    judge = Counting([Reply(json.dumps(verdict | {"correct": "yes"}), "Response:\n<<<\ngood"),
                      Reply("I cannot say", "Response:\n<<<\nodd"),
                      Reply(json.dumps(verdict | {"correct": "no"}), "Response")])  # fmt: skip
    scorer = judge_scorer(Judge(judge, attempts=1))
    items = [TaskItem(name, name, ("x",)) for name in ("good", "bad", "odd", "none")]
    task = EvalTask("own", items, open_solver(), scorer)
    echo = ScriptedEngine(
        lambda request: request.messages[-1].text.replace("none", "<think>hm</think>")
    )
    found: list[Answered] = []
    report = run_task(task, echo, folder=tmp_path, on_answer=found.append)
    assert {one.item.id: one.value for one in found} == {
        "good": True, "bad": False, "odd": None, "none": False
    }  # fmt: skip
    assert (report.scored, report.unscored) == (3, 1)
    assert judge.calls == 3, "an empty answer is not judged"
    run_task(task, echo, folder=tmp_path)
    assert judge.calls == 4, "only the one without a verdict is judged again"


def test_reports_of_other_tasks_do_not_compare() -> None:
    a, b = open_task("sums", count=3), open_task("sums", count=3, seed=1)
    assert a.hash != b.hash
    assert a.hash == open_task("sums", count=3).hash
    assert a.hash != open_task("sums", count=3, scorer="numeric").hash
    with pytest.raises(DataError, match="two items with the id 'a'"):
        EvalTask("own", [TaskItem("a", "x")] * 2, a.solver, a.scorer)
