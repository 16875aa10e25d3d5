"""Qwen3 with convolved attention: the same values however its input is cut, padded or stored."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, Qwen3ForCausalLM

from hanol import models
from hanol.attention import CACHE_NAME, ConvAttentionConfig, ConvAttentionForCausalLM, WindowedLayer
from hanol.errors import CacheError

VOCABULARY = 97
# Rounding of float32 in another order of summation; logits are of the size of 1.
ATOL = 1e-5


def config(**changes: Any) -> ConvAttentionConfig:
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256, "tie_word_embeddings": True, "initializer_range": 0.2,
        "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
    }  # fmt: skip
    return ConvAttentionConfig(**{**values, **changes})


def make(**changes: Any) -> Any:
    model = models.build(config(**changes), seed=3).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for name, tensor in model.named_parameters():
            if "norm" in name:  # away from 1, so that a norm left out is seen
                tensor += 0.2 * torch.randn_like(tensor)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return make()


def tokens(*shape: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, shape, generator=rng)


@torch.no_grad()
def logits_of(model: Any, ids_BT: Tensor, **inputs: Any) -> Tensor:
    logits: Tensor = model(input_ids=ids_BT, **inputs).logits
    return logits


# --- The definition, one token and one head at a time, in numpy and float64 ----------------------


def normed(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def turned(x_D: np.ndarray, place: int, theta: float) -> np.ndarray:
    half = len(x_D) // 2
    angle = place * theta ** (-np.arange(half) / half)
    a, b = x_D[:half], x_D[half:]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    )


def reference_logits(model: Any, ids: list[int]) -> np.ndarray:
    c = model.config
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    theta, D, eps = c.rope_parameters["rope_theta"], c.head_dim, c.rms_norm_eps
    H, G = c.num_attention_heads, c.num_attention_heads // c.num_key_value_heads
    x_TE = w["model.embed_tokens.weight"][ids]
    for n in range(c.num_hidden_layers):
        at = f"model.layers.{n}."
        own = at + "self_attn."
        h_TE = normed(x_TE, w[at + "input_layernorm.weight"], eps)
        raw_TC = np.concatenate([h_TE @ w[f"{own}{p}_proj.weight"].T for p in "qkv"], axis=1)
        kernel_CJ = w[own + "conv1d.weight"][:, 0]
        z_TC = raw_TC.copy()
        for t in range(len(ids)):
            for j in range(c.conv_kernel_size):  # the last tap is the token itself
                if (before := t - (c.conv_kernel_size - 1) + j) >= 0:
                    z_TC[t] += kernel_CJ[:, j] * raw_TC[before]
        q, k, v = np.split(z_TC, [H * D, (H + H // G) * D], axis=1)
        out_TC = np.zeros((len(ids), H * D))
        for head in range(H):
            mine, shared = slice(head * D, head * D + D), slice(head // G * D, head // G * D + D)
            qs = normed(q[:, mine], w[own + "q_norm.weight"], eps)
            ks = normed(k[:, shared], w[own + "k_norm.weight"], eps)
            for t in range(len(ids)):
                scores = np.array(
                    [turned(qs[t], t, theta) @ turned(ks[s], s, theta) for s in range(t + 1)]
                ) / math.sqrt(D)
                share = np.exp(scores - scores.max())
                out_TC[t, mine] = share / share.sum() @ v[: t + 1, shared]
        x_TE = x_TE + out_TC @ w[own + "o_proj.weight"].T
        h_TE = normed(x_TE, w[at + "post_attention_layernorm.weight"], eps)
        gate = h_TE @ w[at + "mlp.gate_proj.weight"].T
        up = h_TE @ w[at + "mlp.up_proj.weight"].T
        x_TE = x_TE + (gate / (1 + np.exp(-gate)) * up) @ w[at + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return normed(x_TE, w["model.norm.weight"], eps) @ head.T


@pytest.mark.parametrize(
    "changes",
    [{}, {"conv_kernel_size": 2}, {"conv_kernel_size": 6}, {"tie_word_embeddings": False}],
    ids=str,
)
def test_logits_are_those_of_the_definition(changes: dict[str, Any]) -> None:
    made = make(**changes)
    ids = tokens(1, 13)
    expected_TV = reference_logits(made, ids[0].tolist())
    found_TV = logits_of(made, ids)[0].double().numpy()
    np.testing.assert_allclose(found_TV, expected_TV, rtol=0, atol=ATOL)
    assert np.abs(expected_TV).max() > 0.5  # there is something to compare


def test_without_its_kernels_it_is_qwen3(model: Any) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = Qwen3ForCausalLM(model.config).eval()
    extra = plain.load_state_dict(state, strict=False)
    assert extra.missing_keys == []
    assert all("conv1d" in name for name in extra.unexpected_keys)
    assert len(extra.unexpected_keys) == model.config.num_hidden_layers
    silent = make()
    for name, tensor in silent.named_parameters():
        if "conv1d" in name:
            tensor.data.zero_()
    ids = tokens(2, 9)
    torch.testing.assert_close(logits_of(silent, ids), logits_of(plain, ids), rtol=0, atol=ATOL)
    assert not torch.allclose(logits_of(model, ids), logits_of(plain, ids), atol=0.01)


def test_kernels_start_far_from_zero() -> None:
    fresh = models.build(config(hidden_size=64, head_dim=16), seed=0)
    kernels = torch.cat([p.flatten() for name, p in fresh.named_parameters() if "conv1d" in name])
    assert kernels.std().item() == pytest.approx(0.3, rel=0.1)
    assert kernels.mean().item() == pytest.approx(0.0, abs=0.05)


# --- However the input comes ---------------------------------------------------------------------


@pytest.mark.parametrize("parts", [[1] * 12, [5, 7], [1, 2, 9], [11, 1], [2, 2, 2, 6]], ids=str)
def test_in_pieces_as_in_one_pass(model: Any, parts: list[int]) -> None:
    ids = tokens(2, 12)
    cache = DynamicCache()
    found = [logits_of(model, piece, **{CACHE_NAME: cache}) for piece in ids.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(found, 1), logits_of(model, ids), rtol=0, atol=ATOL)
    assert cache.get_seq_length() == 12
    assert all(type(layer) is WindowedLayer for layer in cache.layers)


@pytest.mark.parametrize("parts", [[9], [1] * 9, [4, 5], [8, 1], [2, 7]], ids=str)
def test_a_batch_of_different_lengths_with_padding_on_the_left(
    model: Any, parts: list[int]
) -> None:
    lengths = [9, 4, 1]
    ids = tokens(3, 9)
    mask = torch.arange(9) >= 9 - torch.tensor(lengths)[:, None]
    position = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    found, seen = [], 0
    for piece, place in zip(ids.split(parts, 1), position.split(parts, 1), strict=True):
        seen += piece.shape[1]
        found.append(
            logits_of(
                model, piece, attention_mask=mask[:, :seen].long(), position_ids=place,
                **{CACHE_NAME: cache},
            )
        )  # fmt: skip
    logits = torch.cat(found, 1)
    for row, length in enumerate(lengths):
        alone = logits_of(model, ids[row : row + 1, 9 - length :])
        torch.testing.assert_close(logits[row : row + 1, 9 - length :], alone, rtol=0, atol=ATOL)


def test_padding_on_the_right_changes_nothing(model: Any) -> None:
    ids = tokens(2, 7)
    alone = logits_of(model, ids)
    for filling in (0, 55):
        padded = torch.cat([ids, torch.full((2, 5), filling)], 1)
        mask = (torch.arange(12) < 7).long().expand(2, 12)
        found = logits_of(model, padded, attention_mask=mask)[:, :7]
        torch.testing.assert_close(found, alone, rtol=0, atol=ATOL)


def test_what_comes_later_changes_nothing_before(model: Any) -> None:
    ids, other = tokens(1, 10), tokens(1, 10, seed=1)
    mixed = torch.cat([ids[:, :6], other[:, 6:]], 1)
    torch.testing.assert_close(
        logits_of(model, mixed)[:, :6], logits_of(model, ids)[:, :6], rtol=0, atol=ATOL
    )


def test_embeddings_in_place_of_tokens(model: Any) -> None:
    ids = tokens(2, 8)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, :3] = 0
    embedded = model.get_input_embeddings()(ids).detach()
    with torch.no_grad():
        found = model(inputs_embeds=embedded, attention_mask=mask).logits
    torch.testing.assert_close(found, logits_of(model, ids, attention_mask=mask))


# --- Generation ----------------------------------------------------------------------------------


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """The likeliest tokens, each from the whole text, without a cache."""
    for _ in range(count):
        ids = [*ids, int(logits_of(model, torch.tensor([ids]), use_cache=False)[0, -1].argmax())]
    return ids


def test_generate_writes_what_whole_passes_say(model: Any) -> None:
    ids = tokens(2, 6)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    ids[1, :4] = 0
    made = model.generate(
        ids, attention_mask=mask, do_sample=False, max_new_tokens=8, eos_token_id=None
    )
    assert made[0].tolist() == greedy(model, ids[0].tolist(), 8)
    assert made[1, 4:].tolist() == greedy(model, ids[1, 4:].tolist(), 8)


def test_beams_are_those_without_a_cache(model: Any) -> None:
    ids = tokens(2, 5)
    options: dict[str, Any] = {
        "num_beams": 4, "max_new_tokens": 9, "do_sample": False, "eos_token_id": None,
        "return_dict_in_generate": True, "output_scores": True,
    }  # fmt: skip
    mask = torch.ones_like(ids)
    cached = model.generate(ids, attention_mask=mask, use_cache=True, **options)
    plain = model.generate(ids, attention_mask=mask, use_cache=False, **options)
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(cached.sequences_scores, plain.sequences_scores, rtol=0, atol=ATOL)
    # Beams change places, or the test would say nothing about the order of the windows.
    assert any(torch.diff(row).any() for row in cached.beam_indices[:, :-1].long() % 4)


def test_several_samples_of_a_prompt(model: Any) -> None:
    ids = tokens(1, 5)
    options = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 6}
    found = []
    for use_cache in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            found.append(
                model.generate(
                    ids, attention_mask=torch.ones_like(ids), use_cache=use_cache,
                    eos_token_id=None, **options,
                )
            )  # fmt: skip
    assert torch.equal(*found)
    assert len({tuple(row) for row in found[0].tolist()}) > 1


# --- The cache -----------------------------------------------------------------------------------


def filled(model: Any, ids: Tensor) -> DynamicCache:
    cache = DynamicCache()
    logits_of(model, ids, **{CACHE_NAME: cache})
    return cache


def test_rows_of_a_cache_can_be_chosen_and_repeated(model: Any) -> None:
    ids, following = tokens(3, 6), tokens(4, 1, seed=2)
    cache = filled(model, ids)
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([3, 1, 0, 2]))
    rows = torch.tensor([0, 2, 2, 0])
    found = logits_of(model, following, **{CACHE_NAME: cache})
    whole = logits_of(model, torch.cat([ids[rows], following], 1))[:, -1:]
    torch.testing.assert_close(found, whole, rtol=0, atol=ATOL)


def test_tokens_cannot_be_taken_back(model: Any) -> None:
    cache = filled(model, tokens(1, 6))
    with pytest.raises(CacheError, match="no past of its windows"):
        cache.crop(-2)
    assert cache.get_seq_length() == 6
    cache.crop(0)
    assert cache.get_seq_length() == 6


def test_a_cache_that_was_reset_is_like_new(model: Any) -> None:
    cache = filled(model, tokens(2, 6))
    cache.reset()
    ids = tokens(2, 4, seed=4)
    found = logits_of(model, ids, **{CACHE_NAME: cache})
    torch.testing.assert_close(found, logits_of(model, ids), rtol=0, atol=ATOL)


def test_a_cache_of_another_model_is_refused(model: Any) -> None:
    other = Qwen3ForCausalLM(model.config).eval()
    cache = filled(other, tokens(1, 4))
    with pytest.raises(CacheError, match="Layer 0 of the cache is a filled DynamicLayer"):
        logits_of(model, tokens(1, 1), **{CACHE_NAME: cache})


def test_a_window_holds_no_more_than_it_needs(model: Any) -> None:
    cache = filled(model, tokens(2, 50))
    for layer in cache.layers:
        window = layer.window_BCW
        assert window.shape[2] == model.config.conv_kernel_size - 1
        assert window.untyped_storage().nbytes() == window.numel() * window.element_size()


# --- Training and storage ------------------------------------------------------------------------


def test_gradients_are_those_of_differences() -> None:
    made = make(num_hidden_layers=1).double()
    ids = tokens(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    labels = ids.masked_fill(mask == 0, -100)

    def loss() -> Tensor:
        logits = made(input_ids=ids, attention_mask=mask).logits  # its own loss is in float32
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        )

    loss().backward()
    layer = made.model.layers[0].self_attn
    for parameter in (layer.conv1d.weight, layer.k_proj.weight, made.model.embed_tokens.weight):
        gradient = parameter.grad
        place = tuple((gradient.abs() == gradient.abs().max()).nonzero()[0].tolist())
        step = 2e-3  # norms compute in float32 whatever the type of the model
        with torch.no_grad():
            parameter[place] += step
            above = loss().item()
            parameter[place] -= 2 * step
            below = loss().item()
            parameter[place] += step
        assert gradient[place].item() == pytest.approx((above - below) / (2 * step), rel=2e-3)
    taps_CJ = layer.conv1d.weight.grad[:, 0]
    assert (taps_CJ.abs().amax(0) > 0).all()  # every tap of the kernel learns


def test_recomputing_blocks_gives_the_same_gradients() -> None:
    ids = tokens(2, 8)
    found = []
    for recompute in (False, True):
        made = make().train()
        if recompute:
            made.activation_checkpointing_enable()
        made(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        found.append({name: p.grad for name, p in made.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-6, msg=name)


def test_saved_and_loaded_by_the_auto_classes(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, ConvAttentionConfig)
    assert read.conv_kernel_size == 4
    ids = tokens(2, 6)
    for loaded in (
        AutoModelForCausalLM.from_pretrained(tmp_path),
        models.load_model(tmp_path, dtype=torch.float32),
    ):
        assert isinstance(loaded, ConvAttentionForCausalLM)
        assert torch.equal(logits_of(loaded.eval(), ids), logits_of(model, ids))
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_bfloat16(model: Any) -> None:
    made = models.cast(make(), torch.bfloat16)
    ids = tokens(2, 12)
    found = logits_of(made, ids)
    assert found.dtype == torch.bfloat16
    # Eight bits of mantissa through two layers.
    exact = logits_of(model, ids)
    assert (found.float() - exact).pow(2).mean().sqrt() < 0.03 * exact.pow(2).mean().sqrt()
    cache = DynamicCache()
    steps = [logits_of(made, piece, **{CACHE_NAME: cache}) for piece in ids.split(1, 1)]
    apart = (torch.cat(steps, 1).float() - found.float()).pow(2).mean().sqrt()
    assert apart < 0.03 * exact.pow(2).mean().sqrt()


def test_eager_attention_gives_weights(model: Any) -> None:
    made = make()
    made.set_attn_implementation("eager")
    ids = tokens(1, 7)
    with torch.no_grad():
        found = made(input_ids=ids, output_attentions=True)
    torch.testing.assert_close(found.logits, logits_of(model, ids), rtol=0, atol=ATOL)
    for weights_BHTS in found.attentions:
        torch.testing.assert_close(weights_BHTS.sum(-1), torch.ones(1, 4, 7))
