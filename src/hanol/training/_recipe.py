"""Recipes: YAML files that define a run completely, read, overridden and checked in one way."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hanol.errors import ConfigError, RecipeError
from hanol.files import read_text

FloatName = Literal["float32", "bfloat16"]
Beta = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
MOST_STEPS = 5_000_000  # all steps of a run are decided beforehand
_LARGEST = 10**15  # of any number of tokens, rows, bytes
_UNKNOWN = "unknown key `"
Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Part of a recipe: cannot be changed, and refuses keys that it does not know.

    Raises:
        ConfigError: A key is unknown or a value out of range; the message names all of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as err:
            name = type(self).__name__
            raise ConfigError(f"These values do not fit {name}: {_explain(err)}") from err

    # Sections within a recipe are checked without `__init__`: an error tells where they stand.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _countable(self) -> Self:
        for name, value in self:
            for number in value if isinstance(value, tuple | list) else (value,):
                if isinstance(number, int) and abs(number) > _LARGEST:
                    raise ValueError(f"`{name}` is beyond {_LARGEST:.0e}, more than can be counted")
        return self

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        known = sorted(cls.model_fields)
        texts = []
        for key in values if isinstance(values, dict) else ():
            if key not in known:
                near = get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                texts.append(f"{_UNKNOWN}{key}`, {hint}")
        if texts:
            raise ValueError("; ".join(texts))
        return values


class StageEstimate(BaseModel):
    """What one stage of a run will take."""

    name: str
    kind: str
    tokens: int | None = Field(
        description="Maximum number of trained tokens, with the sampled ones of `grpo`; None "
        "depends on the data."
    )
    steps: int | None = Field(description="Minimum number of optimizer steps.")
    rollouts: int = Field(description="Number of attempts at questions.")


class Estimate(BaseModel):
    """What a run will take, computed without allocating a model."""

    parameters: int
    active_parameters: int
    trained_parameters: int | None = Field(None, description="None: all of them.")
    rows: int | None = Field(None, description="Rows to learn from, where they were counted.")
    left_out: dict[str, int] = Field(default={}, description="Rows that are unusable, by reason.")
    steps: int
    tokens: int
    rollouts: int = 0
    train_flops: float = Field(description="Floating-point operations of training.")
    state_gib: float = Field(
        description="GiB of weights, gradients and optimizer state, all processes together."
    )
    hours: float | None = Field(
        None,
        description="Time at the speed of matrix products on this device; small models take "
        "longer.",
    )
    stages: list[StageEstimate] = []


class Recipe(Section):
    """What recipes of all kinds have."""

    kind: str
    name: str = Field(description="Name of the run; its folder is runs/<name> by default.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, data order and sampling.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads per process; None uses torch's default."
    )
    record: dict[str, str] = Field(default={}, description="Results of a recorded run, to read.")

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if name in ("", "..") or Path(name).name != name or not name.isprintable():
            raise ValueError(
                f"{name!r} cannot name the run's folder: leave out slashes and control characters"
            )
        return name

    def estimate(self) -> Estimate:
        """What the run will take, computed without allocating a model."""
        raise NotImplementedError


def state_gib(parameters: int, *, with_muon: bool) -> float:
    """GiB of float32 weights and gradients, and one moment for Muon or two for AdamW."""
    return parameters * 4 * (3 if with_muon else 4) / 2**30


def recipe_content(path: str | Path) -> dict[str, Any]:
    """The keys of a recipe file, unchecked."""
    path = Path(path)
    try:
        content = yaml.safe_load(read_text(path))
    except FileNotFoundError as err:
        near = sorted(map(str, path.parent.glob("[!.]*.yaml")))
        hint = f" Beside it: {', '.join(near)}." if near else ""
        raise RecipeError(f"There is no recipe {str(path)!r}.{hint}") from err
    # A date that does not exist, no UTF-8, brackets in brackets.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:
        cause = " ".join(str(err).split())
        raise RecipeError(f"The recipe {str(path)!r} could not be read: {cause}") from err
    if not isinstance(content, dict):
        raise RecipeError(f"The recipe {str(path)!r} holds no keys.")
    return content


def with_overrides(
    section: type[Model], content: dict[str, Any], overrides: list[str] | None, what: str
) -> Model:
    """Check the values of a recipe, some of them replaced.

    Args:
        section: Model that checks them.
        content: Values by key; changed in place.
        overrides: "dotted.key=value" texts; values are YAML.
        what: Subject of an error.

    Raises:
        RecipeError: An override has another form, a key is unknown (the nearest right one is
            named), or a value is out of range.
    """
    for override in overrides or []:
        _override(content, override)
    try:
        return section.model_validate(content)
    except ValidationError as err:
        raise RecipeError(f"{what} is not valid: {_explain(err)}") from err


def _override(content: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"An override has the form key=value, but got {text!r}.")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as err:  # a date that does not exist
        raise RecipeError(f"{key!r}: {value!r} is no value: {' '.join(str(err).split())}") from err
    *parents, last = key.strip().split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, dict):
            place = place.setdefault(parent, {})
        else:
            place = place[_index(place, parent, key)]
    place[last if isinstance(place, dict) else _index(place, last, key)] = parsed


def _index(place: Any, part: str, key: str) -> int:
    """The index of a list that a part of a dotted key stands for."""
    if not isinstance(place, list):
        raise RecipeError(f"{key!r}: there is no section to set {part!r} in.")
    if not part.isdecimal() or int(part) >= len(place):
        raise RecipeError(f"{key!r}: {part!r} is no index of a list of {len(place)}.")
    return int(part)


def _explain(err: ValidationError) -> str:
    texts = []
    for problem in err.errors():
        where = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        if not where:  # about the whole
            texts.append(text)
        elif text.startswith(_UNKNOWN):
            texts.append(text.replace(_UNKNOWN, f"{_UNKNOWN}{where}."))
        else:
            named = problem["type"] in ("missing", "value_error")  # or there is no value
            texts.append(
                f"`{where}`: {text}" + ("" if named else f", not {problem['input']!r:.80}")
            )
    return "; ".join(texts)
