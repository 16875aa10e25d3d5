"""Pictures of every mode, their grids and their tiles."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from hanol.errors import ConfigError, DataError
from hanol.multimodal import read_image, tile_grid, tiles

SIDES = (100, 333, 448, 640, 1000, 1920)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "grid", "images"),
    [
        ((448, 448), (1, 1), 1),
        ((640, 480), (3, 2), 7),
        ((1920, 1080), (2, 1), 3),
        ((1000, 1000), (2, 2), 5),
        ((633, 633), (1, 1), 1),
        ((634, 634), (2, 2), 5),
        ((2000, 500), (4, 1), 5),
        ((560, 448), (1, 1), 1),
        ((448, 560), (2, 3), 7),
    ],
)
def test_grids_of_the_paper(size: tuple[int, int], grid: tuple[int, int], images: int) -> None:
    assert tile_grid(*size) == grid
    cols, rows = grid
    assert images == cols * rows + (cols * rows > 1) == len(tiles(noise(*size)))


@pytest.mark.parametrize("most", [4, 6, 12])
def test_grids_are_those_of_the_official_function(most: int) -> None:
    for width in SIDES:
        for height in SIDES:
            # transformers has a tile's height and width in this order
            official = get_optimal_tiled_canvas((height, width), (448, 448), 1, most)
            assert tile_grid(width, height, max_tiles=most) == official, (width, height)


def test_other_rules_treat_landscape_and_portrait_alike() -> None:
    for rule in ("log_ratio", "area_weighted"):
        for width, height in ((560, 448), (1920, 1080), (700, 300)):
            cols, rows = tile_grid(width, height, rule=rule)
            assert tile_grid(height, width, rule=rule) == (rows, cols)
    # A grid that holds the area beats one of the same ratio that does not.
    assert tile_grid(1344, 1344, rule="area_weighted") == (2, 2)
    assert tile_grid(300, 300, rule="area_weighted") == (1, 1)


def test_tiles_are_cut_row_by_row_and_end_with_the_whole() -> None:
    image = noise(96, 64)
    cut = tiles(image, size=32, max_tiles=6)
    whole = np.asarray(image)  # three by two tiles, so nothing was resized
    for index, tile in enumerate(cut[:-1]):
        row, col = divmod(index, 3)
        expected = whole[32 * row : 32 * (row + 1), 32 * col : 32 * (col + 1)]
        assert np.array_equal(np.asarray(tile), expected)
    assert cut[-1].size == (32, 32)
    assert len(tiles(image, size=32, thumbnail=False)) == 6


def test_exif_turns_a_picture_upright_unless_told_otherwise() -> None:
    turned = Image.new("RGB", (20, 10), "white")
    turned.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    data = encoded(turned, "PNG", exif=exif)
    upright = read_image(data)
    assert upright.size == (10, 20)
    assert upright.getpixel((9, 0)) == (255, 0, 0)
    assert read_image(data, rotate=False).size == (20, 10)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit grey PNG, written by hand: Pillow reads it in a mode of its own."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_every_mode_becomes_rgb() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert read_image(encoded(half)).getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    assert read_image(encoded(palette)).getpixel((0, 0)) == (10, 200, 30)
    with_hole = encoded(palette, "PNG", transparency=1)
    assert read_image(with_hole).getpixel((0, 0)) == (255, 255, 255)
    ink = read_image(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(np.subtract(ink.getpixel((0, 0)), (255, 0, 0))).max() < 8
    grey = np.full((4, 4), 40_000)
    assert read_image(png16(grey)).getpixel((0, 0)) == (156, 156, 156)
    assert read_image(encoded(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)
    assert read_image(encoded(Image.new("LA", (4, 4), (9, 255)))).getpixel((0, 0)) == (9, 9, 9)


def test_bad_pictures_are_refused_in_a_line() -> None:
    whole = encoded(noise(64, 64), "JPEG")
    with pytest.raises(DataError, match="damaged"):
        read_image(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="empty file"):
        read_image(b"")
    with pytest.raises(DataError, match="no format that Pillow reads"):
        read_image(b"%PDF-1.7 and so on")
    with pytest.raises(DataError, match=r"nowhere.*does not exist"):
        read_image("nowhere.png")
    with pytest.raises(DataError, match="no pixels"):
        tile_grid(0, 10)
    with pytest.raises(DataError, match="more than 100 times"):
        tiles(Image.new("RGB", (1010, 10)))
    with pytest.raises(ConfigError, match="official, log_ratio, area_weighted"):
        tile_grid(10, 10, rule="nearest")
    with pytest.raises(ConfigError, match="1 or more"):
        tile_grid(10, 10, max_tiles=0)
    with pytest.warns(UserWarning, match="stretched 1:6"):
        assert len(tiles(Image.new("RGB", (10, 1000)), size=8)) == 7


def test_a_picture_that_claims_too_many_pixels_is_not_unpacked() -> None:
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"\x35\xaf\x06\x1e"
    with pytest.raises(DataError, match="Make it smaller"):
        read_image(bomb)
