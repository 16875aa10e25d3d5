"""Training of the heads: a short loop over a frozen base, from files or from the base itself.

Why not transformers' Trainer: it would call the model's `forward` for logits that nobody needs,
save the whole base with each checkpoint, and knows nothing of the generator that draws the easy
tokens, without whose state a resumed run has another next loss. With cached features there is not
even a model to call. Both sources therefore go through one loop; it runs in one process.

Source: arXiv 2510.26697, section 3.1; the recipe's defaults are the paper's.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from hanol.autodeco._data import TokenRow
from hanol.autodeco._features import (
    CacheDtype,
    FeatureCache,
    OnlineSource,
    Source,
    check_rows,
    dump_features,
    fingerprint,
)
from hanol.autodeco._heads import Init
from hanol.autodeco._loss import IGNORED, AutoDecoLoss
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco._run import HeadsOptions, HeadsRun, OnStep, batch_rows
from hanol.errors import DataError, require
from hanol.files import replace_json
from hanol.training import plot_loss

_SHOWN = 50_000  # positions in the histogram


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
    _init_heads(model, recipe)
    run = HeadsRun(model, recipe, Path(folder))
    saved = run.prepare({"rows": _data_fingerprint(rows)}, resume)
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
    with source.reads(model.top_p_head):
        run.each_step(len(source.num_labels_R), lambda batch: _update(run, source, batch), on_step)
        chosen = _choices(model, recipe, source)
    tail = source.tail_mass if isinstance(source, FeatureCache) else None
    return _finish(run, *chosen, tail)


def _init_heads(model: AutoDecoForCausalLM, recipe: HeadsRecipe) -> None:
    """Set the heads that are trained anew, by the recipe's seed."""
    if recipe.init is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        for head, wanted in (
            (model.temp_head, recipe.train_temperature),
            (model.top_p_head, recipe.train_top_p),
        ):
            if head is not None and wanted:
                head.float().cpu().init(recipe.init).to(model.device)


def _update(run: HeadsRun, source: Source, rows: Sequence[int]) -> dict[str, float]:
    """Gradients of one batch, and what it says."""
    recipe = run.recipe
    # Rows of about one length together: padding is work for nothing.
    rows = sorted(rows, key=lambda row: int(source.num_labels_R[row]))
    items = int(source.num_labels_R[rows].sum())
    micro = [rows[i : i + recipe.micro_batch] for i in range(0, len(rows), recipe.micro_batch)]
    results = []
    total = torch.zeros((), device=run.model.device)
    for part in micro:
        result = recipe.loss(run.model, source.micro_batch(part), items, run.generator)
        loss = result.loss / (len(micro) if recipe.reduction == "micro_mean" else 1)
        loss.backward()
        total = total + loss.detach()
        results.append(result)
    run.labels += items
    return {"tokens": run.labels, "loss": total.item(), **_means(results)}


@torch.no_grad()
def _choices(
    model: AutoDecoForCausalLM, recipe: HeadsRecipe, source: Source
) -> tuple[Tensor, Tensor | None]:
    """Temperature and top-p that the heads choose on training rows, up to a number."""
    temperatures, top_ps = [], []
    seen = 0
    order = next(batch_rows(len(source.num_labels_R), len(source.num_labels_R), 0, 0))
    for begin in range(0, len(order), recipe.micro_batch):
        part = order[begin : begin + recipe.micro_batch]
        logits_NV, hidden_NH, labels_N = source.micro_batch(part)
        at_M = (labels_N != IGNORED).nonzero().squeeze(-1)
        for rows_C in at_M.split(recipe.chunk):
            temperature_C, top_p_C = model.predict(hidden_NH[rows_C], logits_NV[rows_C])
            temperatures.append(temperature_C.cpu())
            top_ps.append(top_p_C.cpu())
        seen += len(at_M)
        if seen >= _SHOWN:
            break
    return torch.cat(temperatures), None if model.top_p_head is None else torch.cat(top_ps)


def _finish(
    run: HeadsRun, temperature_M: Tensor, top_p_M: Tensor | None, tail: float | None
) -> TrainResult:
    """Write heads, plots and result."""
    run.model.save_heads(run.folder / "heads")
    result = TrainResult(
        folder=str(run.folder),
        heads=str(run.folder / "heads"),
        steps=run.step,
        labels=run.labels,
        loss=run.loss,
        temperature=_spread(temperature_M),
        top_p=None if top_p_M is None else _spread(top_p_M),
        tail_mass=tail,
    )
    replace_json(run.folder / "result.json", result.model_dump(mode="json"))
    plot_loss(run.folder)
    plot_choices(temperature_M, top_p_M, run.folder / "temperature_top_p.png")
    return result


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
