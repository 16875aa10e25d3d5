"""Where experiments keep what they make, so that one that was interrupted goes on."""

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hanol.claims import clone_commit

_ROOT = Path("runs/claims")


@cache
def _scratch() -> Path:
    folder = TemporaryDirectory(prefix="hanol-claims-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def place(system: str, seed: int, quick: bool, name: str) -> Path:
    """Folder or file of one part of the work of one seed.

    It lies under `runs/claims/<system>/<commit>/seed-<seed>`: claims of a system share what they
    train, and another commit begins anew. Nothing of a quick run is kept.
    """
    root = _scratch() / system if quick else _ROOT / system / clone_commit()
    return root / f"seed-{seed}" / name


def read_lines(file: Path) -> list[Any]:
    """What `replace_rows` wrote."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
