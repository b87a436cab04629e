"""Servers' results adapted to the SDK's strict types: one nonconforming tool or content block would fail the whole
result.

The original is passed along, for `_mcp_listing` and `_mcp_content` to read field by field.
"""

from __future__ import annotations

from typing import Any, cast

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

RAW = "responses-gateway/raw"
"""Within `_meta` of a result: the server's original."""
_FALLBACK_VERSION = "2025-03-26"
"""For servers that name no version; the first one with streamable HTTP."""

Result = dict[str, Any]


class UnknownVersion(Exception):
    """The server uses an unknown version of the protocol."""


def fit(method: str, result: Result) -> Result:
    """The result as the SDK accepts it. Raises UnknownVersion."""
    match method:
        case "initialize":
            return _agreed(result)
        case "tools/list":
            return _list(result)
        case "tools/call":
            return {"content": [], "resultType": "complete", "_meta": {RAW: result}}
        case _:
            return result


def _agreed(result: Result) -> Result:
    version = result.get("protocolVersion") or _FALLBACK_VERSION
    if version not in HANDSHAKE_PROTOCOL_VERSIONS:
        raise UnknownVersion
    return {"protocolVersion": version, "capabilities": {}, "serverInfo": {"name": "", "version": ""}}


def _list(result: Result) -> Result:
    given: Any = result.get("tools")
    tools = cast("list[Any]", given) if isinstance(given, list) else []
    plain = [one for tool in tools if (one := _plain(tool)) is not None]
    cacheable = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    cursor = result.get("nextCursor")
    further = {"nextCursor": str(cursor)} if cursor and isinstance(cursor, str | int) else {}
    return {"tools": plain, **cacheable, **further, "_meta": {RAW: tools}}


def _plain(tool: Any) -> Result | None:
    """The parts of a tool that the SDK needs: which arguments are also sent as headers."""
    if not isinstance(tool, dict):
        return None
    fields = cast("Result", tool)
    name, schema = fields.get("name"), fields.get("inputSchema")
    given: Any = cast("Result", schema).get("properties") if isinstance(schema, dict) else None
    properties = cast("Result", given) if isinstance(given, dict) else {}
    plain: Result = {argument: one for argument, one in properties.items() if isinstance(one, dict)}
    return {"name": name, "inputSchema": {"type": "object", "properties": plain}} if isinstance(name, str) else None
