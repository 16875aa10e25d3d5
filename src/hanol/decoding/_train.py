"""Training of the heads: a short loop over a frozen base, from files or from the base itself.

Why not transformers' Trainer: it would call the model's `forward` for logits that nobody needs,
save the whole base with each checkpoint, and knows nothing of the generator that draws the easy
tokens, without whose state a resumed run has another next loss. With cached features there is not
even a model to call. Both sources therefore go through one loop; it runs in one process.

Source: arXiv 2510.26697, section 3.1; the recipe's defaults are the paper's.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import get_scheduler

from hanol.decoding import _formats as formats
from hanol.decoding._data import TokenRow
from hanol.decoding._features import (
    CacheDtype,
    FeatureCache,
    MicroBatch,
    OnlineSource,
    Source,
    check_rows,
    dump_features,
    fingerprint,
)
from hanol.decoding._heads import Init
from hanol.decoding._loss import IGNORED, AutoDecoLoss, autodeco_loss
from hanol.decoding._model import AutoDecoForCausalLM
from hanol.decoding._soft_top_p import Cumsum
from hanol.errors import DataError, RecipeError, TrainingError, require
from hanol.training import plot_loss, read_metrics

OnStep = Callable[[int, dict[str, float]], None]

_STATE = "training_state.pt"
_RECIPE = "recipe.yaml"
_METRICS = "metrics.jsonl"
_WIDE = 2048  # hidden width from which the paper's rate is right
_SHOWN = 50_000  # positions in the histogram


class HeadsOptions(BaseModel):
    """Loss and optimizer of the heads; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["hf", "megatron"] = Field("hf", description="Official trainer to follow.")
    top_p_loss: Literal["soft", "mse"] = Field(
        "soft", description='"mse" is the older official loss.'
    )
    easy_token_drop: float = Field(
        0.6, ge=0, le=1, description="Share of easy tokens that do not count, drawn anew each step."
    )
    dft: bool = Field(True, description="Weight each token by its probability.")
    train_temperature: bool = Field(True, description="False leaves that head as it is.")
    train_top_p: bool = Field(True, description="False leaves that head as it is.")
    steepness: float = Field(30.0, ge=0, description="How fast tokens fade beyond P.")
    cumsum: Cumsum = Field("inclusive", description='"exclusive" tends to hard top-p.')
    reduction: Literal["token", "micro_mean"] = Field(
        "token", description='"micro_mean": a mean of means, as the official trainer.'
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="Peak rate of AdamW; None is the paper's 5e-6 for hidden states of 2048 and "
        "wider, 1e-3 below.",
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(
        "linear", description="Of the rate; the first two go to 0 at the last step."
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    steps: int = Field(400, ge=1, description="Optimizer steps.")
    batch: int = Field(32, ge=1, description="Rows of a step.")
    micro_batch: int = Field(8, ge=1, description="Rows that run through the base together.")
    chunk: int = Field(256, ge=2, description="Positions as wide as the vocabulary at once.")
    seed: int = Field(0, ge=0, description="Of the heads, the order of rows and the easy tokens.")

    def rate(self, hidden_size: int) -> float:
        """Peak rate for a base of this width."""
        if self.lr is not None:
            return self.lr
        return 5e-6 if hidden_size >= _WIDE else 1e-3

    def loss(
        self,
        model: AutoDecoForCausalLM,
        features: MicroBatch,
        items: int,
        generator: torch.Generator,
    ) -> AutoDecoLoss:
        """The loss of a micro-batch out of a batch with `items` labels."""
        return autodeco_loss(
            *features,
            model.temp_head,
            model.top_p_head,
            recipe=self.recipe,
            top_p_loss=self.top_p_loss,
            easy_token_drop=self.easy_token_drop,
            dft=self.dft,
            generator=generator,
            num_items=torch.tensor(items),
            reduction=self.reduction,
            train_temperature=self.train_temperature,
            train_top_p=self.train_top_p,
            steepness=self.steepness,
            cumsum=self.cumsum,
            chunk=self.chunk,
        )


class HeadsRecipe(HeadsOptions):
    """How heads are trained: by default 400 steps of 32 answers, online."""

    init: Init | None = Field(
        None, description="Set the heads anew, by `seed`; None goes on from what they are."
    )
    cached: bool = Field(
        False, description="Run the base once over all rows, then train from files."
    )
    top_k: int = Field(1024, ge=1, description="Tokens that a cache keeps of each position.")
    cache_dtype: CacheDtype = Field("float32", description="float16 halves a cache.")
    save_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")


# What may change when a run is resumed.
_FREE = {"save_every", "keep"}


class Spread(BaseModel):
    """Where values of a head lie."""

    mean: float
    p5: float
    p50: float
    p95: float


class TrainResult(BaseModel):
    """What a finished run made."""

    folder: str
    heads: str = Field(description="Heads-only checkpoint.")
    steps: int
    labels: int = Field(description="Positions with a label that were seen.")
    loss: float = Field(description="Of the last step.")
    temperature: Spread = Field(description="Of the final heads on training rows.")
    top_p: Spread | None = Field(description="Likewise; None without that head.")
    tail_mass: float | None = Field(
        description="Mean probability that a cache kept as one token; None without a cache."
    )


def train_heads(
    model: AutoDecoForCausalLM,
    rows: Sequence[TokenRow] | FeatureCache,
    recipe: HeadsRecipe | None = None,
    folder: str | Path = "runs/heads",
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train the heads of a model; its base stays as it is.

    The folder gets `recipe.yaml`, `metrics.jsonl`, `checkpoint-*`, `heads` (the official layout),
    `result.json`, `loss.png`, `temperature_top_p.png`, and with `cached` the `features`.

    Args:
        model: From `AutoDecoForCausalLM.from_base` or `.from_pretrained`; its heads are trained in
            place, in float32.
        rows: From `tokenize`, or features that `dump_features` made with this base.
        recipe: None takes the defaults.
        folder: The run's folder.
        resume: Go on from the newest checkpoint in the folder, or start if there is none.
        on_step: Called after each step with its number, from 1, and its metrics.

    Returns:
        What the run made.

    Raises:
        RecipeError: The folder holds a run that this one does not continue, or there is no head to
            train.
        DataError: Rows or features do not fit the base.
        TrainingError: The loss is not finite, or the folder cannot be written.
    """
    require("matplotlib", extra="train", feature="Training")
    recipe = recipe or HeadsRecipe()
    if not isinstance(rows, FeatureCache):
        check_rows(model, rows)
        if not any(row.num_labels for row in rows):
            raise DataError("No row has a label: there is nothing to learn from.")
    elif not rows.belongs_to(model):
        raise DataError(
            f"The features in {str(rows.folder)!r} are of a base with other weights. Make them "
            "with `dump_features` and this model."
        )
    run = _Run(model, recipe, Path(folder))
    saved = run.prepare(_data_fingerprint(rows), resume)
    source: Source
    if isinstance(rows, FeatureCache):
        source = rows.to(model.device)
    elif recipe.cached:
        source = dump_features(
            model,
            rows,
            run.folder / "features",
            top_k=recipe.top_k,
            dtype=recipe.cache_dtype,
            batch=recipe.micro_batch,
        )
    else:
        source = OnlineSource(model, rows)
    if saved is not None:
        run.load(saved)
    try:
        with source.reads(model.top_p_head):
            run.train(source, on_step)
            chosen = run.choices(source)
        return run.finish(chosen, source.tail_mass if isinstance(source, FeatureCache) else None)
    except OSError as err:
        raise TrainingError(
            f"The run's folder {folder!s} could not be written: {err}. Checkpoints are whole: free "
            "some space and resume."
        ) from err


class _Run:
    """One training run: heads, optimizer, schedule, the generator of the easy tokens."""

    def __init__(self, model: AutoDecoForCausalLM, recipe: HeadsRecipe, folder: Path) -> None:
        self.model, self.recipe, self.folder = model, recipe, folder
        self.parameters = trainable(model, recipe.train_temperature, recipe.train_top_p)
        if recipe.init is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                for head, wanted in (
                    (model.temp_head, recipe.train_temperature),
                    (model.top_p_head, recipe.train_top_p),
                ):
                    if head is not None and wanted:
                        head.cpu().init(recipe.init).to(model.device)
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=recipe.rate(model.config.temperature_hidden_size),
            weight_decay=recipe.weight_decay,
        )
        self.scheduler = get_scheduler(recipe.schedule, self.optimizer, recipe.warmup, recipe.steps)
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.step = self.labels = 0
        self.loss = math.nan

    # -- the folder

    def prepare(self, data: str, resume: bool) -> Path | None:
        """Make the folder; the checkpoint to go on from. What has no checkpoint is begun anew."""
        stored = self.folder / _RECIPE
        now = self.recipe.model_dump(mode="json")
        found = _checkpoints(self.folder)
        try:
            if not found:
                self.folder.mkdir(parents=True, exist_ok=True)
                content = yaml.safe_dump({"recipe": now, "data": data}, sort_keys=False)
                replace_text(stored, content)
                return None
            before = yaml.safe_load(stored.read_text("utf-8"))
        except (OSError, yaml.YAMLError) as err:
            raise TrainingError(
                f"The run's folder {str(self.folder)!r} cannot be used: {err}"
            ) from err
        if not resume:
            raise RecipeError(
                f"{str(self.folder)!r} already holds a run. Go on with it by `resume`, or give "
                "another folder."
            )
        known = before.get("recipe", {}) if isinstance(before, dict) else {}
        changed = sorted(k for k in now if k not in _FREE and now[k] != known.get(k))
        if not changed and before.get("data") != data:
            changed = ["the rows"]
        if changed:
            raise RecipeError(
                f"The run in {str(self.folder)!r} was started with other values of "
                f"{', '.join(changed)}: it cannot be resumed so. Give another folder."
            )
        return found[-1]

    def save(self) -> None:
        """Write a checkpoint whole or not at all: heads in the official layout, and the rest."""
        state = {
            "step": self.step,
            "labels": self.labels,
            "loss": self.loss,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
        }
        path = self.folder / f"checkpoint-{self.step}"
        try:
            with formats.written(path) as part:
                self.model.save_heads(part)
                torch.save(state, part / _STATE)
        except RuntimeError as err:  # torch.save reports a full disk this way
            raise TrainingError(
                f"{path.name} could not be written to {str(self.folder)!r}: {err}. Earlier "
                "checkpoints are whole: free some space and resume."
            ) from err
        for old in _checkpoints(self.folder)[: -self.recipe.keep]:
            shutil.rmtree(old)

    def load(self, checkpoint: Path) -> None:
        """Set everything to where a checkpoint was."""
        state = torch.load(checkpoint / _STATE, weights_only=True, map_location="cpu")
        tensors = load_file(checkpoint / formats.WEIGHTS)
        self.model.load_state_dict(tensors, strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.step, self.labels, self.loss = state["step"], state["labels"], state["loss"]

    # -- the loop

    def train(self, source: Source, on_step: OnStep | None) -> None:
        """All steps that are left."""
        recipe = self.recipe
        metrics = self.folder / _METRICS
        if metrics.exists():  # a resumed run makes the steps after the checkpoint again
            lines = [line for line in read_metrics(self.folder) if line["step"] <= self.step]
            replace_text(metrics, "".join(json.dumps(line) + "\n" for line in lines))
        batches = batch_rows(len(source.num_labels_R), recipe.batch, recipe.seed, self.step)
        with metrics.open("a", encoding="utf-8", buffering=1) as file:
            while self.step < recipe.steps:
                line = self._update(source, next(batches))
                file.write(json.dumps(line) + "\n")
                if self.step % recipe.save_every == 0 or self.step == recipe.steps:
                    self.save()
                if on_step is not None:
                    on_step(self.step, line)

    def _update(self, source: Source, rows: Sequence[int]) -> dict[str, float]:
        recipe = self.recipe
        # Rows of about one length together: padding is work for nothing.
        rows = sorted(rows, key=lambda row: int(source.num_labels_R[row]))
        items = int(source.num_labels_R[rows].sum())
        micro = [rows[i : i + recipe.micro_batch] for i in range(0, len(rows), recipe.micro_batch)]
        self.optimizer.zero_grad()
        done = []
        for part in micro:
            result = recipe.loss(self.model, source.micro_batch(part), items, self.generator)
            loss = result.loss / (len(micro) if recipe.reduction == "micro_mean" else 1)
            loss.backward()
            done.append((loss.detach(), result))
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.loss = sum(loss for loss, _ in done).item()  # type: ignore[union-attr]
        if not math.isfinite(self.loss) or not math.isfinite(norm):
            saved = _checkpoints(self.folder)
            raise TrainingError(
                f"The loss is {self.loss} and the norm of its gradient {norm.item()} at step "
                f"{self.step + 1}. Lower `lr` ({self.scheduler.get_last_lr()[0]:g} there), then "
                + (f"go on from {str(saved[-1])!r}." if saved else "start again.")
            )
        line = {
            "step": self.step + 1,
            "tokens": self.labels + items,
            "loss": self.loss,
            "grad_norm": norm.item(),
            "learning_rate": self.scheduler.get_last_lr()[0],
            **_means([result for _, result in done]),
        }
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self.labels += items
        return line

    # -- the end

    @torch.no_grad()
    def choices(self, source: Source) -> tuple[Tensor, Tensor | None]:
        """Temperature and top-p that the heads choose on training rows, up to a number."""
        temperatures, top_ps = [], []
        seen = 0
        order = next(batch_rows(len(source.num_labels_R), len(source.num_labels_R), 0, 0))
        for begin in range(0, len(order), self.recipe.micro_batch):
            part = order[begin : begin + self.recipe.micro_batch]
            logits_NV, hidden_NH, labels_N = source.micro_batch(part)
            at_M = (labels_N != IGNORED).nonzero().squeeze(-1)
            for rows_C in at_M.split(self.recipe.chunk):
                pair = self.model.predict(hidden_NH[rows_C], logits_NV[rows_C])
                temperatures.append(pair[0].cpu())
                top_ps.append(pair[1].cpu())
            seen += len(at_M)
            if seen >= _SHOWN:
                break
        T_M, P_M = torch.cat(temperatures), torch.cat(top_ps)
        return T_M, None if self.model.top_p_head is None else P_M

    def finish(self, chosen: tuple[Tensor, Tensor | None], tail: float | None) -> TrainResult:
        """Write heads, plots and result."""
        temperature_M, top_p_M = chosen
        self.model.save_heads(self.folder / "heads")
        result = TrainResult(
            folder=str(self.folder),
            heads=str(self.folder / "heads"),
            steps=self.step,
            labels=self.labels,
            loss=self.loss,
            temperature=_spread(temperature_M),
            top_p=None if top_p_M is None else _spread(top_p_M),
            tail_mass=tail,
        )
        replace_text(self.folder / "result.json", result.model_dump_json(indent=2) + "\n")
        plot_loss(self.folder)
        plot_choices(temperature_M, top_p_M, self.folder / "temperature_top_p.png")
        return result


def trainable(
    model: AutoDecoForCausalLM, temperature: bool = True, top_p: bool = True
) -> list[nn.Parameter]:
    """Freeze all but the wanted heads, and give their parameters, in float32.

    Steps of 5e-6 are lost in the rounding of a bfloat16 weight.

    Raises:
        RecipeError: The model has none of the wanted heads.
    """
    model.freeze_base().eval()
    found: list[nn.Parameter] = []
    for head, wanted in ((model.temp_head, temperature), (model.top_p_head, top_p)):
        if head is not None:
            head.float().requires_grad_(wanted)
            found += head.parameters() if wanted else []
    if not found:
        raise RecipeError(
            "There is no head to train: the model has none, or `train_temperature` and "
            "`train_top_p` switch off those that it has."
        )
    return found


def batch_rows(num_rows: int, batch: int, seed: int, done: int) -> Iterator[list[int]]:
    """Rows of each step after the first `done`, in passes over all rows in a new order each.

    They depend on nothing but the arguments, so there is no state to save.
    """
    at = done * batch
    while True:
        rows: list[int] = []
        while len(rows) < batch:
            epoch, begin = divmod(at, num_rows)
            order = np.random.default_rng((seed, epoch)).permutation(num_rows)
            rows += order[begin : begin + batch - len(rows)].tolist()
            at = done * batch + len(rows)
        done += 1
        yield rows


def plot_choices(temperature_M: Tensor, top_p_M: Tensor | None, path: Path) -> Path:
    """Draw how often each temperature and top-p is chosen.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", extra="train", feature="A histogram")
    from matplotlib.figure import Figure

    panels = [("temperature", temperature_M, 2.0)]
    if top_p_M is not None:
        panels.append(("top-p", top_p_M, 1.0))
    figure = Figure(figsize=(4.5 * len(panels), 3.5), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, values_M, most) in zip(axes, panels, strict=True):
        axis.hist(values_M.numpy(), bins=np.linspace(0, most, 61).tolist(), color="tab:blue")
        axis.axvline(values_M.mean().item(), color="tab:orange", label="mean")
        axis.set(xlabel=name, ylabel="tokens", xlim=(0, most))
        axis.legend()
    figure.savefig(path, dpi=120)
    return path


def _data_fingerprint(rows: Sequence[TokenRow] | FeatureCache) -> str:
    return rows.data if isinstance(rows, FeatureCache) else fingerprint(rows)


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    found = [path for path in folder.glob("checkpoint-*") if (path / _STATE).exists()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def _means(results: list[AutoDecoLoss]) -> dict[str, float]:
    """What the parts of a batch say of it, weighted by their labels."""
    labels = max(sum(result.num_labels for result in results), 1)
    found: dict[str, float] = {}
    for name in ("temperature_loss", "top_p_loss"):
        parts = [(getattr(result, name), result.num_labels) for result in results]
        if parts[0][0] is not None:
            found[name] = sum(value.item() * count for value, count in parts) / labels
    for name, short in (("temperature_M", "temperature"), ("top_p_M", "top_p")):
        values = [getattr(result, name) for result in results]
        if values[0] is not None:
            found[short] = sum(value_M.sum().item() for value_M in values) / labels
    dropped = sum(result.num_dropped.item() for result in results)
    return {**found, "dropped": dropped / labels}


def _spread(values_M: Tensor) -> Spread:
    p5, p50, p95 = np.quantile(values_M.numpy(), (0.05, 0.5, 0.95)).tolist()
    return Spread(mean=values_M.mean().item(), p5=p5, p50=p50, p95=p95)


def replace_text(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)
