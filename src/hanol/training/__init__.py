"""Training: a recipe in, a checkpoint out, by transformers' Trainer.

Text sources and tokenizers, packing with document borders, Muon and AdamW, schedules in tokens,
exact resume, bits per byte on held-out text.
"""

from hanol.training._data import Document, documents, is_held_out
from hanol.training._evaluate import bits_per_byte
from hanol.training._merge import Merged, merge_checkpoints
from hanol.training._muon import MuonAdamW, orthogonalised, parameter_groups
from hanol.training._packing import check_no_leak
from hanol.training._progress import plot_loss, read_metrics
from hanol.training._recipe import DataSection, Recipe, read_recipe, recipe_content, with_overrides
from hanol.training._run import Needs, TrainingResult, needs, train
from hanol.training._trainer import AtomicCheckpoints, last_checkpoint, learning_rate

__all__ = [
    "AtomicCheckpoints",
    "DataSection",
    "Document",
    "Merged",
    "MuonAdamW",
    "Needs",
    "Recipe",
    "TrainingResult",
    "bits_per_byte",
    "check_no_leak",
    "documents",
    "is_held_out",
    "last_checkpoint",
    "learning_rate",
    "merge_checkpoints",
    "needs",
    "orthogonalised",
    "parameter_groups",
    "plot_loss",
    "read_metrics",
    "read_recipe",
    "recipe_content",
    "train",
    "with_overrides",
]
