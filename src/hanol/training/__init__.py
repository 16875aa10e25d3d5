"""Training: a recipe in, a checkpoint out, by transformers' Trainer.

Text sources and tokenizers, packing with document borders, Muon and AdamW, schedules in tokens,
exact resume, bits per byte on held-out text.
"""

from hanol.training._data import Document, documents, is_held_out
from hanol.training._evaluate import bits_per_byte
from hanol.training._muon import MuonAdamW, orthogonalised, parameter_groups
from hanol.training._packing import check_no_leak
from hanol.training._progress import plot_loss, read_metrics
from hanol.training._recipe import DataSection, Recipe, read_recipe, with_overrides
from hanol.training._run import Needs, TrainingResult, needs, train
from hanol.training._trainer import learning_rate

__all__ = [
    "DataSection",
    "Document",
    "MuonAdamW",
    "Needs",
    "Recipe",
    "TrainingResult",
    "bits_per_byte",
    "check_no_leak",
    "documents",
    "is_held_out",
    "learning_rate",
    "needs",
    "orthogonalised",
    "parameter_groups",
    "plot_loss",
    "read_metrics",
    "read_recipe",
    "train",
    "with_overrides",
]
