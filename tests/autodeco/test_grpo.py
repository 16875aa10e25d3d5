"""GRPO: what is trained is the probability that tokens were sampled with."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.autodeco.conftest import build, official_config, official_tensors, write_heads
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hanol.autodeco import AutoDecoForCausalLM
from hanol.errors import ConfigError

pytest.importorskip("trl", reason="GRPO needs trl: pip install 'hanol[grpo]'")

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from hanol.autodeco import AutoDecoGRPOTrainer

# TRL 1.16 uses a name that transformers has since replaced.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")

PROMPTS = ["a", "def f(x):", "once upon a time", "1 + 1 ="]


def policy(tmp_path: Path, name: str = "llama", **changes: Any) -> AutoDecoForCausalLM:
    """A random base with official heads: T and P differ from token to token."""
    base = build(name)
    heads = write_heads(
        tmp_path / "heads", official_config(base, **changes), official_tensors(seed=3)
    )
    return AutoDecoForCausalLM.from_pretrained(heads, base_model=base)


def config(tmp_path: Path, **changes: Any) -> GRPOConfig:
    return GRPOConfig(
        **{
            "output_dir": str(tmp_path / "run"), "use_cpu": True, "bf16": False, "seed": 7,
            "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1,
            "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8,
            "max_steps": 2, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
            "activation_checkpointing": False,
        }
        | changes
    )  # fmt: skip


def low_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The share of tokens from the lower half of the vocabulary."""
    return [sum(token < 130 for token in ids) / len(ids) for ids in completion_ids]


def make(
    model: AutoDecoForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    args: GRPOConfig,
    reward: Any = low_tokens,
    **kwargs: Any,
) -> AutoDecoGRPOTrainer:
    return AutoDecoGRPOTrainer(
        model,
        reward,
        args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=copy.deepcopy(tokenizer),
        **kwargs,
    )


