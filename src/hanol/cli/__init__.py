"""The command line: one module a command group, no logic of its own.

The commands of a large group lie in private modules beside it. Results go to standard output,
progress and warnings to standard error. Exit codes: 0 done, 1 a `HanolError`, 2 wrong usage,
3 a threshold was not met, 130 interrupted.
"""

from hanol.cli._app import app, main

__all__ = ["app", "main"]
