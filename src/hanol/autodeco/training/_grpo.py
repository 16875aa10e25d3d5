"""GRPO for a model that chooses its own temperature and top-p, with TRL.

TRL's own trainer goes from hidden states straight to the base's log-probabilities, past the heads;
here its fused head is replaced by one that runs them. "soft" truncation is smooth, and the gradient
reaches temperature and top-p. Under "hard", an update that moved a sampled token out of the nucleus
would make its log-probability jump to -1000, so training keeps the nucleus of the rollout.

Shape suffixes: B sequences, T positions that predict (one less than tokens), C positions that are
scored, V vocabulary, H hidden width, R positions of all sequences, N rows in work.
Source: arXiv 2510.26697, section 2; equations 1 to 3 for "soft".
"""

import functools
import math
import types
from collections.abc import Iterable
from itertools import repeat
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hanol.autodeco._config import NEUTRAL
from hanol.autodeco._heads import EXCLUDED, rescale
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.autodeco.training._loss import IGNORED
from hanol.errors import ConfigError, require
from hanol.sampling import tempered
from hanol.training import logprob_and_entropy

require("trl", extra="grpo", feature="AutoDecoGRPOTrainer")
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from trl.trainer.utils import FusedCausalLMOutput  # noqa: E402

_CHUNK = 128  # positions whose float32 logits are in memory at a time

# What would change the distribution that is sampled, and the value that does not.
_NEUTRAL = {**NEUTRAL, "repetition_penalty": 1.0, "num_beams": 1, "do_sample": True}
_UNSUPPORTED = {
    "cast_lm_head_to_fp32": "the heads and everything after them are float32 already",
    "use_transformers_continuous_batching": "it does not sample through the model's `forward`",
    "use_liger_kernel": "it replaces the model's `forward`",
}


class AutoDecoGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer` for `AutoDecoForCausalLM`.

    What requires a gradient is trained: the heads alone after `from_base` or `from_pretrained`,
    everything after `model.freeze_base(False)`. Weights go to vLLM under the names of the merged
    layout; vLLM must then serve a merged checkpoint.

    Args:
        model: The policy.
        reward_funcs: As TRL takes them.
        args: TRL's configuration; temperature 1, top-p 1, top-k 0 (its defaults).
        truncation: "soft" trains both heads; "hard" keeps the nucleus of the rollout, so it trains
            the temperature head alone. Serve the result as it was trained: with `apply=` in
            `generate`, or `autodeco_truncation` in its configuration.
        kwargs: Whatever else TRL's trainer takes.

    Raises:
        ConfigError: The model has no heads, or an option would change the distribution that is
            sampled or is not supported; the message names it.

    Example:
        >>> trainer = AutoDecoGRPOTrainer(
        ...     model, reward, GRPOConfig("out"), train_dataset=prompts, processing_class=tokenizer
        ... )  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: AutoDecoForCausalLM,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        *,
        truncation: Literal["soft", "hard"] = "soft",
        **kwargs: Any,
    ) -> None:
        args = GRPOConfig("autodeco-grpo") if args is None else args
        _check(model, args, truncation)
        if args.beta and not model.config._name_or_path and kwargs.get("peft_config") is None:
            raise ConfigError(
                f"`beta` is {args.beta}, but TRL loads the reference model from where the policy "
                "came from, and this one was not loaded. Save it with `save_pretrained` and load "
                "it with `from_pretrained`, or set beta=0."
            )
        self.truncation = truncation
        self._cut_BC: Tensor | None = None  # of the tokens that are trained on now
        # On the class, because TRL loads the reference model by itself.
        AutoDecoForCausalLM._takes_fused_head = True
        try:
            super().__init__(model, reward_funcs, args, **kwargs)
            _bind(model, self)
            if self.ref_model is not None:
                _bind(self.accelerator.unwrap_model(self.ref_model), self)
        finally:
            AutoDecoForCausalLM._takes_fused_head = False

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super()._generate_and_score_completions(inputs)
        if self.truncation == "soft":
            return batch
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        scored = batch["completion_ids"].shape[1]
        labels = ids.masked_fill(mask == 0, IGNORED)
        labels[:, :-scored] = IGNORED
        rows = (part.split(self.args.per_device_train_batch_size) for part in (ids, mask, labels))
        with torch.no_grad(), self.accelerator.autocast():
            cuts = [
                self.model(ids, attention_mask=mask, labels=labels, fused_lm_head=True)["cut"]
                for ids, mask, labels in zip(*rows, strict=True)
            ]
        # TRL shuffles and splits it with the rest of the batch.
        return {**batch, "autodeco_cut": torch.cat(cuts)[:, -scored:]}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._cut_BC = inputs.get("autodeco_cut")
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._cut_BC = None


def _bind(model: AutoDecoForCausalLM, trainer: AutoDecoGRPOTrainer) -> None:
    """Replace the `forward` of a model, which is TRL's by now."""
    own = type(model).forward

    # With the signature of the class: `generate` reads it.
    @functools.wraps(own)
    def forward(
        self: AutoDecoForCausalLM, *args: Any, fused_lm_head: bool = False, **kwargs: Any
    ) -> Any:
        if fused_lm_head:
            return _score(self, trainer, *args, **kwargs)
        kwargs.setdefault("apply", trainer.truncation)  # rollouts
        return own(self, *args, **kwargs)

    model.forward = types.MethodType(forward, model)  # type: ignore[method-assign]


def _score(
    model: AutoDecoForCausalLM,
    trainer: AutoDecoGRPOTrainer,
    input_ids: Tensor,
    *,
    labels: Tensor,
    num_items_in_batch: int | Tensor | None = None,
    **inputs: Any,
) -> FusedCausalLMOutput:
    """What TRL's fused head gives, for the distribution that tokens are sampled from.

    Tokens and labels are [B, T + 1]; `log_probs`, `entropy` and, under hard truncation, `cut` are
    [B, T]. Positions are worked on in chunks, and again on the way back: only the base's logits
    are kept as wide as the vocabulary.
    """
    target_BT = labels[:, 1:]
    mask_BT = target_BT != IGNORED
    columns_C = mask_BT.any(0).nonzero().squeeze(-1)
    if not len(columns_C):  # one position all the same: the zeros must have a gradient
        columns_C = columns_C.new_tensor([target_BT.shape[1] - 1])
    hidden_BCH, logits_BCV, outputs = model.features(
        input_ids, logits_to_keep=columns_C, **{**inputs, "use_cache": False}
    )
    rows_N = mask_BT[:, columns_C].flatten().nonzero().squeeze(-1)
    if not len(rows_N):
        rows_N = rows_N.new_zeros(1)
    labels_N = target_BT[:, columns_C].flatten()[rows_N].clamp_min(0)
    hidden_RH, logits_RV = hidden_BCH.flatten(0, 1), logits_BCV.flatten(0, 1)
    cuts: Iterable[Tensor | None] = repeat(None)
    if trainer._cut_BC is not None:
        first = target_BT.shape[1] - trainer._cut_BC.shape[1]
        cuts = trainer._cut_BC[:, columns_C - first].flatten()[rows_N].split(_CHUNK)
    score_rows = functools.partial(_score_rows, model, trainer.truncation, hidden_RH, logits_RV)
    parts = [
        checkpoint(score_rows, *piece, use_reentrant=False)
        for piece in zip(rows_N.split(_CHUNK), labels_N.split(_CHUNK), cuts, strict=False)
    ]

    def spread(values_N: Tensor) -> Tensor:
        dense_R = values_N.new_zeros(len(hidden_RH)).index_copy(0, rows_N, values_N)
        empty_BT = values_N.new_zeros(mask_BT.shape)
        dense_BT = empty_BT.index_copy(1, columns_C, dense_R.view(hidden_BCH.shape[:2]))
        return dense_BT.masked_fill(~mask_BT, 0)

    log_probs_BT, entropy_BT, *cut = (spread(torch.cat(part)) for part in zip(*parts, strict=True))
    items = mask_BT.sum().clamp_min(1) if num_items_in_batch is None else num_items_in_batch
    output = FusedCausalLMOutput(
        loss=-log_probs_BT.sum() / items,
        log_probs=log_probs_BT,
        entropy=entropy_BT,
        label_mask=mask_BT,
        aux_loss=outputs.get("aux_loss"),
    )
    if cut:
        output["cut"] = cut[0]
    return output


def _score_rows(
    model: AutoDecoForCausalLM,
    truncation: Literal["soft", "hard"],
    hidden_RH: Tensor,
    logits_RV: Tensor,
    rows_N: Tensor,
    labels_N: Tensor,
    cut_N: Tensor | None,
) -> tuple[Tensor, ...]:
    """Log-probability and entropy of some rows; under hard truncation their cut too."""
    hidden_NH, logits_NV = hidden_RH[rows_N], logits_RV[rows_N].float()
    temperature_N, top_p_N = model.choose(hidden_NH, logits_NV)
    below_NV = logits_NV.detach() - logits_NV.detach().amax(-1, keepdim=True)
    if cut_N is None:
        truncates = model._active_heads()[1] is not None
        z_NV = rescale(logits_NV, temperature_N, top_p_N if truncates else None, truncation)
    else:
        # The token itself was kept, whatever rounding says of one at the very edge.
        keep_NV = (below_NV >= cut_N.unsqueeze(-1)).scatter(1, labels_N.unsqueeze(-1), True)
        z_NV = tempered(logits_NV, temperature_N)
        z_NV = torch.where(keep_NV, z_NV, z_NV - EXCLUDED)
    log_prob_N, entropy_N = logprob_and_entropy(z_NV, labels_N)
    log_prob_N = log_prob_N.clamp_min(-EXCLUDED)
    if truncation == "soft":
        return log_prob_N, entropy_N
    if cut_N is None:
        # Half-way between the last token that is kept and the first that is not, because the same
        # logits of another pass differ by rounding. -inf when all are kept.
        keep_NV = z_NV > tempered(logits_NV, temperature_N) - EXCLUDED / 2
        last_N = below_NV.masked_fill(~keep_NV, math.inf).amin(-1)
        first_N = below_NV.masked_fill(keep_NV, -math.inf).amax(-1)
        cut_N = (last_N + first_N) / 2
    return log_prob_N, entropy_N, cut_N


def _check(model: Any, args: GRPOConfig, truncation: str) -> None:
    if not isinstance(model, AutoDecoForCausalLM):
        raise ConfigError(
            f"`model` is a {type(model).__name__}, but this trainer needs an AutoDecoForCausalLM. "
            "Load it with `AutoDecoForCausalLM.from_pretrained`, or give a model heads with "
            "`from_base`."
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "No parameter requires a gradient: call `model.freeze_heads(False)` to train the "
            "heads, `model.freeze_base(False)` to train the base too."
        )
    if truncation not in ("soft", "hard"):
        raise ConfigError(f'`truncation` is {truncation!r}, but must be "soft" or "hard".')
    extra = args.generation_kwargs or {}
    for key, neutral in _NEUTRAL.items():
        value = extra.get(key, getattr(args, key, neutral))
        if value != neutral:
            raise ConfigError(
                f"`{key}` is {value}, but must be {neutral}: the model chooses its own "
                "temperature and top-p, and what is trained must be what is sampled."
            )
    for key, reason in _UNSUPPORTED.items():
        if getattr(args, key):
            raise ConfigError(f"`{key}` is not supported for an AutoDeco model: {reason}.")
    if args.beta and truncation == "hard":
        raise ConfigError(
            f"`beta` is {args.beta}, but with hard truncation the reference model excludes tokens "
            "that the policy samples, and the divergence is infinite. Set beta=0 or "
            'truncation="soft".'
        )
    served = model.config.serving()[0]
    if args.use_vllm and served != truncation:
        raise ConfigError(
            f"`truncation` is {truncation!r}, but vLLM cuts {served!r}, as config.json says. Set "
            f"`model.config.autodeco_truncation = {truncation!r}` and save the merged checkpoint "
            "again before vLLM loads it."
        )
