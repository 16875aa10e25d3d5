"""The exceptions of every room; each is also the builtin that fits.

The command line prints any of these as one line and exits with 1; everything else is a bug: one
line with the path of a log, and exit code 70.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

__all__ = [
    "AddressError",
    "CacheError",
    "CapabilityError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DocumentError",
    "EngineError",
    "HanolError",
    "MissingExtraError",
    "MissingSourceError",
    "RecipeError",
    "RunError",
    "SandboxError",
    "SearchIndexError",
    "ShapeError",
    "ToolError",
    "TrainingError",
    "UnknownNameError",
    "WriteError",
    "require",
]


class HanolError(Exception):
    """Base of every error that a user can cause and cure."""


class ShapeError(HanolError, ValueError):
    """Tensors whose shapes or dtypes do not fit together."""


class ConfigError(HanolError, ValueError):
    """A model configuration that contradicts itself."""


class RecipeError(ConfigError):
    """A recipe with an unknown key, a missing file or a value out of range."""


class UnknownNameError(HanolError, LookupError):
    """A name that stands for nothing; the message lists the nearest and all known names.

    Args:
        kind: What was looked up, in the singular ("preset", "claim").
        name: The name as the user gave it.
        known: Every name that would have worked.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"No {kind} is named {name!r}.{hint} Known: {', '.join(known) or 'none'}.")


class CheckpointError(HanolError, ValueError):
    """A model folder that cannot be read or written."""


class CacheError(HanolError, ValueError):
    """A cache that belongs to another model, or cannot do what was asked."""


class WriteError(HanolError, OSError):
    """A file or a folder that cannot be written: the disk is full, the rights are missing.

    Args:
        path: The file or folder.
        reason: Why, in words.
        hint: What the user can do, as a sentence.
    """

    def __init__(self, path: object, reason: str, hint: str = "") -> None:
        super().__init__(f"{str(path)!r} could not be written: {reason}. {hint}".rstrip())
        self.reason = reason


class DataError(HanolError, ValueError):
    """Training or evaluation data that cannot be used."""


class MissingSourceError(DataError):
    """Something to judge by its source, of which only a pointer is there."""


class TrainingError(HanolError, RuntimeError):
    """A training run that had to stop."""


class EngineError(HanolError, RuntimeError):
    """A model that did not answer: endpoint down, key refused, prompt longer than the window."""


class CapabilityError(EngineError):
    """A request that needs what its engine lacks, or a constraint that it cannot follow."""


class DocumentError(HanolError, ValueError):
    """A document that cannot be read: encrypted, scanned, broken, of an unknown kind."""


class SearchIndexError(HanolError, ValueError):
    """An index that cannot be used: empty, or made by another version or embedder."""


class AddressError(HanolError, ValueError):
    """An address or a path that must not be opened: private network, outside the folder."""


class SandboxError(HanolError, RuntimeError):
    """Code that cannot be run in isolation on this machine."""


class ToolError(HanolError, RuntimeError):
    """A tool that cannot be used: no search provider, a key that is refused, no consent."""


class RunError(HanolError, ValueError):
    """A run that cannot be started, resumed or replayed: other settings, a damaged log."""


class MissingExtraError(HanolError, ImportError):
    """An optional dependency is not installed."""


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    Args:
        module: Dotted name of the module to import.
        extra: Name of the extra of the `hanol` package that installs it.
        feature: What the user asked for, as the start of a sentence.

    Raises:
        MissingExtraError: The module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        if err.name != module.partition(".")[0]:
            raise  # installed but broken: show the real cause
        raise MissingExtraError(f"{feature} needs {module}: pip install 'hanol[{extra}]'") from err
