"""The policy-gradient loss against an oracle of plain Python loops, and what it must not see."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hanol.errors import DataError, ShapeError
from hanol.rl import group_advantages, policy_loss, token_weights

LOW, HIGH = 0.2, 0.28
REWARD = st.sampled_from([0.0, 1.0, 0.5, 0.1, 1 / 3])


# -- advantages


@given(st.lists(REWARD, min_size=2, max_size=9))
def test_leave_one_out_is_the_scaled_mean_baseline(rewards: list[float]) -> None:
    count = len(rewards)
    loo = group_advantages(rewards, baseline="loo")
    mean = group_advantages(rewards, baseline="mean")
    assert loo == pytest.approx([count / (count - 1) * a for a in mean], abs=1e-12)
    assert math.fsum(loo) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("baseline", ["loo", "mean"])
@given(st.data())
def test_advantages_are_those_of_the_definition(baseline: Any, data: st.DataObject) -> None:
    rewards = data.draw(st.lists(st.none() | REWARD, min_size=1, max_size=8))
    excluded = data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards)))
    in_baseline = data.draw(st.booleans())
    found = group_advantages(
        rewards, baseline=baseline, excluded=excluded, excluded_in_baseline=in_baseline
    )
    for i, reward in enumerate(rewards):
        if reward is None or excluded[i]:
            assert found[i] is None
            continue
        others = [
            r
            for k, r in enumerate(rewards)
            if r is not None
            and (in_baseline or not excluded[k])
            and not (baseline == "loo" and k == i)
        ]
        expected = reward - sum(others) / len(others) if others else 0.0
        assert found[i] == pytest.approx(expected, abs=1e-12)


@given(st.floats(0, 1), st.integers(1, 8), st.sampled_from(["loo", "mean"]))
def test_equal_rewards_have_advantages_of_exactly_zero(
    reward: float, count: int, baseline: Any
) -> None:
    assert group_advantages([reward] * count, baseline=baseline) == [0.0] * count


def test_a_lost_rollout_lowers_the_baseline_and_a_broken_one_does_not() -> None:
    assert group_advantages([1.0, 1.0, 0.0], excluded=[False, False, True]) == [0.5, 0.5, None]
    assert group_advantages(
        [1.0, 1.0, 0.0], excluded=[False, False, True], excluded_in_baseline=False
    ) == [0.0, 0.0, None]
    assert group_advantages([1.0, 1.0, None]) == [0.0, 0.0, None]


@pytest.mark.parametrize("reward", [math.nan, math.inf], ids=str)
def test_a_reward_that_is_no_number_is_refused(reward: float) -> None:
    with pytest.raises(DataError, match=str(reward)):
        group_advantages([1.0, reward])


def test_exclusions_of_another_group_are_refused() -> None:
    with pytest.raises(DataError, match="3 rewards"):
        group_advantages([1.0, 0.0, 0.0], excluded=[True])


# -- the loss: a batch is logits, the tokens drawn, and what each sequence is


class Batch:
    """Random sequences with observations, exclusions and padding."""

    def __init__(self, seed: int, *, off_policy: bool) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.temperature = 0.7
        self.logits = torch.randn(7, 6, 5, generator=rng, dtype=torch.float64)
        self.tokens = torch.randint(5, (7, 6), generator=rng)
        self.old = logprobs(self.logits, self.tokens, self.temperature)
        if off_policy:
            self.old = self.old + 0.4 * torch.randn(7, 6, generator=rng, dtype=torch.float64)
        self.action = torch.rand(7, 6, generator=rng) < 0.6
        self.action[0] = False  # a rollout that is not in the loss
        self.action[1, 3:] = False  # padding
        self.question = torch.tensor([4, 4, 4, 1, 1, 9, 9])
        # Of the last question nothing can be learned.
        self.advantage = torch.tensor([0.5, 1.0, -0.5, 0.75, -0.75, 0.0, 0.0]).double()


def logprobs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    return (logits / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def loss_and_gradient(batch: Batch, **options: Any) -> tuple[float, Tensor]:
    logits = batch.logits.clone().requires_grad_()
    weight = token_weights(batch.action.sum(1), batch.advantage, batch.question, **options)
    new = logprobs(logits, batch.tokens, batch.temperature)
    loss = policy_loss(new, batch.old, batch.advantage, batch.action, weight)
    loss.backward()
    assert logits.grad is not None
    return loss.item(), logits.grad


def oracle(
    batch: Batch, normalize: str = "batch", drop_zero_variance: bool = False
) -> tuple[float, list[Any]]:
    """Equation 4 with loops over tokens; the gradient of log-softmax by hand."""
    rows, length, vocabulary = batch.logits.shape
    written = {i: [j for j in range(length) if bool(batch.action[i, j])] for i in range(rows)}
    questions = batch.question.tolist()
    counted = {}
    for name in sorted(set(questions)):
        mine = [i for i in range(rows) if questions[i] == name]
        if drop_zero_variance and all(float(batch.advantage[i]) == 0 for i in mine):
            continue
        if tokens := sum(len(written[i]) for i in mine):
            counted[name] = tokens
    loss = 0.0
    gradient = [[[0.0] * vocabulary for _ in range(length)] for _ in range(rows)]
    for i in range(rows):
        if questions[i] not in counted:
            continue
        if normalize == "batch":
            divisor = float(sum(counted.values()))
        else:
            divisor = float(counted[questions[i]] * len(counted))
        advantage = float(batch.advantage[i])
        for j in written[i]:
            scaled = [float(x) / batch.temperature for x in batch.logits[i, j]]
            top = max(scaled)
            total = math.fsum(math.exp(x - top) for x in scaled)
            probability = [math.exp(x - top) / total for x in scaled]
            token = int(batch.tokens[i, j])
            ratio = probability[token] / math.exp(float(batch.old[i, j]))
            clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
            loss -= min(ratio * advantage, clipped * advantage) / divisor
            if ratio * advantage > clipped * advantage:
                continue  # the clipped branch is the smaller one, and constant
            for v in range(vocabulary):
                direction = (float(v == token) - probability[v]) / batch.temperature
                gradient[i][j][v] = -advantage * ratio * direction / divisor
    return loss, gradient


@pytest.mark.parametrize("off_policy", [False, True], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("normalize", ["batch", "question"])
@pytest.mark.parametrize("drop", [False, True], ids=["all", "drop"])
def test_loss_and_gradient_equal_the_oracle(off_policy: bool, normalize: Any, drop: bool) -> None:
    for seed in range(5):
        batch = Batch(seed, off_policy=off_policy)
        loss, gradient = loss_and_gradient(batch, normalize=normalize, drop_zero_variance=drop)
        expected_loss, expected = oracle(batch, normalize, drop)
        assert abs(loss - expected_loss) < 1e-9
        assert (gradient - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-9
        assert gradient.abs().max() > 0.01  # or the comparison says nothing


def test_off_policy_batches_reach_every_branch_of_the_clip() -> None:
    """What the test above compares is more than the plain gradient."""
    batch = Batch(0, off_policy=True)
    new = logprobs(batch.logits, batch.tokens, batch.temperature)
    ratio = (new - batch.old).exp()[batch.action]
    advantage = batch.advantage[:, None].expand(7, 6)[batch.action]
    for side in (ratio > 1 + HIGH, ratio < 1 - LOW):
        for sign in (advantage > 0, advantage < 0):
            assert (side & sign).any()


def test_gradient_is_exactly_zero_where_the_policy_did_not_write() -> None:
    batch = Batch(3, off_policy=True)
    _, gradient = loss_and_gradient(batch)
    assert bool((gradient[~batch.action] == 0).all())
    assert bool((gradient[5:] == 0).all())  # nothing to learn
    assert bool((gradient[batch.action & (batch.advantage != 0)[:, None]] != 0).any())


def test_masked_values_may_be_anything() -> None:
    batch = Batch(1, off_policy=False)
    new = logprobs(batch.logits, batch.tokens, batch.temperature)
    weight = token_weights(batch.action.sum(1), batch.advantage, batch.question)
    expected = policy_loss(new, batch.old, batch.advantage, batch.action, weight)
    hostile = torch.where(batch.action, new, -500.0).requires_grad_()
    old = torch.where(batch.action, batch.old, -torch.inf)
    loss = policy_loss(hostile, old, batch.advantage, batch.action, weight)
    loss.backward()
    assert loss.item() == expected.item()
    assert hostile.grad is not None
    assert bool(hostile.grad.isfinite().all())
    assert bool((hostile.grad[~batch.action] == 0).all())


@given(st.integers(0, 10_000), st.sampled_from(["batch", "question"]), st.booleans())
@settings(deadline=None, max_examples=30)
def test_padding_and_splitting_change_nothing(seed: int, normalize: Any, drop: bool) -> None:
    batch = Batch(seed, off_policy=True)
    options: dict[str, Any] = {"normalize": normalize, "drop_zero_variance": drop}
    loss, gradient = loss_and_gradient(batch, **options)
    weight = token_weights(batch.action.sum(1), batch.advantage, batch.question, **options)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    logits = batch.logits.clone().requires_grad_()
    total = 0.0
    for part in order.split([3, 1, 3]):
        new = torch.nn.functional.pad(
            logprobs(logits[part], batch.tokens[part], batch.temperature), (0, 4)
        )
        old, action = (torch.nn.functional.pad(x[part], (0, 4)) for x in (batch.old, batch.action))
        piece = policy_loss(new, old, batch.advantage[part], action, weight[part])
        piece.backward()
        total += piece.item()
    assert abs(total - loss) < 1e-12
    assert logits.grad is not None
    assert (logits.grad - gradient).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.25, 1.0, True),  # within the wider upper limit
        (1.30, 1.0, False),
        (0.75, 1.0, True),  # a good token that became rarer is always pulled back
        (0.85, -1.0, True),
        (0.75, -1.0, False),
        (1.50, -1.0, True),  # and a bad one that became more frequent
    ],
    ids=str,
)
def test_clip_is_wider_above(ratio: float, advantage: float, moves: bool) -> None:
    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    loss = policy_loss(
        new, torch.zeros_like(new), one * advantage, torch.ones(1, 1, dtype=torch.bool), one
    )
    loss.backward()
    assert new.grad is not None
    assert (new.grad.item() != 0) is moves
    if moves:
        assert new.grad.item() == pytest.approx(-ratio * advantage)


def test_segments_of_a_rollout_count_as_one_sequence() -> None:
    """Cutting a conversation into segments changes neither the loss nor what a token counts."""
    batch = Batch(2, off_policy=True)
    loss, _ = loss_and_gradient(batch)
    new = logprobs(batch.logits, batch.tokens, batch.temperature)

    def cut(x: Tensor) -> Tensor:
        return torch.cat([x[:, :3], x[:, 3:]])

    action, advantage, question = cut(batch.action), batch.advantage.repeat(2), batch.question
    weight = token_weights(action.sum(1), advantage, question.repeat(2))
    pieces = policy_loss(cut(new), cut(batch.old), advantage, action, weight)
    assert pieces.item() == pytest.approx(loss, abs=1e-12)


def test_a_batch_without_written_tokens_has_no_loss() -> None:
    none = torch.zeros(2, dtype=torch.long)
    for normalize in ("batch", "question"):
        weight = token_weights(none, torch.ones(2), none, normalize=normalize)
        assert weight.tolist() == [0, 0]
    assert token_weights(none[:0], torch.ones(0), none[:0]).shape == (0,)


def test_shapes_that_do_not_belong_together_are_named() -> None:
    x, one = torch.zeros(2, 3), torch.ones(2)
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        policy_loss(x, torch.zeros(2, 4), one, x.bool(), one)
    with pytest.raises(ShapeError, match="2 sequences"):
        policy_loss(x, x, torch.ones(3), x.bool(), one)
