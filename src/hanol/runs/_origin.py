"""Where a run was begun: a log that somebody sends names endpoints and folders of their choice."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from tempfile import NamedTemporaryFile
from typing import Any

from hanol.files import state_folder
from hanol.runs._events import RunStarted


def seal(fields: Mapping[str, Any]) -> str:
    """A hash of a first event that only this user of this machine can make.

    Its key lies in `$XDG_STATE_HOME`, else `~/.local/state`. It is empty where none can be kept.
    """
    try:
        secret = _secret()
    except OSError:
        return ""
    sealed = {name: fields[name] for name in sorted(fields.keys() - {"seal", "parent"})}
    text = json.dumps(sealed, sort_keys=True).encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def is_begun_here(started: RunStarted) -> bool:
    """Whether this user began the run on this machine; nobody else can make it seem so."""
    return started.seal != "" and hmac.compare_digest(started.seal, seal(started.content()))


def _secret() -> bytes:
    path = state_folder() / "secret"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent) as part:  # which nobody else may read
        part.write(secrets.token_bytes(32))
        part.flush()
        with suppress(FileExistsError):  # another process was first
            os.link(part.name, path)
    return path.read_bytes()
