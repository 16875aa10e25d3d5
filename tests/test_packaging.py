"""The files that pin versions agree with pyproject.toml."""

import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [made for group in groups for made in map(Requirement, group) if made.name != "hanol"]


def pins(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_every_requirement_has_one_lower_bound() -> None:
    assert len(requirements()) > 40
    for requirement in requirements():
        assert [part.operator for part in requirement.specifier] == [">="], requirement


def test_lower_constraints_are_those_of_pyproject() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "dev" / "constraints.py", "lower"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == (ROOT / "constraints-lower.txt").read_text(), (
        "run: python dev/constraints.py lower > constraints-lower.txt"
    )


def test_each_python_has_one_pin_of_every_requirement() -> None:
    optional = {"fla-core"}  # needs a GPU
    for python in ("3.11", "3.12", "3.13"):
        held = {}
        for pin in pins("constraints.txt"):
            if pin.marker is None or pin.marker.evaluate({"python_version": python}):
                name = canonicalize_name(pin.name)
                assert name not in held, f"{name} has two pins for Python {python}"
                held[name] = next(iter(pin.specifier)).version
        for requirement in requirements():
            name = canonicalize_name(requirement.name)
            if name not in optional:
                assert requirement.specifier.contains(held[name]), f"{requirement} {python}"
