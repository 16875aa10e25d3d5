"""Tasks under inspect_ai and lm-evaluation-harness, the real ones where they are installed."""

import asyncio
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from hanol.engines import Completion, Request, ScriptedEngine
from hanol.errors import DataError, EngineError
from hanol.evaluation import (
    Answered,
    EvalTask,
    TaskItem,
    inspect_model,
    inspect_task,
    lm_eval_model,
    lm_eval_task,
    open_scorer,
    open_solver,
    open_task,
    read_inspect_log,
    run_task,
    write_inspect_log,
)


def calculate(request: Request) -> str:
    """The right answer to a question of `sums`, a wrong one where it has a 7."""
    found = re.search(r"What is ([\d +\-*]+)\?", request.messages[-1].text)
    assert found
    terms = re.findall(r"[+-]?\d+", found[1].replace(" ", ""))
    return f"The answer is {sum(map(int, terms)) + ('7' in found[1])}."


@pytest.fixture
def ai(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        found = pytest.importorskip("inspect_ai", exc_type=ImportError)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    return found


@pytest.mark.filterwarnings("ignore")
def test_a_task_runs_under_inspect(ai: Any, tmp_path: Path) -> None:
    task = open_task("sums", count=6)
    engine = ScriptedEngine(calculate)
    ours = run_task(task, engine)
    (log,) = ai.eval(inspect_task(task), model=inspect_model(engine), log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["mean"].value == pytest.approx(ours.score.value)
    read = read_inspect_log(log.location)
    assert {one.item.id: one.value for one in read.answers} == {
        item.id: "7" not in item.question for item in task.items
    }
    assert read.report.score == ours.score
    assert read.report.spent["model_calls"] == 6
    assert read.task.items[0].answers == task.items[0].answers


@pytest.mark.filterwarnings("ignore")
def test_solvers_of_ours_ask_models_of_inspect(ai: Any, tmp_path: Path) -> None:
    item = TaskItem("a", "2 + 2?", ("4",))
    task = EvalTask("own", [item], open_solver("steps"), open_scorer("numeric"))
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    made = ModelOutput.from_content("m", "The answer is 4")
    made.usage = ModelUsage(input_tokens=5, output_tokens=4, total_tokens=9)  # else it downloads
    model = get_model("mockllm/model", custom_outputs=[made])
    (log,) = ai.eval(inspect_task(task), model=model, log_dir=str(tmp_path))
    assert log.status == "success", log.error
    assert log.samples[0].scores["hanol_scorer"].value == "C"
    assert log.samples[0].output.completion == "The answer is 4"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".json", ".eval"])
def test_a_run_of_ours_is_a_log_of_inspect(ai: Any, tmp_path: Path, suffix: str) -> None:
    task, found = open_task("sums", count=5), list[Answered]()

    class Broken(ScriptedEngine):
        async def complete(self, request: Request) -> Completion:
            if task.items[0].question in request.messages[-1].text:
                raise EngineError("server error 500")
            return await super().complete(request)

    report = run_task(task, Broken(calculate), runs=2, on_answer=found.append)
    path = tmp_path / f"run{suffix}"
    write_inspect_log(task, report, found, path)
    log = ai.log.read_eval_log(str(path))
    assert log.results.scores[0].metrics["mean"].value == report.score.value
    assert len(log.samples) == 10
    again = read_inspect_log(path)
    assert again.report.score == report.score
    assert again.report.failed == report.failed == {"server error 500": 2}
    assert again.report.runs == report.runs
    with pytest.raises(DataError, match="no scorer 'other'"):
        read_inspect_log(path, scorer="other")


def test_what_is_no_log_is_told(ai: Any, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="is no log"):
        read_inspect_log(tmp_path / "x.json")


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lm_eval", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore")
def test_a_task_runs_under_lm_eval(harness: Any) -> None:
    task, engine = open_task("sums", count=6), ScriptedEngine(calculate)
    ours = run_task(task, engine)
    found = harness.simple_evaluate(
        lm_eval_model(engine), tasks=[lm_eval_task(task)], bootstrap_iters=0, log_samples=True
    )
    assert found["results"]["hanol_sums"]["score,none"] == pytest.approx(ours.score.value)
    with pytest.raises(EngineError, match="cannot use the solver 'steps'"):
        lm_eval_task(open_task("sums", count=2, solver="steps"))


@pytest.mark.filterwarnings("ignore")
def test_likelihoods_are_those_of_the_harness(harness: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from hanol.engines import open_engine
    from hanol.models import resolve

    engine = open_engine("tiny")
    theirs = HFLM(pretrained=str(resolve("tiny")), device="cpu", dtype="float32", batch_size=1)
    pairs = [("def add(a, b):\n    return", " a + b"), ("import ", "os"), ("x", " = 1\n")]
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(pairs)
    ]
    ours = lm_eval_model(engine)
    for (a, greedy), (b, their_greedy) in zip(
        ours.loglikelihood(asked), theirs.loglikelihood(asked), strict=True
    ):
        assert a == pytest.approx(b, abs=1e-3)
        assert greedy == their_greedy
    # Without a begin token, a text is what follows its first token.
    first, rest = "def", " add(a, b):\n    return a + b\n"
    whole = Instance(request_type="loglikelihood_rolling", doc={}, arguments=(first + rest,), idx=0)
    after = Instance(request_type="loglikelihood", doc={}, arguments=(first, rest), idx=0)
    (a,), ((b, _),) = ours.loglikelihood_rolling([whole]), theirs.loglikelihood([after])
    assert a == pytest.approx(b, abs=1e-3)
    asyncio.run(engine.aclose())
