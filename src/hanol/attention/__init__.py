"""Kimi Delta Attention and multi-head latent attention for transformers' Kimi-Linear models.

The operators (`chunk_kda`, `recurrent_kda`, `kda_gate`) and their definition in float64
(`reference_kda`), and the layers that put them into transformers (`register`, `accelerate`).
"""

from hanol.attention._gate import kda_gate
from hanol.attention._kda import chunk_kda, recurrent_kda
from hanol.attention._reference import reference_kda

__all__ = ["chunk_kda", "kda_gate", "recurrent_kda", "reference_kda"]
