"""The queries of a call, in any form that models use."""

from __future__ import annotations

from typing import Any, cast

import msgspec

MOST_QUERIES = 5
_LONGEST_QUERY = 1000


def queries_of(arguments: str) -> tuple[str, ...]:
    """Each query once, of `{"queries": [...]}`, `{"query": "…"}`, a bare list or a bare text."""
    value = decoded(arguments)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        value = fields.get("queries") or fields.get("query")
    written = cast("list[Any]", value) if isinstance(value, list) else [value]
    texts = (" ".join(text.split())[:_LONGEST_QUERY] for text in written if isinstance(text, str))
    return tuple(dict.fromkeys(filter(None, texts)))[:MOST_QUERIES]


def decoded(arguments: str) -> object:
    """Parsed JSON; other text, unless it is truncated JSON, as it is."""
    try:
        return msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None if arguments.lstrip().startswith(("{", "[", '"')) else arguments
