"""Engines: in-process checkpoints, endpoints and fleets of them behind one small protocol.

`open_engine` makes one of a line of text. Importing this room imports neither torch nor a client
library: `CheckpointEngine`, `EndpointEngine` and `RayEngine` are imported when they are used.
"""

import typing as _typing

from hanol.lazy import lazy_names as _lazy_names

if _typing.TYPE_CHECKING:
    from hanol.engines._cached import CachedEngine
    from hanol.engines._conversation import Conversation
    from hanol.engines._endpoint import EndpointEngine
    from hanol.engines._engine import Engine, WrappedEngine
    from hanol.engines._open import is_local, open_engine
    from hanol.engines._ray import RayEngine, connect_ray
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
    from hanol.engines.checkpoint._checkpoint import CheckpointEngine
    from hanol.sampling import Sampling

__getattr__, __dir__ = _lazy_names(__name__)

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
