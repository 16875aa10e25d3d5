"""Recipes: YAML files that define a run completely, read, overridden and checked in one way."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hanol.errors import RecipeError

if TYPE_CHECKING:
    from hanol.training._estimate import Estimate

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Part of a recipe: cannot be changed, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Section):
    """What recipes of all kinds have."""

    kind: str
    name: str = Field(description="Name of the run; its folder is runs/<name> by default.")
    seed: int = Field(0, description="Seed of weights, data order and everything else drawn.")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of each process; None leaves torch's number."
    )
    record: dict[str, str] = Field(
        default={}, description="What the recorded run of this recipe gave, for the reader."
    )

    def estimate(self) -> "Estimate":
        """What the run will take, computed without allocating a model."""
        raise NotImplementedError


def recipe_content(path: str | Path) -> dict[str, Any]:
    """The keys of a recipe file, unchecked.

    Raises:
        RecipeError: The file is missing, not YAML, or holds no keys.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as err:
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" Beside it: {', '.join(near)}." if near else ""
        raise RecipeError(f"There is no recipe {str(path)!r}.{hint}") from err
    except (OSError, ValueError, yaml.YAMLError) as err:  # a date that does not exist, no UTF-8
        cause = " ".join(str(err).split())
        raise RecipeError(f"The recipe {str(path)!r} could not be read: {cause}") from err
    if not isinstance(content, dict):
        raise RecipeError(f"The recipe {str(path)!r} holds no keys.")
    return content


def with_overrides(
    section: type[Model], content: dict[str, Any], overrides: list[str] | None, what: str
) -> Model:
    """Values of a recipe, some of them replaced.

    Args:
        section: The model that checks them.
        content: Values by key; changed in place.
        overrides: "dotted.key=value" texts; values are YAML.
        what: What an error is about.

    Raises:
        RecipeError: An override has another form, a key is unknown (the nearest right one is
            named), or a value is out of range.
    """
    for override in overrides or []:
        _override(content, override)
    try:
        return section.model_validate(content)
    except ValidationError as err:
        raise RecipeError(f"{what} is not valid: {_explain(err, section)}") from err


def _override(content: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"An override has the form key=value, but got {text!r}.")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as err:  # ValueError: a date that does not exist
        raise RecipeError(f"{key!r}: {value!r} is no value: {' '.join(str(err).split())}") from err
    *parents, last = key.strip().split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, list):
            if not parent.isdigit() or int(parent) >= len(place):
                raise RecipeError(f"{key!r}: {parent!r} is no index of a list of {len(place)}.")
            place = place[int(parent)]
        elif isinstance(place, dict):
            place = place.setdefault(parent, {})
        else:
            raise RecipeError(f"{key!r}: {parent!r} is not a section.")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise RecipeError(f"{key!r}: {last!r} is no index of a list of {len(place)}.")
        place[int(last)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise RecipeError(f"{key!r}: there is no section to set {last!r} in.")


def _explain(err: ValidationError, section: type[BaseModel]) -> str:
    texts = []
    for problem in err.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _known_keys(section, problem["loc"][:-1])
            near = get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            texts.append(f"unknown key `{where}`, {hint}")
        else:
            about = f"`{where}`: " if where else ""  # nothing of the whole
            texts.append(about + problem["msg"].removeprefix("Value error, "))
    return "; ".join(texts)


def _known_keys(section: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at a place; a part may be a key, an index or a tag of a union."""
    here = [section]
    for part in place:
        if isinstance(part, int):
            continue
        held = [
            inner
            for model in here
            if part in model.model_fields
            for inner in _sections_in(model.model_fields[part].annotation)
        ]
        here = held or [model for model in here if _is_tagged(model, part)]
    return sorted({key for model in here for key in model.model_fields})


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _sections_in(part)]


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    kind = model.model_fields.get("kind")
    return kind is not None and tag in get_args(kind.annotation)
