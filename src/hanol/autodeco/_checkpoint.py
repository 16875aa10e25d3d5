"""A base with its heads: made from a model, loaded from any official layout, saved."""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hanol import models
from hanol.autodeco import _formats as formats
from hanol.autodeco import _load as loading
from hanol.autodeco._config import AutoDecoConfig, neutral, stacking_values
from hanol.autodeco._heads import Init, TemperatureHead, TopPHead
from hanol.autodeco._load import head_width
from hanol.autodeco._wrapped import WrappedModel
from hanol.errors import CheckpointError, ConfigError


class ModelWithHeads(WrappedModel):
    """A base model with a temperature head and a top-p head; see `AutoDecoForCausalLM`."""

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
        self.generation_config, _ = neutral(self.llm.generation_config)
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: the base comes initialised, and the heads initialise themselves."""

    def freeze_heads(self, frozen: bool = True) -> Self:
        """Stop (or let) gradients reach the heads."""
        for parameter in self.head_parameters():
            parameter.requires_grad_(not frozen)
        return self

    def head_parameters(self) -> list[nn.Parameter]:
        """What an optimizer gets when the base is frozen."""
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
            base_name: What heads-only checkpoints name as their base; where `model` was loaded
                from when left out.

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
        return made._warned().freeze_base().eval()

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
            model_args: None are taken.
            base_model: Base to use in the place of the one that the checkpoint names; a name or
                a model.
            config: Configuration, when it was read already.
            dtype: Type of the base's parameters; None is float32 on CPU, else what its checkpoint
                has; "auto" is what its checkpoint has. Heads keep their stored type.
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
        options = loading.Options(kwargs, dtype, device)
        where = str(pretrained_model_name_or_path)
        if model_args:
            raise ConfigError(
                f"`from_pretrained` takes no further positional value {model_args!r}."
            )
        folder = formats.local_folder(where, revision=revision, **options.hub)
        if config is None:
            config = models.load_config(folder)
        if not isinstance(config, AutoDecoConfig):
            raise CheckpointError(
                f"{where!r} is a checkpoint of {config.model_type!r} without heads. Load it with "
                "`hanol.models.load_model` and give it heads with `from_base`."
            )
        heads = formats.read_heads(folder)
        shapes = {name: stored.shape for name, stored in heads.items()}
        formats.check_heads(shapes, config, what=where)
        if isinstance(base_model, PreTrainedModel):
            llm = base_model
        elif base_model is not None:
            llm = loading.named_base(base_model, options)
        elif formats.is_merged(folder):
            llm = loading.merged_base(folder, config, options)
        else:
            llm = loading.base_of_heads(where, config, options)
        if options.attention is not None:
            llm.set_attn_implementation(options.attention)
        vocab = llm.config.get_text_config().vocab_size
        formats.check_heads(shapes, config, what=where, hidden=head_width(llm), vocab=vocab)
        config.attach(llm.config)
        temp_head, top_p_head = loading.load_heads(heads, config, llm.device)
        config.enable_temperature_head = temp_head is not None
        config.enable_top_p_head = top_p_head is not None
        model = cls(config, llm=llm, temp_head=temp_head, top_p_head=top_p_head)
        model.name_or_path = config.name_or_path = where
        model._warned().freeze_base().eval()
        if options.report:
            return model, {
                "missing_keys": set(),
                "unexpected_keys": set(),
                "mismatched_keys": set(),
            }
        return model

    def save_heads(self, path: str | Path) -> Path:
        """Write the official heads-only folder: `config.json` and `model.safetensors`.

        Args:
            path: Folder to write; an existing checkpoint there is replaced.

        Raises:
            CheckpointError: `path` exists and is not a checkpoint folder.
            WriteError: The disk is full, or the folder cannot be written.
        """
        with models.checkpoint_folder(path) as part:
            self._write_heads(part, self.state_dict())
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
            state_dict: Tensors to write in the place of the model's own.
            kwargs: `max_shard_size`, as every transformers model takes it.

        Raises:
            ConfigError: Another option.
            CheckpointError: `path` exists and is not a checkpoint folder.
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
            self._write_heads(heads_part, state)
            with models.no_progress_bars():
                self.llm.save_pretrained(base_part, state_dict=base, **kwargs)
            formats.merge_folders(heads_part, base_part, part)
            self.generation_config.save_pretrained(part)
            shutil.rmtree(base_part)
            shutil.rmtree(heads_part)

    def _write_heads(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        self.config.save_pretrained(folder)
        tensors = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in state.items()
            if not name.startswith(formats.BASE_PREFIX)
        }
        save_file(tensors, folder / formats.WEIGHTS, metadata={"format": "pt"})

    def _warned(self) -> Self:
        """Say which sampling values of the base were not taken over."""
        if stacking := stacking_values(self.llm.generation_config):
            values = ", ".join(f"{key}={value}" for key, value in stacking.items())
            warnings.warn(
                f"The base's generation config sets {values}, which would act on top of AutoDeco's "
                "own temperature and top-p. They are not taken over: this model samples with "
                "temperature=1, top_p=1, top_k=0.",
                UserWarning,
                stacklevel=3,
            )
        return self
