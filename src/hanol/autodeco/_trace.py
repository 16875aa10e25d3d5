"""What AutoDeco chose for every token of a text.

Shape suffixes: B batch (1), T new tokens, N some of them, V vocabulary, H hidden width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hanol.autodeco._heads import rescale
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco._render import DecodingTrace, TracedToken
from hanol.errors import ConfigError
from hanol.sampling import TextStream, token_texts, top_p_keep

_ROWS = 64


def trace(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: Sequence[int],
    *,
    finish_reason: str = "length",
) -> DecodingTrace:
    """Find what the heads chose for every token of a completion.

    One teacher-forced pass gives the values: they are those of the generation, because the heads
    are functions of each hidden state alone.

    Args:
        model: A model with heads.
        tokenizer: Its tokenizer.
        prompt: Text that the completion follows; empty stands for the begin token.
        completion: Tokens that the model wrote.
        finish_reason: Why it stopped there.

    Raises:
        ConfigError: `model` has no heads.
    """
    if not isinstance(model, AutoDecoForCausalLM):
        raise ConfigError(
            f"`model` is a {type(model).__name__} without heads: wrap it with "
            "`AutoDecoForCausalLM.from_base` or load heads with `from_pretrained`."
        )
    before = tokenizer(prompt).input_ids or [tokenizer.bos_token_id]
    stream = TextStream(token_texts(tokenizer, skip_special_tokens=True), before)
    for token in completion:
        stream.push(token)
    stream.end()
    values = _score(model, before, list(completion))
    tokens = [
        TracedToken(id=token, text=piece, **{key: column[i] for key, column in values.items()})
        for i, (token, piece) in enumerate(zip(completion, stream.pieces(), strict=True))
    ]
    return DecodingTrace(
        prompt=prompt, text=stream.text, finish_reason=finish_reason, tokens=tokens
    )


@torch.no_grad()
def _score(model: AutoDecoForCausalLM, before: list[int], new: list[int]) -> dict[str, list[Any]]:
    """The columns of a trace, by one pass over the whole text."""
    ids = torch.tensor([before + new], device=model.device)
    # The last token is only an answer; the token before the first answer asks for it.
    features = model.features(ids[:, :-1], logits_to_keep=len(new), use_cache=False)
    truncates = model.config.enable_top_p_head
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(new), _ROWS):
        part = slice(start, start + _ROWS)
        hidden_NH, base_NV = features.hidden_BTH[0, part], features.logits_BTV[0, part]
        answer_N1 = torch.tensor(new[part], device=ids.device).unsqueeze(-1)
        temperature_N, top_p_N = model.choose(hidden_NH, base_NV)
        final_NV = rescale(base_NV, temperature_N, top_p_N if truncates else None, "hard")
        tempered_NV = base_NV.float() / temperature_N.unsqueeze(-1)
        values: dict[str, Tensor] = {
            "temperature": temperature_N,
            "top_p": top_p_N,
            "nucleus_size": top_p_keep(tempered_NV, top_p_N).sum(-1),
            "base_logprob": base_NV.float().log_softmax(-1).gather(-1, answer_N1).squeeze(-1),
            "logprob": final_NV.log_softmax(-1).gather(-1, answer_N1).squeeze(-1),
        }
        for key, value_N in values.items():
            columns.setdefault(key, []).extend(value_N.tolist())
    return columns
