"""The vLLM plug-in: experimental, checked against vLLM's signatures; the real engine where there is
one.
"""

import importlib
import importlib.util
import json
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.autodeco.conftest import VOCAB, build, official_config, official_tensors, write_heads
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from hanol import autodeco
from hanol.autodeco import AutoDecoConfig, AutoDecoForCausalLM
from hanol.errors import CheckpointError, ConfigError

IDS = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))

# -- a stand-in for vLLM


class VllmConfig:
    """As much of vLLM's as a model reads."""

    def __init__(self, model: str, hf_config: Any) -> None:
        self.model_config = types.SimpleNamespace(
            model=model, revision=None, hf_config=hf_config, dtype=torch.bfloat16
        )

    def with_hf_config(
        self, hf_config: Any, architectures: list[str] | None = None
    ) -> "VllmConfig":
        changed = VllmConfig(self.model_config.model, hf_config)
        changed.architectures = architectures
        return changed


class VllmLlama(nn.Module):
    """vLLM's LlamaForCausalLM as a model class sees it: hidden states out, logits apart."""

    supports_pp = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        assert vllm_config.model_config.hf_config.model_type == "llama"
        assert vllm_config.architectures == ["LlamaForCausalLM"]
        inner = LlamaForCausalLM(vllm_config.model_config.hf_config)
        self.model, self.lm_head = inner.model, inner.lm_head

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return self.model(input_ids[None], position_ids=positions[None]).last_hidden_state[0]

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        return self.lm_head(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        own, loaded = dict(self.named_parameters()), set()
        for name, tensor in weights:
            if name not in own:
                raise ValueError(f"There is no module or parameter named {name!r}")
            own[name].data.copy_(tensor)
            loaded.add(name)
        return loaded


class Source(NamedTuple):
    """vLLM's DefaultModelLoader.Source."""

    model_or_path: str
    revision: str | None
    prefix: str = ""


class Registry:
    """vLLM's ModelRegistry: classes, or where to import them from."""

    def __init__(self, **known: type) -> None:
        self.models = {name: self._entry(lambda c=cls: c) for name, cls in known.items()}
        self.imported: list[str] = []

    def _entry(self, load: Callable[[], type]) -> Any:
        return types.SimpleNamespace(load_model_cls=load)

    def get_supported_archs(self) -> set[str]:
        return set(self.models)

    def register_model(self, architecture: str, where: str) -> None:
        module, _, name = where.partition(":")
        assert architecture not in self.models, "vLLM warns of a class registered twice"
        self.models[architecture] = self._entry(
            lambda: getattr(importlib.import_module(module), name)
        )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Modules of the stand-in, and the plug-in registered twice, as it happens."""
    registry = Registry(LlamaForCausalLM=VllmLlama)

    def module(name: str, **members: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(members, __path__=[])
        monkeypatch.setitem(sys.modules, name, made)

    loader = "vllm.model_executor.model_loader"
    for package in ("vllm.model_executor", loader):
        module(package)
    module("vllm", ModelRegistry=registry)
    module(f"{loader}.default_loader", DefaultModelLoader=types.SimpleNamespace(Source=Source))
    from hanol.autodeco import _vllm  # private: the plug-in's entry point

    _vllm._model_class.cache_clear()
    _vllm.register()
    _vllm.register()
    yield registry
    _vllm._model_class.cache_clear()
    AutoConfig.register("autodeco", AutoDecoConfig, exist_ok=True)


def start(registry: Registry, folder: Path, **overrides: Any) -> Any:
    """Make and fill a model as vLLM does: by its architecture, then through its loader."""
    config = AutoConfig.from_pretrained(folder)
    config = pickle.loads(pickle.dumps(config))  # it goes to a worker process
    config.update(overrides)
    (architecture,) = config.architectures
    model = registry.models[architecture].load_model_cls()(
        vllm_config=VllmConfig(str(folder), config), prefix=""
    )
    sources = [Source(str(folder), None), *getattr(model, "secondary_weights", ())]
    loaded = model.load_weights(
        (source.prefix + name, tensor)
        for source in sources
        for file in sorted(Path(source.model_or_path).glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    )
    missing = {name for name, _ in model.named_parameters()} - loaded
    assert not missing, f"Following weights were not initialized from checkpoint: {missing}"
    return model.eval()


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    base = build("llama")
    base.save_pretrained(tmp_path / "base")
    heads = write_heads(tmp_path / "heads", official_config(base), official_tensors(seed=3))
    return autodeco.merge(heads, tmp_path / "base", tmp_path / "merged")


def logits_of(model: Any, ids: Tensor) -> Tensor:
    """Rows of logits of several sequences, computed as the engine does: in one call."""
    positions = torch.arange(ids.shape[1])
    with torch.no_grad():
        hidden = torch.cat([model(row, positions) for row in ids])
        return model.compute_logits(hidden).view(*ids.shape, -1)


# -- what it computes


@pytest.mark.parametrize("layout", ["merged", "heads", "adapter", "module.adapter"])
def test_logits_are_those_of_transformers(
    layout: str, registry: Registry, merged: Path, tmp_path: Path
) -> None:
    if layout == "merged":
        model = start(registry, merged)
    else:
        folder = tmp_path / layout
        if layout != "heads":
            config, tensors = official_config(build("llama")), official_tensors(seed=3)
            write_heads(folder, config, tensors, prefix=f"{layout}.")
        model = start(registry, folder, base_model_name_or_path=str(tmp_path / "base"))
    with torch.no_grad():
        expected = AutoDecoForCausalLM.from_pretrained(merged)(IDS).logits
    found = logits_of(model, IDS)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-4
    assert (expected < -500).any()  # something is cut


@pytest.mark.parametrize("truncation", ["hard", "soft", "none"])
def test_truncation_is_read_from_the_configuration(
    truncation: str, registry: Registry, merged: Path
) -> None:
    model = start(registry, merged, autodeco_truncation=truncation)
    reference = AutoDecoForCausalLM.from_pretrained(merged)
    with torch.no_grad():
        if truncation == "none":
            out = reference(IDS, output_base_logits=True)
            expected = out.base_logits / out.temperature.unsqueeze(-1)
        else:
            expected = reference(IDS, apply=truncation).logits
    assert (logits_of(model, IDS) - expected).abs().max() < 1e-4
    # The file says so too, and hanol keeps the key.
    reference.config.autodeco_truncation = truncation
    reference.save_pretrained(merged)
    assert start(registry, merged).autodeco_truncation == truncation


def test_ranks_without_logits_give_none(
    registry: Registry, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the logits are gathered on another tensor parallel rank."""
    model = start(registry, merged)
    monkeypatch.setattr(VllmLlama, "compute_logits", lambda self, hidden: None)
    assert model.compute_logits(torch.randn(2, 32)) is None


def test_half_precision_base_is_cut_in_float32(registry: Registry, merged: Path) -> None:
    model = start(registry, merged)
    model.model.bfloat16()
    model.lm_head.bfloat16()
    with torch.no_grad():
        assert model.compute_logits(torch.randn(5, 32).bfloat16()).dtype == torch.float32


# -- what vLLM asks of the class


def test_class_has_the_capabilities_of_the_base(registry: Registry) -> None:
    cls = registry.models["AutoDecoLlamaForCausalLM"].load_model_cls()
    assert issubclass(cls, VllmLlama)
    assert cls.__name__ == "AutoDecoLlamaForCausalLM"
    with pytest.raises(AttributeError, match="no model class 'NoSuchForCausalLM'"):
        importlib.import_module("hanol.autodeco._vllm").AutoDecoNoSuchForCausalLM  # noqa: B018


def test_registration_loads_no_class_and_can_be_repeated(registry: Registry) -> None:
    from hanol.autodeco import _vllm  # private: the plug-in's entry point

    before = set(registry.models)
    _vllm.register()
    assert set(registry.models) == before
    assert not any(name.startswith("AutoDecoAutoDeco") for name in before)
    assert _vllm._model_class.cache_info().currsize == 0


def test_transformers_still_loads_and_saves_official_folders(
    registry: Registry, merged: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert isinstance(model, AutoDecoForCausalLM)
    model.save_pretrained(tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert saved["architectures"] == ["AutoDecoModelForCausalLM"]


def test_module_is_imported_without_vllm() -> None:
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    from hanol.autodeco import _vllm  # private: the plug-in's entry point

    with pytest.raises(ModuleNotFoundError, match="vllm"):
        _vllm.register()


# -- weights


def test_weights_come_one_at_a_time(registry: Registry, merged: Path) -> None:
    """As a trainer in the same process sends them."""
    model = start(registry, merged)
    trained = AutoDecoForCausalLM.from_pretrained(merged)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, parameter in trained.named_parameters():
            assert model.load_weights([(name, parameter.data)]) == {name.removeprefix("llm.")}
        # Logits of about 1,000, of which float32 has steps of 6e-5.
        torch.testing.assert_close(logits_of(model, IDS), trained(IDS).logits, rtol=1e-6, atol=1e-4)


def test_missing_and_unexpected_weights_are_named(registry: Registry, merged: Path) -> None:
    model = start(registry, merged)
    with pytest.raises(CheckpointError, match=r"`model\.norm\.weight` is no weight of an AutoDeco"):
        model.load_weights([("model.norm.weight", torch.ones(32))])
    with pytest.raises(ValueError, match=r"no module or parameter named 'model\.nothing'"):
        model.load_weights([("llm.model.nothing", torch.ones(32))])
    with pytest.raises(CheckpointError, match=r"`temp_head\.mlp\.0\.weight` has shape \(256, 31\)"):
        model.load_weights([("temp_head.mlp.0.weight", torch.ones(256, 31))])
    tensors = load_file(merged / "model.safetensors")
    del tensors["top_p_head.mlp.2.bias"]
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"`top_p_head\.mlp\.2\.bias` is missing"):
        start(registry, merged)
    # A weight of the base that is missing is reported by vLLM's loader, from what was loaded.
    tensors["top_p_head.mlp.2.bias"] = torch.zeros(1)
    del tensors["llm.model.norm.weight"]
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError, match=r"not initialized.*model\.norm\.weight"):
        start(registry, merged)


def test_heads_without_their_base_are_refused(
    registry: Registry, merged: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="/private/of/the/authors.*add --hf-overrides"):
        start(registry, tmp_path / "heads")
    with pytest.raises(CheckpointError, match="does not name their base: add --hf-overrides"):
        start(registry, tmp_path / "heads", base_model_name_or_path=None)


def test_heads_for_another_base_are_refused(registry: Registry, tmp_path: Path) -> None:
    wide = official_tensors(width=64)
    folder = write_heads(tmp_path / "wide", official_config(build("llama")), wide)
    with pytest.raises(CheckpointError, match=r"has shape \(256, 64\)"):
        start(registry, folder)


def test_bad_configurations_are_refused(registry: Registry, merged: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`autodeco_truncation` is 'top', but must be one of"):
        start(registry, merged, autodeco_truncation="top")
    # Heads whose file says nothing of their base.
    older = {"model_type": "autodeco", "train_temp": True, "train_top_p": True}
    folder = write_heads(tmp_path / "older", older, official_tensors())
    (architecture,) = AutoConfig.from_pretrained(folder).architectures
    with pytest.raises(ConfigError, match="no keys of their base"):
        registry.models[architecture].load_model_cls()


# -- the real engine


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="vllm needs a CUDA device")
@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vllm is not installed")
def test_real_engine_samples_the_same_distribution(tmp_path: Path) -> None:
    from vllm import LLM, SamplingParams

    base = build("llama", hidden_size=128, head_dim=64)  # a size that vLLM's kernels take
    folder = write_heads(
        tmp_path / "heads",
        official_config(base, temperature_hidden_size=128, top_p_hidden_size=128),
        official_tensors(seed=3, width=128),
    )  # fmt: skip
    model = AutoDecoForCausalLM.from_pretrained(folder, base_model=base)
    model.save_pretrained(tmp_path / "merged")
    engine = LLM(
        str(tmp_path / "merged"), skip_tokenizer_init=True, dtype="float32", enforce_eager=True,
        max_model_len=64, gpu_memory_utilization=0.3, generation_config="vllm",
    )  # fmt: skip
    prompt = IDS[0].tolist()
    sampling = SamplingParams(temperature=1, max_tokens=1, logprobs=VOCAB, detokenize=False)
    (answer,) = engine.generate([{"prompt_token_ids": prompt}], sampling)
    found = torch.full((VOCAB,), -torch.inf)
    for token, value in answer.outputs[0].logprobs[0].items():
        found[token] = value.logprob
    with torch.no_grad():
        expected = model(IDS[:1]).logits[0, -1].log_softmax(-1)
    assert (found.exp() - expected.exp()).abs().max() < 1e-3
