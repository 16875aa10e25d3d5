"""Vision and language: NVLM's three ways to join any vision tower and any language model.

Pictures as RGB (`read_image`), the grid and the tiles of dynamic high resolution (`tile_grid`,
`tiles`; `tile_sheet` shows them, `tile_costs` counts them), fewer and wider visual tokens
(`pixel_shuffle`), and what stands for an image in the text (`expand_prompt`). Models that join a
vision tower and a language model (`NvlmForConditionalGeneration`), their gated layers
(`GatedCrossAttention`), and what makes their inputs (`NvlmProcessor`). Llama-3.2-Vision with Meta's
masks (`fix_mllama_masks`).

Importing this room makes "nvlm" known to transformers' Auto classes.

Source: arXiv 2409.11402.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names
from hanol.lazy import when_imported as _when_imported

if _typing.TYPE_CHECKING:
    from hanol.multimodal._mllama import fix_mllama_masks
    from hanol.multimodal._pictures import read_image
    from hanol.multimodal._prompts import NvlmKind, expand_prompt
    from hanol.multimodal._sheet import TileCost, tile_costs, tile_sheet
    from hanol.multimodal._shuffle import pixel_shuffle
    from hanol.multimodal._tiling import TileRule, tile_grid, tiles
    from hanol.multimodal.nvlm._config import NvlmConfig
    from hanol.multimodal.nvlm._cross import GatedCrossAttention, KeysValues
    from hanol.multimodal.nvlm._model import NvlmForConditionalGeneration
    from hanol.multimodal.nvlm._processor import NvlmProcessor
    from hanol.multimodal.nvlm._vision import Vision

__getattr__, __dir__ = _lazy_names(__name__)


def _make_known() -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from hanol.multimodal.nvlm._config import NvlmConfig
    from hanol.multimodal.nvlm._model import NvlmForConditionalGeneration
    from hanol.multimodal.nvlm._processor import NvlmProcessor

    AutoConfig.register(NvlmConfig.model_type, NvlmConfig, exist_ok=True)
    AutoModelForImageTextToText.register(NvlmConfig, NvlmForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(NvlmConfig, NvlmProcessor, exist_ok=True)


_when_imported("transformers.models.auto.modeling_auto", _make_known, settled=("hanol",))

__all__ = [
    "GatedCrossAttention",
    "KeysValues",
    "NvlmConfig",
    "NvlmForConditionalGeneration",
    "NvlmKind",
    "NvlmProcessor",
    "TileCost",
    "TileRule",
    "Vision",
    "expand_prompt",
    "fix_mllama_masks",
    "pixel_shuffle",
    "read_image",
    "tile_costs",
    "tile_grid",
    "tile_sheet",
    "tiles",
]