def rollout(trainer: AutoDecoGRPOTrainer) -> tuple[dict[str, Any], Tensor]:
    """A batch as TRL makes it, and the log-probability that each token was sampled with."""
    seen: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        if hasattr(output, "logits"):  # not that of the fused head
            seen.append(output.logits[:, -1])

    inner = getattr(trainer.model, "get_base_model", lambda: trainer.model)()
    hook = inner.register_forward_hook(keep)
    batch = trainer._generate_and_score_completions([{"prompt": p} for p in PROMPTS for _ in "12"])
    hook.remove()
    ids = batch["completion_ids"]
    log_BCV = torch.stack(seen, 1)[:, : ids.shape[1]].double().log_softmax(-1)
    return batch, log_BCV.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def in_training(trainer: AutoDecoGRPOTrainer, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The loss, and the log-probabilities that it was computed from."""
    seen: list[Tensor] = []
    inner = trainer._get_per_token_logps_and_entropies

    def spy(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        seen.append(result[0])
        return result

    trainer._get_per_token_logps_and_entropies = spy
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, batch)
    del trainer._get_per_token_logps_and_entropies
    assert len(seen) == 1
    return loss, seen[0]


@pytest.mark.parametrize("truncation", ["soft", "hard"])
@pytest.mark.parametrize("name", ["llama", "tied", "qwen3"])
def test_ratio_of_training_to_rollout_is_one(
    name: str, truncation: Any, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = make(
        policy(tmp_path, name), byte_tokenizer, config(tmp_path, max_completion_length=24),
        truncation=truncation,
    )  # fmt: skip
    batch, sampled_BC = rollout(trainer)
    _, trained_BC = in_training(trainer, batch)
    ratio_BC = (trained_BC.double() - sampled_BC).exp()
    mask_BC = batch["completion_mask"].bool()
    assert mask_BC.sum() > 50
    assert (ratio_BC[mask_BC] - 1).abs().max() < 1e-4
    # Something was there to be equal: the base's own probabilities are others.
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    with torch.no_grad():
        logits = trainer.model(ids, attention_mask=mask, apply="off").logits
    C = sampled_BC.shape[1]
    base_BC = logits[:, -C - 1 : -1].log_softmax(-1).gather(-1, ids[:, -C:, None]).squeeze(-1)
    assert (base_BC - trained_BC)[mask_BC].abs().mean() > 0.1


@pytest.mark.parametrize("truncation", ["soft", "hard"])
def test_log_probabilities_and_entropies_are_those_of_forward(
    truncation: Any, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # A chunk that divides nothing below.
    monkeypatch.setattr("hanol.autodeco.training._grpo._CHUNK", 5)
    model = policy(tmp_path)
    make(model, byte_tokenizer, config(tmp_path), truncation=truncation)
    ids = torch.randint(0, 250, (3, 11), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 8:] = -100
    labels[2, :] = -100
    with torch.no_grad():
        out = model(ids, labels=labels, fused_lm_head=True)
        log_BTV = model(ids, apply=truncation).logits[:, :-1].double().log_softmax(-1)
    mask_BT = labels[:, 1:] != -100
    expected_BT = log_BTV.gather(-1, ids[:, 1:, None]).squeeze(-1).clamp_min(-1000) * mask_BT
    entropy_BT = -(log_BTV.exp() * log_BTV).sum(-1) * mask_BT
    assert torch.equal(out.label_mask, mask_BT)
    assert (out.log_probs - expected_BT).abs().max() < 1e-4
    assert (out.entropy - entropy_BT).abs().max() < 1e-4
    assert out.loss.item() == pytest.approx(-expected_BT.sum().item() / mask_BT.sum().item(), 1e-5)


def test_sequences_without_labels_give_zeros_with_a_gradient(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path)
    make(model, byte_tokenizer, config(tmp_path))
    ids = torch.ones(2, 6, dtype=torch.long)
    out = model(ids, labels=torch.full_like(ids, -100), fused_lm_head=True)
    assert out.log_probs.count_nonzero() == 0
    out.loss.backward()
    assert all(not p.grad.any() for p in model.temp_head.parameters())


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("truncation", ["soft", "hard"])
def test_gradients_reach_what_is_trained(
    truncation: Any, everything: bool, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(not everything)
    trainer = make(model, byte_tokenizer, config(tmp_path), truncation=truncation)
    loss, _ = in_training(trainer, rollout(trainer)[0])
    loss.backward()

    def moved(part: Any) -> bool:
        grads = [p.grad for p in part.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        return any(grad.any() for grad in grads)

    assert moved(model.temp_head)
    assert moved(model.top_p_head) == (truncation == "soft")  # a hard cut has no derivative
    assert moved(model.llm) == everything


def test_gradient_is_that_of_the_logits(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(False)
    make(model, byte_tokenizer, config(tmp_path))
    ids = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    found, expected = [
        torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for loss in (
            model(ids, labels=ids, fused_lm_head=True).loss,
            torch.nn.functional.cross_entropy(
                model(ids, apply="soft").logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
            ),
        )
    ]
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("truncation", ["soft", "hard"])
def test_columns_that_are_no_token_change_nothing(
    truncation: Any, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(False)
    trainer = make(model, byte_tokenizer, config(tmp_path), truncation=truncation)
    padding = torch.tensor([258, 259])
    model.llm.lm_head.register_forward_hook(
        lambda _, __, out: out.index_fill(-1, padding, -math.inf)
    )
    batch, sampled_BC = rollout(trainer)
    loss, trained_BC = in_training(trainer, batch)
    assert (trained_BC - sampled_BC)[batch["completion_mask"].bool()].abs().max() < 1e-4
    ids = batch["prompt_ids"]
    (loss + model(ids, labels=ids, fused_lm_head=True).entropy.sum()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("everything", [False, True])
def test_hard_training_keeps_the_nucleus_of_the_rollout(
    everything: bool, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(not everything)
    trainer = make(
        model, byte_tokenizer, config(tmp_path, max_completion_length=16), truncation="hard"
    )
    batch, sampled_BC = rollout(trainer)
    mask_BC = batch["completion_mask"].bool()
    with torch.no_grad():
        model.top_p_head.mlp[2].bias -= 5  # an update that makes every nucleus tiny
        model.temp_head.mlp[2].bias += 0.1
        if everything:
            model.llm.lm_head.weight += 0.01 * torch.randn_like(model.llm.lm_head.weight)
    _, frozen_BC = in_training(trainer, batch)
    _, free_BC = in_training(trainer, {k: v for k, v in batch.items() if k != "autodeco_cut"})
    assert (frozen_BC - sampled_BC)[mask_BC].abs().max() < 1
    assert free_BC[mask_BC].min() == -1000


def test_cuts_survive_shuffling_and_splitting(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    # Two slices of a generation batch, each used twice.
    args = config(tmp_path, num_iterations=2, steps_per_generation=2, max_steps=4)
    trainer = make(policy(tmp_path), byte_tokenizer, args, truncation="hard")
    trainer.train()
    ratios = [log["clip_ratio/region_mean"] for log in trainer.state.log_history if "loss" in log]
    # A token that left the nucleus, or got the cut of another, would have a ratio of 0.
    assert len(ratios) == 4
    assert ratios[0] == 0
    assert all(math.isfinite(log.get("loss", 0)) for log in trainer.state.log_history)


def greedy_tokens(base: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Rewards tokens that the frozen base finds most likely: a lower temperature earns more."""

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rewards = []
        for prompt, ids in zip(prompts, completion_ids, strict=True):
            start = tokenizer(prompt).input_ids
            with torch.no_grad():
                best = base(torch.tensor([start + ids])).logits[0].argmax(-1)
            hits = best[len(start) - 1 : -1] == torch.tensor(ids)
            rewards.append(hits.float().mean().item())
        return rewards

    return reward


@pytest.mark.parametrize(
    ("everything", "truncation"),
    [
        (False, "hard"),
        (True, "soft"),
        pytest.param(False, "soft", marks=pytest.mark.slow),
        pytest.param(True, "hard", marks=pytest.mark.slow),
    ],
)
def test_reward_rises(
    everything: bool, truncation: Any, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(not everything)
    before = copy.deepcopy(model.llm.state_dict())
    args = config(
        tmp_path, max_steps=20, learning_rate=3e-3 if everything else 1e-3,
        per_device_train_batch_size=32, num_generations=8, max_completion_length=12,
    )  # fmt: skip
    reward = low_tokens if everything else greedy_tokens(model.llm, byte_tokenizer)
    trainer = make(model, byte_tokenizer, args, reward, truncation=truncation)
    trainer.train()
    rewards = [log["reward"] for log in trainer.state.log_history if "reward" in log]
    assert len(rewards) == 20
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.1
    unchanged = all(torch.equal(before[k], v) for k, v in model.llm.state_dict().items())
    assert unchanged == (not everything)


def test_stock_trainer_is_refused(tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    model = policy(tmp_path)
    before = model(torch.tensor([[1, 2, 3]])).logits
    arguments: dict[str, Any] = {
        "args": config(tmp_path),
        "train_dataset": Dataset.from_dict({"prompt": PROMPTS}),
        "processing_class": copy.deepcopy(byte_tokenizer),
    }
    with pytest.raises(ConfigError, match="Use `hanol.autodeco.AutoDecoGRPOTrainer`"):
        GRPOTrainer(model, low_tokens, **arguments)
    assert torch.equal(model(torch.tensor([[1, 2, 3]])).logits, before)
    # Ours did not open a way for it.
    make(model, byte_tokenizer, config(tmp_path))
    with pytest.raises(ConfigError, match="Use `hanol.autodeco.AutoDecoGRPOTrainer`"):
        GRPOTrainer(model, low_tokens, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.7}, "`temperature` is 0.7, but must be 1.0"),
        ({"top_p": 0.9}, "`top_p` is 0.9, but must be 1.0"),
        ({"top_k": 50}, "`top_k` is 50, but must be 0"),
        ({"min_p": 0.1}, "`min_p` is 0.1, but must be None"),
        ({"repetition_penalty": 1.1}, "`repetition_penalty` is 1.1"),
        ({"generation_kwargs": {"typical_p": 0.5}}, "`typical_p` is 0.5"),
        ({"generation_kwargs": {"top_p": 0.5}}, "`top_p` is 0.5"),
        ({"generation_kwargs": {"do_sample": False}}, "`do_sample` is False"),
        ({"cast_lm_head_to_fp32": True}, "`cast_lm_head_to_fp32` is not supported"),
        ({"use_transformers_continuous_batching": True}, "continuous_batching` is not supported"),
        ({"beta": 0.1}, "`beta` is 0.1, but with hard truncation"),
        ({"use_vllm": True}, "config.autodeco_truncation = 'soft'"),
    ],
)
def test_options_that_change_the_distribution_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    truncation = "hard" if "beta" in changes else "soft"
    with pytest.raises(ConfigError, match=message):
        make(policy(tmp_path), byte_tokenizer, config(tmp_path, **changes), truncation=truncation)


