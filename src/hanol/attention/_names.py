"""The names of Kimi-Linear tensors in files: the official ones, when transformers saves a model."""

from typing import Any

from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming


class _ReadingRename(WeightRenaming):
    """A renaming that is applied when a checkpoint is read and not when one is written."""

    __slots__ = ()

    def reverse_transform(self) -> WeightRenaming:
        return WeightRenaming("(?!)", "(?!)")  # matches nothing


def correct_names() -> None:
    """Teach transformers to rename only expert layers to `block_sparse_moe`.

    Its own rule renames every `mlp`, the dense first layer's too, and the official code then
    misses those weights. Folders that it wrote so are still read. `register` and `accelerate`
    apply this, and so does importing `hanol.models`; applying it again changes nothing.
    """
    rules = get_checkpoint_conversion_mapping("kimi_linear")
    if any(isinstance(rule, _ReadingRename) for rule in rules):
        return
    ours: list[Any] = []
    for rule in rules:
        if isinstance(rule, WeightRenaming) and "block_sparse_moe" in str(rule.source_patterns):
            ours += [
                WeightRenaming(rf"\.block_sparse_moe\.{part}\.", rf"\.mlp\.{part}\.")
                for part in ("gate", "experts", "shared_experts")
            ]
            ours += [
                _ReadingRename(rf"\.block_sparse_moe\.{part}\.", rf"\.mlp\.{part}\.")
                for part in ("gate_proj", "up_proj", "down_proj")
            ]
        else:
            ours.append(rule)
    register_checkpoint_conversion_mapping("kimi_linear", ours, overwrite=True)
