"""Where experiments and results lie: `claims/<system>/` of the repository, outside the wheel."""

import sys
import tomllib
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from hanol.claims._claim import Claim, ClaimResult
from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.files import read_text

_PACKAGE = "claims"


def claims_folder() -> Path:
    """The folder `claims` of the clone that hanol runs from, else of the one around this folder.

    Raises:
        ConfigError: There is no clone.
    """
    for start in (Path(__file__), Path.cwd() / "_"):
        for folder in start.resolve().parents:
            if _is_clone(folder):
                return folder / _PACKAGE
    raise ConfigError(
        "The claims live in the repository of hanol, not in the installed package, and "
        f"{str(Path.cwd())!r} is not inside a clone of it. Clone the repository and run "
        "`hanol claims` in its folder."
    )


def load_experiments() -> ModuleType:
    """Import the clone's folder `claims` as the package `claims`; no other folder is searched.

    Raises:
        ConfigError: There is no clone, or another package `claims` was imported before.
    """
    folder = claims_folder()
    package = sys.modules.get(_PACKAGE)
    if package is None:
        spec = spec_from_file_location(
            _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[_PACKAGE] = package = module_from_spec(spec)
        spec.loader.exec_module(package)
    if folder not in map(Path, package.__path__):
        raise ConfigError(
            f"A package `claims` from {list(package.__path__)} is imported already, so that of "
            f"{str(folder)!r} cannot be. Run the claims in another process."
        )
    return package


@cache
def all_claims() -> tuple[Claim, ...]:
    """Every claim of the clone, by id.

    Raises:
        ConfigError: There is no clone.
    """
    load_experiments()
    files = sorted(claims_folder().glob("*/*.py"))
    modules = [import_module(f"{_PACKAGE}.{file.parent.name}.{file.stem}") for file in files]
    values = (value for module in modules for value in vars(module).values())
    found = {value.id: value for value in values if isinstance(value, Claim)}
    return tuple(found[claim_id] for claim_id in sorted(found))


def find_claim(claim_id: str) -> Claim:
    """The claim with this id.

    Raises:
        UnknownNameError: There is none; the message names the nearest.
    """
    by_id = {claim.id: claim for claim in all_claims()}
    if claim_id not in by_id:
        raise UnknownNameError("claim", claim_id, by_id)
    return by_id[claim_id]


def find_claims(name: str) -> list[Claim]:
    """The claim with this id, or all claims of a system ("autodeco").

    Raises:
        UnknownNameError: There is none; the message names the nearest.
    """
    of_system = [claim for claim in all_claims() if claim.id.startswith(f"{name}.")]
    return of_system or [find_claim(name)]


def read_results(folder: Path | None = None) -> list[ClaimResult]:
    """All results recorded below a folder, by id.

    Args:
        folder: Folder of the results; None is the clone's.

    Raises:
        ConfigError: There is no clone.
        DataError: There is no such folder, or a file is not a recorded result.
    """
    folder = folder or claims_folder()
    if not folder.is_dir():
        raise DataError(f"There is no folder {str(folder)!r} of recorded results.")
    results = []
    for file in folder.glob("*/*.json"):
        try:
            results.append(ClaimResult.model_validate_json(read_text(file)))
        except (OSError, ValueError) as err:
            raise DataError(f"{str(file)!r} is not a recorded result of a claim: {err}") from err
    return sorted(results, key=lambda result: result.id)


def _is_clone(folder: Path) -> bool:
    project = folder / "pyproject.toml"
    if not (folder / _PACKAGE / "__init__.py").is_file() or not project.is_file():
        return False
    try:
        return bool(tomllib.loads(read_text(project))["project"]["name"] == "hanol")
    except (KeyError, TypeError, ValueError):
        return False  # another project's file, or none
