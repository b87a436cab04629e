"""Lists of tools as requests bring them, and what is made of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from app.engine.request.toolset import Toolset, build
from tests.engine.scripted import NO_TOOLS

Json = dict[str, Any]


def raw(value: object) -> msgspec.Raw:
    """A value as it stands in a request."""
    return msgspec.Raw(json.dumps(value).encode())


def built(*tools: Json, choice: object = None, lenient: bool = False) -> Toolset:
    """The toolset of a request with these tools."""
    return build([raw(tool) for tool in tools], None if choice is None else raw(choice), NO_TOOLS, "m", lenient=lenient)


def names(tools: Toolset) -> list[str]:
    """What the upstream is offered."""
    return [function.name for function in tools.functions]
