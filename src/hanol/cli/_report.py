"""How every command reports failure: one line for a person, one JSON object for a program."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from hanol.errors import HanolError


@contextmanager
def reported(*, as_json: bool = False) -> Iterator[None]:
    """Turn a `HanolError` into one line on standard error and exit code 1.

    Args:
        as_json: Also print `{"error": {"kind", "message"}}` on standard output.
    """
    try:
        yield
    except HanolError as err:
        message = " ".join(str(err).split())
        if as_json:
            typer.echo(json.dumps({"error": {"kind": type(err).__name__, "message": message}}))
        print(f"hanol: {message}", file=sys.stderr)
        raise typer.Exit(1) from err
