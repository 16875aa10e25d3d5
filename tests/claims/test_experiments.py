"""What the experiments stand on: fair small models, text, rotation, long caches."""

import pytest
import torch

from claims.figures import mean_and_spread
from claims.kimi_linear.copy_text import VOCAB_SIZE, copy_text
from claims.kimi_linear.decode_flat import long_cache
from claims.kimi_linear.nope_extrapolation import RotaryLatentAttention
from claims.small import MIXERS, accuracy, slope, small_model, train
from hanol import models
from hanol.attention import CACHE_NAME
from hanol.errors import UnknownNameError
from hanol.worlds import IGNORED, palindrome


def test_mixers_differ_in_the_mixer_alone() -> None:
    built = {mixer: small_model(mixer, 33, seed=1) for mixer in MIXERS}
    shared = {
        mixer: {n: p.shape for n, p in m.named_parameters() if ".self_attn." not in n}
        for mixer, m in built.items()
    }
    assert shared["kda"] == shared["gdn"] == shared["mamba2"]
    mamba = built["mamba2"].model.layers[0].self_attn.mixer
    assert mamba.num_heads * mamba.head_dim * mamba.ssm_state_size == 2 * 32 * 32
    sizes = {mixer: sum(p.numel() for p in m.parameters()) for mixer, m in built.items()}
    assert max(sizes.values()) < 1.5 * min(sizes.values())
    assert all(m.model.embed_tokens.weight.detach().norm(dim=1).min() > 0 for m in built.values())
    with pytest.raises(UnknownNameError, match="No token mixer is named 'rwkv'"):
        small_model("rwkv", 33)


@pytest.mark.parametrize("mixer", MIXERS)
def test_mixers_are_causal_and_training_lowers_the_loss(mixer: str) -> None:
    model = small_model(mixer, 9, width=32, head_dim=8)
    ids = torch.randint(0, 9, (2, 20), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 9
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])
    batch = palindrome(8, 4, symbols=2, seed=0)
    assert train(model, [batch] * 60, learning_rate=1e-2, name="test") == 60
    assert accuracy(model, batch) > 0.8


def test_training_stops_where_it_is_told() -> None:
    model = small_model("kda", 9, width=32, head_dim=8)
    batches = [palindrome(2, 4, symbols=8, seed=i) for i in range(6)]
    done = train(model, batches, learning_rate=1e-3, name="t", until=lambda: True, check_every=2)
    assert done == 2


def test_text_has_copies_and_is_the_same_by_seed() -> None:
    batch = copy_text(4, 120, seed=3)
    assert torch.equal(batch.input_ids, copy_text(4, 120, seed=3).input_ids)
    assert not torch.equal(batch.input_ids, copy_text(4, 120, seed=4).input_ids)
    assert torch.equal(batch.input_ids[:, 1:], batch.labels[:, :-1])
    assert (batch.labels != IGNORED).all()
    assert batch.labels.max() < VOCAB_SIZE
    copies = 0
    for row in batch.input_ids.tolist():
        for at in [i for i, token in enumerate(row[:-9]) if token == 0]:
            passage = row[at + 1 : at + 9]
            places = [row[i : i + 8] for i in range(at)]
            copies += passage in places
            assert passage in places
    assert copies > 3


def test_rotation_sees_distance_alone_and_starts_as_the_layer_at_position_zero() -> None:
    model = small_model("kda", 9, num_layers=1, full_attention_every=1, width=32, head_dim=8)
    layer = model.model.layers[0].self_attn
    rotary = RotaryLatentAttention(layer)
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 12, 4, generator=rng).unbind()
    ones_x, ones_y = x[:1].expand(12, 4), y[:1].expand(12, 4)
    score = rotary._rotate(ones_x) @ rotary._rotate(ones_y).T
    for distance in range(-11, 12):
        diagonal = score.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    hidden = torch.randn(1, 6, 32, generator=rng)
    with torch.no_grad():
        plain, turned = layer(hidden)[0], rotary(hidden)[0]
        torch.testing.assert_close(plain[:, 0], turned[:, 0])
        rotary._rotate = lambda x: x
        torch.testing.assert_close(plain, rotary(hidden)[0])
        before = model(input_ids=torch.arange(6)[None]).logits
        model.model.layers[0].self_attn = rotary
        torch.testing.assert_close(before, model(input_ids=torch.arange(6)[None]).logits)


def test_long_cache_is_as_long_and_as_large_as_a_real_one() -> None:
    model = models.build("kimi-linear-3m", seed=0).eval()
    made, real = long_cache(model, 100), long_cache(model, 64)
    with torch.no_grad():
        model(torch.ones(1, 36, dtype=torch.long), **{CACHE_NAME: real})
    for a, b in zip(made.layers, real.layers, strict=True):
        assert a.get_seq_length() == b.get_seq_length() == 100
        if hasattr(a, "append"):
            assert a.latent_BLR.shape == b.latent_BLR.shape


def test_figures() -> None:
    assert slope([1, 2, 3], [2, 4, 6]) == pytest.approx(2)
    assert mean_and_spread([1.0]) == (1.0, 0.0)
    assert mean_and_spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
