"""Training: recipes of all kinds, one Trainer for them, and what they share.

A recipe's `kind` says what runs it (`read_recipe`, `train`, `estimate`, `register_kind`). Here are
pre-training on packed text and supervised fine-tuning on conversations, whole or by LoRA; Muon and
AdamW, rates, checkpoints that continue to the last bit, metrics, and merging; preference losses
and advantages of groups.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.training._advantages import group_advantages
    from hanol.training._kinds import (
        OnStep,
        TrainingResult,
        estimate,
        read_recipe,
        register_kind,
        train,
    )
    from hanol.training._logits import logits_at, logprob_and_entropy
    from hanol.training._merge import Merged, merge_checkpoints
    from hanol.training._muon import MuonAdamW, muon_adamw, orthogonalised, parameter_groups
    from hanol.training._ranking import RankingRow
    from hanol.training._recipe import (
        MOST_STEPS,
        Estimate,
        Recipe,
        Section,
        Seed,
        StageEstimate,
        state_gib,
        with_overrides,
    )
    from hanol.training._run_folder import (
        FREE,
        checkpoint_size,
        checkpoints,
        keep_metrics,
        keep_newest,
        last_checkpoint,
        metrics_file,
        plot_loss,
        read_metrics,
        read_result,
    )
    from hanol.training._sft import (
        LearningSection,
        Objective,
        SftResult,
        SftRow,
        SftSettings,
        TrainingRow,
        sft_loss,
        train_sft,
    )
    from hanol.training._trainer import Steps, StepTrainer, training_arguments
    from hanol.training.finetuning._finetune import (
        FinetuneResult,
        Finetuning,
        finetune,
        finetune_estimate,
    )
    from hanol.training.finetuning._lora import with_adapters
    from hanol.training.finetuning._messages import ChatData, data_rows, prompt_ids, read_chats
    from hanol.training.finetuning._sft_recipe import LoraSection, MessagesSection, SftRecipe
    from hanol.training.preference._loss import preference_loss
    from hanol.training.preference._rows import sample_pairs
    from hanol.training.preference._train import PreferenceRecipe, train_preference
    from hanol.training.pretraining._data import SourceText, documents, is_held_out, tokenizer_hash
    from hanol.training.pretraining._evaluate import bits_per_byte
    from hanol.training.pretraining._packing import check_no_leak
    from hanol.training.pretraining._pretrain import PretrainResult, pretrain
    from hanol.training.pretraining._pretrain_recipe import (
        DataSection,
        PretrainRecipe,
        ScheduleSection,
    )

__getattr__, __dir__ = _lazy_names(__name__)

__all__ = [
    "FREE",
    "MOST_STEPS",
    "ChatData",
    "DataSection",
    "Estimate",
    "FinetuneResult",
    "Finetuning",
    "LearningSection",
    "LoraSection",
    "Merged",
    "MessagesSection",
    "MuonAdamW",
    "Objective",
    "OnStep",
    "PreferenceRecipe",
    "PretrainRecipe",
    "PretrainResult",
    "RankingRow",
    "Recipe",
    "ScheduleSection",
    "Section",
    "Seed",
    "SftRecipe",
    "SftResult",
    "SftRow",
    "SftSettings",
    "SourceText",
    "StageEstimate",
    "StepTrainer",
    "Steps",
    "TrainingResult",
    "TrainingRow",
    "bits_per_byte",
    "check_no_leak",
    "checkpoint_size",
    "checkpoints",
    "data_rows",
    "documents",
    "estimate",
    "finetune",
    "finetune_estimate",
    "group_advantages",
    "is_held_out",
    "keep_metrics",
    "keep_newest",
    "last_checkpoint",
    "logits_at",
    "logprob_and_entropy",
    "merge_checkpoints",
    "metrics_file",
    "muon_adamw",
    "orthogonalised",
    "parameter_groups",
    "plot_loss",
    "preference_loss",
    "pretrain",
    "prompt_ids",
    "read_chats",
    "read_metrics",
    "read_recipe",
    "read_result",
    "register_kind",
    "sample_pairs",
    "sft_loss",
    "state_gib",
    "tokenizer_hash",
    "train",
    "train_preference",
    "train_sft",
    "training_arguments",
    "with_adapters",
    "with_overrides",
]