def test_models_that_cannot_be_trained_are_refused(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ConfigError, match="`model` is a LlamaForCausalLM"):
        make(build("llama"), byte_tokenizer, config(tmp_path))
    with pytest.raises(ConfigError, match="freeze_heads"):
        make(policy(tmp_path).freeze_heads(), byte_tokenizer, config(tmp_path))
    new = AutoDecoForCausalLM.from_base(build("llama"))
    with pytest.raises(ConfigError, match="TRL loads the reference model"):
        make(new, byte_tokenizer, config(tmp_path, beta=0.1))
    with pytest.raises(ConfigError, match='"soft" or "hard"'):
        make(policy(tmp_path / "b"), byte_tokenizer, config(tmp_path), truncation="none")


@pytest.mark.parametrize("name", ["llama", "tied"])
def test_synchronised_names_are_the_merged_layout(
    name: str, tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    from safetensors.torch import load_file
    from trl.generation.vllm_generation import VLLMGeneration

    trainer = make(policy(tmp_path, name), byte_tokenizer, config(tmp_path))
    sender = VLLMGeneration.__new__(VLLMGeneration)
    sender.model, sender._dist = trainer.model, trainer._dist
    sent = dict(sender._iter_named_params())
    trainer.model.save_pretrained(tmp_path / "merged")
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert sent.keys() == stored.keys()
    assert all(torch.equal(sent[key], stored[key]) for key in stored)


def test_low_rank_adapters_train_with_the_heads(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    peft = pytest.importorskip("peft", reason="adapters need peft")
    from trl.generation.vllm_generation import VLLMGeneration

    adapters = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["temp_head", "top_p_head"]
    )
    model = policy(tmp_path)
    names = set(model.state_dict())
    trainer = make(model, byte_tokenizer, config(tmp_path), peft_config=adapters)
    trainer.train()
    batch, sampled_BC = rollout(trainer)
    loss, trained_BC = in_training(trainer, batch)
    mask_BC = batch["completion_mask"].bool()
    assert (trained_BC - sampled_BC)[mask_BC].abs().max() < 1e-4
    trainer.model.zero_grad()
    loss.backward()
    moved = {name for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert all("lora_" in name or "_head.modules_to_save" in name for name in moved)
    assert any("lora_B" in name for name in moved)
    assert any("top_p_head" in name for name in moved)
    sender = VLLMGeneration.__new__(VLLMGeneration)
    sender.model, sender._dist = trainer.model, trainer._dist
    assert {name for name, _ in sender._iter_named_params()} == names


def test_trained_model_is_saved_and_loaded(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(False)
    trainer = make(model, byte_tokenizer, config(tmp_path))
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    loaded = AutoDecoForCausalLM.from_pretrained(tmp_path / "trained")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model.eval()(ids, apply="hard").logits)


def test_reference_model_is_read_through_its_heads(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    policy(tmp_path).save_pretrained(tmp_path / "merged")
    byte_tokenizer.save_pretrained(tmp_path / "merged")
    model = AutoDecoForCausalLM.from_pretrained(tmp_path / "merged")
    trainer = make(model, byte_tokenizer, config(tmp_path, beta=0.1))
    batch, sampled_BC = rollout(trainer)
    mask_BC = batch["completion_mask"].bool()
    assert (batch["ref_per_token_logps"] - sampled_BC)[mask_BC].abs().max() < 1e-4
    trainer.train()
    assert all(math.isfinite(log["kl"]) for log in trainer.state.log_history if "kl" in log)


def test_large_models_recompute_activations(
    tmp_path: Path, byte_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = policy(tmp_path).freeze_base(False)
    trainer = make(model, byte_tokenizer, config(tmp_path, activation_checkpointing=True))
    trainer.train()
    assert all(math.isfinite(log.get("loss", 0)) for log in trainer.state.log_history)
