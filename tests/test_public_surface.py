"""What a user can import: complete, sorted, and light until it is used."""

import importlib
import subprocess
import sys
from types import FunctionType, ModuleType

import pytest

ROOMS = [
    "agent_training",
    "attention",
    "autodeco",
    "claims",
    "engines",
    "evaluation",
    "models",
    "multimodal",
    "research",
    "retrieval",
    "rl",
    "runs",
    "sampling",
    "scaling",
    "scoring",
    "synthesis",
    "test_time",
    "tools",
    "training",
    "worlds",
]


@pytest.mark.parametrize("room", ROOMS)
def test_room_exports_exactly_what_it_lists(room: str) -> None:
    module = importlib.import_module(f"hanol.{room}")
    listed = module.__all__
    assert len(listed) == len(set(listed))
    assert module.__doc__
    assert module.__doc__.strip().count("\n") > 0, "the docstring says what lives in the room"
    public = {
        name
        for name in dir(module)
        if not name.startswith("_") and not isinstance(getattr(module, name), ModuleType)
    }
    assert public == set(listed)


@pytest.mark.parametrize("name", ["control", "errors", "files", "http", "lazy", "process", "rows"])
def test_module_lists_what_it_defines(name: str) -> None:
    module = importlib.import_module(f"hanol.{name}")
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert defined == set(module.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_a_docstring(room: str) -> None:
    module = importlib.import_module(f"hanol.{room}")
    undocumented = [
        name
        for name in module.__all__
        if isinstance(getattr(module, name), type | FunctionType)
        and not getattr(module, name).__doc__
    ]
    assert undocumented == []


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['hanol', '--help']\n"
        "from hanol.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
