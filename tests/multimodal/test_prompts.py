"""What stands in a text for an image, and how visual tokens are joined."""

import pytest
import torch
from torch import Tensor

from hanol.errors import ConfigError, DataError, ShapeError
from hanol.multimodal import expand_prompt, pixel_shuffle

# By tiles of an image, with two slots a tile written "__".
GOLDEN_D = {
    1: "<Image><tile_global_thumbnail>__</Image>",
    2: "<Image><tile_1>__<tile_global_thumbnail>__</Image>",
    3: "<Image><tile_1>__<tile_2>__<tile_global_thumbnail>__</Image>",
    4: "<Image><tile_1>__<tile_2>__<tile_3>__<tile_global_thumbnail>__</Image>",
    5: "<Image><tile_1>__<tile_2>__<tile_3>__<tile_4>__<tile_global_thumbnail>__</Image>",
    6: "<Image><tile_1>__<tile_2>__<tile_3>__<tile_4>__<tile_5>__<tile_global_thumbnail>__</Image>",
    7: "<Image><tile_1>__<tile_2>__<tile_3>__<tile_4>__<tile_5>__<tile_6>__"
    "<tile_global_thumbnail>__</Image>",
}


@pytest.mark.parametrize("count", range(1, 8))
def test_golden_strings_of_one_image(count: int) -> None:
    text = "<image>\nRead it."
    made = {
        kind: expand_prompt(text, [count], slots_per_tile=2, kind=kind, slot="_") for kind in "dxh"
    }
    assert made["d"] == GOLDEN_D[count] + "\nRead it."
    assert made["x"] == GOLDEN_D[count].replace("_" * 2, "") + "\nRead it."
    assert made["h"] == "<Image>__</Image>\nRead it."


def test_no_image_and_three() -> None:
    assert expand_prompt("Hello", [], slots_per_tile=256) == "Hello"
    three = expand_prompt("a<image>b<image><image>c", [1, 2, 3], slots_per_tile=2, slot="_")
    assert three == f"a{GOLDEN_D[1]}b{GOLDEN_D[2]}{GOLDEN_D[3]}c"
    tags = expand_prompt("<image><image><image>", [1, 2, 1], slots_per_tile=2, kind="x")
    single = "<Image><tile_global_thumbnail></Image>"
    assert tags == f"{single}<Image><tile_1><tile_global_thumbnail></Image>{single}"
    thumbnails = expand_prompt("<image><image><image>", [1, 7, 2], slots_per_tile=1, kind="h")
    assert thumbnails == "<Image><|vision_pad|></Image>" * 3


def test_slots_are_256_a_tile() -> None:
    text = expand_prompt("<image>", [7], slots_per_tile=256)
    assert text.count("<|vision_pad|>") == 256 * 7


def test_texts_that_do_not_fit_their_images() -> None:
    with pytest.raises(DataError, match="2 markers <image>, but there are 1 images"):
        expand_prompt("<image><image>", [1], slots_per_tile=2)
    with pytest.raises(DataError, match="0 markers"):
        expand_prompt("none", [1], slots_per_tile=2)
    with pytest.raises(DataError, match="stands for a part of an image"):
        expand_prompt("<image> <|vision_pad|>", [1], slots_per_tile=2)
    with pytest.raises(DataError, match="Image 2 has 0 tiles"):
        expand_prompt("<image><image>", [1, 0], slots_per_tile=2)
    with pytest.raises(ConfigError, match='"d", "x" or "h"'):
        expand_prompt("<image>", [1], slots_per_tile=2, kind="z")


def official(x: Tensor, version: int) -> Tensor:
    """The lines of NVLM-D's published code."""
    side = int(x.shape[1] ** 0.5)
    x = x.reshape(len(x), side, side, -1)
    n, w, h, c = x.size()
    x = x.view(n, w, int(h * 0.5), int(c / 0.5))
    x = x.permute(0, 2, 1, 3).contiguous()
    x = x.view(n, int(h * 0.5), int(w * 0.5), int(c / 0.25))
    if version == 2:
        x = x.permute(0, 2, 1, 3).contiguous()
    return x.reshape(len(x), -1, x.shape[-1])


@pytest.mark.parametrize("version", [1, 2])
def test_pixel_shuffle_is_the_official_one(version: int) -> None:
    x = torch.arange(3 * 36 * 5).reshape(3, 36, 5)
    assert torch.equal(pixel_shuffle(x, version=version), official(x, version))
    patch = pixel_shuffle(torch.arange(16).reshape(1, 16, 1))[0]
    assert patch[1].tolist() == [2, 3, 6, 7]  # the square at row 0, column 1


def test_pixel_shuffle_refuses_odd_sides() -> None:
    for count in (9, 1025, 8):
        with pytest.raises(ShapeError, match=f"{count} tokens a tile"):
            pixel_shuffle(torch.zeros(1, count, 2))
    with pytest.raises(ConfigError, match="1 or 2"):
        pixel_shuffle(torch.zeros(1, 4, 2), version=3)
