"""Rows of released files with conversations; errors name the file and line."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hanol.engines import Message
from hanol.errors import DataError
from hanol.rows import read_rows


def located_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file, each with its location for error messages."""
    for line, row in read_rows(path):
        yield f"{str(path)!r}, line {line}", row


def text_field(row: Mapping[str, Any], key: str, place: str) -> str:
    """The string under a key; numbers become strings."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"{place}: `{key}` is {value!r:.80}, but must be a string.")
    return value


def messages_field(row: Mapping[str, Any], key: str, place: str) -> tuple[Message, ...]:
    """The conversation under a key; tool results become user messages."""
    messages = row.get(key)
    if isinstance(messages, str):  # in some releases the dialogue is a JSON string
        try:
            messages = json.loads(messages)
        except ValueError as err:
            raise DataError(f"{place}: `{key}` is a string, but not JSON ({err}).") from err
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{place}: `{key}` is not a list of messages.")
    found = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role == "tool":  # official checkpoints read tool results as the user's
            role = "user"
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise DataError(
                f"{place}: message {number} of `{key}` needs a `role` (system, user, assistant or "
                f"tool) and a text as `content`, but is {message!r:.80}."
            )
        found.append(Message(role, content))
    return tuple(found)
