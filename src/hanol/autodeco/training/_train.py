"""Training of the heads over a frozen base, from files or from the base itself.

The Trainer sees the heads alone; the loss runs the base, or reads its cached features.
Source: arXiv 2510.26697, section 3.1; the defaults are the paper's.
"""

from collections.abc import Sequence
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor

from hanol.autodeco._heads import Init
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._data import TokenRow
from hanol.autodeco.training._features import (
    CacheDtype,
    FeatureCache,
    FeatureSource,
    OnlineSource,
    dump_features,
    fingerprint,
)
from hanol.autodeco.training._heads_trainer import (
    HeadsLearning,
    HeadSteps,
    HeadsTrainer,
    passes,
    prepare_folder,
    trainable,
)
from hanol.autodeco.training._loss import IGNORED, AutoDecoLoss
from hanol.errors import DataError, require
from hanol.files import replace_text
from hanol.training import OnStep, TrainingResult, plot_loss, read_metrics

_SHOWN = 50_000  # positions in the histogram


class HeadsSettings(HeadsLearning):
    """How heads are trained: by default 400 steps of 32 answers, online."""

    min_rows: int = Field(
        64, ge=1, description="Fewer rows are refused: heads learn them by heart."
    )
    min_tokens: int = Field(
        2000, ge=1, description="Fewer tokens with a label, in all rows, are refused."
    )
    init: Init | None = Field(None, description="Initialise new heads by `seed`; None keeps them.")
    cached: bool = Field(False, description="Run the base once over all rows; train from files.")
    top_k: int = Field(1024, ge=1, description="Tokens that a cache keeps for each position.")
    cache_dtype: CacheDtype = Field("float32", description="float16 halves a cache.")


class Quantiles(BaseModel):
    """Mean and quantiles of what a head chooses."""

    mean: float
    p5: float
    p50: float
    p95: float


class HeadsResult(TrainingResult):
    """What a finished run made: its checkpoint has the heads alone."""

    steps: int
    labels: int = Field(description="Positions with a label that were seen.")
    loss: float = Field(description="Loss of the last step.")
    temperature: Quantiles = Field(description="What the final heads choose on training rows.")
    top_p: Quantiles | None = Field(description="The same for top-p; None without that head.")
    tail_mass: float | None = Field(description="Mean probability kept as one token in a cache.")

    def summary(self) -> str:
        """The result in a sentence."""
        parts = [
            f"{name} {found.mean:.2f} ({found.p5:.2f} to {found.p95:.2f})"
            for name, found in (("T", self.temperature), ("P", self.top_p))
            if found is not None
        ]
        return (
            f"{self.checkpoint}: {', '.join(parts)} on training rows; curves and histograms in "
            f"{self.folder}"
        )


