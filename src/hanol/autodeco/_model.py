"""A causal language model that chooses its own temperature and top-p for every token.

Shape suffixes: B batch, T positions whose logits are computed, V vocabulary, H hidden width.
Source: arXiv 2510.26697, section 2: the heads read the last hidden state after the final norm, and
the tempered, truncated logits go out of the same forward pass.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hanol.autodeco._checkpoint import ModelWithHeads
from hanol.autodeco._heads import TemperatureHead, TopPHead
from hanol.autodeco._loss import IGNORED, autodeco_loss
from hanol.autodeco._outputs import AutoDecoOutput
from hanol.autodeco._rescale import Apply, Limits, predict, rescale
from hanol.errors import ConfigError, ShapeError


class AutoDecoForCausalLM(ModelWithHeads):
    """A base model as `llm` with a temperature head and a top-p head.

    Plain `generate` samples AutoDeco's distribution: batched, streamed, cached, assisted. Make one
    with `from_base` or `from_pretrained`.

    Args:
        config: Configuration with that of the base in it.
        llm: The base; built with random weights when left out.
        temp_head: Made new when left out and enabled in `config`.
        top_p_head: Likewise.

    Raises:
        ConfigError: The base's configuration is not known, the base has no output embedding, or it
            has heads itself.

    Example:
        >>> from hanol import decoding, models
        >>> base = models.build("llama-3m", vocab_size=64)
        >>> model = decoding.AutoDecoForCausalLM.from_base(base, init="neutral")
        >>> model(torch.tensor([[1, 2, 3]])).temperature.tolist()
        [[1.0, 1.0, 1.0]]
    """

    _takes_fused_head = False  # while a trainer that knows of the heads sets itself up

    def __setattr__(self, name: str, value: Any) -> None:
        # TRL's trainers replace `forward` by one that goes from the base's hidden states straight
        # to log-probabilities: no head would run, and nothing would tell.
        function = getattr(value, "__func__", None)
        fused = "fused_lm_head" in (getattr(function, "__kwdefaults__", None) or {})
        if name == "forward" and fused and not self._takes_fused_head:
            raise ConfigError(
                "This trainer of TRL computes log-probabilities past AutoDeco's temperature and "
                "top-p, so they would not be those of the tokens it samples. Use "
                "`hanol.autodeco.AutoDecoGRPOTrainer`, or train the heads with "
                "`hanol autodeco train`."
            )
        super().__setattr__(name, value)

    def predict(self, hidden_BTH: Tensor, logits_BTV: Tensor) -> tuple[Tensor, Tensor]:
        """Temperatures and top-p that the heads choose, in float32.

        Args:
            hidden_BTH: Hidden states after the final norm; any leading dimensions.
            logits_BTV: Logits of the base.

        Returns:
            `temperature_BT` in (0, 2) and `top_p_BT` in (0, 1); a head that is off, in the
            configuration or altogether, chooses 1.
        """
        return predict(hidden_BTH, logits_BTV, *self._active_heads())

    def choose(
        self, hidden_BTH: Tensor, logits_BTV: Tensor, limits: Limits | None = None
    ) -> tuple[Tensor, Tensor]:
        """What is sampled with: as `predict`, held to the limits or to those of the configuration.

        Args:
            hidden_BTH: Hidden states after the final norm; any leading dimensions.
            logits_BTV: Logits of the base.
            limits: In the place of those that the configuration sets.
        """
        limits = self.config.serving()[1] if limits is None else limits
        return limits.hold(*self.predict(hidden_BTH, logits_BTV))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        apply: Apply | None = None,
        limits: Limits | None = None,
        output_base_logits: bool = False,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> AutoDecoOutput | tuple[Any, ...]:
        """One pass of the base, with its logits tempered and truncated.

        Args:
            input_ids: Tokens, [B, S].
            attention_mask: As the base takes it.
            position_ids: As the base takes them.
            inputs_embeds: Embeddings in the place of tokens.
            labels: Targets, [B, S], -100 where there is none; shifted by one here. The loss is
                the training loss of the heads (`autodeco_loss` with its defaults), with
                `apply="off"` the base's cross-entropy. In training mode the logits are then left
                as they are.
            use_cache: Return a cache.
            logits_to_keep: Compute logits of the last so many positions, or of these; 0 is all.
            apply: "hard" divides by the temperature and moves tokens outside of the nucleus down
                by 1000 (to -inf where the configuration's `autodeco_mask` is "inf"); "soft" weighs
                them down as in training, differentiable in both values; "none" divides by the
                temperature alone; "off" gives the base's logits and runs no head. What the
                configuration says (`autodeco_truncation`), else "hard", when left out.
            limits: What temperature and top-p are held to, for this call; the configuration's
                (`autodeco_limits`) when left out.
            output_base_logits: Also return the logits before.
            return_dict: False gives a tuple.
            kwargs: Passed to the base, its cache among them; `num_items_in_batch` to the loss.

        Raises:
            ConfigError: `apply` is another name.
            ShapeError: `labels` together with `logits_to_keep`.
        """
        truncation, _, mask = self.config.serving()
        apply = truncation if apply is None else apply
        if apply not in ("hard", "soft", "none", "off"):
            raise ConfigError(f'`apply` is {apply!r}, but must be "hard", "soft", "none" or "off".')
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ShapeError(
                "`labels` need the logits of all positions: leave out `logits_to_keep`."
            )
        items = kwargs.pop("num_items_in_batch", None)
        hidden_BTH, base_BTV, outputs = self.features(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        loss = temperature_BT = top_p_BT = None
        logits_BTV = base_BTV
        if apply != "off" and not (self.training and labels is not None):
            temperature_BT, top_p_BT = self.choose(hidden_BTH, base_BTV, limits)
            truncates = self._active_heads()[1] is not None
            logits_BTV = rescale(
                base_BTV, temperature_BT, top_p_BT if truncates else None, apply, mask
            )
        if labels is not None:
            loss = self._loss(hidden_BTH, base_BTV, labels, items, apply)
        result = AutoDecoOutput(
            loss=loss,
            logits=logits_BTV,
            temperature=temperature_BT,
            top_p=top_p_BT,
            base_logits=base_BTV if output_base_logits else None,
        )
        for key, value in outputs.items():  # the cache, under the name the base has for it
            if key not in ("loss", "logits"):
                result[key] = value
        return result if return_dict else result.to_tuple()

    def _active_heads(self) -> tuple[TemperatureHead | None, TopPHead | None]:
        return (
            self.temp_head if self.config.enable_temperature_head else None,
            self.top_p_head if self.config.enable_top_p_head else None,
        )

    def _loss(
        self,
        hidden_BTH: Tensor,
        base_BTV: Tensor,
        labels_BT: Tensor,
        items: int | Tensor | None,
        apply: Apply,
    ) -> Tensor:
        if apply == "off":
            return self.llm.loss_function(
                base_BTV,
                labels_BT,
                vocab_size=base_BTV.shape[-1],
                **({} if items is None else {"num_items_in_batch": items}),
            )
        # Labels are shifted, not logits: a slice of logits would be copied to be flattened.
        next_BT = F.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
        result = autodeco_loss(
            base_BTV.flatten(0, 1),
            hidden_BTH.flatten(0, 1),
            next_BT.flatten(),
            *self._active_heads(),
            num_items=items,
        )
        return result.loss
