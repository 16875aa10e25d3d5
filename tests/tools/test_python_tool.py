import asyncio

import pytest

from hanol.retrieval import SourceList
from hanol.tools import Observation, PythonInterpreter, SandboxLimits, ToolContext, sandbox_problem
from hanol.tools.sandbox import _sandbox  # private: where programs are looked for

needs_sandbox = pytest.mark.skipif(
    sandbox_problem() is not None,
    reason=f"WARNING: the sandboxed interpreter was NOT TESTED: {sandbox_problem()}",
)


def call(tool: PythonInterpreter, **arguments: object) -> Observation:
    return asyncio.run(tool.run(arguments, ToolContext(SourceList())))


@needs_sandbox
def test_what_the_model_reads() -> None:
    tool = PythonInterpreter()
    assert call(tool, code="print(6 * 7)") == Observation("stdout:\n42\n[sandbox: bwrap]")
    assert call(tool, code="x = 1").text == "Finished execution.\n[sandbox: bwrap]"
    failed = call(tool, code="print('before')\n1/0")
    assert failed.failed
    assert failed.text.startswith("stdout:\nbefore\nstderr:\nTraceback")
    assert "ZeroDivisionError" in failed.text


@needs_sandbox
def test_the_limit_that_was_hit_is_told() -> None:
    tool = PythonInterpreter(SandboxLimits(wall_s=0.5))
    found = call(tool, code="import time; time.sleep(60)")
    assert found.failed
    assert "[limit reached: wall]" in found.text


@pytest.mark.parametrize("arguments", [{}, {"code": ""}, {"code": " \n"}, {"code": 5}])
def test_a_call_without_code_is_told_how(arguments) -> None:
    found = call(PythonInterpreter(), **arguments)
    assert found.failed
    assert "<code>" in found.text


def test_without_a_sandbox_the_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "sandbox_problem", lambda: "bwrap is missing.")
    found = call(PythonInterpreter(), code="print(1)")
    assert found.failed
    assert "--unsafe-python" in found.text
    assert call(PythonInterpreter(unsafe=True), code="print(1)").text.endswith("[sandbox: plain]")


def test_its_schema_is_the_official_one() -> None:
    tool = PythonInterpreter()
    assert tool.name == "PythonInterpreter"
    assert tool.parameters == {"type": "object", "properties": {}, "required": []}


@needs_sandbox
def test_runs_are_concurrent_within_the_limit_and_over_several_loops(monkeypatch) -> None:
    monkeypatch.setattr(_sandbox, "_CONCURRENT", 2)
    tool = PythonInterpreter()
    most = 0

    async def many() -> list[Observation]:
        nonlocal most
        running = 0
        original = _sandbox._supervise

        async def counted(*args):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                return await original(*args)
            finally:
                running -= 1

        _sandbox._supervise = counted
        try:
            context = ToolContext(SourceList())
            calls = (tool.run({"code": f"print({i})"}, context) for i in range(6))
            return list(await asyncio.gather(*calls))
        finally:
            _sandbox._supervise = original

    for _ in range(2):
        found = asyncio.run(many())
        assert [o.text.split("\n")[1] for o in found] == [str(i) for i in range(6)]
    assert most == 2
