"""hanol: the language-model techniques of the 2025 papers on Hugging Face checkpoints."""

from importlib.metadata import version

__version__ = version("hanol")
__all__ = ["__version__"]
