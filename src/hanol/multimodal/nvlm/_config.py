"""Configuration of a vision and language model, with those of its two parts."""

from typing import Any, ClassVar, get_args

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from hanol.errors import ConfigError
from hanol.multimodal._prompts import NvlmKind
from hanol.multimodal._tiling import TileRule


class NvlmConfig(PreTrainedConfig):
    """How a vision tower is joined to a language model.

    Args:
        text_config: Configuration of the language model.
        vision_config: Configuration of the vision tower.
        kind: "d" puts visual tokens into the sequence, "x" attends to them from gated layers, "h"
            puts the thumbnail into the sequence and attends to the tiles.
        tile_size: Side of a tile in pixels.
        max_tiles: Most tiles of an image, its thumbnail not counted.
        tile_rule: How the grid is chosen; see `tile_grid`.
        vision_tokens: Tokens of a tile that the tower gives, class and register tokens not counted.
        vision_prefix: Class and register tokens that it gives before them.
        vision_width: Channels of a token.
        downsample: Side of the squares of tokens that become one: 2, or 1 for none.
        ps_version: Version of the pixel shuffle; see `pixel_shuffle`.
        projector_width: Hidden width of the projector; None has that of the language model's MLP.
        image_token_id: The token whose places take visual tokens; "x" has none.
        tile_tag_ids: Tokens of the tags `<tile_1>`, `<tile_2>`, ... of "h", equally many of each.
        cross_hosts: Layers of the language model that have a gated layer.
        cross_placement: Whether that comes "before" or "after" its host.
        cross_ffn: Whether it has an MLP.

    Raises:
        ConfigError: A value is out of range, or one of another name.
    """

    model_type = "nvlm"
    auto_map: ClassVar[dict[str, str]] = {}  # code of a checkpoint is never run
    sub_configs_defaults = {  # noqa: RUF012 - as in transformers
        "text_config": SubConfigSpec(AutoConfig, model_type="qwen2"),
        "vision_config": SubConfigSpec(AutoConfig, model_type="internvl_vision"),
    }

    text_config: Any = None
    vision_config: Any = None
    kind: str = "d"
    tile_size: int = 448
    max_tiles: int = 6
    tile_rule: str = "official"
    vision_tokens: int = 1024
    vision_prefix: int = 1
    vision_width: int = 3200
    downsample: int = 2
    ps_version: int = 2
    projector_width: int | None = None
    image_token_id: int | None = None
    tile_tag_ids: list[list[int]] | None = None
    cross_hosts: list[int] | None = None
    cross_placement: str = "before"
    cross_ffn: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        parts = [
            part
            for part in (self.text_config, self.vision_config)
            if isinstance(part, PreTrainedConfig)
        ]
        # transformers gives our own choice, which is none, to parts that have made theirs.
        chosen = [(part._attn_implementation, part._experts_implementation) for part in parts]
        super().__post_init__(**kwargs)
        for part, (attention, experts) in zip(parts, chosen, strict=True):
            part._attn_implementation_internal = part._attn_implementation or attention
            part._experts_implementation_internal = part._experts_implementation or experts
        self.architectures = ["NvlmForConditionalGeneration"]
        for key, known in (
            ("kind", get_args(NvlmKind)),
            ("tile_rule", get_args(TileRule)),
            ("cross_placement", ("before", "after")),
            ("downsample", (1, 2)),
            ("ps_version", (1, 2)),
        ):
            if getattr(self, key) not in known:
                raise ConfigError(
                    f"`{key}` is {getattr(self, key)!r}, but must be one of "
                    f"{', '.join(map(str, known))}."
                )
        if self.vision_tokens % self.downsample**2:
            raise ConfigError(
                f"`vision_tokens` is {self.vision_tokens}, which `downsample` {self.downsample} "
                "does not divide into squares. Use 1."
            )
        layers = self.text_config.get_text_config().num_hidden_layers
        if self.kind == "d":
            self.cross_hosts = []
        elif self.cross_hosts is None:
            # Ten of them in the paper's models of 60 and 80 layers.
            every = min(layers, max(2, layers // 10))
            self.cross_hosts = list(range(every - 1, layers, every))
        elif not all(0 <= host < layers for host in self.cross_hosts):
            raise ConfigError(
                f"`cross_hosts` is {self.cross_hosts}, but the language model's layers are 0 to "
                f"{layers - 1}."
            )
        tags = {len(ids) for ids in self.tile_tag_ids or ()}
        if len(tags) > 1:
            raise ConfigError(
                "The tile tags have different numbers of tokens, and in NVLM-H all need the same."
            )

    @property
    def slots_per_tile(self) -> int:
        """Visual tokens of a tile that the language model sees."""
        return int(self.vision_tokens) // int(self.downsample) ** 2
