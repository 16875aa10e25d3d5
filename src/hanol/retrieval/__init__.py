"""Retrieval: documents become passages in a hybrid index; citations and their checks."""

from hanol.retrieval._passage import Ledger, Passage, Source

__all__ = ["Ledger", "Passage", "Source"]