def train_heads(
    model: AutoDecoForCausalLM,
    rows: Sequence[TokenRow] | FeatureCache,
    settings: HeadsSettings | None = None,
    folder: str | Path = "runs/heads",
    *,
    resume: bool = False,
    questions: int | None = None,
    on_step: OnStep = lambda line: None,
) -> HeadsResult:
    """Train the heads of a model; its base stays as it is.

    The folder gets `recipe.yaml`, `metrics.jsonl`, `checkpoint-*`, `heads` (the official layout),
    `result.json`, `loss.png`, `temperature_top_p.png`, and with `cached` the `features`.

    Args:
        model: From `AutoDecoForCausalLM.from_base` or `.from_pretrained`; its heads are trained in
            place, in float32.
        rows: From `tokenize`, or features that `dump_features` made with this base.
        settings: Settings, or a whole recipe; None takes the defaults.
        folder: Folder of the run.
        resume: Continue from the newest checkpoint in the folder, or start if there is none.
        questions: How many questions the rows are the right answers to; where they are too few,
            the error says how many would do.
        on_step: Called with each line of metrics.

    Returns:
        What the run made.

    Raises:
        RecipeError: The folder holds a run that this one does not continue, or there is no head to
            train.
        DataError: Rows or features do not fit the base, or there are too few to learn from.
        TrainingError: The loss is not finite.
        WriteError: The disk is full, or the folder cannot be written.
    """
    require("matplotlib", extra="train", feature="Training")
    require("accelerate", extra="train", feature="Training")
    settings, folder = settings or HeadsSettings(), Path(folder)
    source: FeatureSource
    if not isinstance(rows, FeatureCache):
        source = OnlineSource(model, rows)
    elif rows.belongs_to(model):
        source = FeatureCache(rows.folder, model.device)
    else:
        raise DataError(
            f"The features in {str(rows.folder)!r} are those of a base with other weights. Make "
            "them with `dump_features` and this model."
        )
    _refuse_few(source.num_labels_R, settings, questions)
    heads = trainable(model, settings)
    if settings.init is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            for head in heads:
                head.cpu().init(settings.init).to(model.device)  # type: ignore[operator]
    data = {"rows": rows.data if isinstance(rows, FeatureCache) else fingerprint(rows)}
    saved = prepare_folder(folder, settings, data, resume=resume)
    if settings.cached and not isinstance(rows, FeatureCache):
        source = dump_features(
            model, rows, folder / "features", top_k=settings.top_k, dtype=settings.cache_dtype,
            batch=settings.micro_batch,
        )  # fmt: skip
    steps = HeadSteps(source.num_labels_R, settings)
    results: list[AutoDecoLoss] = []

    def part_loss(trainer: HeadsTrainer, inputs: dict[str, Tensor]) -> Tensor:
        features = source.micro_batch(inputs["rows"].tolist())
        items = int(inputs["labels_in_batch"])
        results.append(settings.loss(model, features, items, trainer.generator))
        loss = results[-1].loss
        if len(results) == steps.parts:
            trainer.found = _means(results)
            results.clear()
        return loss / (steps.parts if settings.reduction == "micro_mean" else 1)

    trainer = HeadsTrainer(model, steps, settings, folder, on_step, part_loss)
    with source.reads(model.top_p_head):
        trainer.run(saved)
        temperature_M, top_p_M = _choices(model, settings, source)
    model.save_heads(folder / "heads")
    result = HeadsResult(
        folder=str(folder),
        checkpoint=str(folder / "heads"),
        steps=trainer.state.global_step,
        labels=steps.tokens_before[-1],
        loss=read_metrics(folder)[-1]["loss"],
        temperature=_quantiles(temperature_M),
        top_p=None if top_p_M is None else _quantiles(top_p_M),
        tail_mass=source.tail_mass if isinstance(source, FeatureCache) else None,
    )
    replace_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    plot_loss(folder)
    _plot_choices(temperature_M, top_p_M, folder / "temperature_top_p.png")
    return result


def _refuse_few(
    labels_R: NDArray[np.int64], settings: HeadsSettings, questions: int | None
) -> None:
    """Refuse rows, each with its number of labels, that are too few to learn from."""
    rows, tokens = int((labels_R > 0).sum()), int(labels_R.sum())
    if not rows:
        raise DataError("No row has a label: there is nothing to learn from.")
    if rows >= settings.min_rows and tokens >= settings.min_tokens:
        return
    begin, more = "There are", "Give more rows"
    if questions:
        lacking = max(settings.min_rows / rows, settings.min_tokens / tokens)
        begin = f"The right answers to {questions:,} questions are"
        more = f"Ask for about {ceil(1.1 * questions * lacking):,} questions of this kind"
    raise DataError(
        f"{begin} {rows:,} rows with {tokens:,} labelled tokens, too few to learn from: at least "
        f"{settings.min_rows:,} rows and {settings.min_tokens:,} tokens are needed. {more}, or set "
        "`min_rows` and `min_tokens` lower to train on them all the same."
    )


@torch.no_grad()
def _choices(
    model: AutoDecoForCausalLM, settings: HeadsSettings, source: FeatureSource
) -> tuple[Tensor, Tensor | None]:
    """Temperature and top-p that the heads choose on training rows, up to a number."""
    temperatures, top_ps = [], []
    seen = 0
    order = list(islice(passes(len(source.num_labels_R), seed=0), len(source.num_labels_R)))
    for begin in range(0, len(order), settings.micro_batch):
        part = order[begin : begin + settings.micro_batch]
        logits_NV, hidden_NH, labels_N = source.micro_batch(part)
        at_M = (labels_N != IGNORED).nonzero().squeeze(-1)
        for rows_C in at_M.split(settings.chunk):
            temperature_C, top_p_C = model.predict(hidden_NH[rows_C], logits_NV[rows_C])
            temperatures.append(temperature_C.cpu())
            top_ps.append(top_p_C.cpu())
        seen += len(at_M)
        if seen >= _SHOWN:
            break
    return torch.cat(temperatures), None if model.top_p_head is None else torch.cat(top_ps)


def _plot_choices(temperature_M: Tensor, top_p_M: Tensor | None, path: Path) -> None:
    """Draw how often each temperature and top-p is chosen."""
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


def _means(results: list[AutoDecoLoss]) -> dict[str, float]:
    """Means over the parts of a batch, weighted by their labels."""
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


def _quantiles(values_M: Tensor) -> Quantiles:
    p5, p50, p95 = np.quantile(values_M.numpy(), (0.05, 0.5, 0.95)).tolist()
    return Quantiles(mean=values_M.mean().item(), p5=p5, p50=p50, p95=p95)
