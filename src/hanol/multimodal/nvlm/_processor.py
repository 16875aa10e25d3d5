"""Texts and images as the inputs of a model: tiles, tags, slots, and which tiles a token sees."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin

from hanol.errors import ConfigError, DataError
from hanol.multimodal._pictures import read_image
from hanol.multimodal._prompts import MARKER, SLOT, Expanded, expand, tile_tags
from hanol.multimodal._tiling import tiles

if TYPE_CHECKING:
    from PIL.Image import Image

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class NvlmProcessor(ProcessorMixin):
    """Makes the inputs of an `NvlmForConditionalGeneration`.

    Args:
        tokenizer: A fast tokenizer.
        kind: NVLM-D, -X or -H.
        tile_size: Side of a tile in pixels.
        max_tiles: Most tiles of an image, its thumbnail not counted.
        tile_rule: How the grid is chosen; see `tile_grid`.
        slots_per_tile: Tokens that a tile takes in the sequence.
        slot: The token that visual tokens take the places of.
        chat_template: As in transformers; None has the tokenizer's.

    Raises:
        ConfigError: The tokenizer cannot say where its tokens begin, lacks the slot token, or has
            tile tags of different lengths.
    """

    def __init__(
        self,
        tokenizer: Any,
        kind: str = "d",
        tile_size: int = 448,
        max_tiles: int = 6,
        tile_rule: str = "official",
        slots_per_tile: int = 256,
        slot: str = SLOT,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or tokenizer.chat_template)
        self.kind, self.tile_size, self.max_tiles = kind, tile_size, max_tiles
        self.tile_rule, self.slots_per_tile, self.slot = tile_rule, slots_per_tile, slot
        if not tokenizer.is_fast:
            raise ConfigError(
                f"{type(tokenizer).__name__} does not tell where its tokens begin in a text, and "
                "tile tags have to be found. Use the fast tokenizer."
            )
        if kind != "x" and len(self._ids(slot)) != 1:
            raise ConfigError(
                f"The tokenizer has no token {slot!r} for visual tokens: make the processor with "
                "`NvlmProcessor.for_model`, which adds it."
            )
        lengths = {len(self._ids(tag)) for tag in tile_tags(max_tiles + 1)[:-1]}
        if len(lengths) > 1:
            raise ConfigError(
                f"The tags <tile_1> to <tile_{max_tiles}> have different numbers of tokens "
                f"({', '.join(map(str, sorted(lengths)))}): make the processor with "
                "`NvlmProcessor.for_model(..., add_tags=True)`, which makes each a token."
            )

    @classmethod
    def for_model(
        cls, model: Any, tokenizer: Any, *, add_tags: bool = False, slot: str = SLOT
    ) -> Self:
        """The processor of a model, whose configuration then knows the tokens.

        Args:
            model: An `NvlmForConditionalGeneration`; its embedding grows if tokens are new.
            tokenizer: The language model's, which gets the tokens it lacks.
            add_tags: Whether the tile tags become tokens of their own, instead of text.
            slot: The token that visual tokens take the places of.

        Raises:
            ConfigError: As the class raises it.
        """
        config = model.config
        new = tile_tags(config.max_tiles + 1) if add_tags else []
        if config.kind != "x":
            new = [slot, *new]
        known = tokenizer.get_vocab()
        if missing := [token for token in new if token not in known]:
            tokenizer.add_tokens(missing, special_tokens=True)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            model.config.text_config.vocab_size = len(tokenizer)
        made = cls(
            tokenizer,
            kind=config.kind,
            tile_size=config.tile_size,
            max_tiles=config.max_tiles,
            tile_rule=config.tile_rule,
            slots_per_tile=config.slots_per_tile,
            slot=slot,
        )
        if config.kind != "x":
            config.image_token_id = made._ids(slot)[0]
            model.generation_config.suppress_tokens = [config.image_token_id]
        if config.kind == "h":
            config.tile_tag_ids = [made._ids(tag) for tag in tile_tags(config.max_tiles + 1)[:-1]]
        return made

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def __call__(
        self,
        text: str | Sequence[str],
        images: Any = None,
        *,
        max_tiles: int | None = None,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        **options: Any,
    ) -> BatchFeature:
        """The inputs of one text or a batch of them, padded on the left.

        Args:
            text: With an `<image>` for each image.
            images: Images of the text, in order; of a batch, a list of them for each text. Each a
                file, its bytes, or a picture of Pillow.
            max_tiles: Most tiles of an image, instead of the processor's.
            max_length: Most tokens of a row; a longer one is refused, since nothing can be cut off
                an image.
            add_special_tokens: Whether the tokenizer puts its begin token before the text.
            options: Taken for the sake of transformers' pipelines; only `return_tensors="pt"` and
                padding are known.

        Returns:
            `input_ids` and `attention_mask` `[B, T]`; with images `pixel_values` `[S, 3, size,
            size]`, `tiles_per_image`, `images_per_row`; of "x" and "h" `tile_spans` `[B, T, 2]`,
            the first tile that a token sees and the one behind the last.

        Raises:
            DataError: Markers and images do not match, an image cannot be read, or a row is longer
                than `max_length`.
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = [list(images or ())] if isinstance(text, str) else list(images or [[]] * len(texts))
        if len(rows) != len(texts):
            raise DataError(f"There are {len(texts)} texts, but images for {len(rows)}.")
        cut = [[self.cut(image, max_tiles) for image in row] for row in rows]
        counts = [[len(image) for image in row] for row in cut]
        expanded = [
            expand(one, row, self.slots_per_tile, self.kind, self.slot)  # type: ignore[arg-type]
            for one, row in zip(texts, counts, strict=True)
        ]
        encoded = self.tokenizer(
            [one.text for one in expanded],
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
        )
        ids: list[list[int]] = encoded.input_ids
        self._check_lengths([len(row) for row in ids], counts, max_length)
        longest = max(map(len, ids), default=0)
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id or 0 if pad is None else pad
        data: dict[str, Any] = {
            "input_ids": _padded(ids, longest, pad),
            "attention_mask": _padded([[1] * len(row) for row in ids], longest, 0),
        }
        if any(counts):
            data["pixel_values"] = self.pixels([tile for row in cut for one in row for tile in one])
            data["tiles_per_image"] = torch.tensor([n for row in counts for n in row])
            data["images_per_row"] = torch.tensor([len(row) for row in counts])
        if self.kind != "d" and any(counts):
            spans = [
                self._spans(one, row, offsets)
                for one, row, offsets in zip(expanded, counts, encoded.offset_mapping, strict=True)
            ]
            data["tile_spans"] = _padded(spans, longest, [0, 0])
        return BatchFeature(data)

    def cut(self, image: Any, max_tiles: int | None = None) -> "list[Image]":
        """Tiles of an image, its thumbnail last."""
        most = self.max_tiles if max_tiles is None else min(max_tiles, self.max_tiles)
        rule: Any = self.tile_rule
        return tiles(read_image(image), size=self.tile_size, max_tiles=most, rule=rule)

    def pixels(self, cut: "Sequence[Image]") -> Tensor:
        """Normalised tiles, `[S, 3, size, size]`."""
        raw = np.stack([np.asarray(tile, dtype=np.float32) for tile in cut]) / 255
        normal = (raw - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
        return torch.from_numpy(normal).permute(0, 3, 1, 2).contiguous()

    def _check_lengths(
        self, lengths: list[int], counts: list[list[int]], max_length: int | None
    ) -> None:
        for row, (length, tiles_of) in enumerate(zip(lengths, counts, strict=True)):
            if max_length is not None and length > max_length:
                remedy = "Shorten the text."
                if tiles_of and self.kind != "x":
                    remedy = (
                        f"Its {len(tiles_of)} images take {sum(tiles_of)} tiles: allow fewer with "
                        "`max_tiles`, or leave images out."
                    )
                raise DataError(
                    f"Row {row} needs {length:,} tokens, but {max_length:,} are allowed. {remedy}"
                )

    def _spans(
        self, expanded: Expanded, counts: list[int], offsets: Sequence[tuple[int, int]]
    ) -> list[list[int]]:
        """Which tiles each token sees: a tag its own, other text those of all images before it."""
        seen = [count - 1 if self.kind == "h" else count for count in counts]
        before = [sum(seen[:image]) for image in range(len(seen) + 1)]
        spans, tags, image = [], list(expanded.tags), 0
        for begin, end in offsets:
            while tags and tags[0].end <= begin:
                tags.pop(0)
            while image < len(expanded.ends) and expanded.ends[image] <= begin:
                image += 1
            # A token that reaches from one tag into the next begins in the first.
            if self.kind == "x" and tags and tags[0].begin <= begin < end:
                tile = before[tags[0].image] + tags[0].tile
                spans.append([tile, tile + 1])
            else:
                spans.append([0, before[image]])
        return spans

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """As in transformers; an image is an `<image>` in the text, before what follows it.

        Args:
            conversation: Messages, or a batch of them, whose content is a text or parts
                `{"type": "image"}` and `{"type": "text", "text": ...}`. An image part may hold its
                picture as `image`, `path` or bytes.
            options: Those of the tokenizer's template; with `tokenize=True` also those of a call.
        """
        tokenize = options.pop("tokenize", False)
        options.pop("return_dict", None)
        call = {k: options.pop(k) for k in ("max_tiles", "max_length") if k in options}
        batched = bool(conversation) and isinstance(conversation[0], list | tuple)
        texts, images = [], []
        for messages in conversation if batched else [conversation]:
            flat, pictures = [], []
            for message in messages:
                content = message["content"]
                if not isinstance(content, str):
                    pictures += [part for part in content if part["type"] == "image"]
                    content = "".join(
                        MARKER + "\n" if part["type"] == "image" else part.get("text", "")
                        for part in content
                    )
                flat.append({**message, "content": content})
            options.setdefault("chat_template", self.chat_template)
            texts.append(self.tokenizer.apply_chat_template(flat, tokenize=False, **options))
            images.append([part.get("image", part.get("path")) for part in pictures])
        if not tokenize:
            return texts if batched else texts[0]
        return self(texts, images, add_special_tokens=False, **call)

    @property
    def model_input_names(self) -> list[str]:
        """Names of what a call gives."""
        return [
            "input_ids", "attention_mask", "pixel_values", "tiles_per_image", "images_per_row",
            "tile_spans",
        ]  # fmt: skip


def _padded(rows: Sequence[Sequence[Any]], longest: int, pad: Any) -> Tensor:
    """Rows of numbers, or of pairs, padded on the left."""
    return torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
