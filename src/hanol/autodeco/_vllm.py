"""AutoDeco in vLLM: a plug-in, no fork. Experimental: the real vLLM has not run it.

vLLM calls `register` in each of its processes (entry point group `vllm.general_plugins`). From then
on it serves AutoDeco checkpoints, merged ones and heads-only ones whose base is named:

    vllm serve MERGED --generation-config vllm
    vllm serve HEADS --tokenizer BASE --hf-overrides '{"base_model_name_or_path": "BASE"}'

The model is vLLM's own class of the base with two heads added, so the base answers everything that
vLLM asks a class about (pipeline parallelism, LoRA, state space layers). Temperature and top-p act
where the logits are computed, before anything that a request asks for: sample at temperature 1,
top-p 1 and no top-k. Log-probabilities, those of prompts too, are AutoDeco's. The keys
`autodeco_truncation`, `autodeco_limits` and `autodeco_mask` of config.json hold here too.

vLLM is imported inside functions only: this module can be imported without it.

Shape suffixes: N rows whose logits are computed, V vocabulary, H hidden width.
Source: arXiv 2510.26697, section 2, and the `llm.` layout of its merged checkpoints.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from hanol import models
from hanol.autodeco._config import ARCHITECTURE, AutoDecoConfig
from hanol.autodeco._formats import ADAPTER, BASE_PREFIX, HEAD_PREFIXES, StoredHeads
from hanol.autodeco._heads import predict, rescale
from hanol.autodeco._model import AutoDecoForCausalLM
from hanol.errors import CheckpointError, ConfigError

_PREFIX = "AutoDeco"


class VllmAutoDecoConfig(AutoDecoConfig):
    """The configuration as vLLM reads it: `architectures` alone tells it what a model can do."""

    model_type = "autodeco"

    def attach(self, base: PreTrainedConfig) -> None:
        """Make `base` the configuration of the base model, and name its vLLM class."""
        super().attach(base)
        self.architectures = [f"{_PREFIX}{name}" for name in base.architectures or ()]

    def to_dict(self) -> dict[str, Any]:
        """All keys as files hold them, with the official architecture."""
        return {**super().to_dict(), "architectures": [ARCHITECTURE]}


# transformers compares the name with that of the model's own configuration class.
VllmAutoDecoConfig.__name__ = AutoDecoConfig.__name__


def register() -> None:
    """Make AutoDeco known to vLLM, which calls this once or more in every process."""
    from vllm import ModelRegistry

    AutoConfig.register(VllmAutoDecoConfig.model_type, VllmAutoDecoConfig, exist_ok=True)
    # So that training in the same process still loads checkpoints.
    AutoModelForCausalLM.register(VllmAutoDecoConfig, AutoDecoForCausalLM, exist_ok=True)
    known = set(ModelRegistry.get_supported_archs())
    bases = {name for name in known if not name.startswith(_PREFIX)}
    for name in ({f"{_PREFIX}{base}" for base in bases} | {ARCHITECTURE}) - known:
        # By name, because vLLM must not touch CUDA before it forks.
        ModelRegistry.register_model(name, f"{__name__}:{name}")


def __getattr__(name: str) -> type:
    """The class that `register` named: `AutoDecoLlamaForCausalLM` and so on."""
    if name == ARCHITECTURE:  # which the configuration of older heads leaves
        raise ConfigError(
            "The heads' config.json has no keys of their base (`base_model_type`, `vocab_size`, "
            "...), which vLLM needs. Merge heads and base: `hanol merge`."
        )
    if not name.startswith(_PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _model_class(name.removeprefix(_PREFIX))


@cache
def _model_class(architecture: str) -> type:
    """The base's class in vLLM, with heads."""
    from vllm import ModelRegistry

    if architecture not in ModelRegistry.models:
        raise AttributeError(f"vLLM has no model class {architecture!r} to put heads on.")
    base: Any = ModelRegistry.models[architecture].load_model_cls()

    class AutoDecoModelForCausalLM(base):
        """The base, whose logits are tempered and truncated where it computes them."""

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            engine = vllm_config.model_config
            config = engine.hf_config
            serving = config.serving()
            super().__init__(
                vllm_config=vllm_config.with_hf_config(config.base_config, [architecture]),
                prefix=prefix,
            )
            self.autodeco_truncation, self.autodeco_limits, self.autodeco_mask = serving
            folder = models.fetch(engine.model, revision=engine.revision)
            heads = StoredHeads.read(folder, str(engine.model), config)
            text = config.get_text_config()
            heads.check(text.hidden_size, text.vocab_size)
            # They keep their own type: vLLM's default is that of the base.
            self.temp_head, self.top_p_head = heads.build(torch.get_default_device())
            if heads.layout != "merged":
                self.secondary_weights = [_base_weights(heads)]

        def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
            """Logits to sample from at temperature 1 and top-p 1, [N, V], float32."""
            logits_NV = super().compute_logits(hidden_states)
            if logits_NV is None:  # tensor parallel ranks
                return None
            chosen = predict(hidden_states, logits_NV, self.temp_head, self.top_p_head)
            temperature_N, top_p_N = self.autodeco_limits.hold(*chosen)
            cut = None if self.top_p_head is None else top_p_N
            how = self.autodeco_truncation, self.autodeco_mask
            return rescale(logits_NV, temperature_N, cut, *how)

        def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
            """Load all weights or some, by names of the merged layout; returns those loaded.

            vLLM's own loader reports what stays missing.
            """
            parameters = dict(self.named_parameters())
            loaded: set[str] = set()

            def of_base() -> Iterator[tuple[str, Tensor]]:
                for stored, tensor in weights:
                    name = ADAPTER.sub("", stored)
                    if name.startswith(BASE_PREFIX):
                        yield name.removeprefix(BASE_PREFIX), tensor
                    elif not name.startswith(HEAD_PREFIXES):
                        raise CheckpointError(
                            f"`{name}` is no weight of an AutoDeco model: names start with "
                            f"{', '.join((BASE_PREFIX, *HEAD_PREFIXES))}. A plain base is made "
                            "one by `hanol merge`."
                        )
                    elif name in parameters:  # else the head is switched off
                        if parameters[name].shape != tensor.shape:
                            raise CheckpointError(
                                f"`{name}` has shape {tuple(tensor.shape)}, but "
                                f"{tuple(parameters[name].shape)} is needed: the heads belong to "
                                "another base."
                            )
                        parameters[name].data.copy_(tensor)
                        loaded.add(name)

            # The base reads everything first: it fills `loaded` on the way.
            of_the_base = set(super().load_weights(of_base()))
            return loaded | of_the_base

    AutoDecoModelForCausalLM.__name__ = f"{_PREFIX}{architecture}"
    AutoDecoModelForCausalLM.__qualname__ = AutoDecoModelForCausalLM.__name__
    return AutoDecoModelForCausalLM


def _base_weights(heads: StoredHeads) -> Any:
    """Where vLLM finds the base's weights when the folder holds heads only."""
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    name = heads.config.base_model_name_or_path
    how = '--hf-overrides \'{"base_model_name_or_path": "..."}\''
    if not name:
        raise CheckpointError(
            f"{heads.what!r} holds heads only and does not name their base: add {how}."
        )
    try:
        place = models.load_config(name).name_or_path
    except CheckpointError as err:
        raise CheckpointError(
            f"{heads.what!r} holds heads only, and the base that it names could not be found: "
            f"{err} If it is somewhere else, add {how}."
        ) from err
    return DefaultModelLoader.Source(place, revision=None, prefix=BASE_PREFIX)
