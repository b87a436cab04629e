"""The names that upstreams see of the client's functions."""

from __future__ import annotations

import re
import zlib

_MAX_UPSTREAM_NAME = 64
_RESERVED = re.compile(
    r"(fn_)*(search|file_search|web_search|web_search_open|web_extractor|code_interpreter|web_search_image|image_search|knowledge_search"
    r"|mcp|mcp__.*|tool__.*)\Z"
)
"""Names that an upstream forbids or mistakes for its own tool, and those of built-in tools (`tool__` is for tools added
later).

A client's function with such a name is renamed for the upstream, and so is one that would collide with a renamed one.
"""


def upstream_name(name: str, namespace: str | None) -> str:
    """The name the upstream sees; the same for a call in the history as for an offered tool."""
    full = f"{namespace}__{name}" if namespace else name
    if _RESERVED.match(full):
        full = f"fn_{full}"
    if len(full) > _MAX_UPSTREAM_NAME:
        digest = f"{zlib.crc32(full.encode()):08x}"
        full = f"{full[: _MAX_UPSTREAM_NAME - 9]}_{digest}"
    return full
