"""Engines: in-process checkpoints, endpoints and fleets of them behind one small protocol.

`open_engine` makes one of a line of text. Importing this room imports neither torch nor a client
library: `CheckpointEngine`, `EndpointEngine` and `RayEngine` are imported when they are used.
"""

import importlib as _importlib
import typing as _typing

from hanol.engines._cached import CachedEngine
from hanol.engines._conversation import Conversation
from hanol.engines._engine import Engine, WrappedEngine
from hanol.engines._open import is_local, open_engine
from hanol.engines._request import (
    AudioPart,
    Capability,
    Choice,
    Completion,
    Constraint,
    ImagePart,
    Message,
    Piece,
    Request,
    Role,
    Scored,
    TextPart,
    ToolCall,
    ToolSchema,
    Usage,
)
from hanol.engines._scripted import Reply, ScriptedEngine
from hanol.sampling import Sampling

if _typing.TYPE_CHECKING:
    from hanol.engines._endpoint import EndpointEngine as EndpointEngine
    from hanol.engines._ray import RayEngine as RayEngine
    from hanol.engines._ray import connect_ray as connect_ray
    from hanol.engines.checkpoint._checkpoint import CheckpointEngine as CheckpointEngine

_HEAVY = {
    "CheckpointEngine": "hanol.engines.checkpoint._checkpoint",
    "EndpointEngine": "hanol.engines._endpoint",
    "RayEngine": "hanol.engines._ray",
    "connect_ray": "hanol.engines._ray",
}


def __getattr__(name: str) -> _typing.Any:
    if name in _HEAVY:
        return getattr(_importlib.import_module(_HEAVY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "AudioPart",
    "CachedEngine",
    "Capability",
    "CheckpointEngine",
    "Choice",
    "Completion",
    "Constraint",
    "Conversation",
    "EndpointEngine",
    "Engine",
    "ImagePart",
    "Message",
    "Piece",
    "RayEngine",
    "Reply",
    "Request",
    "Role",
    "Sampling",
    "Scored",
    "ScriptedEngine",
    "TextPart",
    "ToolCall",
    "ToolSchema",
    "Usage",
    "WrappedEngine",
    "connect_ray",
    "is_local",
    "open_engine",
]
