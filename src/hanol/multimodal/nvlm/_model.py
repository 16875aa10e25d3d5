"""A vision tower and a language model, joined in one of NVLM's three ways.

Shape suffixes: S tiles, B rows, T tokens, N visual tokens, C channels of the tower, D width.
Source: arXiv 2409.11402, section 4. The paper gives no internals of the cross-attention layers;
ours are Flamingo's and Llama-3.2-Vision's, with an output of zero where no image is seen.
"""

import math
from functools import partial
from inspect import signature
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel

from hanol import attention
from hanol.errors import ConfigError, ShapeError, require
from hanol.multimodal._prompts import NvlmKind
from hanol.multimodal._shuffle import pixel_shuffle
from hanol.multimodal.nvlm._config import NvlmConfig
from hanol.multimodal.nvlm._cross import GatedCrossAttention, KeysValues, now_passing, passing
from hanol.multimodal.nvlm._official import is_official, load_official
from hanol.multimodal.nvlm._parts import (
    Counts,
    cross_layer,
    decoder_layers,
    image_size,
    measure,
    numbers,
    patches,
    projector,
)
from hanol.multimodal.nvlm._vision import Vision


class NvlmForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that sees, decoder-only ("d"), by cross-attention ("x") or both ("h").

    Make one with `from_parts` or `from_pretrained`. Without images it is the language model; with
    gates at zero "x" gives its logits exactly, images or not.

    Args:
        config: With those of both parts in it.
        language: The language model; built with random weights when left out.
        vision: The vision tower; likewise.
    """

    config_class = NvlmConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # Nothing reads what a tower pools, and not every tower was saved with it.
    _keys_to_ignore_on_load_missing = [r"^vision_model\.pooler\."]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(
        self,
        config: NvlmConfig,
        language: PreTrainedModel | None = None,
        vision: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        text = config.text_config.get_text_config()
        if language is None:
            with attention.registered(config.text_config):
                language = AutoModelForCausalLM.from_config(config.text_config)
        if vision is None:
            vision = AutoModel.from_config(config.vision_config)
        self.language_model, self.vision_model = language, vision
        self.mlp1 = projector(config, text)
        self.cross_layers = nn.ModuleList(
            cross_layer(config, text, index) for index in range(len(config.cross_hosts or ()))
        )
        wanted = config.cross_hosts or ()
        hosts = decoder_layers(language, text.num_hidden_layers) if wanted else nn.ModuleList()
        for host, layer in zip(wanted, self.cross_layers, strict=True):
            made = cast(GatedCrossAttention, layer)
            if config.cross_placement == "before":
                hosts[host].register_forward_pre_hook(made.before, with_kwargs=True)
            else:
                hosts[host].register_forward_hook(made.after)
        self.generation_config = language.generation_config
        self._language_inputs = frozenset(signature(language.forward).parameters)
        self.post_init()

    def init_weights(self) -> None:
        """Do nothing: both parts come initialised, and what joins them initialises itself."""

    @classmethod
    def from_parts(
        cls,
        language: PreTrainedModel,
        vision: PreTrainedModel,
        *,
        kind: NvlmKind = "d",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Join a language model and a vision tower, which are used as they are, not copied.

        Both are frozen; see `set_trainable`.

        Args:
            language: Any causal language model of transformers.
            vision: Any vision model of transformers whose `last_hidden_state` has a token for each
                square of the picture.
            kind: NVLM-D, -X or -H.
            seed: Seed of the new weights.
            options: Other fields of `NvlmConfig`, such as `tile_size` and `max_tiles`.

        Raises:
            ConfigError: The tower's tokens are no square, it does not say what size its pictures
                have, or an option is out of range.
        """
        size = options.pop("tile_size", None) or image_size(vision.config)
        tokens, prefix, width = measure(vision, size)
        options = {"downsample": 1 if math.isqrt(tokens) % 2 else 2, **options}
        config = NvlmConfig(
            text_config=language.config,
            vision_config=vision.config,
            kind=kind,
            tile_size=size,
            vision_tokens=tokens,
            vision_prefix=prefix,
            vision_width=width,
            tie_word_embeddings=bool(getattr(language.config, "tie_word_embeddings", False)),
            **options,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = cls(config, language, vision)
        for part in (made.mlp1, made.cross_layers):
            part.to(device=language.device, dtype=language.dtype)
        return made.set_trainable().eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model that `save_pretrained` wrote, or one in the layout of NVLM-D-72B.

        Args:
            pretrained_model_name_or_path: Folder or hub id.
            args: As in transformers.
            kwargs: As in transformers; of the layout of NVLM-D-72B, `dtype` and what finds the
                files.

        Raises:
            CheckpointError: Tensors are missing, unexpected or of another shape.
        """
        if is_official(pretrained_model_name_or_path, kwargs):
            config, fill = load_official(pretrained_model_name_or_path, kwargs)
            model = cls._from_config(config, dtype=kwargs.get("dtype") or torch.float32)
            fill(model)
            return model.set_trainable().eval()
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write a folder that `from_pretrained` reads.

        Raises:
            ConfigError: The language model has LoRA adapters: merge them before.
        """
        if any("lora_A" in name for name, _ in self.language_model.named_modules()):
            raise ConfigError(
                "The language model has LoRA adapters, which a whole checkpoint cannot hold: call "
                "`merge_adapters()` first."
            )
        super().save_pretrained(save_directory, **kwargs)

    # -- training

    def set_trainable(
        self,
        language: Literal["frozen", "lora", "full"] = "frozen",
        *,
        vision: bool = False,
        rank: int = 16,
        alpha: int = 32,
    ) -> Self:
        """Choose what is trained besides the projector and the gated layers, which always are.

        Args:
            language: All of the language model, LoRA adapters of its linear layers, or none of it.
            vision: Whether the vision tower is trained.
            rank: Of the adapters.
            alpha: Of the adapters; they are scaled by `alpha / rank`.

        Raises:
            ConfigError: `language` is another name.
            MissingExtraError: PEFT is not installed.
        """
        if language not in ("frozen", "lora", "full"):
            raise ConfigError(
                f'`language` is {language!r}, but must be "frozen", "lora" or "full".'
            )
        self.requires_grad_(True)
        self.vision_model.requires_grad_(vision)
        self.language_model.requires_grad_(language == "full")
        if language == "lora":
            peft = require("peft", extra="lora", feature="Training LoRA adapters")
            layers = [
                name
                for name, part in self.language_model.named_modules()
                if isinstance(part, nn.Linear) and part is not self.get_output_embeddings()
            ]
            wanted = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
            peft.inject_adapter_in_model(wanted, self.language_model)
            for name, parameter in self.language_model.named_parameters():
                parameter.requires_grad_("lora_" in name)
        return self.train(self.training)

    def merge_adapters(self) -> Self:
        """Add LoRA adapters to the weights of the language model, and take them out."""
        for name, part in list(self.language_model.named_modules()):
            if hasattr(part, "get_base_layer") and hasattr(part, "merge"):
                part.merge()
                parent, _, leaf = name.rpartition(".")
                setattr(self.language_model.get_submodule(parent), leaf, part.get_base_layer())
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training mode; not of frozen parts, whose dropout would only disturb."""
        super().train(mode)
        for part in (self.vision_model, self.language_model):
            if mode and not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Any = None, **kwargs: Any
    ) -> None:
        function = gradient_checkpointing_func or torch.utils.checkpoint.checkpoint
        super()._set_gradient_checkpointing(enable, partial(_checkpointed, function), **kwargs)

    # -- images

    def encode_images(
        self,
        pixel_values: Tensor,
        tiles_per_image: Counts | None,
        images_per_row: Counts | None = None,
    ) -> Vision:
        """Run the vision tower, once for all tiles of a batch.

        Args:
            pixel_values: Normalised tiles of all images in their order, `[S, 3, size, size]`.
            tiles_per_image: Tiles of each image, its thumbnail included.
            images_per_row: Images of each row of the batch; None gives all of them to one row.

        Raises:
            ShapeError: The counts do not add up.
        """
        tiles, images = numbers(tiles_per_image), numbers(images_per_row)
        images = [len(tiles)] if images_per_row is None else images
        if sum(tiles) != len(pixel_values) or sum(images) != len(tiles):
            raise ShapeError(
                f"`pixel_values` has {len(pixel_values)} tiles, but `tiles_per_image` {tiles} has "
                f"{sum(tiles)} for {len(tiles)} images, and `images_per_row` {images} has "
                f"{sum(images)}."
            )
        visual = list(self.visual_tokens(pixel_values).split(tiles)) if tiles else []
        rows = [[visual.pop(0) for _ in range(count)] for count in images]
        kind = self.config.kind
        slots, seen = [], []
        for row in rows:
            # Of a picture in one tile the thumbnail is all there is.
            inside = [image[-1:] if kind == "h" else image for image in row if kind != "x"]
            beside = [image[:-1] if kind == "h" else image for image in row if kind != "d"]
            slots.append(self._joined(inside).flatten(0, 1))
            seen.append(self._tagged([len(image) for image in beside], self._joined(beside)))
        tokens = seen[0].shape[1] if seen else 0
        states = nn.utils.rnn.pad_sequence([one.flatten(0, 1) for one in seen], batch_first=True)
        layers: list[KeysValues] = []
        if states.shape[1]:
            layers = [
                cast(GatedCrossAttention, layer).project(states) for layer in self.cross_layers
            ]
        return Vision(tuple(slots), layers, tuple(len(one) for one in seen), tokens)

    def visual_tokens(self, pixel_values: Tensor) -> Tensor:
        """Projected tokens of tiles, `[S, N, D]`."""
        tower = self.vision_model
        trained = torch.is_grad_enabled() and any(x.requires_grad for x in tower.parameters())
        pixel_values = pixel_values.to(tower.device, tower.dtype)
        with torch.set_grad_enabled(trained):
            x_SNC = patches(tower, pixel_values)[:, self.config.vision_prefix :]
        if self.config.downsample == 2:
            x_SNC = pixel_shuffle(x_SNC, version=self.config.ps_version)
        projected: Tensor = self.mlp1(x_SNC.to(next(self.mlp1.parameters()).dtype))
        return projected

    def _joined(self, images: list[Tensor]) -> Tensor:
        """Tiles of images behind one another, `[K, N, D]`; of no image, none."""
        if images:
            return torch.cat(images)
        like = next(self.mlp1.parameters())
        width = self.config.text_config.get_text_config().hidden_size
        return like.new_zeros(0, self.config.slots_per_tile, width)

    def _tagged(self, tiles: list[int], x_KND: Tensor) -> Tensor:
        """In NVLM-H, the embedding of its tag before the visual tokens of each tile."""
        tags = self.config.tile_tag_ids
        if self.config.kind != "h" or not tags:
            return x_KND
        if max(tiles, default=0) > len(tags):
            raise ShapeError(
                f"An image has {max(tiles)} tiles, but the model has tags for {len(tags)}. Use at "
                f"most `max_tiles={len(tags)}`."
            )
        ids = torch.tensor([tags[tile] for count in tiles for tile in range(count)])
        ids = ids.reshape(-1, len(tags[0])).to(x_KND.device, torch.long)
        tag_KND = self.get_input_embeddings()(ids).to(x_KND.dtype)
        return torch.cat([tag_KND, x_KND], dim=1)

    def embed(self, input_ids: Tensor, vision: Vision) -> Tensor:
        """Embeddings of whole sequences, visual tokens in their slots, `[B, T, D]`.

        What computes a prompt in chunks takes them apart.

        Raises:
            ShapeError: A row has more or fewer slots than visual tokens.
        """
        embeds_BTD: Tensor = self.get_input_embeddings()(input_ids)
        if vision.slots is None or self.config.image_token_id is None:
            return embeds_BTD
        is_slot_BT = input_ids == self.config.image_token_id
        for row, (count, given) in enumerate(
            zip(is_slot_BT.sum(-1).tolist(), map(len, vision.slots), strict=True)
        ):
            if count != given:
                raise ShapeError(
                    f"Row {row} has {count} slots for visual tokens, but its images give {given}. "
                    "Make the inputs with `NvlmProcessor`; to compute a prompt in chunks, take "
                    "them from `embed`."
                )
        slots = torch.cat(vision.slots).to(embeds_BTD)
        return embeds_BTD.masked_scatter(is_slot_BT.unsqueeze(-1), slots)

    # -- running

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tiles_per_image: Counts | None = None,
        images_per_row: Counts | None = None,
        tile_spans: Tensor | None = None,
        vision: Vision | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass of the language model, with what it sees.

        Args:
            input_ids: Tokens, [B, T].
            pixel_values: See `encode_images`.
            tiles_per_image: Likewise.
            images_per_row: Likewise.
            tile_spans: First tile that each token sees, and the one behind the last, [B, T, 2];
                None lets all tokens see all tiles of their row.
            vision: What `encode_images` gave, instead of images.
            attention_mask: As in transformers; rows may be padded on either side.
            position_ids: None counts the tokens that are no padding.
            inputs_embeds: What `embed` gave, instead of tokens.
            labels: Targets, [B, T], -100 where there is none; shifted by one in the model.
            kwargs: Those of the language model, its cache among them.

        Raises:
            ShapeError: A row has more or fewer slots than visual tokens.
        """
        if pixel_values is not None:
            vision = self.encode_images(pixel_values, tiles_per_image, images_per_row)
        if vision is not None and vision.has_slots and inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds, input_ids = self.embed(input_ids, vision), None
        tokens = cast(Tensor, input_ids if inputs_embeds is None else inputs_embeds)
        length = tokens.shape[1]
        cross = None if vision is None else vision.cross_pass(tile_spans, length)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        inputs = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "attention_mask": attention_mask,
            "position_ids": position_ids if "position_ids" in self._language_inputs else None,
            "labels": labels,
            **kwargs,
        }
        with passing(cross):
            return self.language_model(**{k: v for k, v in inputs.items() if v is not None})

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        tiles_per_image: Counts | None = None,
        images_per_row: Counts | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers; each image goes through the vision tower once."""
        if pixel_values is not None:
            kwargs["vision"] = self.encode_images(pixel_values, tiles_per_image, images_per_row)
        return super().generate(inputs, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        vision: Vision | None = None,
        tile_spans: Tensor | None = None,
        is_first_iteration: bool | None = False,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Inputs of the next pass."""
        made: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, inputs_embeds=inputs_embeds, **kwargs
        )
        if vision is None:
            return made
        is_cached = not is_first_iteration and kwargs.get("use_cache", True)
        made["vision"] = vision.seen() if is_cached else vision
        if tile_spans is not None:
            tokens = made.get("input_ids")
            tokens = made["inputs_embeds"] if tokens is None else tokens
            made["tile_spans"] = tile_spans[:, -tokens.shape[1] :]
        return made

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **more: Any
    ) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, *args, **more
        )
        spans, vision = kwargs.get("tile_spans"), kwargs.get("vision")
        if spans is not None and vision is not None:
            new = spans.new_tensor([[0, count] for count in vision.tiles]).unsqueeze(1)
            kwargs["tile_spans"] = torch.cat([spans, new], dim=1)
        return kwargs

    def _expand_inputs_for_generation(self, expand_size: int = 1, **kwargs: Any) -> Any:
        vision = kwargs.get("vision")
        if vision is not None and expand_size > 1:
            rows = [row for row in range(len(vision.tiles)) for _ in range(expand_size)]
            kwargs["vision"] = vision.rows(rows)
        return super()._expand_inputs_for_generation(expand_size=expand_size, **kwargs)

    # -- what transformers asks of a model, answered by the language model

    @property
    def _is_stateful(self) -> bool:
        return cast(bool, self.language_model._is_stateful)

    def _prepare_cache_for_generation(self, *args: Any) -> None:
        self.language_model._prepare_cache_for_generation(*args)

    def get_input_embeddings(self) -> nn.Module:
        """Input embeddings of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Output embeddings of the language model."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output embeddings of the language model."""
        self.language_model.set_output_embeddings(new_embeddings)


def _checkpointed(checkpoint: Any, function: Any, *args: Any) -> Any:
    """Checkpoint a layer; when it is computed again, its gated layer sees the same images."""
    cross = now_passing()

    def run(*inner: Any) -> Any:
        with passing(cross):
            return function(*inner)

    return checkpoint(run, *args)
