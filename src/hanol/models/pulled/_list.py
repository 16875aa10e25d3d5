"""Which models there are: bundled, pulled, in the hub's cache, or to be pulled."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from huggingface_hub import CacheNotFound, scan_cache_dir
from pydantic import BaseModel, Field

from hanol.models._load import bundled_names, resolve
from hanol.models.pulled._catalogue import CATALOGUE, pulled_folder

Place = Literal["bundled", "pulled", "hub cache", "to be pulled"]


class ModelEntry(BaseModel):
    """A model that can be named."""

    name: str
    place: Place = Field(description="Where it is.")
    kind: str = Field(
        description='"chat model", "language model", "heads" of AutoDeco, "adapter", "embeddings", '
        'or "other".'
    )
    licence: str | None = Field(description="SPDX identifier; None where nothing states it.")
    num_bytes: int = Field(description="Size on disk; of one to be pulled, as it will be.")
    path: str | None = Field(description="Its folder.")


def list_models() -> list[ModelEntry]:
    """The models that are on this machine, and those that `pull` knows."""
    return [*_bundled(), *_pulled(), *_in_hub_cache()]


def _bundled() -> Iterator[ModelEntry]:
    for name in bundled_names():
        folder = Path(resolve(name))
        yield _entry(name, "bundled", folder, "Apache-2.0")


def _pulled() -> Iterator[ModelEntry]:
    missing = []
    for name, model in CATALOGUE.items():
        if (folder := pulled_folder(name)) is not None:
            yield _entry(name, "pulled", folder, model.licence)
            continue
        missing.append(
            ModelEntry(
                name=name, place="to be pulled", kind=model.kind, licence=model.licence,
                num_bytes=model.num_bytes, path=None,
            )
        )  # fmt: skip
    yield from missing


def _in_hub_cache() -> Iterator[ModelEntry]:
    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repo in sorted(repos, key=lambda one: one.repo_id):
        if repo.repo_type != "model" or not repo.revisions:
            continue
        newest = max(repo.revisions, key=lambda one: one.last_modified)
        entry = _entry(repo.repo_id, "hub cache", newest.snapshot_path, None)
        yield entry.model_copy(update={"num_bytes": repo.size_on_disk})


def _entry(name: str, place: Place, folder: Path, licence: str | None) -> ModelEntry:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ModelEntry(
        name=name, place=place, kind=_kind(folder), licence=licence or _card_licence(folder),
        num_bytes=size, path=str(folder),
    )  # fmt: skip


def _kind(folder: Path) -> str:
    if (folder / "modules.json").is_file():
        return "embeddings"
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    config = _object(folder / "config.json")
    if config.get("model_type") == "autodeco":
        return "heads"
    architectures = str(config.get("architectures"))
    if "CausalLM" not in architectures and "ConditionalGeneration" not in architectures:
        return "other"
    template = (folder / "chat_template.jinja").is_file()
    settings = _object(folder / "tokenizer_config.json")
    return "chat model" if template or "chat_template" in settings else "language model"


def _card_licence(folder: Path) -> str | None:
    """The licence that the model card states."""
    try:
        head = (folder / "README.md").read_text("utf-8", errors="replace")[:4000]
    except OSError:
        return None
    found = re.search(r"^license:[ \t]*(\S+)", head, re.MULTILINE)
    return found[1] if found else None


def _object(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
