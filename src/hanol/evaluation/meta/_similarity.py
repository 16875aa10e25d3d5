"""Similarity of a candidate to a text, as the cosine of mean-pooled vectors of a text encoder."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hanol.errors import CheckpointError
from hanol.evaluation.meta._metrics import MetricItem, TextMetric
from hanol.files import read_json

_BATCH = 32
_LONGEST = 512  # tokens


def similarity_metric(model: str, *, to: Literal["reference", "source"]) -> TextMetric:
    """Cosine of candidate and reference, or of candidate and source with a multilingual encoder.

    Args:
        model: A pulled name such as "e5-small", a folder or a hub id.
        to: What a candidate is compared with.

    Raises:
        CheckpointError: There is no such encoder.
    """
    encoder = _MeanEncoder(model)

    def prepare(items: Sequence[MetricItem]) -> None:
        encoder.encode(
            text for item in items for text in (item.candidate, getattr(item, to)) if text
        )

    def value(item: MetricItem) -> float:
        a, b = encoder.encode([item.candidate or " ", getattr(item, to)])
        return float(a @ b)

    name = f"{'' if to == 'reference' else 'cross-'}similarity:{model}"
    return TextMetric(
        name, value, needs=(to,), signature="cosine of mean-pooled vectors", prepare=prepare
    )


class _MeanEncoder:
    """Unit vectors of texts, each computed once.

    Args:
        name: Of the encoder. A prefix that it was trained with ("query: " of e5) is put before the
            texts, the same for both, as the two are alike.
    """

    def __init__(self, name: str) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        from hanol.models import resolve

        place = resolve(name)
        logging.disable_progress_bar()  # it would break the command's own output
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(place)
            self._model: Any = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
        except (OSError, ValueError) as err:
            raise CheckpointError(f"{name!r} is no text encoder: {err}") from err
        finally:
            logging.enable_progress_bar()
        self._prefix = _prefix(place)
        self._known: dict[str, NDArray[np.float32]] = {}

    def encode(self, texts: Iterable[str]) -> list[NDArray[np.float32]]:
        """One unit vector per text."""
        import torch

        texts = list(texts)
        # Texts of one length together: padding costs as much as text does.
        new = sorted({text for text in texts if text not in self._known}, key=len)
        for begin in range(0, len(new), _BATCH):
            batch = new[begin : begin + _BATCH]
            inputs = self._tokenizer(
                [self._prefix + text for text in batch],
                padding=True,
                truncation=True,
                max_length=_LONGEST,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden_BTD = self._model(**inputs).last_hidden_state
            mask_BT1 = inputs["attention_mask"][..., None].to(hidden_BTD.dtype)
            mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
            unit_BD = torch.nn.functional.normalize(mean_BD, dim=-1).numpy()
            self._known.update(zip(batch, unit_BD, strict=True))
        return [self._known[text] for text in texts]


def _prefix(place: str) -> str:
    """What the encoder was trained to see before a query."""
    try:
        found = read_json(f"{place}/config_sentence_transformers.json")["prompts"]["query"]
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
