"""Keys and values that grow in place are those that grow by copies, whatever is done to them."""

import copy
from random import Random

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from hanol.attention import GrowingLayer


def new(rows: int, count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 2, count, 4), torch.randn(rows, 2, count, 6)


@pytest.mark.parametrize("seed", range(30))
def test_is_the_same_as_by_copies_and_never_writes_over_what_was_taken(seed: int) -> None:
    rng, rows = Random(seed), 2
    torch.manual_seed(seed)
    layers: list[DynamicLayer] = [GrowingLayer(), DynamicLayer()]
    taken: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(60):
        did = rng.choice(["update"] * 6 + ["crop", "order", "repeat", "back", "copy"])
        length = layers[1].get_seq_length()
        if did == "update" or not length:
            states = new(rows, rng.choice([1, 1, 1, 3, 70]))
            for layer in layers:
                layer.update(*states)
        elif did == "crop" and length > 3:
            for layer in layers:
                layer.crop(-rng.choice([1, 2]) if layer is layers[0] else 0)
            layers[1].crop(layers[0].get_seq_length() - length)
        elif did == "order":
            order = torch.tensor([rng.randrange(rows) for _ in range(rows)])
            for layer in layers:
                layer.reorder_cache(order)
        elif did == "repeat" and rows < 5:
            rows *= 2
            for layer in layers:
                layer.batch_repeat_interleave(2)
        elif did == "copy":
            layers = copy.deepcopy(layers)
        elif did == "back" and taken:  # to what somebody kept
            layers[0].keys, layers[0].values, *_ = kept = rng.choice(taken)
            layers[1].keys, layers[1].values = kept[2:]
            rows = len(kept[0])
        ours, theirs = layers
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        taken.append((ours.keys, ours.values, theirs.keys, theirs.values))
    assert all(torch.equal(k, own) and torch.equal(v, w) for k, v, own, w in taken)


def test_goes_in_place() -> None:
    layer = GrowingLayer()
    for count in (500, 1):
        layer.update(*new(1, count))
    places = set()
    for _ in range(500):
        keys, values = layer.update(*new(1, 1))
        places.add((keys.data_ptr(), values.data_ptr()))
    assert keys.shape[2] == 1001
    assert len(places) <= 7  # copied with each eighth of its length
