"""Results of servers, made fit for the SDK's strict types: one odd tool or block of content would cost the whole result.

What the server really said goes through beside it, for `_mcp_listing` and `_mcp_content` to read field by field.
"""

from __future__ import annotations

from typing import Any, cast

from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

RAW = "responses-gateway/raw"
"""Within `_meta` of a result: what the server said."""
_FALLBACK_VERSION = "2025-03-26"
"""For servers that name none; the first with streamable HTTP."""

Result = dict[str, Any]


class UnknownVersion(Exception):
    """The server speaks a version of the protocol that is not known here."""


def fit(method: str, result: Result) -> Result:
    """The result as the SDK takes it. Raises UnknownVersion."""
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
    """What of a tool the SDK has to know: which arguments go into headers, too."""
    if not isinstance(tool, dict):
        return None
    fields = cast("Result", tool)
    name, schema = fields.get("name"), fields.get("inputSchema")
    given: Any = cast("Result", schema).get("properties") if isinstance(schema, dict) else None
    properties = cast("Result", given) if isinstance(given, dict) else {}
    plain: Result = {argument: one for argument, one in properties.items() if isinstance(one, dict)}
    return {"name": name, "inputSchema": {"type": "object", "properties": plain}} if isinstance(name, str) else None
