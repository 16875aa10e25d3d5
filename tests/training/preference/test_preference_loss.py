"""Preference losses against their formulas in float64, against TRL, and what has no gradient."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hanol import models
from hanol.errors import ConfigError, ShapeError
from hanol.training import preference_loss

CHAT = Path(__file__).parents[1] / "chat_model.py"
chat = SimpleNamespace(**runpy.run_path(str(CHAT)))
KINDS = ["sigmoid", "sigmoid_norm", "ipo"]
NORMS = ["token", "sequence", "batch"]


def make_pairs(seed: int = 0, pairs: int = 5) -> dict[str, Tensor]:
    """Log-probabilities of [2 B, L] tokens, the first some of the prompt, the last of padding."""
    rng = torch.Generator().manual_seed(seed)
    shape = (2 * pairs, 11)
    policy = -torch.rand(shape, generator=rng, dtype=torch.float64) * 3
    reference = policy + 0.4 * torch.randn(shape, generator=rng, dtype=torch.float64)
    place = torch.arange(11).expand(shape)
    first = torch.randint(1, 4, (2 * pairs, 1), generator=rng)
    last = torch.randint(5, 11, (2 * pairs, 1), generator=rng)
    masks = (place >= first) & (place <= last)
    formats = masks & ((place == first) | (place == last))
    return {"policy": policy, "reference": reference, "masks": masks, "format_mask": formats}


def formula(
    data: dict[str, Tensor], beta: float, kind: str, weight: float, norm: str, masked: bool
) -> float:
    """The definitions with Python's numbers, token by token."""
    pairs = len(data["policy"]) // 2
    total, nll, tokens = 0.0, 0.0, 0
    for b in range(pairs):
        sides = []
        for row in (b, pairs + b):
            counted = data["masks"][row] & ~(
                data["format_mask"][row] if masked else data["masks"][row] & False
            )
            ratios = (data["policy"] - data["reference"])[row][counted].tolist()
            value = math.fsum(ratios)
            sides.append(value if kind == "sigmoid" else value / len(ratios))
        d = sides[0] - sides[1]
        total += (d - 1 / (2 * beta)) ** 2 if kind == "ipo" else math.log1p(math.exp(-beta * d))
        said = data["policy"][b][data["masks"][b]].tolist()
        tokens += len(said)
        nll -= math.fsum(said) / (len(said) if norm == "sequence" else 1)
    return total / pairs + weight * nll / (tokens if norm == "token" else pairs)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_formulas(kind: Any, norm: Any, masked: bool) -> None:
    for seed, (beta, weight) in enumerate([(0.1, 0.0), (5.0, 0.2), (0.5, 1.5)]):
        data = make_pairs(seed)
        found = preference_loss(
            data["policy"], data["reference"], data["masks"], beta=beta, kind=kind,
            nll_weight=weight, nll_norm=norm, format_mask=data["format_mask"] if masked else None,
        )  # fmt: skip
        assert found.item() == pytest.approx(
            formula(data, beta, kind, weight, norm, masked), abs=1e-9
        )


def test_the_three_forms_of_pairs_are_one() -> None:
    data = make_pairs()
    found = set()
    for form in (
        lambda x: x,
        lambda x: x.view(2, -1, x.shape[1]),
        # Chosen and rejected answers need not have one length.
        lambda x: (x[:5], torch.nn.functional.pad(x[5:], (0, 3))),
    ):
        policy, reference, masks = (form(data[k]) for k in ("policy", "reference", "masks"))
        found.add(preference_loss(policy, reference, masks, beta=0.1, nll_weight=0.2).item())
    assert len(found) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_have_no_gradient(kind: Any) -> None:
    data = make_pairs()
    # What a mask hides may be anything: also a token that the model thought impossible.
    policy = data["policy"].masked_fill(~data["masks"], -torch.inf).requires_grad_()
    preference_loss(
        policy, data["reference"], data["masks"], beta=0.1, kind=kind,
        format_mask=data["format_mask"],
    ).backward()  # fmt: skip
    counted = data["masks"] & ~data["format_mask"]
    assert policy.grad is not None
    assert (policy.grad[~counted] == 0).all()
    assert (policy.grad[counted] != 0).all()


