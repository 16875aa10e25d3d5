"""Resuming: a run continues only with the settings and the data that it was started with."""

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from hanol.errors import HanolError, RunError, TrainingError
from hanol.files import (
    read_json,
    read_text,
    refuse_links,
    replace_json,
    replace_text,
)

_log = logging.getLogger(__name__)
_LONGEST = 60  # characters of a value in a message


class ResumeGuard:
    """Keeps a run's settings in a file of its folder, and refuses to resume with others.

    Args:
        settings: Everything that decides the result. What JSON does not have is kept as it has
            it: tuples as lists, paths as text.
        what: What is resumed, for messages.
        free: Settings that may change: how often to save, how many threads; see `check_unchanged`.
        file: Where the settings are kept.
        made: Files that a resumed run reads back; without the settings they are refused.

    Example:
        >>> guard = ResumeGuard("runs/tiny", {"recipe": {"lr": 0.1}})  # doctest: +SKIP
        >>> if not guard.check(resume=True):  # doctest: +SKIP
        ...     guard.write()
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        what: str = "run",
        free: Set[str] = frozenset(),
        file: str = "recipe.yaml",
        made: Iterable[str] = (),
    ) -> None:
        self.folder = Path(folder)
        self.file = self.folder / file
        self._settings: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        self._what, self._free, self._made = what, free, made

    def check(self, *, resume: bool) -> bool:
        """Whether the run was started before, with the same settings.

        Args:
            resume: Whether the user asked to resume.

        Raises:
            RunError: The folder has a run and `resume` is not set, settings have changed, or what
                was made with them is there without them.
            WriteError: There is a link in the folder.
        """
        refuse_links(self.folder)
        if not self.file.exists():
            for name in self._made:
                if (self.folder / name).exists():
                    raise RunError(
                        f"{str(self.folder / name)!r} has no {self.file.name!r} beside it, which "
                        "would say what made it. Delete it, or use another --output."
                    )
            return False
        if not resume:
            raise RunError(
                f"{str(self.folder)!r} already has a run. Resume it with --resume, or use another "
                "--output."
            )
        try:
            stored = yaml.safe_load(read_text(self.file))
        # No UTF-8, a date that does not exist, brackets in brackets.
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as err:
            raise RunError(
                f"Cannot resume the {self._what}: {str(self.file)!r} cannot be read: {err}. Use "
                "another --output."
            ) from err
        if not isinstance(stored, dict):
            raise RunError(
                f"Cannot resume the {self._what}: {str(self.file)!r} is damaged, it holds no "
                "settings. Put it back as it was, or use another --output."
            )
        old = {name: stored.get(name) for name in self._settings}
        what = f"the {self._what} in {str(self.folder)!r}"
        check_unchanged(what, old, self._settings, self._free)
        return True

    def write(self) -> None:
        """Keep the settings, with the versions and the hardware that the run starts on.

        Raises:
            WriteError: The disk is full, or the file cannot be written.
        """
        content = {**self._settings, **environment()}
        replace_text(self.file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def check_unchanged(
    what: str, old: Mapping[str, Any], new: Mapping[str, Any], free: Set[str] = frozenset()
) -> None:
    """Check that settings have not changed since a run was started.

    Args:
        what: What is resumed and where it is: "the run in 'runs/tiny'".
        old: Settings that it was started with; may be nested.
        new: Settings now.
        free: Names, at any depth, or dotted names, from the top, that may change.

    Raises:
        RunError: Settings have changed; the message names each, with both values.
    """
    changed = list(_changes(old, new, free))
    if changed:
        verb, value = ("have", "values") if len(changed) > 1 else ("has", "value")
        raise RunError(
            f"Cannot resume {what}: {', '.join(changed)} {verb} changed since it was started. Use "
            f"another --output, or restore the old {value}."
        )


@contextmanager
def restoring(checkpoint: Path, *, is_done: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Within the block, whatever a checkpoint makes the libraries raise is a `TrainingError`.

    Checksums find what was damaged, but not what somebody changed together with them.

    Args:
        checkpoint: What is read.
        is_done: Whether it was restored, and all else is no fault of its files.
    """
    try:
        yield
    except HanolError:
        raise
    except Exception as err:
        kind = type(err).__name__
        if is_done() or kind in {"MemoryError", "OutOfMemoryError"}:  # the latter is torch's
            raise
        cause = f"{kind}: {' '.join(str(err).split())[:160]}".rstrip(": .")
        raise TrainingError(
            f"Cannot resume from {str(checkpoint)!r}: its files are not what this training wrote "
            f"({cause}). Remove it to resume from an older one, or start again with another "
            "--output."
        ) from err


def can_reuse(
    cached: str | os.PathLike[str], sources: Mapping[str, Any], *, in_use: bool = False
) -> bool:
    """Whether cached data can be used again: they are there, and were made from these sources.

    Data of other sources are made anew, which is logged in a line.

    Args:
        cached: File or folder of the data.
        sources: Hashes and settings of what they are made from, as JSON has them.
        in_use: A run has learned from them, so that other data would make it another run.

    Raises:
        RunError: They are in use and were made from other sources; the message names these.
    """
    cached, note = Path(cached), _note(cached)
    if not cached.exists():
        return False
    try:
        old = read_json(note)
    except (OSError, ValueError):  # the process was killed before it was written
        old = None
    if old == sources:
        return True
    if in_use:
        old = old if isinstance(old, dict) else {}
        check_unchanged(f"the run whose data are in {str(cached)!r}", old, sources)
    _log.warning("%s is made anew: its source, tokenizer or settings have changed.", cached)
    note.unlink(missing_ok=True)  # before the data: it must never stand beside others
    return False


def note_sources(cached: str | os.PathLike[str], sources: Mapping[str, Any]) -> None:
    """Note beside cached data what they were made from; for `can_reuse`.

    Raises:
        WriteError: The disk is full, or the file cannot be written.
    """
    replace_json(_note(Path(cached)), sources)


def _note(cached: Path) -> Path:
    return cached.with_name(f"{cached.stem}.source.json")


def environment() -> dict[str, Any]:
    """Versions, hardware and command line, for the reader of a result."""
    versions = {name: version(name) for name in ("hanol", "torch", "transformers", "tokenizers")}
    torch = sys.modules.get("torch")  # whoever did not need it, does not pay for its import
    hardware: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    if torch is not None:
        hardware["threads"] = torch.get_num_threads()
        cuda = torch.cuda.is_available()
        hardware["gpu"] = torch.cuda.get_device_name(0) if cuda else None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": hardware,
        "command": " ".join(["hanol", *sys.argv[1:]]),
    }


def _changes(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Set[str], at: str = ""
) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name in free or f"{at}{name}" in free:
            continue
        before, now = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _changes(before, now, free, f"{at}{name}.")
        elif before != now and repr(before) != repr(now):  # NaN does not equal itself
            yield f"`{at}{name}` (was {_short(before)}, now {_short(now)})"


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 20]}... ({len(text)} characters)"
