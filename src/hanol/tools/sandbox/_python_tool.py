"""The agent's Python interpreter: `PythonInterpreter` of Tongyi DeepResearch (arXiv 2510.24701)."""

import asyncio
from collections.abc import Mapping
from typing import Any

from hanol.errors import SandboxError
from hanol.tools._tool import Observation, ToolContext
from hanol.tools.sandbox._bwrap import SandboxLimits
from hanol.tools.sandbox._sandbox import arun_python


class PythonInterpreter:
    """Runs code that the model wrote, in a sandbox; see `arun_python` for what that means.

    Args:
        limits: Of each run; None takes the defaults.
        unsafe: Run without isolation where no sandbox works.
        concurrency: Runs at once; more wait.
    """

    name = "PythonInterpreter"
    description = (
        "Runs Python code in a sandbox without network and files, and returns what it prints. "
        "The arguments are always the empty object {}. The code follows right after them, inside "
        "the tool call, between <code> and </code>. Only what is printed by print() is returned; "
        "every call starts afresh."
    )
    # The code is no JSON argument: the parser adds it as `code` (section "PythonInterpreter" of
    # the official prompt).
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}, "required": []}

    def __init__(
        self, limits: SandboxLimits | None = None, *, unsafe: bool = False, concurrency: int = 2
    ) -> None:
        self._limits = limits
        self._unsafe = unsafe
        self._concurrency = concurrency
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        """Run `arguments["code"]`; the last line of the result names the isolation."""
        code = arguments.get("code")
        if not isinstance(code, str) or not code.strip():
            return Observation(
                "No code to run: write it between <code> and </code>, after the JSON object.",
                failed=True,
            )
        try:
            async with self._slot():
                result = await arun_python(code, limits=self._limits, unsafe=self._unsafe)
        except SandboxError as err:
            return Observation(str(err), failed=True)
        text = f"{result.text}\n[sandbox: {result.level}]"
        return Observation(text, failed=result.exit_code != 0)

    def _slot(self) -> asyncio.Semaphore:
        # A semaphore belongs to one event loop, a tool may outlive it.
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = (loop, asyncio.Semaphore(self._concurrency))
        return self._slots[1]
