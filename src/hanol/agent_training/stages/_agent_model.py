"""The model that a recipe starts from, and what training it will take."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Lfm2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
)

from hanol import models
from hanol.agent_training.expert._tokenizer import encyclopedia_tokenizer
from hanol.agent_training.stages._recipe import AgentModelSection, ResearcherRecipe, SftStage
from hanol.attention import ConvAttentionConfig
from hanol.training import Estimate, StageEstimate, state_gib

# Short convolutions that begin near zero, as transformers makes them, are found late.
_CONV_STD = 0.3


def starting_model(recipe: ResearcherRecipe, start: Path | None = None) -> models.Loaded:
    """The checkpoint of an earlier stage or of the recipe, else random weights."""
    if (checkpoint := start or recipe.model.checkpoint) is not None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return models.load(checkpoint, dtype=torch.float32, device=device)
    tokenizer = _tokenizer(recipe.model)
    model = models.build(_config(recipe.model, tokenizer), seed=recipe.seed)
    _widen_convolutions(model, recipe.seed)
    return models.Loaded(model, tokenizer)


def researcher_estimate(recipe: ResearcherRecipe) -> Estimate:
    """What a run will take, computed on the meta device."""
    section = recipe.model
    if section.checkpoint is not None:
        report = models.inspect(section.preset or section.checkpoint)
        parameters, active = report.parameters, report.active_parameters
    else:
        model = models.build(_config(section, _tokenizer(section)), device="meta")
        parameters = active = model.num_parameters()
    stages = [_stage_estimate(stage) for stage in recipe.stages]
    tokens = sum(stage.tokens or 0 for stage in stages)
    # Two moments of AdamW where some stage trains all by it.
    trained = [stage for stage in recipe.stages if stage.kind in ("midtrain", "sft", "grpo")]
    with_muon = all(getattr(stage, "muon_lr", None) is not None for stage in trained)
    return Estimate(
        parameters=parameters,
        active_parameters=active,
        stages=stages,
        steps=sum(stage.steps or 0 for stage in stages),
        tokens=tokens,
        rollouts=sum(stage.rollouts for stage in stages),
        train_flops=6.0 * active * tokens,
        state_gib=state_gib(parameters, with_muon=with_muon),
    )


def _tokenizer(section: AgentModelSection) -> PreTrainedTokenizerBase:
    return encyclopedia_tokenizer(section.max_length, verbatim=section.verbatim_calls)


def _config(section: AgentModelSection, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": section.hidden_size,
        "intermediate_size": section.intermediate_size,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
        # So that each block changes what it reads from the first step on; 0.02 is for wide models.
        "initializer_range": section.hidden_size**-0.5,
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    layers, every = section.num_layers, section.full_attention_every
    head_dim = section.hidden_size // section.num_heads
    if section.config == "kimi-linear":
        return models.kimi_config(
            num_layers=layers,
            num_heads=section.num_heads,
            head_dim=head_dim,
            kv_lora_rank=section.kv_lora_rank,
            full_attention_every=every,
            model_max_length=section.max_length,
            conv_kernel=section.conv_kernel,
            **sizes,
        )
    sizes |= {
        "num_hidden_layers": layers,
        "num_attention_heads": section.num_heads,
        "num_key_value_heads": section.num_heads,
        "max_position_embeddings": section.max_length,
    }
    if section.config == "conv-attention":
        return ConvAttentionConfig(head_dim=head_dim, conv_kernel_size=section.conv_kernel, **sizes)
    if section.config == "qwen3":
        return Qwen3Config(head_dim=head_dim, **sizes)
    full = [bool(every) and (n % every == 0 or n == layers) for n in range(1, layers + 1)]
    return Lfm2Config(
        layer_types=["full_attention" if is_full else "conv" for is_full in full],
        conv_L_cache=section.conv_kernel,
        block_auto_adjust_ff_dim=False,
        **sizes,
    )


def _widen_convolutions(model: PreTrainedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "conv" in name and parameter.dim() == 3:
            nn.init.normal_(parameter, 0, _CONV_STD, generator=generator)


def _stage_estimate(stage: Any) -> StageEstimate:
    tokens: int | None = 0
    steps: int | None = 0
    rollouts = 0
    if isinstance(stage, SftStage):
        tokens = stage.tokens
        steps = None if tokens is None else -(-tokens // (stage.batch_size * stage.max_length))
    elif stage.kind == "reject":
        rollouts = stage.pool * stage.attempts
    elif stage.kind == "grpo":
        steps = stage.steps * stage.updates_per_batch
        rollouts = stage.steps * stage.questions * stage.rollouts
        tokens = rollouts * stage.updates_per_batch * stage.max_length
    return StageEstimate(
        name=stage.name, kind=stage.kind, tokens=tokens, steps=steps, rollouts=rollouts
    )
