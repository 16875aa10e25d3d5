"""The losses against the formulas in float64, where they lead a free temperature, and memory."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hanol import autodeco
from hanol.autodeco import LossSettings, TemperatureHead, TopPHead
from hanol.errors import ConfigError, DataError, ShapeError
from hanol.sampling import soft_top_p

N, V, H = 60, 41, 10
RECIPES = ["hf", "megatron"]


def autodeco_loss(
    *tensors: Any, generator: Any = None, num_items: Any = None, **options: Any
) -> Any:
    return autodeco.autodeco_loss(
        *tensors, LossSettings(**options), generator=generator, num_items=num_items
    )


def heads(dtype: torch.dtype = torch.float64, enhanced: bool = True) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        pair = TemperatureHead(H, 16), TopPHead(H, enhanced, 16)
        for head in pair:
            for parameter in head.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
    return tuple(head.to(dtype) for head in pair)


def some(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Labels drawn from the base, some without, so that about half of the others are easy."""
    generator = torch.Generator().manual_seed(1)
    logits = 2.5 * torch.randn(N, V, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    labels[torch.arange(N) % 5 == 2] = -100
    return logits.to(dtype), torch.randn(N, H, generator=generator).to(dtype), labels


def mlp(head: torch.nn.Module, x: Tensor) -> Tensor:
    w = dict(head.named_parameters())
    inner = (x @ w["mlp.0.weight"].T + w["mlp.0.bias"]).relu()
    return (inner @ w["mlp.2.weight"].T + w["mlp.2.bias"]).squeeze(-1).sigmoid()


def by_definition(
    logits: Tensor,
    hidden: Tensor,
    labels: Tensor,
    temperature_head: TemperatureHead,
    top_p_head: TopPHead,
    dropped: Tensor,
    recipe: str,
    top_p_loss: str = "soft",
    dft: bool = True,
) -> tuple[Tensor, Tensor]:
    """L_temp and L_top_p, row by row; `dropped` says which rows with a label do not count."""
    has_label = labels != -100
    l, h, y = logits[has_label], hidden[has_label], labels[has_label]  # noqa: E741
    T = 2 * mlp(temperature_head, h)
    q = (l / (T + 1e-8)[:, None]).softmax(-1)
    if recipe == "hf":
        q = (l / (T.detach() + 1e-8)[:, None]).softmax(-1)
        entropy = -(q * (q + 1e-8).log()).sum(-1)
    else:
        entropy = torch.distributions.Categorical(probs=q).entropy()
    read = [h, (T.detach() if recipe == "hf" else T)[:, None]]
    if top_p_head.enhanced:
        s = [q.amax(-1), entropy, q.var(-1), q.sort(-1).values[:, -5:].sum(-1)]
        read += [x[:, None] for x in s]
    P = mlp(top_p_head, torch.cat(read, -1))

    temp_terms, top_p_terms = [], []
    for i in range(len(y)):
        base = l[i].softmax(0)[y[i]].item()
        nll = torch.nn.functional.cross_entropy(l[i] / T[i], y[i])
        weight = base if recipe == "hf" else math.exp(-nll.item())
        kept_in_both = not dropped[i]
        if kept_in_both:
            temp_terms.append((weight if dft else 1.0) * nll)
        p = (l[i] / T[i]).softmax(0)
        order = p.argsort(descending=True, stable=True)
        if top_p_loss == "mse":
            rank = (order == y[i]).nonzero().item()
            target = p[order][: rank + 1].sum().detach()
            if kept_in_both:
                top_p_terms.append((2.0 if P[i] < target else 1.0) * (P[i] - target) ** 2)
            continue
        m = torch.exp(-30 * (p[order].cumsum(0) - P[i]).relu())[order.argsort()]
        pt = p * m / ((p * m).sum() + 1e-9)
        if kept_in_both or recipe == "hf":
            top_p_terms.append(-(base if dft else 1.0) * (pt[y[i]] + 1e-9).log())
    return torch.stack(temp_terms).mean(), torch.stack(top_p_terms).mean()


def gradients(loss: Tensor, *modules: torch.nn.Module) -> list[Tensor]:
    parameters = [p for module in modules for p in module.parameters()]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


# -- the formulas


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("top_p_loss", ["soft", "mse"])
@pytest.mark.parametrize("dft", [True, False])
@pytest.mark.parametrize("enhanced", [True, False])
@pytest.mark.parametrize("drop", [0.0, 0.6])
def test_losses_and_gradients_are_those_of_the_formulas(
    recipe: Any, top_p_loss: Any, dft: bool, enhanced: bool, drop: float
) -> None:
    data, pair = some(), heads(enhanced=enhanced)
    out = autodeco_loss(
        *data, *pair, recipe=recipe, top_p_loss=top_p_loss, dft=dft, easy_token_drop=drop,
        generator=torch.Generator().manual_seed(9), chunk=14,
    )  # fmt: skip
    logits, _, labels = data
    has_label = labels != -100
    is_easy = logits[has_label].argmax(-1) == labels[has_label]
    draws = torch.rand(int(has_label.sum()), generator=torch.Generator().manual_seed(9))
    dropped = is_easy & (draws < drop)
    assert is_easy.sum() > 10
    assert out.num_dropped == dropped.sum()
    assert out.num_labels == has_label.sum()

    L_temp, L_top_p = by_definition(*data, *pair, dropped, recipe, top_p_loss, dft)
    assert out.temperature_loss.item() == pytest.approx(L_temp.item(), rel=1e-9)
    assert out.top_p_loss.item() == pytest.approx(L_top_p.item(), rel=1e-9)
    assert out.loss.item() == pytest.approx((L_temp + L_top_p).item(), rel=1e-9)
    ours = gradients(out.loss, *pair)
    theirs = gradients(L_temp + L_top_p, *pair)
    for mine, expected in zip(ours, theirs, strict=True):
        assert expected.any()
        torch.testing.assert_close(mine, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(recipe: Any, dtype: torch.dtype) -> None:
    logits, hidden, labels = some(torch.float32)
    logits = logits.to(dtype)
    out = autodeco_loss(
        logits, hidden, labels, *heads(torch.float32), recipe=recipe, easy_token_drop=0
    )
    none = torch.zeros(out.num_labels, dtype=torch.bool)
    L_temp, L_top_p = by_definition(
        logits.double(), hidden.double(), labels, *heads(), none, recipe
    )
    assert out.loss.dtype == torch.float32
    assert out.temperature_loss.item() == pytest.approx(L_temp.item(), abs=1e-5)
    assert out.top_p_loss.item() == pytest.approx(L_top_p.item(), abs=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_loss_reaches_the_heads_that_the_recipe_says(recipe: Any) -> None:
    """The top-p loss trains the temperature head too; "hf" hides T from the top-p head."""
    data, (temperature_head, top_p_head) = some(), heads()
    both = autodeco_loss(*data, temperature_head, top_p_head, recipe=recipe, easy_token_drop=0)
    alone = autodeco_loss(*data, temperature_head, None, recipe=recipe, easy_token_drop=0)
    assert alone.top_p_loss is None
    assert alone.top_p_M is None
    assert alone.loss.item() == pytest.approx(both.temperature_loss.item(), rel=1e-12)
    one, other = (gradients(x.loss, temperature_head)[0] for x in (both, alone))
    assert (one - other).abs().max() > 1e-4

    frozen = autodeco_loss(
        *data, temperature_head, top_p_head, recipe=recipe, easy_token_drop=0,
        train_temperature=False,
    )  # fmt: skip
    assert frozen.temperature_loss is None
    assert frozen.loss.item() == pytest.approx(both.top_p_loss.item(), rel=1e-12)
    assert not any(g.any() for g in gradients(frozen.loss, temperature_head))
    assert all(g.any() for g in gradients(frozen.loss, top_p_head))
    torch.testing.assert_close(frozen.temperature_M, both.temperature_M)

    lone = autodeco_loss(*data, None, top_p_head, recipe=recipe, easy_token_drop=0)
    assert torch.equal(lone.temperature_M, torch.ones_like(lone.temperature_M))
    assert lone.temperature_loss is None


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("top_p_loss", ["soft", "mse"])
@pytest.mark.parametrize("chunk", [1, 2, 5, 48, 1000])
def test_chunks_change_nothing(recipe: Any, top_p_loss: Any, chunk: int) -> None:
    data, pair = some(), heads()

    def run(chunk: int) -> tuple[float, list[Tensor]]:
        out = autodeco_loss(
            *data, *pair, recipe=recipe, top_p_loss=top_p_loss, chunk=chunk,
            generator=torch.Generator().manual_seed(2),
        )  # fmt: skip
        return out.loss.item(), gradients(out.loss, *pair)

    loss, grads = run(chunk)
    whole, theirs = run(256)
    assert loss == pytest.approx(whole, rel=1e-12)
    for mine, expected in zip(grads, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-12)


def test_rows_without_a_label_do_not_matter_even_if_they_are_no_numbers() -> None:
    logits, hidden, labels = some()
    pair = heads()
    clean = autodeco_loss(logits, hidden, labels, *pair, generator=torch.Generator())
    logits, hidden = logits.clone(), hidden.clone()
    logits[labels == -100] = math.nan
    hidden[labels == -100] = math.inf
    dirty = autodeco_loss(logits, hidden, labels, *pair, generator=torch.Generator())
    assert torch.equal(dirty.loss, clean.loss)
    for mine, expected in zip(*(gradients(x.loss, *pair) for x in (dirty, clean)), strict=True):
        assert torch.equal(mine, expected)


def test_the_base_gets_no_gradient() -> None:
    logits, hidden, labels = some()
    logits.requires_grad_()
    hidden.requires_grad_()
    autodeco_loss(logits, hidden, labels, *heads(), recipe="megatron").loss.backward()
    assert logits.grad is None
    assert hidden.grad is None


@pytest.mark.parametrize("recipe", RECIPES)
def test_columns_of_minus_infinity_change_nothing(recipe: Any) -> None:
    logits, hidden, labels = some()
    pair = heads()
    plain = autodeco_loss(logits, hidden, labels, *pair, recipe=recipe, easy_token_drop=0)
    padded = torch.nn.functional.pad(logits, (0, 23), value=-math.inf)
    ours = autodeco_loss(padded, hidden, labels, *pair, recipe=recipe, easy_token_drop=0)
    assert ours.loss.item() == pytest.approx(plain.loss.item(), rel=1e-12)
    for mine, expected in zip(*(gradients(x.loss, *pair) for x in (ours, plain)), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)


# -- accumulation and resuming


def test_micro_batches_add_up_to_the_global_batch() -> None:
    logits, hidden, labels = some()
    pair = heads()
    total = int((labels != -100).sum())
    whole = autodeco_loss(logits, hidden, labels, *pair, easy_token_drop=0)
    parts = [
        autodeco_loss(
            logits[rows], hidden[rows], labels[rows], *pair, easy_token_drop=0, num_items=items
        )
        for rows, items in ((slice(0, 7), total), (slice(7, N), torch.tensor(total)))
    ]
    assert sum(x.loss for x in parts).item() == pytest.approx(whole.loss.item(), rel=1e-12)
    # The official trainer takes the mean of each micro-batch, whatever its share of the labels.
    micro = [
        autodeco_loss(
            logits[rows], hidden[rows], labels[rows], *pair, easy_token_drop=0, num_items=total,
            reduction="micro_mean",
        ).loss
        for rows in (slice(0, 7), slice(7, N))
    ]  # fmt: skip
    assert abs(sum(micro).item() / 2 - whole.loss.item()) > 1e-3


def test_a_saved_generator_drops_the_same_tokens_again() -> None:
    data, pair = some(), heads()
    generator = torch.Generator().manual_seed(4)
    autodeco_loss(*data, *pair, generator=generator)
    state = generator.get_state()
    first = [autodeco_loss(*data, *pair, generator=generator).loss.item() for _ in range(3)]
    generator.set_state(state)
    again = [autodeco_loss(*data, *pair, generator=generator).loss.item() for _ in range(3)]
    assert first == again
    assert len(set(first)) == 3  # drawn anew each time


def test_about_the_named_share_of_easy_tokens_is_dropped() -> None:
    logits = torch.zeros(20_000, 4)
    logits[:, 1] = 1.0
    labels = torch.ones(20_000, dtype=torch.long)
    labels[15_000:] = 2  # not easy
    out = autodeco_loss(
        logits, torch.zeros(20_000, H), labels, heads(torch.float32)[0], None,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert out.num_dropped.item() / 15_000 == pytest.approx(0.6, abs=0.015)


# -- nothing to learn from


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("top_p_loss", ["soft", "mse"])
@pytest.mark.parametrize("rows", [4, 0])
def test_a_batch_without_labels_is_zero_with_finite_gradients(
    recipe: Any, top_p_loss: Any, rows: int
) -> None:
    for num_items in (None, 100, torch.tensor(0)):
        pair = heads(torch.float32)
        out = autodeco_loss(
            torch.full((rows, V), math.nan), torch.zeros(rows, H), torch.full((rows,), -100), *pair,
            recipe=recipe, top_p_loss=top_p_loss, num_items=num_items,
        )  # fmt: skip
        assert out.loss.item() == out.temperature_loss.item() == out.top_p_loss.item() == 0
        assert out.num_labels == 0
        out.loss.backward()
        for head in pair:
            assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def test_a_batch_of_which_everything_is_dropped_is_zero_too() -> None:
    logits, hidden, _ = some()
    out = autodeco_loss(
        logits, hidden, logits.argmax(-1), *heads(), recipe="megatron", easy_token_drop=1
    )
    assert out.num_dropped == N
    assert out.loss.item() == 0
    assert all(g.isfinite().all() for g in gradients(out.loss, *heads()))


# -- bad input


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_named(bad: float) -> None:
    logits, hidden, labels = some()
    logits[3, labels[3]] = bad
    with pytest.raises(DataError, match=f"Row 3 has label {labels[3]} with log-probability"):
        autodeco_loss(logits, hidden, labels, *heads())


def test_wrong_arguments_are_named() -> None:
    logits, hidden, labels = some()
    pair = heads()
    with pytest.raises(ShapeError, match=r"\(60, 41\), .* \(59,\)"):
        autodeco_loss(logits, hidden, labels[1:], *pair)
    with pytest.raises(ShapeError, match="Flatten the batch first"):
        autodeco_loss(logits[None], hidden[None], labels[None], *pair)
    with pytest.raises(ShapeError, match="hidden width of 10"):
        autodeco_loss(logits, hidden[:, 1:], labels, *pair)
    for label in (V, -1):
        with pytest.raises(DataError, match=rf"A label is {label}, but .* in \[0, 41\), or -100"):
            autodeco_loss(logits, hidden, torch.full((N,), label), *pair)
    with pytest.raises(ConfigError, match="There is no head to train"):
        autodeco_loss(logits, hidden, labels, None, None)
    with pytest.raises(ConfigError, match="There is no head to train"):
        autodeco_loss(logits, hidden, labels, *pair, train_temperature=False, train_top_p=False)
    for option, value in (
        ("recipe", "trl"), ("top_p_loss", "mae"), ("reduction", "sum"), ("easy_token_drop", 1.1),
        ("steepness", -1), ("cumsum", "both"), ("chunk", 0), ("recipes", "hf"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"fit LossSettings: .*`{option}`.*"):
            LossSettings(**{option: value})


# -- where the losses lead


def world(V: int = 20, q_max: int = 230) -> tuple[Tensor, Tensor]:
    """A distribution q over V tokens in thousandths, and labels in exactly its proportions."""
    rest = torch.arange(1, V).double().pow(-0.7)
    counts = (rest / rest.sum() * (1000 - q_max)).floor().long()
    counts[: 1000 - q_max - int(counts.sum())] += 1
    counts = torch.cat([torch.tensor([q_max]), counts])
    assert counts.sum() == 1000
    assert counts[1:].max() < q_max
    return counts.double() / 1000, torch.arange(V).repeat_interleave(counts)


class Free:
    """A head on a hidden state that is always 0: its only parameter is the last bias."""

    def __init__(self, head: Any) -> None:
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
            parameter.requires_grad_(False)
        head.mlp[2].bias.requires_grad_(True)
        self.head = head

    def train(self, steps: int, lr: float, loss: Any) -> None:
        optimizer = torch.optim.Adam([self.head.mlp[2].bias], lr=lr, betas=(0.8, 0.99))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(self.head).loss.backward()
            optimizer.step()
            scheduler.step()


def converged_temperature(
    k: float, *, copies: int = 1, steps: int = 250, lr: float = 0.1, **options: Any
) -> float:
    q, labels = world()
    labels = labels.repeat(copies)
    logits = (k * q.log()).expand(len(labels), -1)
    hidden = torch.zeros(len(labels), 1, dtype=torch.float64)
    free = Free(TemperatureHead(1, 1).double())
    free.train(steps, lr, lambda head: autodeco_loss(logits, hidden, labels, head, None, **options))
    return free.head(hidden[:1]).item()


@pytest.mark.parametrize("k", [0.5, 1.0, 1.6])
def test_plain_cross_entropy_undoes_the_miscalibration(k: float) -> None:
    assert converged_temperature(k, dft=False, easy_token_drop=0) == pytest.approx(k, abs=1e-3)


@pytest.mark.parametrize("k", [0.5, 1.0, 1.6])
def test_the_weight_by_probability_biases_the_temperature_low(k: float) -> None:
    T = converged_temperature(k, easy_token_drop=0)
    assert abs(T - k / (1 + k)) < 1e-3


@pytest.mark.parametrize("k", [0.7, 1.0])
def test_dropping_easy_tokens_corrects_part_of_it(k: float) -> None:
    q, _ = world()
    l = k * q.log()  # noqa: E741
    r = q * l.softmax(0)
    r[l.argmax()] *= 0.4
    r /= r.sum()
    # The mean of l under softmax(l / T) falls with T: it crosses that under r once.
    T_S = torch.linspace(0.05, 3, 30_000, dtype=torch.float64)
    mean_S = ((l / T_S[:, None]).softmax(-1) * l).sum(-1)
    root = T_S[(mean_S > (r * l).sum()).sum()].item()
    assert root > k / (1 + k) + 0.05
    T = converged_temperature(k, copies=4, generator=torch.Generator().manual_seed(0))
    assert abs(T - root) < 0.03


def test_megatron_without_dropping_collapses() -> None:
    """It maximises the expected accuracy: the temperature falls until decoding is greedy."""
    T = converged_temperature(1.0, recipe="megatron", easy_token_drop=0, steps=300, lr=0.3)
    assert T < 0.05
    q, _ = world()
    assert (q.log() / T).softmax(0).max() > 0.999
    assert converged_temperature(
        1.0, recipe="megatron", easy_token_drop=0, dft=False
    ) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("q_max", [190, 440])
def test_a_free_top_p_settles_in_a_minimum_of_the_expected_loss(q_max: int) -> None:
    q, labels = world(q_max=q_max)
    logits = q.log().expand(1000, -1)
    hidden = torch.zeros(1000, 1, dtype=torch.float64)
    free = Free(TopPHead(1, False, 1).double())
    free.train(
        300, 0.1, lambda head: autodeco_loss(logits, hidden, labels, None, head, easy_token_drop=0)
    )
    P = free.head(hidden[:1], torch.ones(1)).item()

    P_S = torch.linspace(0.3, 0.99, 5000, dtype=torch.float64)
    pt_SV = soft_top_p(logits[:1].expand(5000, -1), torch.ones(5000), P_S)
    expected_S = -(q**2 * (pt_SV + 1e-9).log()).sum(-1)
    # Each token whose sum P passes makes a kink, and so a minimum of its own.
    near_S = (P_S - P).abs() < 0.008
    assert abs(P - P_S[near_S][expected_S[near_S].argmin()].item()) < 2e-3
    assert abs(P - 0.5) > 0.02  # where it started


# -- memory


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("top_p_loss", ["soft", "mse"])
def test_nothing_as_wide_as_the_vocabulary_is_saved(recipe: Any, top_p_loss: Any) -> None:
    large = 50_000
    logits = torch.randn(12, large, generator=torch.Generator().manual_seed(0))
    saved: list[int] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x.numel())
        return x

    pair = heads(torch.float32)
    with saved_tensors_hooks(keep, lambda x: x):
        out = autodeco_loss(
            logits, torch.randn(12, H), torch.arange(12), *pair, recipe=recipe,
            top_p_loss=top_p_loss, chunk=4,
        )  # fmt: skip
    assert saved
    assert max(saved) < large / 10
    out.loss.backward()


_PEAK = """
import sys
from pathlib import Path

import torch
from hanol.autodeco import LossSettings, TemperatureHead, TopPHead, autodeco_loss

recipe, top_p_loss, chunk, V = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rows = chunk + 40
torch.manual_seed(0)
logits = torch.empty(rows, V).normal_()
labels = torch.randint(V, (rows,))
labels[::7] = -100
hidden, pair = torch.randn(rows, 16), (TemperatureHead(16), TopPHead(16))

def run(rows, chunk):
    settings = LossSettings(recipe=recipe, top_p_loss=top_p_loss, chunk=chunk)
    autodeco_loss(logits[:rows], hidden[:rows], labels[:rows], *pair, settings).loss.backward()

def peak():  # `ru_maxrss` begins with the peak of the process that started this one
    return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

run(4, 2)
before = peak()
run(rows, chunk)
print((peak() - before) / (4 * chunk * V))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("top_p_loss", ["soft", "mse"])
def test_peak_memory_stays_below_two_chunks(recipe: str, top_p_loss: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK, recipe, top_p_loss, "256", "151936"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    chunks = float(ran.stdout)
    assert 0.3 < chunks < 2  # of 256 rows; the promise, for every size of a chunk, is 3
