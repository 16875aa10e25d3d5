"""Runs the stages of `test_stages` in children that are killed: the driver of a test there.

    python killed_stages.py FOLDER

The first child kills itself with signal 9 at its first event, the second at its second and so on,
until one comes to the end. Events are steps of training, before and after each file that the runner
writes, and before and after each evaluation. Children are forked, so that hanol is imported once.
Writes how many were killed.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import test_stages

from forked import in_child
from hanol.agent_training.stages import _train  # private: the points at which the process dies
from hanol.runs import _resume  # private: the points at which the process dies


class Fuse:
    """Kills this process at its n-th event."""

    def __init__(self, events: int) -> None:
        self._left = events

    def burn(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            self.burn()
            result = function(*args)
            self.burn()
            return result

        return wrapped


def run(folder: Path, events: int) -> None:
    fuse = Fuse(events)
    _train.replace_json = fuse.around(_train.replace_json)
    _resume.replace_text = fuse.around(_resume.replace_text)
    _train.plot_stages = lambda result, file: None  # slow, and tested elsewhere
    test_stages.run_stages(
        test_stages.recipe(),
        folder,
        test_stages.BODIES,
        fuse.around(test_stages.evaluate),
        resume=True,
        on_step=lambda line: fuse.burn(),
    )


def main() -> None:
    folder = Path(sys.argv[1])
    for events in range(1, 500):
        code = in_child(partial(run, folder, events))
        if code != -signal.SIGKILL:
            sys.stdout.write(f"{events - 1}\n")
            sys.exit(code)


if __name__ == "__main__":
    main()
