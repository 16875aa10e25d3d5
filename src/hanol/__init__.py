"""hanol: the language-model techniques of the 2025 papers on Hugging Face checkpoints."""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # The version is read when it is asked for: that takes longer than all else at import.
    if name == "__version__":
        from importlib.metadata import version

        return version("hanol")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
