"""transformers' own tests of models, over each delta-rule model; `make test-peers` runs them.

Their file lies in build/peers, fetched by the target. HANOL_REGISTERED=1 puts hanol in: by
`register()` into what is loaded (`kimi_linear`), by `registered()` into everything that is made
(the others; `register()` would add half a second to each load). Each class of tests has those of
`ModelTesterMixin` for all model classes of one configuration.
"""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import TestCase

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5Config
from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeConfig
from transformers.models.qwen4_exp.configuration_qwen4_exp import Qwen4ExpConfig

from hanol import attention

PLAIN_NAMES = get_checkpoint_conversion_mapping("kimi_linear")
from tests.attention import test_layers as kimi_linear  # noqa: E402 - imports hanol.models,
from tests.attention.test_family import MEMBERS  # noqa: E402 - which corrects those names

FETCHED = Path(__file__).parents[2] / "build" / "peers"
IS_REGISTERED = os.environ.get("HANOL_REGISTERED") == "1"


def _peer() -> ModuleType:
    """The fetched file; what it imports beside it is not in the distribution and stays empty."""
    sys.path.append(str(FETCHED / "site"))
    package = ModuleType("peer")
    package.__path__ = [str(FETCHED / "tests")]
    sys.modules["peer"] = package
    for name, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        sys.modules[f"peer.{name.partition('.')[0]}"] = ModuleType("peer")
        sys.modules[f"peer.{name}"] = stand_in = ModuleType(f"peer.{name}")
        setattr(stand_in, mixin, type(mixin, (), {}))
    return import_module("peer.test_modeling_common")


peer = _peer()
if not IS_REGISTERED:
    register_checkpoint_conversion_mapping("kimi_linear", PLAIN_NAMES, overwrite=True)


class Tester:
    """What the tests ask of a model: a small configuration and inputs that fit it."""

    batch_size, seq_length, is_training = 3, 12, True

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        text = config.get_text_config()
        self.num_hidden_layers = text.num_hidden_layers
        self.num_attention_heads = text.num_attention_heads
        self.hidden_size = text.hidden_size

    def get_config(self) -> PreTrainedConfig:
        return type(self.config).from_dict(self.config.to_dict())

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, Tensor]]:
        """A fresh configuration and inputs; of an image-text model each row has one image."""
        config = self.get_config()
        ids = torch.randint(12, 96, (self.batch_size, self.seq_length))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        vision = getattr(config, "vision_config", None)
        if vision is not None:
            ids[:, 2] = config.image_token_id
            side = vision.spatial_merge_size
            values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
            inputs["pixel_values"] = torch.rand(self.batch_size * side**2, values)
            inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * self.batch_size)
            inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
        return config, inputs


def _two_layers(config: PreTrainedConfig) -> PreTrainedConfig:
    """The first and the last layer: one of the delta rule, one of attention."""
    text = config.get_text_config()
    for name in ("layer_types", "mlp_layer_types", "indexer_types"):
        kinds = getattr(text, name, None)
        if kinds is not None:
            setattr(text, name, [kinds[0], kinds[-1]])
    text.num_hidden_layers = 2
    text.max_position_embeddings = 64  # tests of positions read half as many again
    return config


def _with_images(cls: type[PreTrainedConfig], text: PreTrainedConfig) -> PreTrainedConfig:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 4, "patch_size": 8,
        "out_hidden_size": text.hidden_size, "spatial_merge_size": 1, "num_position_embeddings": 16,
    }  # fmt: skip
    return cls(
        text_config=text.to_dict(), vision_config=vision, image_token_id=5, video_token_id=6,
        vision_start_token_id=7, vision_end_token_id=8,
    )  # fmt: skip


def _configs() -> Iterator[tuple[str, PreTrainedConfig]]:
    yield "kimi_linear", kimi_linear.config()
    yield "kimi_linear_made", kimi_linear.config()
    whole = {"qwen3_5": Qwen3_5Config, "qwen3_5_moe": Qwen3_5MoeConfig, "qwen4_exp": Qwen4ExpConfig}
    for name, (_cls, make) in MEMBERS.items():
        config = make()
        if name == "glm5_next":
            for i, token in enumerate(("image", "video", "image_start", "image_end")):
                setattr(config, f"{token}_token_id", 5 + i)
            config.video_start_token_id, config.video_end_token_id = 9, 10
            yield f"{name}_images", config
        yield name, config.get_text_config()
        if name in whole:
            yield f"{name}_images", _with_images(whole[name], config)


def _model_classes(config: PreTrainedConfig) -> tuple[type[PreTrainedModel], ...]:
    package = type(config).__module__.rpartition(".")[0]
    module = import_module(f"{package}.modeling_{package.rpartition('.')[2]}")
    classes = (getattr(module, x) for x in module.__all__ if not x.endswith("PreTrainedModel"))
    return tuple(x for x in classes if x.config_class is type(config))


def _tests(name: str, config: PreTrainedConfig) -> type[TestCase]:
    config = _two_layers(config)

    def set_up(self: Any) -> None:
        set_seed(0)
        peer.global_rng.seed(0)
        if IS_REGISTERED and name == "kimi_linear":
            attention.register()
            self.addCleanup(attention.unregister)
        elif IS_REGISTERED:
            self.enterContext(attention.registered(config))
        self.model_tester = Tester(config)

    classes = _model_classes(config)
    generation = (peer.GenerationTesterMixin,) if any(x.can_generate() for x in classes) else ()
    return type(
        name,
        (peer.ModelTesterMixin, *generation, TestCase),
        {
            "all_model_classes": classes,
            "_is_composite": hasattr(config, "vision_config"),
            "setUp": set_up,
        },
    )


globals().update({name: _tests(name, config) for name, config in _configs()})
