"""Calls of tools in a model's text, as chat templates teach them.

Agents have a lenient parser of their own (`hanol.tools`); this one reads what is written right.
"""

import json
import re
from typing import Any

from hanol.engines._request import ToolCall, ToolSchema

_BLOCK = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def read_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls in blocks such as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""
    calls = []
    said = text.rpartition("</think>")[2]  # what stands before is thought
    for number, match in enumerate(_BLOCK.finditer(said)):
        try:
            block = json.loads(match[1])
        except ValueError:
            block = None
        name = block.get("name") if isinstance(block, dict) else None
        if isinstance(block, dict) and isinstance(name, str):
            calls.append(tool_call(name, block.get("arguments", {}), f"call_{number}"))
    return tuple(calls)


def tool_call(name: str, arguments: Any, id: str) -> ToolCall:
    """A call whose arguments are an object, perhaps written as a string of JSON."""
    read = arguments
    try:
        for _ in range(2):  # some servers encode them twice
            if isinstance(read, str):
                read = json.loads(read.strip() or "{}", strict=False)
        read = {} if read is None else read
    except ValueError:
        read = None
    if isinstance(read, dict):
        return ToolCall(name, read, id)
    return ToolCall(
        name, {}, id, arguments if isinstance(arguments, str) else json.dumps(arguments)
    )


def described(tool: ToolSchema) -> dict[str, Any]:
    """A tool in the form that chat templates and endpoints read."""
    about = {"name": tool.name, "description": tool.description}
    return {"type": "function", "function": {**about, "parameters": dict(tool.parameters)}}
