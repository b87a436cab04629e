"""Tools of remote MCP servers; `app.discovery` looks here for the tool."""

from app.tools.mcp.tool import TOOL

__all__ = ["TOOL"]
