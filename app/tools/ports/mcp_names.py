"""What MCP is called: the type of its entries, and the functions that stand for the tools of a server."""

from __future__ import annotations

import re
import zlib

MCP = "mcp"
"""The `type` of an entry of `tools`."""
_FUNCTION_NAME = 64


def mcp_function(label: str, name: str) -> str:
    """The function name for the tool `name` of the MCP server `label`: valid for every upstream, and always the
    same.
    """
    full = f"mcp__{label}__{name}"
    safe = _safe(full)
    # `a__b` + `c` is not `a` + `b__c`, which another server may offer
    other_readings = "__" in label or label.endswith("_")
    if safe == full and len(full) <= _FUNCTION_NAME and not other_readings:
        return full
    return f"{safe[: _FUNCTION_NAME - 9]}_{zlib.crc32(full.encode()):08x}"


def is_of_mcp_server(function: str, label: str) -> bool:
    """Whether `mcp_function` may have produced the name for a tool of that server."""
    return function.startswith(_safe(f"mcp__{label}__")[: _FUNCTION_NAME - 9])


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
