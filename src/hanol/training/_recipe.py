"""The recipe: one YAML file that defines a training run completely.

Every field says its unit; where a value comes from a paper, the recipe file says which.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hanol.errors import RecipeError

Section = TypeVar("Section", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """What is trained."""

    preset: str | None = Field(None, description="Name of a preset: random weights.")
    checkpoint: str | None = Field(
        None, description="Bundled name, folder or hub id to go on from."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.preset is None) == (self.checkpoint is None):
            raise ValueError("give either `preset` or `checkpoint`")
        return self


class TokenizerSection(_Section):
    """How text becomes tokens."""

    vocab_size: int | None = Field(
        None, ge=260, description="Train a byte-level BPE of this many tokens on the training text."
    )
    checkpoint: str | None = Field(None, description="Take the tokenizer of this checkpoint.")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        if self.vocab_size is not None and self.checkpoint is not None:
            raise ValueError("give `vocab_size` or `checkpoint`, not both")
        return self


class DataSection(_Section):
    """Where the text comes from and what is held out."""

    source: Literal["stdlib", "folder", "jsonl", "parquet", "datasets"] = Field(
        description="`stdlib`: the standard library and language reference of this Python."
    )
    path: str | None = Field(None, description="Folder or file; the name of a `datasets` dataset.")
    split: str = Field("train", description="Split of a `datasets` dataset.")
    revision: str | None = Field(None, description="Commit of a `datasets` dataset.")
    text_column: str = Field("text", description="Column or key that holds the text.")
    held_out: float = Field(0.05, gt=0, lt=1, description="Share of documents held out, by name.")

    @model_validator(mode="after")
    def _has_path(self) -> Self:
        if self.source != "stdlib" and self.path is None:
            raise ValueError(f"`source: {self.source}` needs a `path`")
        return self


class Stage(_Section):
    """A part of the run with one batch size and sequence length."""

    tokens: int = Field(gt=0, description="Tokens of this stage.")
    sequence_length: int = Field(gt=1, description="Tokens of a row.")
    batch_tokens: int = Field(gt=0, description="Tokens of an optimizer step.")

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        if self.batch_tokens % self.sequence_length:
            raise ValueError(
                f"`batch_tokens` ({self.batch_tokens}) is not a multiple of `sequence_length` "
                f"({self.sequence_length})"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps, rounded up."""
        return -(-self.tokens // self.batch_tokens)


class OptimSection(_Section):
    """Muon for matrices inside the blocks, AdamW for everything else."""

    muon_lr: float | None = Field(
        None, gt=0, description="Peak rate of Muon; None puts every parameter on AdamW."
    )
    adamw_lr: float = Field(gt=0, description="Peak rate of AdamW.")
    weight_decay: float = Field(0.1, ge=0, description="Decoupled decay of matrices.")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's Nesterov momentum.")
    muon_dtype: Literal["float32", "bfloat16"] | None = Field(
        None,
        description="Type of Muon's iteration; None is float32 on CPU and bfloat16 elsewhere. "
        "bfloat16 is faster on processors with units for it.",
    )
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's.")
    clip_norm: float = Field(1.0, gt=0, description="Largest norm of the whole gradient.")


class ScheduleSection(_Section):
    """Warm-up, stable phase, decay."""

    warmup_tokens: int = Field(ge=0, description="Tokens of linear warm-up.")
    decay_tokens: int = Field(ge=0, description="Tokens of the decay at the end.")
    decay: Literal["linear", "cosine"] = Field("linear", description="Shape of the decay.")
    final: float = Field(0.0, ge=0, le=1, description="Rate at the end, as a share of the peak.")
    polyak: bool = Field(
        False, description="End with the mean of the weights of the decay phase (Llama 3, 3.4.3)."
    )


class Recipe(_Section):
    """A complete training run."""

    name: str = Field(description="Name of the run; its folder is runs/<name> unless told.")
    model: ModelSection
    tokenizer: TokenizerSection = TokenizerSection()
    data: DataSection
    stages: list[Stage] = Field(min_length=1)
    optim: OptimSection
    schedule: ScheduleSection
    micro_batches: int = Field(1, ge=1, description="Parts of a batch per process, to save memory.")
    gradient_checkpointing: bool = Field(False, description="Recompute blocks in the backward.")
    qk_clip: float | None = Field(None, gt=0, description="Largest attention logit (MuonClip).")
    router_bias_rate: float = Field(0.001, ge=0, description="Step of the experts' balancing.")
    eval_every: int = Field(100, ge=1, description="Optimizer steps between evaluations.")
    eval_bytes: int = Field(
        200_000, ge=1, description="Held-out bytes of an evaluation on the way."
    )
    save_every: int = Field(100, ge=1, description="Optimizer steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")
    log_every: int = Field(10, ge=1, description="Optimizer steps between log lines.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Of the computation.")
    save_dtype: Literal["float32", "bfloat16"] = Field("float32", description="Of the result.")
    seed: int = Field(0, description="Weights, data order, everything.")
    threads: int | None = Field(None, ge=1, description="CPU threads a process; None is torch's.")
    tensorboard: bool = Field(False, description="Also write TensorBoard files (extra).")
    record: dict[str, str] = Field(
        default={}, description="What the recorded run of this recipe gave: for the reader."
    )

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        total = sum(stage.tokens for stage in self.stages)
        used = self.schedule.warmup_tokens + self.schedule.decay_tokens
        if used > total:
            raise ValueError(
                f"warm-up and decay take {used} tokens, but the stages have only {total}"
            )
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def read_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file.

    Args:
        path: YAML file.
        overrides: "dotted.key=value" texts; values are YAML.

    Raises:
        RecipeError: The file is missing or not YAML, a key is unknown (the nearest right one is
            named), or a value is out of range.
    """
    return with_overrides(Recipe, recipe_content(path), overrides, f"The recipe {str(path)!r}")


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
    section: type[Section], content: dict[str, Any], overrides: list[str] | None, what: str
) -> Section:
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
