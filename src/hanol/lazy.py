"""Imports that wait until something is used, so that a command loads only what it needs."""

import ast
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["lazy_names", "when_imported"]


def lazy_names(room: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose public names are imported at their first use.

    The names are those that its `__init__.py` imports under `if TYPE_CHECKING:`, where tools for
    types and documentation find them; its `__all__` lists them.

    Args:
        room: `__name__` of the package.
    """
    module = sys.modules[room]
    homes: dict[str, str] = {}

    def find(name: str) -> Any:
        if not homes:
            homes.update(_homes(str(module.__file__)))
        if name not in homes:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(module, name, value)
        _settle()
        return value

    return find, lambda: list(module.__all__)


def _homes(file: str) -> dict[str, str]:
    """The modules that a file imports names from under `if TYPE_CHECKING:`, by name."""
    found: dict[str, str] = {}
    for node in ast.parse(Path(file).read_text("utf-8")).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for one in node.body:
                if isinstance(one, ast.ImportFrom):
                    found |= {alias.name: str(one.module) for alias in one.names}
    return found


def when_imported(name: str, call: Callable[[], None], *, settled: Sequence[str] = ()) -> None:
    """Call a function once a module of another library is imported; at once if it already is.

    Args:
        name: The module.
        call: Called after its code has run.
        settled: Packages of which `call` imports modules: it waits until none of theirs, but this
            one, is half imported.
    """
    if name in sys.modules:
        call()
        return
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
    _watched.setdefault(name, []).append((call, tuple(settled)))


_Call = tuple[Callable[[], None], tuple[str, ...]]  # and the packages that have to be settled
_watched: dict[str, list[_Call]] = {}
_postponed: list[_Call] = []


def _settle(finished: str = "") -> None:
    """Call what waits, unless modules of its packages are half imported; `finished` is not."""
    if not _postponed:
        return
    half = {
        name.partition(".")[0]
        for name, module in list(sys.modules.items())
        if name != finished and getattr(getattr(module, "__spec__", None), "_initializing", False)
    }
    waiting = _postponed[:]
    _postponed.clear()  # the calls import, too, and come here again
    for call, packages in waiting:
        if half.isdisjoint(packages):
            call()
        else:
            _postponed.append((call, packages))


class _Watch(MetaPathFinder):
    """Finds modules as usual; what is to be called follows the run of their code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        _settle()
        if fullname not in _watched:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _postponed.extend(_watched.pop(fullname, []))
            _settle(fullname)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
