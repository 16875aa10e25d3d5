"""Files around the package agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

import hanol

ROOT = Path(__file__).parents[1]


def test_pre_commit_uses_the_pinned_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    [ruff] = [repo for repo in hooks["repos"] if "ruff" in repo["repo"]]
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    [pinned] = re.findall(r"^ruff==(\S+)", pins, re.MULTILINE)
    assert ruff["rev"] == f"v{pinned}"


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["version"] == project["version"] == hanol.__version__
    assert citation["license"] == project["license"]


def test_wheel_holds_the_package_alone() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == ["src/hanol"]
