"""Dynamic high resolution: which grid of tiles fits a picture, and the tiles.

Source: the tiling of InternVL and NVLM (arXiv 2409.11402, section 2.1 of the appendix' code).
"""

import math
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from hanol.errors import ConfigError
from hanol.multimodal._pictures import check_size, read_image

if TYPE_CHECKING:
    from PIL.Image import Image

TileRule = Literal["official", "log_ratio", "area_weighted"]
TILE_SIZE = 448
_BLUR = 4.0  # stretched by more than this, a picture gets a warning


def tile_grid(
    width: int,
    height: int,
    *,
    max_tiles: int = 6,
    rule: TileRule = "official",
    size: int = TILE_SIZE,
) -> tuple[int, int]:
    """Columns and rows of tiles for a picture.

    Args:
        width: In pixels.
        height: In pixels.
        max_tiles: Most tiles of a grid; the thumbnail is not counted.
        rule: "official" takes the nearest ratio of width to height, by difference, and so treats
            landscape and portrait differently; "log_ratio" takes the nearest by quotient;
            "area_weighted" weighs in how much of the picture's area the grid holds.
        size: Side of a tile in pixels.

    Raises:
        DataError: The picture has no pixels, or one side is more than 100 times the other.
        ConfigError: `max_tiles` or `size` is below 1, or the rule is another name.

    Example:
        >>> tile_grid(1920, 1080), tile_grid(560, 448), tile_grid(448, 560)
        ((2, 1), (1, 1), (2, 3))
    """
    check_size(width, height)
    if rule not in get_args(TileRule):
        raise ConfigError(
            f"`rule` is {rule!r}, but must be one of {', '.join(get_args(TileRule))}."
        )
    if max_tiles < 1 or size < 1:
        raise ConfigError(f"`max_tiles` is {max_tiles} and `size` {size}; both must be 1 or more.")
    ratio, area = width / height, width * height
    grids = _grids(max_tiles)
    if rule == "area_weighted":

        def weight(grid: tuple[int, int]) -> float:
            fit = grid[0] / grid[1]
            held = min(grid[0] * grid[1] * size * size / area, 0.6)
            return held * min(fit / ratio, ratio / fit)

        return max(grids, key=weight)
    best, smallest = (1, 1), math.inf
    for cols, rows in grids:
        fit = cols / rows
        distance = abs(ratio - fit) if rule == "official" else abs(math.log(ratio / fit))
        is_large = area > 0.5 * size * size * cols * rows
        if distance < smallest or (distance == smallest and is_large):
            best, smallest = (cols, rows), distance
    return best


def tiles(
    image: "Image",
    *,
    size: int = TILE_SIZE,
    max_tiles: int = 6,
    rule: TileRule = "official",
    thumbnail: bool = True,
) -> "list[Image]":
    """The tiles of a picture, row by row, and last a thumbnail of the whole.

    The picture is resized to the grid (bicubic), so its aspect changes. A grid of one tile has no
    thumbnail, because it is one.

    Args:
        image: The picture; its EXIF rotation is applied.
        size: Side of a tile in pixels.
        max_tiles: Most tiles besides the thumbnail.
        rule: How the grid is chosen; see `tile_grid`.
        thumbnail: Whether to append a thumbnail.

    Raises:
        DataError: The picture has no pixels, or one side is more than 100 times the other.
    """
    from PIL.Image import Resampling

    image = read_image(image)
    cols, rows = tile_grid(*image.size, max_tiles=max_tiles, rule=rule, size=size)
    stretch = (image.width / image.height) / (cols / rows)
    if max(stretch, 1 / stretch) > _BLUR:
        warnings.warn(
            f"An image of {image.width} by {image.height} pixels is stretched {cols}:{rows}: "
            "little of it will be readable. Cut it into parts, or raise `max_tiles`.",
            UserWarning,
            stacklevel=2,
        )
    whole = image.resize((size * cols, size * rows), Resampling.BICUBIC)
    cut = [
        whole.crop((size * col, size * row, size * (col + 1), size * (row + 1)))
        for row in range(rows)
        for col in range(cols)
    ]
    if thumbnail and len(cut) > 1:
        cut.append(image.resize((size, size), Resampling.BICUBIC))
    return cut


@lru_cache(maxsize=32)
def _grids(max_tiles: int) -> list[tuple[int, int]]:
    """Grids of up to so many tiles, by their number, then from narrow to wide."""
    found = [
        (cols, rows)
        for cols in range(1, max_tiles + 1)
        for rows in range(1, max_tiles + 1)
        if cols * rows <= max_tiles
    ]
    return sorted(found, key=lambda grid: grid[0] * grid[1])
