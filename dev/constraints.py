"""Write the files that pin what hanol is installed with.

python dev/constraints.py lower > constraints-lower.txt
python dev/constraints.py newest .venv-3.11 .venv-3.12 .venv-3.13 > constraints.txt

`lower` reads the lower bounds of pyproject.toml; `newest` what fresh environments hold, one for
each Python, without what belongs to a GPU.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
_OURS = re.compile(r"hanol|pip|setuptools|triton|(nvidia|cuda)[-_].*")


def lower() -> list[str]:
    """Every requirement of the package and its extras, at the version that its bound names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = {"# The lower bounds of pyproject.toml. Written by dev/constraints.py."}
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        if requirement.name != "hanol":
            [bound] = [part.version for part in requirement.specifier if part.operator == ">="]
            lines.add(f"{requirement.name}=={bound}")
    return sorted(lines, key=str.lower)


def newest(venvs: list[str]) -> list[str]:
    """What the environments hold, with a marker where Pythons differ.

    Args:
        venvs: Their folders, one for each Python, the oldest first.
    """
    pythons: list[str] = []
    found: dict[str, dict[str, list[str]]] = defaultdict(dict)  # name -> version -> Pythons
    for venv in venvs:
        python = Path(venv, "bin", "python")
        version = "import sys; print('%d.%d' % sys.version_info[:2])"
        pythons.append(subprocess.check_output([python, "-c", version], text=True).strip())
        listed = subprocess.check_output([python, "-m", "pip", "list", "--format=json"])
        for package in json.loads(listed):
            if not _OURS.fullmatch(package["name"]):
                versions = found[package["name"]]
                versions.setdefault(package["version"].split("+")[0], []).append(pythons[-1])
    lines = [
        f"# The versions hanol is tested with (Python {', '.join(pythons)}; Linux).",
        "# Every make target installs with this file. Written by dev/constraints.py.",
    ]
    for name, versions in sorted(found.items(), key=lambda item: item[0].lower()):
        starts = [holders[0] for holders in versions.values()] + [""]
        for version, (start, end) in zip(versions, pairwise(starts), strict=True):
            sides = [f'python_version >= "{start}"'] if version != next(iter(versions)) else []
            sides += [f'python_version < "{end}"'] if end else []
            lines.append(f"{name}=={version}" + "; " * bool(sides) + " and ".join(sides))
    return lines


if __name__ == "__main__":
    print("\n".join(lower() if sys.argv[1] == "lower" else newest(sys.argv[2:])))
