"""Import every room of an installed hanol, and say where it comes from.

Run by `make wheel` in an environment without extras: a room must not need one to be imported.
"""

import importlib
import pkgutil
import sys
from contextlib import suppress
from pathlib import Path

import hanol
from hanol.errors import MissingExtraError


def main() -> None:
    """Import the rooms; each that fails is named."""
    if "site-packages" not in Path(hanol.__file__).parts:
        sys.exit(f"{hanol.__file__} is not an installed package")
    rooms = [room.name for room in pkgutil.iter_modules(hanol.__path__) if room.name[0] != "_"]
    failed = []
    for name in rooms:
        try:
            module = importlib.import_module(f"hanol.{name}")
            for public in getattr(module, "__all__", []):
                with suppress(MissingExtraError):  # said when the name is used, not before
                    getattr(module, public)
        except ImportError as err:
            failed.append(f"hanol.{name}: {err}")
    if failed:
        sys.exit("\n".join(failed))
    print(f"{len(rooms)} rooms of hanol {hanol.__version__}: {', '.join(rooms)}")


if __name__ == "__main__":
    main()
