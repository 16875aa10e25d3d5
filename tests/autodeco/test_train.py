"""Training the heads: two sources of one loss, resume to the bit, memory, and what is refused."""

import copy
import functools
import json
import math
import shutil
import weakref
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.autodeco.conftest import VOCAB, WIDTH, build
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from hanol import models
from hanol.attention import CACHE_NAME
from hanol.autodeco import (
    AutoDecoForCausalLM,
    FeatureCache,
    HeadsSettings,
    OnlineSource,
    TokenRow,
    dump_features,
    statistics,
    train_heads,
)
from hanol.autodeco.training._heads_trainer import (
    passes,
)  # private: the order of rows, without training
from hanol.errors import ConfigError, DataError, RecipeError, RunError, TrainingError, WriteError
from hanol.training import DataSection, documents, read_metrics

RECIPES = [
    {"recipe": "hf"},
    {"recipe": "megatron"},
    {"top_p_loss": "mse"},
    {"cumsum": "exclusive", "reduction": "micro_mean", "dft": False},
]


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs; the test of the folder draws."""
    if "folder_of_a_run" not in request.node.name:
        for name in ("plot_loss", "_plot_choices"):
            monkeypatch.setattr(f"hanol.autodeco.training._train.{name}", lambda *_: None)


@functools.cache
def base_of(name: str, **changes: Any) -> PreTrainedModel:
    return build(name, **changes)


def wrapped(name: str = "llama", **changes: Any) -> AutoDecoForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoDecoForCausalLM.from_base(copy.deepcopy(base_of(name, **changes)))


def random_rows(count: int = 24, longest: int = 30, seed: int = 0) -> list[TokenRow]:
    """Rows of different lengths with a prompt of a third."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        size = int(torch.randint(4, longest, (1,), generator=generator))
        ids = torch.randint(0, 250, (size,), generator=generator).tolist()
        rows.append(TokenRow(ids, [-100] * (size // 3) + ids[size // 3 :]))
    return rows


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder)]


def untimed(folder: Path) -> list[dict[str, Any]]:
    lines = read_metrics(folder)
    for line in lines:
        line.pop("tokens_per_second", None)
    return lines


def recipe(**values: Any) -> HeadsSettings:
    few = {"min_rows": 1, "min_tokens": 1}
    return HeadsSettings(**{"steps": 6, "batch": 8, "micro_batch": 3, "lr": 1e-2, **few, **values})


def gradients(model: AutoDecoForCausalLM, source: Any, options: HeadsSettings) -> list[Tensor]:
    model.zero_grad()
    generator = torch.Generator().manual_seed(3)
    for rows in ([0, 5, 2], [7, 1, 1]):
        features = source.micro_batch(rows)
        items = int(source.num_labels_R[[0, 5, 2, 7, 1, 1]].sum())
        with source.reads(model.top_p_head):
            options.loss(model, features, items, generator).loss.backward()
    return [parameter.grad.clone() for parameter in model.head_parameters()]


# -- the two sources


@pytest.mark.parametrize(
    ("name", "values"), [("llama", RECIPES[0]), ("llama", RECIPES[3]), ("kimi", RECIPES[1])]
)
def test_cached_and_online_training_are_the_same(name: str, values: dict, tmp_path) -> None:
    rows = random_rows()
    for cached in (False, True):
        model = wrapped(name)
        train_heads(model, rows, recipe(cached=cached, **values), tmp_path / str(cached))
    online, from_files = losses(tmp_path / "False"), losses(tmp_path / "True")
    assert len(online) == 6
    assert max(abs(a - b) for a, b in zip(online, from_files, strict=True)) < 1e-5


@pytest.mark.parametrize("values", RECIPES)
def test_cached_and_online_gradients_are_the_same(values: dict, tmp_path) -> None:
    model, rows = wrapped(), random_rows()
    cache = dump_features(model, rows, tmp_path / "cache", top_k=VOCAB)
    assert cache.exact
    assert cache.tail_mass == 0
    pair = [gradients(model, s, recipe(**values)) for s in (OnlineSource(model, rows), cache)]
    for a, b in zip(*pair, strict=True):
        assert a.norm() > 0
        assert (a - b).norm() <= 1e-4 * a.norm()


def test_padding_changes_nothing() -> None:
    model, rows = wrapped("kimi"), random_rows(4)
    source = OnlineSource(model, rows)
    together = source.micro_batch(range(4))
    at = (together.labels_N != -100).nonzero().squeeze(-1)
    alone = [source.micro_batch([row]) for row in range(4)]
    for kind in range(3):
        one_by_one = torch.cat([part[kind] for part in alone])
        assert torch.allclose(together[kind][at].double(), one_by_one.double(), atol=1e-5)


def sharp(scale: float = 8.0) -> AutoDecoForCausalLM:
    """A base whose most likely tokens have most of the mass, as a trained one's."""
    model = wrapped()
    with torch.no_grad():
        model.llm.get_output_embeddings().weight *= scale
    return model


def test_a_part_of_the_vocabulary_and_its_tail(tmp_path) -> None:
    model, rows = sharp(), random_rows()
    cache = dump_features(model, rows, tmp_path / "part", top_k=100)
    whole = dump_features(model, rows, tmp_path / "whole", top_k=VOCAB)
    assert not cache.exact
    part, full = cache.micro_batch([3, 1]), whole.micro_batch([3, 1])
    assert part.logits_NV.shape[1] == 102
    assert torch.equal(part.hidden_NH, full.hidden_NH)
    # A row is a distribution: the label, the 100 best others, all the rest as one.
    assert torch.allclose(part.logits_NV.exp().sum(-1), torch.ones(len(part.labels_N)), atol=1e-5)
    label = full.logits_NV.gather(1, full.labels_N[:, None]).squeeze(-1)
    assert torch.equal(part.labels_N, torch.zeros_like(full.labels_N))
    assert torch.equal(part.logits_NV[:, 0], label)
    others = full.logits_NV.scatter(1, full.labels_N[:, None], -torch.inf)
    tail = others.sort(-1, descending=True).values[:, 100:].exp().sum(-1)
    assert torch.allclose(part.logits_NV[:, -1].exp(), tail, atol=1e-6)
    of_all = whole.micro_batch(range(len(rows)))
    everything = of_all.logits_NV.scatter(1, of_all.labels_N[:, None], -torch.inf)
    masses = everything.sort(-1, descending=True).values[:, 100:].exp().sum(-1)
    assert cache.tail_mass == pytest.approx(masses.mean().item(), rel=1e-4)
    assert 0 < cache.tail_mass < 0.1


@pytest.mark.parametrize("values", RECIPES[:3])
def test_training_on_a_part_of_the_vocabulary_is_close(values: dict, tmp_path) -> None:
    rows = random_rows()
    found = []
    for top_k in (VOCAB, 100):
        model = sharp()
        cache = dump_features(model, rows, tmp_path / str(top_k), top_k=top_k)
        found.append(torch.cat([g.flatten() for g in gradients(model, cache, recipe(**values))]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99


def test_the_top_p_head_reads_the_variance_over_the_whole_vocabulary(tmp_path) -> None:
    model, rows = sharp(), random_rows()
    source = OnlineSource(model, rows)
    cache = dump_features(model, rows, tmp_path / "part", top_k=100)
    seen: list[Tensor] = []
    for this in (source, cache):
        logits_NV, hidden_NH, _ = this.micro_batch([2])
        with this.reads(model.top_p_head):
            own = statistics(logits_NV, torch.ones(len(logits_NV)))
            hook = model.top_p_head.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[2])
            )
            model.top_p_head(hidden_NH, torch.ones(len(logits_NV)), own)
            hook.remove()
    online, cached = seen
    assert torch.allclose(online[:, 2], cached[:, 2], rtol=0.02)
    assert torch.allclose(online[:, 0], cached[:, 0], atol=1e-5)
    assert not model.top_p_head._forward_pre_hooks


def test_float16_halves_a_cache_and_moves_the_loss_little(tmp_path) -> None:
    model, rows = wrapped(), random_rows()
    caches = [dump_features(model, rows, tmp_path / d, dtype=d) for d in ("float32", "float16")]
    for name in ("log_p", "hidden"):
        whole, half = ((cache.folder / f"{name}.npy").stat().st_size for cache in caches)
        assert half < 0.51 * whole
    pair = [
        recipe().loss(model, cache.micro_batch(range(8)), 100, torch.Generator().manual_seed(0))
        for cache in caches
    ]
    assert 0 < abs(pair[0].loss - pair[1].loss) < 1e-3 * pair[0].loss
    # A recipe writes the same file; other types replace it.
    train_heads(model, rows, recipe(cached=True, cache_dtype="float16"), tmp_path / "run")
    written = (tmp_path / "run" / "features" / "log_p.npy").read_bytes()
    assert written == (tmp_path / "float16" / "log_p.npy").read_bytes()
    whole = dump_features(model, rows, tmp_path / "float16")
    assert whole.micro_batch([0]).hidden_NH.equal(caches[0].micro_batch([0]).hidden_NH)
    with pytest.raises(ConfigError, match="`dtype` is 'int8', but must be float32 or float16"):
        dump_features(model, rows, tmp_path / "int8", dtype="int8")


def test_hidden_states_beyond_float16_are_refused(tmp_path) -> None:
    model = wrapped()
    with torch.no_grad():
        model.llm.model.norm.weight *= 1e6
    with pytest.raises(DataError, match="overflow float16"):
        dump_features(model, random_rows(4), tmp_path / "cache", dtype="float16")
    assert not any(tmp_path.iterdir())


def test_tokens_that_the_base_excludes_stay_excluded(tmp_path) -> None:
    """Padding columns of -inf must not enter statistics that a served model leaves them out of."""
    model, rows = wrapped(), random_rows(6)
    head = model.llm.get_output_embeddings()
    head.register_forward_hook(
        lambda _, __, out: out.index_fill(-1, torch.arange(251, VOCAB), -torch.inf)
    )
    for dtype in ("float32", "float16"):
        cache = dump_features(model, rows, tmp_path / dtype, dtype=dtype)
        features = cache.micro_batch(range(6))
        assert features.logits_NV[:, 251:].isneginf().all()
        assert features.logits_NV[:, :251].isfinite().all()


def test_a_cache_is_made_once(tmp_path) -> None:
    model, rows = wrapped(), random_rows(6)
    calls: list[int] = []
    model.llm.register_forward_hook(lambda *_: calls.append(1))
    first = dump_features(model, rows, tmp_path / "c", batch=4)
    assert len(calls) == 2
    dump_features(model, rows, tmp_path / "c")
    assert len(calls) == 2
    again = dump_features(model, rows[:5], tmp_path / "c")
    assert len(calls) == 3
    assert (len(first.num_labels_R), len(again.num_labels_R)) == (6, 5)
    train_heads(model, again, recipe(), tmp_path / "run")
    assert len(calls) == 3
    with torch.no_grad():
        next(model.llm.parameters())[0, 0] += 1
    with pytest.raises(DataError, match="other weights"):
        train_heads(model, again, recipe(), tmp_path / "other")


# -- what a step costs


class Live(TorchDispatchMode):
    """Bytes of the tensors alive that were made inside, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A view of a parameter is an output too, but nothing that was made here.
        self._count((args, kwargs), made=False)
        out = func(*args, **(kwargs or {}))
        self._count(out, made=True)
        return out

    def _count(self, tensors: Any, *, made: bool) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                self._count_storage(tensor.untyped_storage(), made)

    def _count_storage(self, storage: Any, made: bool) -> None:
        key, size = storage._cdata, storage.nbytes() if made else 0
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.now -= size
            self._known.discard(key)

        weakref.finalize(storage, gone)


@pytest.mark.parametrize("values", RECIPES[:3])
def test_memory_of_a_step(values: dict) -> None:
    # A vocabulary beside which the heads' own activations, 2 x 256 numbers a position, are small.
    V, layers, chunk = 32_768, 6, 64
    model = wrapped(vocab_size=V, num_hidden_layers=layers)
    ids = torch.randint(0, V, (4, 64), generator=torch.Generator().manual_seed(0)).tolist()
    source = OnlineSource(model, [TokenRow(row, row) for row in ids])
    generator = torch.Generator().manual_seed(0)
    with Live() as forward:
        features = source.micro_batch(range(4))
    N = 4 * 63
    # What is left of the base's pass: logits and one layer's hidden states, not all layers'.
    assert features.logits_NV.shape == (N, V)
    assert forward.now < 4 * N * (V + 2 * WIDTH)
    del features
    options = recipe(chunk=chunk, **values)
    with Live() as step:
        features = source.micro_batch(range(4))
        options.loss(model, features, N, generator).loss.backward()
    assert step.peak - forward.peak < 3 * chunk * V * 4


def test_the_output_embedding_runs_once_and_where_labels_are() -> None:
    model = wrapped()
    rows = [TokenRow(list(range(40)), [-100] * 30 + list(range(30, 40)))] * 2
    shapes: list[Any] = []
    outputs: list[Any] = []
    model.llm.get_output_embeddings().register_forward_hook(
        lambda _, inputs, out: shapes.append(inputs[0].shape)
    )
    model.llm.register_forward_hook(lambda _, __, out: outputs.append(out))
    features = OnlineSource(model, rows).micro_batch([0, 1])
    recipe().loss(model, features, 20, torch.Generator()).loss.backward()
    assert shapes == [(2, 10, WIDTH)]
    assert outputs[0].hidden_states is None
    assert CACHE_NAME not in outputs[0]
    assert not features.logits_NV.requires_grad


# -- learning


def labelled(model: AutoDecoForCausalLM, scale: float) -> list[TokenRow]:
    """Random texts whose labels are drawn from the base's distribution at temperature `scale`."""
    generator = torch.Generator().manual_seed(0)
    ids_BS = torch.randint(0, 250, (64, 40), generator=generator)
    with torch.no_grad():
        probs = (model.llm(ids_BS).logits / scale).softmax(-1)
    labels = torch.multinomial(probs[:, :-1].flatten(0, 1), 1, generator=generator).view(64, 39)
    return [
        TokenRow(ids.tolist(), [-100, *row.tolist()])
        for ids, row in zip(ids_BS, labels, strict=True)
    ]


@pytest.mark.parametrize("scale", [0.6, 1.4])
def test_a_miscalibrated_base_gets_the_temperature_that_corrects_it(scale, tmp_path) -> None:
    """Plain cross-entropy leads T to k, where the base's logits are k times the true ones."""
    model = sharp(2.0)
    result = train_heads(
        model,
        labelled(model, scale),
        HeadsSettings(
            cached=True, dft=False, easy_token_drop=0, train_top_p=False, steps=200, lr=2e-3,
            init="neutral", micro_batch=32,
        ),
        tmp_path / "run",
    )  # fmt: skip
    assert result.temperature.mean == pytest.approx(scale, abs=0.06)


@pytest.mark.parametrize("values", RECIPES[:3])
def test_the_loss_falls(values: dict, tmp_path) -> None:
    model = sharp(2.0)
    rows = labelled(model, 0.7)
    options = HeadsSettings(
        cached=True, steps=60, lr=1e-2, easy_token_drop=0, init="official", micro_batch=32, **values
    )
    before = [parameter.clone() for parameter in model.llm.parameters()]
    result = train_heads(model, rows, options, tmp_path / "run")
    found = losses(tmp_path / "run")
    assert sum(found[-8:]) < 0.98 * sum(found[:8])
    assert result.top_p is not None
    for parameter, old in zip(model.llm.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


def test_one_head_alone(tmp_path) -> None:
    rows = random_rows(8)
    for kind, other in (("temperature", "top_p"), ("top_p", "temperature")):
        model = wrapped()
        heads = {"temperature": model.temp_head, "top_p": model.top_p_head}
        before = {name: head.mlp[2].weight.clone() for name, head in heads.items()}
        train_heads(model, rows, recipe(**{f"train_{other}": False}), tmp_path / kind)
        assert not torch.equal(heads[kind].mlp[2].weight, before[kind])
        assert torch.equal(heads[other].mlp[2].weight, before[other])
        assert f"{other}_loss" not in read_metrics(tmp_path / kind)[0]
    model = AutoDecoForCausalLM.from_base(build("llama"), enable_top_p_head=False)
    assert train_heads(model, rows, recipe(), tmp_path / "single").top_p is None
    with pytest.raises(RecipeError, match="no head to train"):
        train_heads(model, rows, recipe(train_temperature=False), tmp_path / "none")


def test_bfloat16_heads_are_trained_in_float32(tmp_path) -> None:
    model = wrapped()
    model.temp_head.bfloat16()
    model.top_p_head.bfloat16()
    before = model.temp_head.mlp[2].weight.float()
    train_heads(model, random_rows(8), recipe(lr=5e-6, steps=2), tmp_path / "run")
    assert model.temp_head.mlp[2].weight.dtype == torch.float32
    assert 0 < (model.temp_head.mlp[2].weight - before).abs().max() < 2e-5


def test_the_folder_of_a_run(tmp_path) -> None:
    model, rows = wrapped(), random_rows()
    seen: list[Any] = []
    result = train_heads(
        model, rows, recipe(save_every=2, keep=2, cached=True), tmp_path / "run",
        on_step=seen.append,
    )  # fmt: skip
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml", "metrics.jsonl", "checkpoint-4", "checkpoint-6", "heads", "result.json",
        "loss.png", "temperature_top_p.png", "features",
    }  # fmt: skip
    for name in ("loss.png", "temperature_top_p.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert seen == [{**line, "steps": 6} for line in lines]
    assert json.loads((folder / "result.json").read_text()) == result.model_dump()
    assert 0 < lines[0]["temperature"] < 2
    assert 0 < lines[0]["top_p"] < 1
    assert result.tail_mass == 0
    loaded = AutoDecoForCausalLM.from_pretrained(result.checkpoint, base_model=model.llm)
    for a, b in zip(model.head_parameters(), loaded.head_parameters(), strict=True):
        assert torch.equal(a, b)


def test_recipe_and_seed_decide_everything(tmp_path) -> None:
    rows = random_rows()

    def run(name: str, **values: Any) -> list[float]:
        torch.manual_seed(hash(name))  # the global state plays no part
        train_heads(wrapped(), rows, recipe(init="official", **values), tmp_path / name)
        return losses(tmp_path / name)

    assert run("a", seed=1) == run("b", seed=1)
    assert run("c", seed=2) != run("d", seed=1)


# -- resume


class Stopped(Exception):
    """What ends a run in the middle."""


def stop_at(step: int) -> Callable[[Mapping[str, Any]], None]:
    def on_step(line: Mapping[str, Any]) -> None:
        if line["step"] == step:
            raise Stopped

    return on_step


@pytest.mark.parametrize(("cached", "schedule"), [(False, "linear"), (True, "cosine")])
def test_a_resumed_run_is_the_same_to_the_bit(cached: bool, schedule: str, tmp_path) -> None:
    """A run that was stopped in the middle, between two checkpoints."""
    rows = random_rows()
    options = recipe(steps=9, save_every=3, cached=cached, schedule=schedule, warmup=2)
    straight = wrapped()
    train_heads(straight, rows, options, tmp_path / "straight")
    with pytest.raises(Stopped):
        train_heads(wrapped(), rows, options, tmp_path / "stopped", on_step=stop_at(5))
    other = wrapped()
    for parameter in other.head_parameters():  # what the checkpoint has must not come from here
        parameter.data.zero_()
    train_heads(other, rows, options, tmp_path / "stopped", resume=True)
    assert untimed(tmp_path / "straight") == untimed(tmp_path / "stopped")
    assert any(line["dropped"] > 0 for line in read_metrics(tmp_path / "straight"))
    for a, b in zip(straight.head_parameters(), other.head_parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_a_run_cannot_go_on_with(tmp_path) -> None:
    rows, folder = random_rows(), tmp_path / "run"
    train_heads(wrapped(), rows, recipe(), folder)
    with pytest.raises(RunError, match="already has a run"):
        train_heads(wrapped(), rows, recipe(), folder)
    with pytest.raises(RunError, match=r"`recipe.batch` .*, `recipe.lr` "):
        train_heads(wrapped(), rows, recipe(batch=4, lr=1.0), folder, resume=True)
    with pytest.raises(RunError, match="`data.rows`"):
        train_heads(wrapped(), rows[1:], recipe(), folder, resume=True)
    # A finished run that is resumed has nothing left to do.
    before = losses(folder)
    assert train_heads(wrapped(), rows, recipe(), folder, resume=True).steps == 6
    assert losses(folder) == before


def test_a_run_without_checkpoint_starts_anew(tmp_path) -> None:
    rows, folder = random_rows(), tmp_path / "run"
    with pytest.raises(Stopped):
        train_heads(wrapped(), rows, recipe(), folder, on_step=stop_at(2))
    train_heads(wrapped(), rows, recipe(), folder, resume=True)
    assert [line["step"] for line in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_that_was_not_finished_is_not_there(tmp_path, monkeypatch) -> None:
    rows, folder = random_rows(), tmp_path / "run"

    def full(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(WriteError, match="checkpoint-6' could not be written: the disk"):
            train_heads(wrapped(), rows, recipe(), folder)
    assert not list(folder.glob("*checkpoint*"))


@given(st.integers(1, 20), st.integers(0, 3))
def test_rows_come_in_passes_over_all(num_rows: int, seed: int) -> None:
    stream = list(islice(passes(num_rows, seed), 5 * num_rows))
    for begin in range(0, len(stream), num_rows):
        assert sorted(stream[begin : begin + num_rows]) == list(range(num_rows))
    assert list(islice(passes(num_rows, seed), len(stream))) == stream


# -- what is refused


def test_an_all_masked_batch_has_zero_loss_and_finite_gradients(tmp_path) -> None:
    model = wrapped()
    masked = TokenRow([1, 2, 3], [-100, -100, -100])
    source = OnlineSource(model, [masked, masked])
    loss = recipe().loss(model, source.micro_batch([0, 1]), 0, torch.Generator()).loss
    loss.backward()
    assert loss.item() == 0
    for parameter in model.head_parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    # One among others, in a step of its own.
    result = train_heads(
        model, [masked, *random_rows(3)], recipe(batch=1, micro_batch=1, steps=8), tmp_path / "run"
    )
    assert min(losses(tmp_path / "run")) == 0
    assert math.isfinite(result.loss)
    with pytest.raises(DataError, match="No row has a label"):
        train_heads(model, [masked], recipe(), tmp_path / "none")


def test_too_few_rows_are_refused_with_the_number_that_would_do(tmp_path) -> None:
    rows = random_rows(12)
    tokens = sum(row.num_labels for row in rows)
    model, folder = wrapped(), tmp_path / "run"
    said = (
        f"12 rows with {tokens} labelled tokens, too few to learn from: at least 64 rows and 2,000 "
        "tokens are needed"
    )
    with pytest.raises(DataError, match=f"There are {said}. Give more rows"):
        train_heads(model, rows, HeadsSettings(), folder)
    cache = dump_features(model, rows, tmp_path / "cache")
    with pytest.raises(DataError, match=said):
        train_heads(model, cache, HeadsSettings(), folder)
    questions = math.ceil(1.1 * 50 * max(64 / 12, 2000 / tokens))
    with pytest.raises(DataError, match=f"to 50 questions are {said}. Ask for about {questions} "):
        train_heads(model, rows, HeadsSettings(), folder, questions=50)
    assert not folder.exists()
    for name, value in (("min_rows", 13), ("min_tokens", tokens + 1)):
        with pytest.raises(DataError, match="too few"):
            train_heads(model, rows, recipe(**{name: value}), folder)
    enough = recipe(min_rows=12, min_tokens=tokens, steps=2, save_every=1)
    train_heads(model, rows, enough, folder)
    less = enough.model_copy(update={"min_rows": 1})
    assert train_heads(model, rows, less, folder, resume=True).steps == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to train on"),
        ([TokenRow([], [])], "Row 0 has 0 tokens"),
        ([TokenRow([1, 2], [1, 2]), TokenRow([1, 2], [1])], "Row 1 has 2 tokens and 1 labels"),
        ([TokenRow([1, VOCAB], [1, 2])], f"vocabulary of {VOCAB}"),
        ([TokenRow([1, 2], [1, VOCAB])], "label"),
        ([TokenRow([1, -3], [1, 2])], "outside of the base's vocabulary"),
        ([TokenRow([1] * 300, [1] * 300)], "max_length=256"),
    ],
)
def test_rows_that_do_not_fit(rows: list[TokenRow], message: str, tmp_path) -> None:
    with pytest.raises(DataError, match=message):
        train_heads(wrapped(), rows, recipe(), tmp_path / "run")
    with pytest.raises(DataError, match=message):
        dump_features(wrapped(), rows, tmp_path / "cache")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path) -> None:
    model = wrapped()
    with torch.no_grad():
        model.temp_head.mlp[0].bias[0] = math.nan
    before = [parameter.clone() for parameter in model.head_parameters()]
    with pytest.raises(TrainingError, match=r"loss is nan at step 1\. Lower"):
        train_heads(model, random_rows(), recipe(), tmp_path / "run")
    for parameter, old in zip(model.head_parameters(), before, strict=True):
        assert torch.equal(parameter, old) or parameter.isnan().any()
    broken = wrapped()
    with torch.no_grad():
        broken.llm.get_output_embeddings().weight[3] = math.nan
    with pytest.raises(DataError, match="not finite"):
        train_heads(broken, random_rows(), recipe(), tmp_path / "broken")


def test_folders_that_cannot_be_used(tmp_path, monkeypatch) -> None:
    model, rows = wrapped(), random_rows(6)
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="could not be written"):
        train_heads(model, rows, recipe(), tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="holds no features"):
        dump_features(model, rows, tmp_path / "mine")
    with pytest.raises(DataError, match="no complete features"):
        FeatureCache(tmp_path / "mine")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match="0.0 GiB are free"):
        dump_features(model, rows, tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 1},
        {"recipe": "tf"},
        {"easy_token_drop": 2},
        {"steps": 0},
        {"lr": 0},
        {"lr": math.inf},
    ],
)
def test_recipes_are_checked(values: dict) -> None:
    with pytest.raises(ConfigError, match=f"fit HeadsSettings: .*`{next(iter(values))}`"):
        HeadsSettings(**values)


def test_the_rate_follows_the_width() -> None:
    assert HeadsSettings().rate(4096) == 5e-6
    assert HeadsSettings().rate(192) == 1e-3
    assert HeadsSettings(lr=0.1).rate(4096) == 0.1


@pytest.mark.slow
def test_heads_of_the_bundled_model(tmp_path) -> None:
    """From its own standard library: the choices differ between tokens, the loss falls."""
    base, tokenizer = models.load("tiny")
    rows = []
    for document in documents(DataSection(source="stdlib")):
        ids = tokenizer(document.text[:1000]).input_ids
        if len(ids) > 160:
            rows.append(TokenRow(ids[:160], [-100] * 60 + ids[60:160]))
        if len(rows) == 64:
            break
    model = AutoDecoForCausalLM.from_base(base)
    options = HeadsSettings(cached=True, top_k=512, steps=50, easy_token_drop=0, init="official")
    result = train_heads(model, rows, options, tmp_path / "run")
    found = losses(tmp_path / "run")
    assert sum(found[-10:]) < 0.95 * sum(found[:10])
    assert result.tail_mass < 0.02
    assert result.temperature.p95 - result.temperature.p5 > 0.2
    assert result.top_p.p50 > 0.6  # an untrained head says 0.5
