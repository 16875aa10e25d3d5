"""What stands in the text for an image: tile tags and slots, in NVLM's three ways."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from hanol.errors import ConfigError, DataError

NvlmKind = Literal["d", "x", "h"]
MARKER = "<image>"  # where an image stands in a user's text
START, END = "<Image>", "</Image>"
SLOT = "<|vision_pad|>"
THUMBNAIL = "<tile_global_thumbnail>"


class TagSpan(NamedTuple):
    """A tile tag in an expanded text: its characters, its image and its tile, from 0."""

    begin: int
    end: int
    image: int
    tile: int


class Expanded(NamedTuple):
    """A text whose markers are replaced.

    Attributes:
        text: The text.
        ends: Where each image ends in it, in characters.
        tags: Its tile tags.
    """

    text: str
    ends: list[int]
    tags: list[TagSpan]


def tile_tags(tiles: int) -> list[str]:
    """The tags of an image of so many tiles, thumbnail included; a single tile is a thumbnail.

    Example:
        >>> tile_tags(3)
        ['<tile_1>', '<tile_2>', '<tile_global_thumbnail>']
    """
    return [*(f"<tile_{i}>" for i in range(1, tiles)), THUMBNAIL]


def expand_prompt(
    text: str,
    tiles_per_image: Sequence[int],
    *,
    slots_per_tile: int,
    kind: NvlmKind = "d",
    slot: str = SLOT,
) -> str:
    """Replace each `<image>` of a text by what the language model reads for it.

    "d" writes for every tile its tag and its slots; "x" the tags alone; "h" the slots of the
    thumbnail alone, since there the tags are keys of the cross-attention.

    Args:
        text: With one `<image>` for each image.
        tiles_per_image: Tiles of each image, its thumbnail included.
        slots_per_tile: Tokens that a tile takes in the sequence.
        kind: NVLM-D, -X or -H.
        slot: The token that an embedding takes the place of.

    Raises:
        DataError: There are more or fewer markers than images, the text has slots of its own, or an
            image has no tiles.
        ConfigError: `kind` is another name.

    Example:
        >>> expand_prompt("<image> What is it?", [1], slots_per_tile=2, slot="_")
        '<Image><tile_global_thumbnail>__</Image> What is it?'
    """
    return expand(text, tiles_per_image, slots_per_tile, kind, slot).text


def expand(
    text: str, tiles_per_image: Sequence[int], slots_per_tile: int, kind: NvlmKind, slot: str
) -> Expanded:
    """See `expand_prompt`; also where images and tags are."""
    if kind not in get_args(NvlmKind):
        raise ConfigError(f'`kind` is {kind!r}, but must be "d", "x" or "h".')
    parts = text.split(MARKER)
    if len(parts) - 1 != len(tiles_per_image):
        raise DataError(
            f"The text has {len(parts) - 1} markers {MARKER}, but there are {len(tiles_per_image)} "
            "images: write one marker for each image."
        )
    if kind != "x" and slot in text:
        raise DataError(
            f"The text contains {slot!r}, which stands for a part of an image. Take it out."
        )
    written, ends, tags = parts[0], list[int](), list[TagSpan]()
    for image, (count, after) in enumerate(zip(tiles_per_image, parts[1:], strict=True)):
        if count < 1:
            raise DataError(f"Image {image + 1} has {count} tiles, but an image has at least one.")
        written += START
        if kind == "h":
            written += slot * slots_per_tile
        else:
            for tile, tag in enumerate(tile_tags(count)):
                tags.append(TagSpan(len(written), len(written) + len(tag), image, tile))
                written += tag + (slot * slots_per_tile if kind == "d" else "")
        written += END
        ends.append(len(written))
        written += after
    return Expanded(written, ends, tags)
