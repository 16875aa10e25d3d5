"""Which models there are: bundled, pulled, in the hub's cache, or to be pulled."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from hanol.files import read_text
from hanol.models.pulled._catalogue import CATALOGUE, pulled_folder
from hanol.models.pulled._names import bundled_names, resolve

Place = Literal["bundled", "pulled", "hub cache", "to be pulled"]


class ModelEntry(BaseModel):
    """A model that can be named."""

    name: str
    place: Place = Field(description="Where it is.")
    kind: str = Field(description="Such as chat model, language model, heads, embeddings.")
    licence: str | None = Field(description="SPDX identifier; None where nothing states it.")
    num_bytes: int = Field(description="Size on disk; of one to be pulled, as it will be.")
    path: str | None = Field(description="Its folder.")


def list_models() -> list[ModelEntry]:
    """The models that are on this machine, and those that `pull` knows."""
    found = [_entry(name, "bundled", Path(resolve(name)), "Apache-2.0") for name in bundled_names()]
    missing = []
    for name, model in CATALOGUE.items():
        if (folder := pulled_folder(name)) is not None:
            found.append(_entry(name, "pulled", folder, model.licence))
        else:
            known = {"kind": model.kind, "licence": model.licence, "num_bytes": model.num_bytes}
            missing.append(ModelEntry(name=name, place="to be pulled", path=None, **known))
    from huggingface_hub import constants

    if Path(constants.HF_HUB_CACHE).is_dir():
        found += _cached(Path(constants.HF_HUB_CACHE))
    return found + missing


def _cached(folder: Path) -> list[ModelEntry]:
    """The models in the hub's cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir  # load an HTTP client

    found = []
    with suppress(CacheNotFound, OSError, ValueError):
        for repo in sorted(scan_cache_dir(folder).repos, key=lambda r: r.repo_id):
            if repo.repo_type == "model" and repo.revisions:
                newest = max(repo.revisions, key=lambda revision: revision.last_modified)
                found.append(_entry(repo.repo_id, "hub cache", newest.snapshot_path, None))
    return found


def _entry(name: str, place: Place, folder: Path, licence: str | None) -> ModelEntry:
    stated = re.search(r"^license:[ \t]*(\S+)", _text(folder / "README.md"), re.MULTILINE)
    return ModelEntry(
        name=name,
        place=place,
        kind=_kind(folder),
        licence=licence or (stated[1] if stated else None),
        num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        path=str(folder),
    )


def _kind(folder: Path) -> str:
    if (folder / "modules.json").is_file():
        return "embeddings"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    config = _text(folder / "config.json")
    if re.search(r'"model_type":\s*"autodeco"', config):
        return "heads"
    if not re.search("CausalLM|ConditionalGeneration", config):
        return "other"
    has_template = "chat_template" in _text(folder / "tokenizer_config.json")
    has_template = has_template or (folder / "chat_template.jinja").is_file()
    return "chat model" if has_template else "language model"


def _text(file: Path) -> str:
    try:
        return read_text(file, errors="replace")
    except OSError:
        return ""
