"""An MCP server that says whatever a test wants, also what no SDK would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from tests.support.site import Answer, Site, Visit

Speak = Callable[[Visit, Mapping[str, Any]], Answer]
"""A visit and its JSON-RPC message to an answer."""

GREETING: dict[str, Any] = {
    "protocolVersion": "2025-03-26",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "s", "version": "1"},
}
GOOD: dict[str, Any] = {"name": "good", "inputSchema": {"type": "object", "properties": {}}}


def reply(message: Mapping[str, Any], result: Any) -> Answer:
    """The JSON answer to a request."""
    return Answer.json({"jsonrpc": "2.0", "id": message["id"], "result": result})


def speaking(site: Site, **results: Any) -> str:
    """Serve these results, by method with `_` for `/`; one that is a function is asked (it gets the visit and the
    message).
    """
    known: dict[str, Any] = {
        "initialize": GREETING,
        "tools_list": {"tools": [GOOD]},
        "tools_call": {"content": []},
        **results,
    }

    def answer(visit: Visit) -> Answer:
        if visit.method != "POST":
            return Answer.text("no", status=405)
        message = json.loads(visit.body)
        if "id" not in message:
            return Answer(b"", 202, None)
        result = known.get(message["method"].replace("/", "_"))
        if callable(result):
            return cast("Speak", result)(visit, message)
        if result is None:
            error = {"code": -32601, "message": "Method not found"}
            return Answer.json({"jsonrpc": "2.0", "id": message["id"], "error": error})
        return reply(message, result)

    site.pages = {"/mcp": answer}
    return site.url("/mcp")
