import pytest
import torch
from transformers import AutoModelForCausalLM

from hanol.errors import UnknownNameError
from hanol.models import build, inspect, kimi_config, preset, preset_names

OFFICIAL_PARAMETERS = {
    "kimi-linear-48b-a3b": 49_122_675_072,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "qwen3-4b": 4_022_468_096,
    "qwen3-30b-a3b": 30_532_122_624,
}
OWN = {
    "tiny": 3.6e6, "kimi-linear-3m": 4.4e6, "gdn-hybrid-3m": 4.4e6, "mla-3m": 4.2e6,
    "llama-3m": 4.4e6, "kimi-linear-30m": 30.4e6, "gdn-hybrid-30m": 30.1e6, "mla-30m": 28.5e6,
    "world-small": 0.273e6, "world-medium": 1.03e6, "world-large": 3.65e6,
    "llama-30m": 31.5e6, "kimi-linear-350m": 329e6, "llama-350m": 344e6,
}  # fmt: skip


def test_every_preset_has_a_known_size() -> None:
    assert set(preset_names()) == {*OFFICIAL_PARAMETERS, *OWN}


@pytest.mark.parametrize(("name", "count"), OFFICIAL_PARAMETERS.items())
def test_official_parameter_counts(name: str, count: int) -> None:
    assert inspect(name).parameters == count


@pytest.mark.parametrize(("name", "count"), OWN.items())
def test_own_parameter_counts(name: str, count: float) -> None:
    assert inspect(name).parameters == pytest.approx(count, rel=0.03)


@pytest.mark.parametrize("size", ["3m", "30m"])
def test_baselines_are_of_equal_size(size: str) -> None:
    counts = [
        inspect(f"{family}-{size}").parameters
        for family in ("kimi-linear", "gdn-hybrid", "mla", "llama")
    ]
    assert max(counts) / min(counts) < 1.15


def test_official_layers() -> None:
    config = preset("kimi-linear-48b-a3b")
    full = [i for i, kind in enumerate(config.layer_types, 1) if kind == "full_attention"]
    assert full == [4, 8, 12, 16, 20, 24, 27]
    assert config.mlp_layer_types == ["dense"] + ["sparse"] * 26


def test_official_cache_is_the_published_one() -> None:
    report = inspect("kimi-linear-48b-a3b")
    assert report.cache.bytes_per_token == 8064
    assert report.cache.twin_bytes_per_token == 31104
    # 20 layers: float32 states of 32 heads, and three bfloat16 projections of 3 * 4096 channels
    assert report.cache.fixed_bytes == 20 * (32 * 128 * 128 * 4 + 3 * 3 * 4096 * 2)
    assert report.active_parameters == pytest.approx(3.48e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [("llama-3.2-1b", 32768), ("llama-3-8b", 131072), ("llama-3.1-405b", 516096)],
)
def test_llama_cache(name: str, bytes_per_token: int) -> None:
    assert inspect(name).cache.bytes_per_token == bytes_per_token


@pytest.mark.parametrize(("name", "factor"), [("llama-3.2-1b", 32.0), ("llama-3.1-8b", 8.0)])
def test_llama_rope(name: str, factor: float) -> None:
    rope = preset(name).rope_parameters
    assert rope["rope_type"] == "llama3"
    assert rope["factor"] == factor
    assert rope["original_max_position_embeddings"] == 8192


def test_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match=r"'Llama 3.5'.*Did you mean 'llama-3.*llama-3-8b"):
        preset("Llama 3.5")


@pytest.mark.parametrize(
    ("every", "layers", "full"), [(4, 6, [4, 6]), (1, 3, [1, 2, 3]), (0, 3, []), (4, 3, [3])]
)
def test_kimi_config_places_full_attention(every: int, layers: int, full: list[int]) -> None:
    config = kimi_config(
        vocab_size=32, hidden_size=16, num_layers=layers, num_heads=1, head_dim=16,
        intermediate_size=16, kv_lora_rank=8, full_attention_every=every,
    )  # fmt: skip
    found = [i for i, kind in enumerate(config.layer_types, 1) if kind == "full_attention"]
    assert found == full


def test_build_is_seeded_and_leaves_the_global_state() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = build("tiny", seed=1), build("tiny", seed=1)
    other = build("tiny", seed=2)
    assert torch.equal(before, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_build_keeps_float32_where_it_must() -> None:
    model = build("tiny", dtype=torch.bfloat16)
    types = {n.rpartition(".")[2]: p.dtype for n, p in model.named_parameters()}
    assert types["A_log"] == types["dt_bias"] == torch.float32
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_cast_rounds_neither_exponents_nor_rotary_frequencies() -> None:
    wide, narrow = (build("tiny", seed=1, dtype=t) for t in (torch.float32, torch.bfloat16))
    first, second = wide.state_dict(), narrow.state_dict()
    for name, tensor in first.items():
        kept = name.endswith(("A_log", "dt_bias"))
        assert torch.equal(second[name], tensor if kept else tensor.bfloat16()), name
    llama = build("llama-3m", dtype=torch.bfloat16)
    assert llama.model.rotary_emb.inv_freq.dtype == torch.float32


def test_build_on_meta_allocates_nothing() -> None:
    model = build("kimi-linear-48b-a3b", device="meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_build_initialises_the_gate_as_published() -> None:
    gate = build("tiny").model.layers[0].self_attn.forget_gate
    rate = gate.A_log.exp()
    assert ((rate >= 1) & (rate <= 16)).all()
    step = torch.nn.functional.softplus(gate.dt_bias)
    assert ((step >= 0.99e-3) & (step <= 0.101)).all()


def test_presets_are_plain_transformers_configurations() -> None:
    with torch.device("meta"):
        for name in preset_names():
            config = preset(name, vocab_size=512)
            assert config.vocab_size == 512
            if "48b" not in name and "70b" not in name and "405b" not in name:
                AutoModelForCausalLM.from_config(config)
