"""Rows of equal length from documents of any length, the same at every run and every resume.

Each epoch is a permutation of the documents, laid end to end and cut into rows. The rows of a
batch come from places far apart: neighbours are parts of one document, and a batch of one document
has the gradient of one document. Positions start again at every document, which is how the model
knows where one ends.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanol.errors import TrainingError
from hanol.training._logits import IGNORED
from hanol.training._trainer import Steps
from hanol.training.pretraining._data import Corpus
from hanol.training.pretraining._pretrain_recipe import PretrainRecipe


def _stride(n: int) -> int:
    """Row i of n is read at place i * stride % n: a permutation that sends neighbours far apart."""
    stride = max(1, round(n * 0.6180339887498949))  # the golden section spreads most evenly
    while math.gcd(stride, n) != 1:
        stride += 1
    return stride


class _Step(NamedTuple):
    stage_start: int  # first token of the stage in the run's stream
    stage_rows: int
    stride: int
    first_row: int  # of this step, counted in the stage
    rows: int
    length: int  # tokens of a row

    def row_start(self, row: int) -> int:
        """First token of a row of the stage in the run's stream."""
        return self.stage_start + row * self.stride % self.stage_rows * self.length


class PackedSteps(Steps):
    """Item i is one of `parts` of the batch of an optimizer step: [rows, T] tensors by name."""

    def __init__(self, corpus: Corpus, recipe: PretrainRecipe, parts: int) -> None:
        self._corpus, self._seed, self.parts = corpus, recipe.seed, parts
        self._lengths = np.diff(corpus.ends, prepend=0)
        self._epoch_tokens = int(self._lengths.sum())
        self._order: tuple[int, NDArray[Any], NDArray[Any]] | None = None
        self._steps: list[_Step] = []
        position = 0
        for stage in recipe.stages:
            rows = stage.batch_tokens // stage.sequence_length
            if rows % parts:
                raise TrainingError(
                    f"A batch of {rows} rows cannot be shared by {parts} parts (processes times "
                    "`micro_batches`). Change `batch_tokens`, `sequence_length` or the processes."
                )
            total = rows * stage.steps
            self._steps += [
                _Step(position, total, _stride(total), first, rows, stage.sequence_length)
                for first in range(0, total, rows)
            ]
            position += stage.steps * stage.batch_tokens
        self.tokens_before = [
            step.stage_start + step.first_row * step.length for step in self._steps
        ] + [position]

    def part(self, step: int, part: int) -> dict[str, Tensor]:
        """A part of the batch of a step."""
        plan = self._steps[step]
        mine = plan.rows // self.parts
        first = plan.first_row + part * mine
        stretches = [
            self._stretch(plan.row_start(row), plan.length) for row in range(first, first + mine)
        ]
        tokens, position_ids = (torch.from_numpy(np.stack(x)) for x in zip(*stretches, strict=True))
        input_ids = tokens.long()
        # The first token of a document cannot be known from the document before it.
        labels = input_ids.masked_fill(position_ids == 0, IGNORED)
        return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels}

    def _stretch(self, first: int, length: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        tokens, positions = [], []
        while length:
            epoch, place = divmod(first, self._epoch_tokens)
            order, ends = self._epoch(epoch)
            which = int(np.searchsorted(ends, place, side="right"))
            inside = place - (int(ends[which - 1]) if which else 0)
            piece = self._corpus.document(int(order[which]))[inside : inside + length]
            # A document cut by the end of a row begins anew in the next: its state is not kept.
            tokens.append(piece)
            positions.append(np.arange(len(piece), dtype=np.int64))
            first += len(piece)
            length -= len(piece)
        return np.concatenate(tokens), np.concatenate(positions)

    def _epoch(self, epoch: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths))
            self._order = (epoch, order, self._lengths[order].cumsum())
        return self._order[1], self._order[2]


@torch.no_grad()
def check_no_leak(model: Any, vocab_size: int) -> None:
    """Make sure that packed documents do not see each other, whatever the model.

    Two documents in a row; the first is changed; the logits of the second must not move.

    Raises:
        TrainingError: They do.
    """
    was_training = model.training
    model.eval()
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocab_size, (2, 24), generator=rng)
    changed = ids.clone()
    changed[:, :11] = torch.randint(0, vocab_size, (2, 11), generator=rng)
    position_ids = torch.cat([torch.arange(11), torch.arange(13)]).expand(4, 24)
    both, position_ids = (x.to(model.device) for x in (torch.cat([ids, changed]), position_ids))
    logits = model(input_ids=both, position_ids=position_ids, use_cache=False).logits
    model.train(was_training)
    before, after = logits[:, 11:].chunk(2)
    difference = (before - after).abs().max().item()
    if not difference < 1e-4:
        raise TrainingError(
            f"Packed documents leak into each other in this {type(model).__name__}: changing one "
            f"moved the logits of the next by {difference:.2g}. Train on one document a row."
        )
