"""From a name to a place: a bundled or pulled model, a folder, a GGUF file, or a hub id."""

from difflib import get_close_matches
from functools import cache
from pathlib import Path

from hanol.errors import CheckpointError
from hanol.models.pulled._catalogue import CATALOGUE, pulled_folder

ADAPTER_CONFIG = "adapter_config.json"
_BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_names() -> list[str]:
    """Models that are part of the package."""
    return sorted(entry.name for entry in _BUNDLED.iterdir() if entry.is_dir())


def resolve(spec: str | Path) -> str:
    """The folder, GGUF file or hub id behind a name.

    Raises:
        CheckpointError: It is no bundled or pulled model, no checkpoint folder, no GGUF file and no
            hub id owner/name.
    """
    text = str(spec)
    if not text.strip():
        raise CheckpointError(
            "No checkpoint is named: give a bundled name, a folder, a GGUF file or a hub id."
        )
    if text in bundled_names():
        return str(_BUNDLED / text)
    if (pulled := pulled_folder(text)) is not None:
        return str(pulled)
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as err:  # too long, no such user, a zero byte
        raise CheckpointError(f"{text[:80]!r} cannot be read as a checkpoint: {err}"[:300]) from err
    if path.is_dir():
        if not any((path / name).exists() for name in ("config.json", ADAPTER_CONFIG)):
            names = sorted(entry.name for entry in path.iterdir())[:5]
            raise CheckpointError(
                f"{text!r} has no config.json: it is not a checkpoint. "
                f"It holds {', '.join(names) or 'nothing'}."
            )
        for entry in (*path.iterdir(), *path.glob("*/*.jinja")):
            if entry.exists() and not (entry.is_file() or entry.is_dir()):
                raise CheckpointError(
                    f"{str(entry)!r} is a pipe or a device, and no file: reading it could go on "
                    "for ever. Remove it."
                )
        return str(path)
    if path.is_file():
        from hanol.models.gguf._header import is_gguf  # loads numpy

        if is_gguf(path):
            return str(path)
        raise CheckpointError(
            f"{text!r} is a file, but no GGUF file: a checkpoint is one, or a folder with "
            "config.json."
        )
    looks_like_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
    if looks_like_path or path.suffix == ".gguf":
        raise CheckpointError(f"There is no folder or GGUF file {text!r}.")
    if text in CATALOGUE:
        raise CheckpointError(
            f"{text!r} is not on this machine yet: run `hanol models pull {text}`."
        )
    if "/" not in text:
        near = get_close_matches(text.lower(), [*bundled_names(), *CATALOGUE], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        from hanol.models._presets import preset_names  # loads transformers

        if text in preset_names():
            hint = (
                " It is a preset without weights: train it, or build it with `hanol.models.build`."
            )
        raise CheckpointError(
            f"{text!r} is neither a bundled model ({', '.join(bundled_names())}), nor a pulled one "
            f"({', '.join(CATALOGUE)}), nor a folder or GGUF file, nor a hub id of the form "
            f"owner/name.{hint}"
        )
    from huggingface_hub import try_to_load_from_cache  # loads an HTTP client

    if not isinstance(try_to_load_from_cache(text, "config.json"), str):
        _need_hub(text)
    return text


@cache
def _need_hub(name: str) -> None:
    """The hub's client tries each file for half a minute; this asks once for all of them."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        HfApi().model_info(name, timeout=5.0)
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):
        return  # it answers, or nobody may ask: who loads says what is wrong
    except Exception as err:  # the libraries below raise all kinds
        raise CheckpointError(
            f"{name!r} is no folder here, and the hub does not answer ({err}). Name a folder, a "
            "GGUF file or a model of `hanol models`, or try again with a network."
        ) from err
