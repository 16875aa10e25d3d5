"""From one line of text to an engine."""

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from hanol.engines._cached import CachedEngine
from hanol.engines._engine import Engine
from hanol.engines._scripted import ScriptedEngine
from hanol.errors import ConfigError, EngineError


def open_engine(spec: str, **options: Any) -> Engine:
    """Open what a specification names.

    Args:
        spec: A checkpoint (a bundled or pulled name such as "tiny", a folder, a GGUF file, or a hub
            id owner/name), run in this process; "http://host:port/v1#model", a model behind an
            OpenAI-compatible endpoint; "chatml:CHECKPOINT", a base model that has no chat template,
            spoken to in chatml; "scripted:FILE.jsonl", answers from a file;
            "cached:FILE.jsonl:SPEC", SPEC with a log of its finished calls; "ray:N:SPEC", N
            processes on a Ray cluster that each open SPEC.
        options: Options of the engine: see `CheckpointEngine`, `EndpointEngine`, `ScriptedEngine`
            and `RayEngine`.

    Raises:
        ConfigError: The engine does not have one of the options, or its value is out of range.
        EngineError: The specification cannot be understood.
        CheckpointError: It names a checkpoint that cannot be loaded.
        MissingExtraError: An optional dependency is not installed.

    Example:
        >>> engine = open_engine("http://localhost:8000/v1#qwen3")
        >>> engine.name
        'http://localhost:8000/v1#qwen3'
    """
    # Heavy libraries are imported with the engine that needs them.
    kind, colon, rest = spec.partition(":")
    if kind == "scripted" and colon:
        _check_options(spec, options, ScriptedEngine)
        return ScriptedEngine.from_file(rest, **options)
    if kind == "cached" and colon:
        path, colon, inner = rest.partition(":")
        if not (path and inner):
            raise EngineError(
                f"{spec!r} is not a cached engine: it is written cached:FILE.jsonl:SPEC, such as "
                "cached:calls.jsonl:tiny."
            )
        return CachedEngine(open_engine(inner, **options), path)
    if kind in ("http", "https") and colon:
        from hanol.engines._endpoint import EndpointEngine

        _check_options(spec, options, EndpointEngine)
        return EndpointEngine(spec, **options)
    if kind == "ray" and colon:
        count, colon, inner = rest.partition(":")
        if not (colon and inner and count.isascii() and count.isdecimal()):
            raise EngineError(
                f"{spec!r} is not a fleet: it is written ray:N:SPEC, such as ray:4:tiny."
            )
        from hanol.engines._ray import RayEngine

        return RayEngine(inner, int(count), **options)
    if not spec.strip():
        raise EngineError(
            "No model is named: give a checkpoint folder, a hub id, or http://host:port/v1#model."
        )
    from hanol.engines.checkpoint._checkpoint import CheckpointEngine

    _check_options(spec, options, CheckpointEngine, CheckpointEngine.load)
    if kind == "chatml" and colon:
        return CheckpointEngine.load(rest, chat_template="chatml", **{"name": spec, **options})
    return CheckpointEngine.load(spec, **options)


def is_local(spec: str) -> bool:
    """Whether what a specification names sends nothing elsewhere, and writes nothing here.

    A checkpoint is local, although it may have to be downloaded; so are endpoints on loopback.
    """
    kind, colon, _ = spec.partition(":")
    with suppress(ValueError):
        if colon and kind in ("http", "https"):
            return is_loopback(urlsplit(spec).hostname or "")
        return not (colon and kind in ("cached", "ray"))
    return False  # no address at all


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_options(spec: str, options: dict[str, Any], *makers: Callable[..., Any]) -> None:
    parameters = [x for maker in makers for x in signature(maker).parameters.values()]
    known = sorted({x.name for x in parameters if x.kind is x.KEYWORD_ONLY})
    if unknown := sorted(options.keys() - known):
        raise ConfigError(
            f"{spec!r} has no option {', '.join(unknown)}: it takes {', '.join(known)}."
        )
