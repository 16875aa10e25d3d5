"""Bits per byte: how well a model predicts text, whatever its tokenizer."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol.errors import DataError
from hanol.training._logits import IGNORED

_BATCH = 16  # windows that are scored together


def bits_per_byte(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    context: int = 512,
) -> float:
    """Negative log likelihood of texts in bits, divided by their UTF-8 bytes.

    Each text is begun with the begin token and closed with the end token, which is scored too.

    Args:
        model: Causal language model; must tell packed documents apart by their positions.
        tokenizer: Its tokenizer, with an end token.
        texts: What to score.
        context: Tokens of a window; windows of one text share one token, so that each token after
            the first is predicted once.

    Raises:
        DataError: There is no text.
    """
    texts = list(texts)
    num_bytes = sum(len(text.encode()) for text in texts)
    if num_bytes == 0:
        raise DataError("There is no text to score.")
    eos = tokenizer.eos_token_id
    # As in lm-evaluation-harness: every token of a text has one before it.
    bos = eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = (tokenizer(text, add_special_tokens=False).input_ids for text in texts)
    total = nats(model, (np.asarray([bos, *document, eos]) for document in ids), context)
    return total / num_bytes / math.log(2)


@torch.no_grad()
def nats(model: nn.Module, documents: Iterable[NDArray[Any]], context: int) -> float:
    """Summed negative log likelihood of documents' tokens after their first, in evaluation mode."""
    was_training = model.training
    model.eval()
    total = 0.0
    batch: list[NDArray[Any]] = []
    for document in documents:
        batch += [document[i : i + context] for i in range(0, len(document) - 1, context - 1)]
        if sum(map(len, batch)) >= _BATCH * context:
            total += _batch_nats(model, batch)
            batch = []
    if batch:
        total += _batch_nats(model, batch)
    model.train(was_training)
    return total


def _batch_nats(model: nn.Module, windows: list[NDArray[Any]]) -> float:
    device = next(model.parameters()).device
    ids = torch.from_numpy(np.concatenate(windows).astype(np.int64))
    position = torch.cat([torch.arange(len(window)) for window in windows])
    labels = ids.masked_fill(position == 0, IGNORED)[1:]
    logits = model(
        input_ids=ids[None].to(device), position_ids=position[None].to(device), use_cache=False
    ).logits[0, :-1]
    loss = nn.functional.cross_entropy(
        logits.float(), labels.to(device), ignore_index=IGNORED, reduction="sum"
    )
    return loss.item()
