"""Engines: in-process checkpoints, endpoints and fleets of them behind one small protocol."""

from hanol.engines._engine import ChatRequest, Completion, Engine, Message, Role

__all__ = ["ChatRequest", "Completion", "Engine", "Message", "Role"]
