"""Selects the built-in tools that the upstream runs itself, as Qwen's vendor does in its Responses API.

Upstreams restrict them: some run only under conditions (`Capabilities.native_tools`), and calls can be neither forced
nor limited. `auto` runs a tool here if a restriction would be violated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from app.engine.hosted.catalog import Entry
from app.protocol.wire.errors import InvalidRequest
from app.providers.base import Capabilities

_GUIDANCE = {"type", "search_context_size"}
"""Members of an entry that are only hints."""


class UpstreamConditions(msgspec.Struct, frozen=True):
    """The upstream's capabilities, and how this request would run there."""

    can: Capabilities
    thinks: bool
    """The model thinks in this request."""
    demanded: bool
    """`tool_choice` forces a call."""
    limited: bool
    """`max_tool_calls` is set, which upstreams do not enforce."""


def native_entries(entries: Sequence[Entry], where: UpstreamConditions) -> Mapping[str, msgspec.Raw]:
    """Entry key -> the entry to forward.

    Raises InvalidRequest if the settings demand that the upstream run a tool that it cannot run.
    """
    able = {entry.key: raw for entry in entries if (raw := _forwardable(entry, where)) is not None}
    kinds = {entry.type for entry in entries if entry.key in able}
    chosen: dict[str, msgspec.Raw] = {}
    for entry in entries:
        why: str | None = "the upstream does not have it for this model, or not with these options"
        if entry.key in able:
            why = _obstacle(entry, where, kinds)
        if why is None:
            chosen[entry.key] = able[entry.key]
        elif entry.mode == "native":
            message = f"The tool '{entry.type}' is set to run at the upstream, but {why}."
            raise InvalidRequest(message, code="unsupported_tool", param=f"{entry.place}.type")
    return chosen


def _forwardable(entry: Entry, where: UpstreamConditions) -> msgspec.Raw | None:
    if entry.mode not in ("native", "auto") or entry.type not in where.can.native_tools:
        return None
    if entry.request is not None:
        return entry.request.native
    # It cannot be configured here, so only an entry without options is sure to match the vendor's tool.
    asked = msgspec.json.decode(entry.raw, type=dict[str, msgspec.Raw]).keys()
    return msgspec.Raw(msgspec.json.encode({"type": entry.type})) if asked <= _GUIDANCE else None


def _obstacle(entry: Entry, where: UpstreamConditions, kinds: set[str]) -> str | None:
    if where.demanded:
        return "a call cannot be forced there ('tool_choice')"
    if where.limited:
        return "calls cannot be limited there ('max_tool_calls')"
    conditions = where.can.native_tools[entry.type]
    if conditions.together_with is not None and conditions.together_with not in kinds:
        return f"it runs there only together with {conditions.together_with}"
    if conditions.thinking and not where.thinks:
        return "it runs there only while the model thinks (enable_thinking)"
    return None
