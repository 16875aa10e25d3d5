"""The tiles of a picture on one sheet, each under its tag, and what they cost."""

from typing import TYPE_CHECKING, NamedTuple

from hanol.multimodal._pictures import read_image
from hanol.multimodal._prompts import tile_tags
from hanol.multimodal._tiling import TILE_SIZE, TileRule, tile_grid, tiles

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP, _LABEL = 6, 16  # pixels between tiles, and above each for its tag


class TileCost(NamedTuple):
    """Tokens that an image takes.

    Attributes:
        kind: "d", "x" or "h".
        sequence: Tokens in the language model's sequence.
        keys: Tokens that its gated layers attend to.
    """

    kind: str
    sequence: int
    keys: int


def tile_costs(num_tiles: int, *, slots_per_tile: int = 256, tag_tokens: int = 5) -> list[TileCost]:
    """What an image costs NVLM-D, -X and -H, besides the text around it.

    Args:
        num_tiles: Tiles of the image, its thumbnail included.
        slots_per_tile: Visual tokens of a tile.
        tag_tokens: Tokens of a tile tag; 5 in Qwen2's tokenizer.

    Example:
        >>> [tuple(cost) for cost in tile_costs(7)]
        [('d', 1827, 0), ('x', 35, 1792), ('h', 256, 1566)]
    """
    regular, tagged = num_tiles - 1, slots_per_tile + tag_tokens
    return [
        TileCost("d", tagged * num_tiles, 0),
        TileCost("x", tag_tokens * num_tiles, slots_per_tile * num_tiles),
        TileCost("h", slots_per_tile, tagged * regular),
    ]


def tile_sheet(
    image: "Image",
    *,
    size: int = TILE_SIZE,
    max_tiles: int = 6,
    rule: TileRule = "official",
) -> "Image":
    """A picture of the tiles in their grid, with their tags, and of the thumbnail beside them.

    Args:
        image: The picture.
        size: As in `tiles`, as are the others.
        max_tiles: Likewise.
        rule: Likewise.

    Raises:
        DataError: The picture has no pixels, or one side is more than 100 times the other.
    """
    from PIL import Image, ImageDraw

    image = read_image(image)
    cols, rows = tile_grid(*image.size, max_tiles=max_tiles, rule=rule, size=size)
    cut = tiles(image, size=size, max_tiles=max_tiles, rule=rule)
    across = cols + (len(cut) > 1)
    step, down = size + _GAP, size + _GAP + _LABEL
    sheet = Image.new("RGB", (across * step + _GAP, rows * down + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (tile, tag) in enumerate(zip(cut, tile_tags(len(cut)), strict=True)):
        row, col = divmod(index, cols)
        if index == cols * rows:  # the thumbnail
            row, col = 0, cols
        left, top = _GAP + col * step, _GAP + row * down
        draw.text((left, top), tag, fill="black")
        sheet.paste(tile, (left, top + _LABEL))
    return sheet
