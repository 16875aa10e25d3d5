"""Rows of preferences: a prompt with a chosen and a rejected answer, as tokens.

Shape suffixes: P pairs, S = 2 P sequences (the chosen ones first), T tokens, L = T - 1, N written.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hanol.errors import DataError
from hanol.training._logits import IGNORED, logits_at, logprob_and_entropy
from hanol.training._sft import Objective, SftRow
from hanol.training.finetuning._messages import (
    ChatData,
    Encoder,
    LeftOut,
    data_rows,
    prompt_of,
)
from hanol.training.finetuning._sft_recipe import MessagesSection
from hanol.training.preference._loss import (
    NllNorm,
    PreferenceKind,
    preference_loss,
    preference_margins,
)
from hanol.training.pretraining._data import is_held_out


class PairRow(NamedTuple):
    """A pair of answers to one prompt.

    Attributes:
        chosen: Tokens of the prompt and the better answer.
        rejected: Tokens of the prompt and the worse one.
        reference: Log-probability of each written token under the reference model, of the chosen
            and of the rejected answer; empty as long as it is not known.
    """

    chosen: SftRow
    rejected: SftRow
    reference: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())

    @property
    def size(self) -> int:
        """Number of tokens that are computed."""
        return self.chosen.size + self.rejected.size

    @property
    def is_learned(self) -> bool:
        """Whether there is something to learn."""
        return self.chosen.is_learned and self.rejected.is_learned


def read_pairs(data: MessagesSection, tokenizer: Any, max_length: int) -> ChatData:
    """Read rows {"prompt", "chosen", "rejected"}, texts or messages, of files.

    Raises:
        DataError: A file is missing or damaged, or no row can be learned from.
    """
    encoder = Encoder(tokenizer, max_length)
    sides: tuple[list[Any], list[Any]] = ([], [])
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    count = 0
    for place, row in data_rows(data):
        count += 1
        try:
            pair = _pair(row, encoder)
        except LeftOut as err:
            left_out[err.reason] += 1
            examples.setdefault(err.reason, f"{place}: {err}")
            continue
        sides[is_held_out(prompt_of({"prompt": row["prompt"]}), data.held_out)].append(pair)
    pairs = ChatData(*sides, count, dict(left_out), examples)
    if not pairs.train:
        raise DataError(
            f"None of {count:,} pairs can be learned from. {pairs.left_out_text()}".strip()
        )
    return pairs


def _pair(row: Mapping[str, Any], encoder: Encoder) -> PairRow:
    for key in ("prompt", "chosen", "rejected"):
        if key not in row:
            raise LeftOut("malformed", f'it has no "{key}"')
    if row["chosen"] == row["rejected"]:
        raise LeftOut("equal", "the chosen answer is the rejected one")
    answers = []
    for key in ("chosen", "rejected"):
        made = encoder.rows({**row, "completion": row[key]})
        if len(made) > 1:
            raise LeftOut("several_rows", "the chat template writes earlier turns otherwise")
        answers += made
    return PairRow(*answers)


class PreferenceObjective(Objective):
    """`preference_loss` of pairs whose reference log-probabilities are known.

    Args:
        beta: Strength of the reference.
        kind: The loss.
        nll_weight: Weight of the likelihood of the chosen answers.
        nll_norm: What that is divided by; "token" by the tokens of a micro-batch.
        formatting: Tokens that do not count in the preference.
    """

    def __init__(
        self,
        *,
        beta: float,
        kind: PreferenceKind,
        nll_weight: float,
        nll_norm: NllNorm,
        formatting: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._options: Any = {
            "beta": beta, "kind": kind, "nll_weight": nll_weight, "nll_norm": nll_norm,
        }  # fmt: skip
        self._formatting = torch.tensor(sorted(formatting), dtype=torch.long)

    def inputs(self, rows: Sequence[Any], longest: int) -> dict[str, Tensor]:
        """Padded sequences, the chosen ones first, with what was written and its reference."""
        answers = [row.chosen for row in rows] + [row.rejected for row in rows]
        known = [row.reference[0] for row in rows] + [row.reference[1] for row in rows]
        batch = super().inputs(answers, longest)
        ids_ST, written_SL = batch["input_ids"], batch["labels"][:, 1:] != IGNORED
        reference_SL = torch.zeros(written_SL.shape)
        reference_SL[written_SL] = torch.tensor([x for values in known for x in values])
        return {
            "input_ids": ids_ST,
            "written": written_SL,
            "formatting": torch.isin(ids_ST[:, 1:], self._formatting),
            "reference": reference_SL,
            "labels": torch.tensor([IGNORED] + [1] * len(rows)),
        }

    def loss(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """The loss of all pairs, added up."""
        written_SL = inputs["written"]
        logp_SL = written_logprobs(model, inputs["input_ids"], written_SL)
        options: Any = {
            "policy_logps": logp_SL,
            "reference_logps": inputs["reference"],
            "masks": written_SL,
            "format_mask": inputs["formatting"],
        }
        with torch.no_grad():
            margins = preference_margins(**options, kind=self._options["kind"])
            difference_P = margins.chosen_B - margins.rejected_B
            self.found = {
                "preferred": float((difference_P > 0).float().mean()),
                "margin": float(difference_P.mean()),
                "chosen_margin": float(margins.chosen_B.mean()),
            }
        return preference_loss(**options, **self._options) * len(difference_P)


def written_logprobs(model: nn.Module, ids_ST: Tensor, written_SL: Tensor) -> Tensor:
    """logp_SL of the tokens that were written, in nats; 0 elsewhere."""
    bare: Any = getattr(model, "module", model)
    logits_NV = logits_at(model, bare.get_output_embeddings(), ids_ST, written_SL).float()
    token_N = ids_ST[:, 1:][written_SL]
    logp_N, _ = logprob_and_entropy(logits_NV, token_N, entropy_gradient=False)
    return logits_NV.new_zeros(written_SL.shape).masked_scatter(written_SL, logp_N)


@torch.no_grad()
def with_reference(
    model: nn.Module, pairs: Sequence[PairRow], *, batch_size: int, on_batch: Callable[[int], None]
) -> list[PairRow]:
    """The pairs with log-probabilities under a model, which is the reference."""
    device = next(model.parameters()).device
    objective, made = Objective(), dict[int, PairRow]()
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].size)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        rows = [answer for i in numbers for answer in (pairs[i].chosen, pairs[i].rejected)]
        batch = objective.inputs(rows, max(row.size for row in rows))
        written_SL = (batch["labels"][:, 1:] != IGNORED).to(device)
        logp_SL = written_logprobs(model, batch["input_ids"].to(device), written_SL)
        known = [tuple(x[w].tolist()) for x, w in zip(logp_SL, written_SL, strict=True)]
        for number, i in enumerate(numbers):
            made[i] = pairs[i]._replace(reference=(known[2 * number], known[2 * number + 1]))
        on_batch(len(numbers))
    return [made[i] for i in range(len(pairs))]


def sample_pairs(
    samples: Iterable[Mapping[str, Any]], *, most: int = 5, seed: int = 0
) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Pairs of a right and a wrong answer to each question.

    Source: arXiv 2410.18982, section 6.8: five pairs of twenty samples.

    Args:
        samples: Rows with `prompt`, `answers` and, one each, whether they are `right`.
        most: Pairs per question; fewer, where there are fewer right or wrong answers, for no
            answer is in two pairs.
        seed: Seed for drawing.

    Returns:
        Rows {"prompt", "chosen", "rejected"}; and how many questions gave pairs, had no right
        answer, had no wrong one.

    Raises:
        DataError: A row is malformed.

    Example:
        >>> row = {"prompt": "1 + 1?", "answers": ["2", "3"], "right": [True, False]}
        >>> sample_pairs([row])[0]
        [{'prompt': '1 + 1?', 'chosen': '2', 'rejected': '3'}]
    """
    rng = random.Random(f"pairs {seed}")  # noqa: S311
    pairs: list[dict[str, str]] = []
    counts = {"questions": 0, "no_right_answer": 0, "no_wrong_answer": 0}
    for row in samples:
        answers, right = row.get("answers"), row.get("right")
        if (
            not isinstance(answers, list)
            or not isinstance(right, list)
            or (len(answers) != len(right) or "prompt" not in row)
        ):
            raise DataError('A row needs "prompt", "answers" and, one each, "right".')
        sides: list[list[str]] = [
            [one for one, good in zip(answers, right, strict=True) if bool(good) is wanted]
            for wanted in (True, False)
        ]
        if not all(sides):
            counts["no_wrong_answer" if sides[0] else "no_right_answer"] += 1
            continue
        counts["questions"] += 1
        count = min(most, *map(len, sides))
        for chosen, rejected in zip(*(rng.sample(side, count) for side in sides), strict=True):
            pairs.append({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected})
    return pairs, counts
