"""Vision and language: NVLM's three ways to join any vision tower and any language model.

Pictures as RGB (`read_image`), the grid and the tiles of dynamic high resolution (`tile_grid`,
`tiles`), fewer and wider visual tokens (`pixel_shuffle`), and what stands for an image in the text
(`expand_prompt`).

Source: arXiv 2409.11402.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.multimodal._pictures import read_image
    from hanol.multimodal._prompts import NvlmKind, expand_prompt
    from hanol.multimodal._shuffle import pixel_shuffle
    from hanol.multimodal._tiling import TileRule, tile_grid, tiles

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "NvlmKind",
    "TileRule",
    "expand_prompt",
    "pixel_shuffle",
    "read_image",
    "tile_grid",
    "tiles",
]
