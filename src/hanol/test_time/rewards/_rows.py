"""Rows of process rewards: a problem, its steps, and how often each led to the right answer.

Rows are `{"prompt", "completions": [steps], "labels"}`, with one label per step: a number from 0 to
1 (the share of continuations that ended right), true or false (PRM800K, Math-Shepherd), or null for
a step that nobody judged. Numbers and truth values may stand in one file.

Shape suffixes: N steps that are learned.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hanol.errors import DataError
from hanol.test_time.rewards._formats import StepFormat, StepInputs
from hanol.test_time.rewards._model import step_logits
from hanol.training import Objective

_IGNORED = -100
AfterFirstError = Literal["auto", "ignore", "zero", "keep"]


class StepRow(NamedTuple):
    """A solution to learn from.

    Attributes:
        inputs: Its tokens, and where its steps end.
        labels: How right each step is, from 0 to 1; None where that is not learned.
    """

    inputs: StepInputs
    labels: tuple[float | None, ...]

    @property
    def size(self) -> int:
        """Number of tokens that are computed."""
        return len(self.inputs.input_ids)

    @property
    def is_learned(self) -> bool:
        """Whether there is something to learn."""
        return any(label is not None for label in self.labels)


class UnusableRow(Exception):  # noqa: N818 - it is caught and counted
    """A row that cannot be learned from; `reason` is the key under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def step_row(
    row: Mapping[str, Any],
    format: StepFormat,
    *,
    max_length: int,
    target: Literal["steps", "outcome"] = "steps",
    after_first_error: AfterFirstError = "auto",
    counts: Counter[str] | None = None,
) -> StepRow:
    """A row as tokens and labels.

    Args:
        row: As read from a file.
        format: How the model reads steps.
        max_length: Tokens; steps that do not fit are dropped from the end, each whole.
        target: "outcome" learns the last step alone: whether the answer is right.
        after_first_error: Of labels behind the first that is 0: "ignore" does not learn them,
            "zero" takes them for 0, "keep" as they are. "auto" ignores them where all labels of a
            row are true or false, for people stop judging there, and keeps measured ones.
        counts: Where dropped steps and rows with such are counted.

    Raises:
        UnusableRow: It is malformed, or not even its first step fits.
    """
    prompt, steps, labels = (row.get(key) for key in ("prompt", "completions", "labels"))
    if not isinstance(prompt, str) or not prompt.strip():
        raise UnusableRow("malformed", '"prompt" is missing or empty')
    if not isinstance(steps, list) or not steps or not all(isinstance(x, str) for x in steps):
        raise UnusableRow("malformed", f'"completions" is no list of steps, but {steps!r:.60}')
    if not isinstance(labels, list) or len(labels) != len(steps):
        found = len(labels) if isinstance(labels, list) else repr(labels)[:40]
        raise UnusableRow("malformed", f"{len(steps)} steps, but the labels are {found}")
    values = _values(labels, "keep" if target == "outcome" else after_first_error)
    if target == "outcome":
        values[:-1] = [None] * (len(values) - 1)
    for kept in range(len(steps), 0, -1):
        inputs = format.encode(prompt, steps[:kept])
        if len(inputs.input_ids) <= max_length and (target == "steps" or kept == len(steps)):
            if counts is not None and kept < len(steps):
                counts["truncated_rows"] += 1
                counts["dropped_steps"] += len(steps) - kept
            return StepRow(inputs, tuple(values[:kept]))
    raise UnusableRow("too_long", f"not one step fits into {max_length:,} tokens")


def _values(labels: Sequence[Any], after_first_error: AfterFirstError) -> list[float | None]:
    values: list[float | None] = []
    for label in labels:
        if label is not None and not (isinstance(label, bool | int | float) and 0 <= label <= 1):
            raise UnusableRow(
                "malformed", f"a label is {label!r}: true, false, null or from 0 to 1"
            )
        values.append(None if label is None else float(label))
    if after_first_error == "auto":
        hard = all(isinstance(label, bool | None) for label in labels)
        after_first_error = "ignore" if hard else "keep"
    if after_first_error != "keep" and 0.0 in values:
        first = values.index(0.0) + 1
        rest = None if after_first_error == "ignore" else 0.0
        values[first:] = [rest] * (len(values) - first)
    return values


class StepObjective(Objective):
    """Binary cross-entropy with soft targets at the ends of steps, in float32.

    Its optimum is the label itself, where it is the entropy of the label and not 0.
    """

    def __init__(self, format: StepFormat) -> None:
        super().__init__()
        self.format, self.model_class = format, format.model_class

    def inputs(self, rows: Sequence[Any], longest: int) -> dict[str, Tensor]:
        """Padded tokens; row, position and label of each step that is learned."""
        T = max(row.size for row in rows)
        T = max(T, min(longest, -(-T // 32) * 32))  # every new length costs a CPU memory
        ids_BT = torch.zeros(len(rows), T, dtype=torch.long)
        places, labels = list[tuple[int, int]](), list[float]()
        for number, row in enumerate(rows):
            ids_BT[number, : row.size] = torch.tensor(row.inputs.input_ids)
            for end, label in zip(row.inputs.ends, row.labels, strict=True):
                if label is not None:
                    places.append((number, end))
                    labels.append(label)
        return {
            "input_ids": ids_BT,
            "places": torch.tensor(places),
            "targets": torch.tensor(labels),
            "labels": torch.tensor([_IGNORED] + [1] * len(labels)),
        }

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """The cross-entropy of all steps, added up."""
        logit_N = step_logits(model, self.format, inputs["input_ids"], inputs["places"])
        target_N = inputs["targets"].to(logit_N)
        with torch.no_grad():
            mean = functional.binary_cross_entropy_with_logits(logit_N, target_N)
            self.found = {"excess_loss": float(mean) - label_entropy(target_N.tolist())}
        return functional.binary_cross_entropy_with_logits(logit_N, target_N, reduction="sum")


def label_entropy(labels: Sequence[float]) -> float:
    """Mean entropy of labels, in nats: the lowest loss that any model can have on them.

    Raises:
        DataError: There is no label.
    """
    if not labels:
        raise DataError("There are no labels.")
    values = torch.tensor(labels, dtype=torch.float64)
    entropy = -(torch.special.xlogy(values, values) + torch.special.xlogy(1 - values, 1 - values))
    return float(entropy.mean())