def test_formatting_tokens_stay_in_the_likelihood() -> None:
    data = make_pairs()
    policy = data["policy"].clone().requires_grad_()
    options = {"beta": 0.1, "format_mask": data["format_mask"], "nll_weight": 0.2}
    preference_loss(policy, data["reference"], data["masks"], **options).backward()  # type: ignore[arg-type]
    chosen, rejected = policy.grad.chunk(2)  # type: ignore[union-attr]
    said, _ = data["masks"].chunk(2)
    formats = data["format_mask"].chunk(2)
    assert chosen[formats[0]].tolist() == pytest.approx([-0.2 / said.sum().item()] * 10)
    assert (rejected[formats[1]] == 0).all()


def test_the_gradient_in_the_logits_is_exactly_zero_at_masked_tokens() -> None:
    data = make_pairs()
    logits = torch.randn(10, 11, 7, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 7, (10, 11, 1))
    logps = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1)
    masks, formats = data["masks"], data["format_mask"]
    preference_loss(logps, data["reference"], masks, beta=0.1, format_mask=formats).backward()
    assert logits.grad is not None
    assert (logits.grad[~masks | formats] == 0).all()


@pytest.fixture(scope="module")
def trl_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's DPO trainer over a model and a reference of a few thousand weights."""
    import trl
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("trl")
    places = [chat.make_checkpoint(folder / str(seed), seed=seed) for seed in (0, 1)]
    policy, reference = (models.load_model(place, dtype=torch.float32) for place in places)
    rows = Dataset.from_list(
        [
            {"prompt": f"Say {i}", "chosen": " yes" * (i + 1), "rejected": " no and no" * (3 - i)}
            for i in range(3)
        ]
    )
    args = trl.DPOConfig(
        str(folder), use_cpu=True, bf16=False, report_to=[], activation_checkpointing=False,
        per_device_train_batch_size=3,
    )  # fmt: skip
    tokenizer = chat.make_tokenizer()
    return trl.DPOTrainer(policy, reference, args, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_trls(trl_trainer: Any, kind: Any) -> None:
    (batch,) = trl_trainer.get_train_dataloader()
    mask = batch["completion_mask"][:, 1:].bool()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def logps(model: Any) -> Tensor:
        logits = model(**inputs).logits[:, :-1].log_softmax(-1)
        return logits.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)

    trl_trainer.beta = beta = 5.0 if kind == "sigmoid_norm" else 0.1
    for weight in (0.0, 0.2):
        trl_trainer.loss_types, trl_trainer.loss_weights = [kind, "sft"], [1.0, weight]
        expected = trl_trainer.compute_loss(trl_trainer.model, batch).item()
        with torch.no_grad():
            found = preference_loss(
                logps(trl_trainer.model), logps(trl_trainer.ref_model), mask,
                beta=beta, kind=kind, nll_weight=weight, nll_norm="token",
            )  # fmt: skip
        assert found.item() == pytest.approx(expected, abs=2e-5)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(ConfigError, match="`beta` is 0"):
        preference_loss(x, x, x, beta=0)
    with pytest.raises(ConfigError, match="`nll_weight` is -1"):
        preference_loss(x, x, x, beta=1, nll_weight=-1)
    with pytest.raises(ConfigError, match=r"`kind` is 'dpo'.*'sigmoid_norm'"):
        preference_loss(x, x, x, beta=1, kind="dpo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`nll_norm` is 'mean'"):
        preference_loss(x, x, x, beta=1, nll_norm="mean")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"`masks` of the chosen answers is \(2, 2\)"):
        preference_loss(x, x, x[:, 1:], beta=1)
    with pytest.raises(ShapeError, match=r"`policy_logps` is \(3, 3\)"):
        preference_loss(x[1:], x, x, beta=1)
    with pytest.raises(ShapeError, match="1 chosen answers, but 2 rejected"):
        preference_loss((x[:1], x[:2]), (x[:1], x[:2]), (x[:1], x[:2]), beta=1)
