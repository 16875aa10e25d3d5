"""Models and tokenizers with AutoDeco heads, for what compares decoding settings."""

from tests.autodeco.conftest import byte_tokenizer

__all__ = ["byte_tokenizer"]
