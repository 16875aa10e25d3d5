"""Ranking texts by how likely each makes a question: what is learned, and its loss.

The posterior of a text given a question is the softmax of the question's log-probabilities after
each (Sachan et al., arXiv 2204.07496, do so without training). Every question is read once behind
every text, in one pass: questions see their text and themselves.

Shape suffixes: B texts, Q questions, T tokens, N predicted tokens.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hanol.training._logits import IGNORED

_ROUNDED = 32  # lengths are multiples of it: a CPU's memory grows with every new one
# Shares of the log-probabilities in the softmax, so that it is not certain too early; of the plain
# likelihood in the loss, which keeps questions questions.
_SHARPNESS, _LIKELIHOOD = 0.5, 0.1


class RankingRow(NamedTuple):
    """Texts, questions about them, and which text answers each.

    Args:
        texts: Tokens of prompts that end where a question follows.
        questions: Tokens of each question.
        answers: Number of the text that answers it.
    """

    texts: tuple[tuple[int, ...], ...]
    questions: tuple[tuple[int, ...], ...]
    answers: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of tokens that are computed."""
        longest = max(map(len, self.texts)) + sum(map(len, self.questions))
        return len(self.texts) * -(-longest // _ROUNDED) * _ROUNDED

    @property
    def is_learned(self) -> bool:
        """Whether there is something to learn."""
        return len(self.texts) > 1 and bool(self.questions)


def ranking_inputs(row: RankingRow) -> dict[str, Tensor]:
    """A row as tensors: each text with all questions behind it, as if each stood alone."""
    start, width = max(map(len, row.texts)), row.size // len(row.texts)
    ids_BT = torch.zeros(len(row.texts), width, dtype=torch.long)
    place_BT = torch.zeros_like(ids_BT)
    question_T = torch.full((width,), -1)
    edges = list(accumulate(map(len, row.questions), initial=start))
    for number, (question, at) in enumerate(zip(row.questions, edges, strict=False)):
        ids_BT[:, at : at + len(question)] = torch.tensor(question)
        question_T[at : at + len(question)] = number
    causal_TT = torch.ones(width, width, dtype=torch.bool).tril()
    same_TT = (question_T[:, None] == question_T) & (question_T >= 0)
    seen_BTT = torch.zeros(len(row.texts), width, width, dtype=torch.bool)
    for number, text in enumerate(row.texts):
        ids_BT[number, : len(text)] = torch.tensor(text)
        place_BT[number, : len(text)] = torch.arange(len(text))
        for question, at in zip(row.questions, edges, strict=False):
            place_BT[number, at : at + len(question)] = len(text) + torch.arange(len(question))
        seen_BTT[number] = causal_TT & ((torch.arange(width) < len(text)) | same_TT)
    seen_BTT |= torch.eye(width, dtype=torch.bool)  # padding sees itself
    return {
        "input_ids": ids_BT,
        "position_ids": place_BT,
        "seen": seen_BTT,
        "question": question_T,
        "length": torch.tensor([len(text) for text in row.texts]),
        # transformers' Trainer does not count the first one: of texts nothing predicts it.
        "labels": torch.tensor([IGNORED, *row.answers]),
    }


def ranking_scores(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """score_BQ: log-probability of each question after each text, in nats."""
    ids_BT, question_T = inputs["input_ids"], inputs["question"]
    (at_N,) = torch.nonzero(question_T >= 0, as_tuple=True)
    number_N = question_T[at_N]
    # The first token of a question is predicted by the last one of the text.
    is_first_N = number_N != question_T[at_N - 1]
    from_BN = torch.where(is_first_N, inputs["length"][:, None] - 1, at_N - 1)
    hook = head.register_forward_pre_hook(
        lambda _, args: (args[0].gather(1, from_BN[..., None].expand(-1, -1, args[0].shape[-1])),)
    )
    try:
        outputs: Any = model(
            input_ids=ids_BT,
            position_ids=inputs["position_ids"],
            attention_mask=inputs["seen"][:, None],
            use_cache=False,
        )
    finally:
        hook.remove()
    logits_BNV = outputs.logits.float()
    token_BN = ids_BT[:, at_N]
    logprob_BN = -functional.cross_entropy(logits_BNV.transpose(1, 2), token_BN, reduction="none")
    score_BQ = logprob_BN.new_zeros(len(ids_BT), int(number_N.max()) + 1)
    return score_BQ.index_add(1, number_N, logprob_BN)


def ranking_loss(model: nn.Module, head: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of which text answers, added up over questions."""
    score_BQ, answer_Q = ranking_scores(model, head, inputs), inputs["labels"][1:]
    loss = functional.cross_entropy(_SHARPNESS * score_BQ.T, answer_Q, reduction="sum")
    length_Q = torch.bincount(inputs["question"][inputs["question"] >= 0])
    own_Q = score_BQ.gather(0, answer_Q[None])[0] / length_Q
    return loss - _LIKELIHOOD * own_Q.sum()
