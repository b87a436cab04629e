"""Input items as listed: with all fields that typed clients require, even if a short form was sent."""

from __future__ import annotations

from typing import Any

import msgspec

_TEXT_PARTS = {"assistant": "output_text"}

_DEFAULTS: dict[str, dict[str, Any]] = {
    "tool_search_call": {"execution": "client"},
    "tool_search_output": {"execution": "client"},
    "additional_tools": {"role": "developer"},
}
_WITHOUT_STATUS = frozenset(
    {"additional_tools", "reasoning", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"}
)


def shown(raw: msgspec.Raw) -> dict[str, Any]:
    """The stored item with the API's defaults filled in (openai SDK type `ResponseItem`)."""
    item: dict[str, Any] = msgspec.json.decode(raw)
    kind = item["type"] = item.get("type") or "message"
    if kind == "message":
        return _message(item)
    if kind == "reasoning":
        item["summary"] = item.get("summary") or []
    if kind == "local_shell_call" and isinstance(item.get("action"), dict):
        item["action"] = {"env": {}, **item["action"]}
    for name, value in _DEFAULTS.get(kind, {}).items():
        item[name] = item.get(name) or value
    if kind not in _WITHOUT_STATUS and not item.get("status"):
        item["status"] = "completed"
    return {key: value for key, value in item.items() if value is not None}


def _message(item: dict[str, Any]) -> dict[str, Any]:
    item["status"] = item.get("status") or "completed"
    role = item.get("role")
    part_type = _TEXT_PARTS.get(str(role), "input_text")
    content = item.get("content")
    parts: list[dict[str, Any]] = (
        [{"type": part_type, "text": content}] if isinstance(content, str) else list(content or [])
    )
    item["content"] = [_part(part, part_type) for part in parts]
    return item


def _part(part: dict[str, Any], part_type: str) -> dict[str, Any]:
    part = {key: value for key, value in part.items() if value is not None}
    if part.get("type") == "text":
        part["type"] = part_type
    if part["type"] == "output_text":
        part.setdefault("annotations", [])
        part.setdefault("logprobs", [])
    elif part["type"] == "input_image":
        part.setdefault("detail", "auto")
    return part
