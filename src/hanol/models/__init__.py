"""Models: presets, building, pulling, loading, saving in the official layout, inspection.

A model is always a plain transformers model. Importing this room also corrects the names under
which transformers saves Kimi-Linear's dense layers, and makes the gated delta net hybrid, a
baseline that transformers does not have, known to its Auto classes.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names
from hanol.lazy import when_imported as _when_imported

if _typing.TYPE_CHECKING:
    from hanol.models._adapter import Adapter
    from hanol.models._build import build, cast, dtype_named
    from hanol.models._convert import convert
    from hanol.models._inspect import AdapterReport, CacheSize, ModelReport, cache_size, inspect
    from hanol.models._light import light_imports
    from hanol.models._load import (
        Loaded,
        adapter_of,
        fetch,
        load,
        load_config,
        load_model,
        load_tokenizer,
        load_weights,
        model_type,
    )
    from hanol.models._meta import MetaLlama, llama_from_meta, llama_to_meta, merge_meta_parts
    from hanol.models._official import checkpoint_folder, no_progress_bars, save
    from hanol.models._presets import kimi_config, preset, preset_names
    from hanol.models._speed import SpeedReport, WeightSpeed, speed_report
    from hanol.models._templates import render_chat
    from hanol.models._tensors import StoredTensor, stored_tensors, weight_files
    from hanol.models.gguf._write import to_gguf
    from hanol.models.pulled._list import ModelEntry, list_models
    from hanol.models.pulled._names import bundled_names, resolve
    from hanol.models.pulled._pull import pull

__getattr__, __dir__ = _lazy_names(__name__)


def _make_known() -> None:
    from hanol.attention import correct_names
    from hanol.models._build import add_baselines

    correct_names()
    add_baselines()


_when_imported("transformers.models.auto.modeling_auto", _make_known, settled=("hanol",))

__all__ = [
    "Adapter",
    "AdapterReport",
    "CacheSize",
    "Loaded",
    "MetaLlama",
    "ModelEntry",
    "ModelReport",
    "SpeedReport",
    "StoredTensor",
    "WeightSpeed",
    "adapter_of",
    "build",
    "bundled_names",
    "cache_size",
    "cast",
    "checkpoint_folder",
    "convert",
    "dtype_named",
    "fetch",
    "inspect",
    "kimi_config",
    "light_imports",
    "list_models",
    "llama_from_meta",
    "llama_to_meta",
    "load",
    "load_config",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "merge_meta_parts",
    "model_type",
    "no_progress_bars",
    "preset",
    "preset_names",
    "pull",
    "render_chat",
    "resolve",
    "save",
    "speed_report",
    "stored_tensors",
    "to_gguf",
    "weight_files",
]
