"""A causal language model that chooses its own temperature and top-p for every token.

Shape suffixes: B batch, T positions whose logits are computed, V vocabulary, H hidden width.
Source: arXiv 2510.26697, section 2: the heads read the last hidden state after the final norm, and
the tempered, truncated logits go out of the same forward pass.
"""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from hanol import models
from hanol.autodeco import _formats as formats
from hanol.autodeco._config import AutoDecoConfig, neutral, warn_of_sampling
from hanol.autodeco._heads import (
    Apply,
    DecodingLimits,
    Init,
    Mask,
    TemperatureHead,
    TopPHead,
    predict,
    rescale,
)
from hanol.autodeco._load import Options, head_width, load_base
from hanol.autodeco._wrapped import WrappedModel
from hanol.autodeco.training._loss import IGNORED, autodeco_loss
from hanol.errors import ConfigError, ShapeError
from hanol.lazy import when_imported

_heads_loss = autodeco_loss


def _cut_graph() -> None:
    """It checks labels and works in chunks, each computed once more for its gradient."""
    global _heads_loss
    _heads_loss = torch.compiler.disable(autodeco_loss)


when_imported("torch._dynamo", _cut_graph)  # which `disable` would do, where nobody compiles


@dataclass
class AutoDecoOutput(CausalLMOutputWithPast):
    """Result of a forward pass: the base's output, its cache included, and the fields below.

    Attributes:
        loss: With `labels`.
        logits: What to sample from at temperature 1 and top-p 1, [B, T, V]; float32 unless
            `apply="off"`.
        temperature: Chosen temperatures, [B, T]; None with `apply="off"`.
        top_p: Chosen top-p, [B, T]; None with `apply="off"`.
        base_logits: Logits of the base, [B, T, V], with `output_base_logits=True`.
    """

    temperature: Tensor | None = None
    top_p: Tensor | None = None
    base_logits: Tensor | None = None


