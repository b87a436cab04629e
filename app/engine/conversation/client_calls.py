"""How the items of tools that the client runs become a call and its result: a table with one row per kind of tool.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from app.engine.conversation import content
from app.protocol.messages import Part
from app.protocol.wire.requests import InputItem


class CallKind(msgspec.Struct, frozen=True):
    """One kind of tool: the item of the call, and the item with its result."""

    call: str
    output: str
    arguments: Callable[[InputItem], str]
    """The arguments as the model wrote them."""
    name: str | None = None
    """The function; None: the item names it."""
    result: Callable[[InputItem, str], tuple[str, Sequence[Part]]] = content.of_result
    """(item, its place) -> the text of the result, and its parts that are not text. Raises InvalidRequest."""


def _arguments(item: InputItem) -> str:
    return item.arguments or "{}"


def _free_text(item: InputItem) -> str:
    return msgspec.json.encode({"input": item.input or ""}).decode()


_ROWS = (
    CallKind("function_call", "function_call_output", _arguments),
    CallKind("custom_tool_call", "custom_tool_call_output", _free_text),
)

CALLS: Mapping[str | None, CallKind] = {row.call: row for row in _ROWS}
OUTPUTS: Mapping[str | None, CallKind] = {row.output: row for row in _ROWS}
