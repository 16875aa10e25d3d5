"""The engine of a transformers checkpoint in this process.

One thread runs the model: requests join between two tokens, and what was computed of earlier ones
is taken up again.
"""

from hanol.engines.checkpoint._checkpoint import CheckpointEngine

__all__ = ["CheckpointEngine"]