class AutoDecoForCausalLM(WrappedModel):
    """A base model as `llm` with a temperature head and a top-p head.

    Plain `generate` samples AutoDeco's distribution: batched, streamed, cached, assisted. Make one
    with `from_base` or `from_pretrained`.

    Args:
        config: Configuration with that of the base in it.
        llm: The base; built with random weights when left out.
        temp_head: Made new when left out and enabled in `config`.
        top_p_head: Made new when left out and enabled in `config`.

    Raises:
        ConfigError: The base's configuration is not known, the base has no output embedding, or it
            has heads itself.

    Example:
        >>> from hanol import autodeco, models
        >>> base = models.build("llama-3m", vocab_size=64)
        >>> model = autodeco.AutoDecoForCausalLM.from_base(base, init="neutral")
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
                "`hanol train` and a recipe of the kind heads."
            )
        super().__setattr__(name, value)

    def __init__(
        self,
        config: AutoDecoConfig,
        llm: PreTrainedModel | None = None,
        temp_head: TemperatureHead | None = None,
        top_p_head: TopPHead | None = None,
    ) -> None:
        super().__init__(config, llm)
        width = head_width(self.llm)
        self.temp_head = temp_head
        self.top_p_head = top_p_head
        if temp_head is None and config.enable_temperature_head is not False:
            self.temp_head = TemperatureHead(width)
        if top_p_head is None and config.enable_top_p_head is not False:
            self.top_p_head = TopPHead(width, config.use_enhanced_features is not False)
        config.enable_temperature_head = self.temp_head is not None
        config.enable_top_p_head = self.top_p_head is not None
        if self.top_p_head is not None:
            config.use_enhanced_features = self.top_p_head.enhanced
        config.temperature_hidden_size = config.top_p_hidden_size = width
        self._served: tuple[Any, Any] = (None, None)
        self._serving()  # a compiled forward finds it read
        self.generation_config = neutral(self.llm.generation_config)
        warn_of_sampling(
            self.llm.generation_config,
            "These values of the base's generation config are not taken over: this model samples "
            "with temperature=1, top_p=1, top_k=0.",
            stacklevel=3,
        )
        self.post_init()

    def init_weights(self) -> None:
        """Do nothing: the base comes initialised, and the heads initialise themselves."""

    def freeze_heads(self, frozen: bool = True) -> Self:
        """Stop (or let) gradients reach the heads."""
        for parameter in self.head_parameters():
            parameter.requires_grad_(not frozen)
        return self

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the heads: what an optimizer gets when the base is frozen."""
        heads = [head for head in (self.temp_head, self.top_p_head) if head is not None]
        return [parameter for head in heads for parameter in head.parameters()]

    @classmethod
    def from_base(
        cls,
        model: PreTrainedModel,
        init: Init = "official",
        *,
        enable_temperature_head: bool = True,
        enable_top_p_head: bool = True,
        use_enhanced_features: bool = True,
        base_name: str | None = None,
    ) -> Self:
        """Put new heads on a causal language model.

        The model is used as it is, not copied, and its parameters are frozen.

        Args:
            model: Any causal language model of transformers.
            init: "official" starts at T about 1 and P about 0.5; "neutral" at T = 1 and P = 0.95.
            enable_temperature_head: Without it T is 1.
            enable_top_p_head: Without it nothing is cut.
            use_enhanced_features: Whether the top-p head reads statistics of the distribution.
            base_name: Name of the base in heads-only checkpoints; None takes where `model` was
                loaded from.

        Raises:
            ConfigError: The model has no output embedding or has heads already, or `init` is
                another name.
        """
        config = AutoDecoConfig(
            base_config=model.config,
            enable_temperature_head=enable_temperature_head,
            enable_top_p_head=enable_top_p_head,
            use_enhanced_features=use_enhanced_features,
            base_model_name_or_path=base_name or model.config.name_or_path or None,
        )
        made = cls(config, llm=model)
        for head in (made.temp_head, made.top_p_head):
            if head is not None:
                head.init(init).to(model.device)
        return made.freeze_base().eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *model_args: Any,
        base_model: str | Path | PreTrainedModel | None = None,
        config: PreTrainedConfig | None = None,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load heads and their base, in any of the official layouts.

        Args:
            pretrained_model_name_or_path: Folder or hub id: heads-only, with the trainer's
                `adapter.` prefix, or merged.
            model_args: Not supported.
            base_model: Base to use instead of the one that the checkpoint names; a name or a
                model.
            config: Configuration, when it was read already.
            dtype: Data type of the base's parameters; None is float32 on CPU, else the
                checkpoint's own; "auto" is the checkpoint's own. Heads keep their stored type.
            device: Where the model goes.
            revision: Commit or branch of a hub id (not of the base).
            kwargs: `attn_implementation`; `cache_dir`, `token`, `local_files_only` and
                `force_download` for a hub id; `device_map` with a single device;
                `output_loading_info` to get a pair as from any transformers model.

        Raises:
            CheckpointError: Something is missing or does not fit; the message has the expected
                and the found shapes.
            ConfigError: An option that is not supported here.
        """
        options = Options(kwargs, dtype, device)
        where = str(pretrained_model_name_or_path)
        if model_args:
            raise ConfigError(
                f"`from_pretrained` takes no further positional value {model_args!r}."
            )
        folder = models.fetch(where, revision=revision, **options.hub)
        heads = formats.StoredHeads.read(folder, where, config)
        llm = load_base(heads, folder, base_model, options)
        own = heads.config
        own.attach(llm.config)
        temp_head, top_p_head = heads.build(llm.device)
        own.enable_temperature_head = temp_head is not None
        own.enable_top_p_head = top_p_head is not None
        model = cls(own, llm, temp_head, top_p_head)
        model.name_or_path = own.name_or_path = where
        model.freeze_base().eval()
        if options.report:
            keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
            return model, {key: set() for key in keys}
        return model

    def predict(self, hidden_BTH: Tensor, logits_BTV: Tensor) -> tuple[Tensor, Tensor]:
        """`temperature_BT` in (0, 2) and `top_p_BT` in (0, 1) that the heads choose, in float32.

        1 for a head that is switched off or missing. Hidden states are those after the final norm;
        the leading dimensions may be others.
        """
        return predict(hidden_BTH, logits_BTV, *self._active_heads())

    def choose(
        self, hidden_BTH: Tensor, logits_BTV: Tensor, limits: DecodingLimits | None = None
    ) -> tuple[Tensor, Tensor]:
        """Temperatures and top-p to sample with: those of `predict`, within limits.

        Without `limits` those of the configuration hold.
        """
        limits = self._serving()[1] if limits is None else limits
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
        limits: DecodingLimits | None = None,
        output_base_logits: bool = False,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> AutoDecoOutput | tuple[Any, ...]:
        """One pass of the base, with its logits tempered and truncated.

        Args:
            input_ids: Tokens, [B, S].
            attention_mask: Mask for the base.
            position_ids: Positions for the base.
            inputs_embeds: Embeddings instead of tokens.
            labels: Targets, [B, S], -100 where there is none; shifted by one here. The loss is
                that of what is trained: of the heads (`autodeco_loss` with its defaults), and the
                base's cross-entropy where parameters of the base take gradients, such as adapters.
                With frozen heads, or `apply="off"`, it is the cross-entropy alone; when everything
                is frozen, the heads'. In training mode the logits then stay the base's.
            use_cache: Return a cache.
            logits_to_keep: Number of last positions to compute logits for, or the positions
                themselves; 0 is all.
            apply: "hard" divides by the temperature and moves tokens outside of the nucleus down
                by 1000 (to -inf where the configuration's `autodeco_mask` is "inf"); "soft" weighs
                them down as in training, differentiable in both values; "none" divides by the
                temperature alone; "off" gives the base's logits and runs no head. None takes the
                configuration's `autodeco_truncation`, else "hard".
            limits: Limits of temperature and top-p for this call; None takes the configuration's
                `autodeco_limits`.
            output_base_logits: Also return the base's logits.
            return_dict: False gives a tuple; None is what the configuration says.
            kwargs: Passed to the base, its cache among them; `num_items_in_batch` to the loss.

        Raises:
            ConfigError: `apply` is another name.
            ShapeError: `labels` together with `logits_to_keep`.
        """
        truncation, _, mask = self._serving()
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
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return result if as_dict else result.to_tuple()

    def _loss(
        self, hidden_BTH: Tensor, base_BTV: Tensor, labels: Tensor, items: Any, apply: Apply
    ) -> Tensor:
        """Loss of what is trained; the heads' gives the base no gradient, nor the base's them."""
        of_base = any(parameter.requires_grad for parameter in self.llm.parameters())
        of_heads = any(parameter.requires_grad for parameter in self.head_parameters())
        parts = []
        if apply == "off" or of_base:
            parts.append(
                self.llm.loss_function(
                    base_BTV, labels, vocab_size=base_BTV.shape[-1], num_items_in_batch=items
                )
            )
        if apply != "off" and (of_heads or not of_base):
            # Labels are shifted, not logits: a slice of logits would be copied to be flattened.
            next_BT = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
            found = _heads_loss(
                base_BTV.flatten(0, 1),
                hidden_BTH.flatten(0, 1),
                next_BT.flatten(),
                *self._active_heads(),
                num_items=items,
            )
            parts.append(found.loss)
        return sum(parts[1:], start=parts[0])

    def _serving(self) -> tuple[Apply, DecodingLimits, Mask]:
        """What the configuration says of serving, read anew only when it was changed."""
        config = self.config
        said = (config.autodeco_truncation, config.autodeco_limits, config.autodeco_mask)
        if self._served[0] != said:
            self._served = (copy.deepcopy(said), config.serving())
        return cast("tuple[Apply, DecodingLimits, Mask]", self._served[1])

    def _active_heads(self) -> formats.HeadPair:
        return (
            self.temp_head if self.config.enable_temperature_head else None,
            self.top_p_head if self.config.enable_top_p_head else None,
        )

    # -- saving

    def save_heads(self, path: str | Path) -> Path:
        """Write the official heads-only folder: `config.json` and `model.safetensors`.

        Args:
            path: Folder to write; an existing checkpoint there is replaced.

        Raises:
            CheckpointError: The folder exists and is not a checkpoint.
            WriteError: The disk is full, or the folder cannot be written.
        """
        with models.checkpoint_folder(path) as part:
            formats.write_heads(part, self.config, self.state_dict())
        return Path(path)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the official merged layout, that engines load: base and heads in one folder.

        Args:
            save_directory: Folder to write; an existing checkpoint there is replaced.
            is_main_process: Other processes write nothing.
            state_dict: Tensors to write instead of the model's own.
            kwargs: `max_shard_size`, as every transformers model takes it.

        Raises:
            ConfigError: Another option.
            CheckpointError: The folder exists and is not a checkpoint.
            WriteError: The disk is full, or the folder cannot be written.
        """
        unknown = sorted(kwargs.keys() - {"max_shard_size", "safe_serialization"})
        if unknown or kwargs.pop("safe_serialization", True) is not True:
            raise ConfigError(
                f"`save_pretrained` of an AutoDeco model takes no {unknown or 'pickled files'}. "
                "It takes `max_shard_size`."
            )
        if not is_main_process:
            return
        state = self.state_dict() if state_dict is None else state_dict
        base = {
            name.removeprefix(formats.BASE_PREFIX): tensor
            for name, tensor in state.items()
            if name.startswith(formats.BASE_PREFIX)
        }
        with models.checkpoint_folder(save_directory) as part:
            base_part, heads_part = part / "base", part / "heads"
            heads_part.mkdir()
            formats.write_heads(heads_part, self.config, state)
            with models.no_progress_bars():
                self.llm.save_pretrained(base_part, state_dict=base, **kwargs)
            formats.merge_folders(heads_part, base_part, part)
            self.generation_config.save_pretrained(part)
            shutil.rmtree(base_part)
            shutil.rmtree(heads_part)
