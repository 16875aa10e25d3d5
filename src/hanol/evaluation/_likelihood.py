"""How likely held-out text is under what a decoding setting samples from.

Shape suffixes: N positions, M positions with a label, V vocabulary, H hidden width.
"""

import math
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from hanol.autodeco import AutoDecoForCausalLM, OnlineSource, Row, tokenize
from hanol.errors import ConfigError, DataError
from hanol.evaluation._sample import Setting, StaticSetting, only
from hanol.sampling import STEEPNESS, soft_top_p_nll_of_rows

_CHUNK = 256


@torch.inference_mode()
def decoding_bits_per_byte(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    setting: Setting,
    *,
    max_length: int = 4096,
    batch: int = 8,
) -> float:
    """Bits that the completions cost under a setting, divided by their UTF-8 bytes.

    Top-p is the soft one of training: under hard top-p a text with one excluded token is
    impossible, and every setting that cuts would cost infinitely many bits. As in training, no
    token costs more than 30 bits, and the end token counts.

    Args:
        model: With heads; a static setting does not use them.
        rows: Prompts with completions; those without, and too long ones, are left out.
        setting: Any but greedy, under which other texts are impossible.
        max_length: Tokens of a row, and never more than the base's context.

    Raises:
        ConfigError: Greedy decoding, or heads that the model does not have.
        DataError: No row is left, rows are not of the base's vocabulary, or completions are tokens
            without a text.
    """
    if isinstance(setting, StaticSetting) and setting.temperature == 0:
        raise ConfigError("Greedy decoding gives every text but one a probability of 0.")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    max_length = min(max_length, context or max_length)
    tokens = [
        (tokenized, len(row.completion.encode()))
        for row in rows
        for tokenized in tokenize([row], tokenizer, max_length).rows
    ]
    source = OnlineSource(model, [row for row, _ in tokens])
    num_bytes = sum(size for _, size in tokens)
    if not num_bytes:
        raise DataError("The completions have no bytes: they are tokens without a text.")
    nats = 0.0
    was_training = model.training
    model.eval()
    try:
        with only(model, setting):
            for begin in range(0, len(tokens), batch):
                part = range(begin, min(begin + batch, len(tokens)))
                logits_NV, hidden_NH, labels_N = source.micro_batch(part)
                rows_M = (labels_N >= 0).nonzero().squeeze(-1)
                temperature_M = torch.full(rows_M.shape, 1.0, device=rows_M.device)
                top_p_M = temperature_M.clone()
                if isinstance(setting, StaticSetting):
                    temperature_M *= setting.temperature
                    top_p_M *= setting.top_p
                else:
                    chosen = [
                        model.choose(hidden_NH[rows_C], logits_NV[rows_C])
                        for rows_C in rows_M.split(_CHUNK)
                    ]
                    temperature_M, top_p_M = map(torch.cat, zip(*chosen, strict=True))
                nll_M = soft_top_p_nll_of_rows(
                    logits_NV, rows_M, temperature_M, top_p_M, labels_N[rows_M],
                    STEEPNESS, "inclusive", _CHUNK,
                )  # fmt: skip
                nats += nll_M.double().sum().item()
    finally:
        model.train(was_training)
    return nats / math.log(2) / num_bytes
