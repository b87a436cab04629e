"""Clients that are known to send tools which nobody asked for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache


@lru_cache(maxsize=256)
def is_lenient(agent: bytes, patterns: tuple[str, ...]) -> bool:
    """Whether the `User-Agent` matches one of the patterns of `lenient_user_agents`."""
    return any(fnmatchcase(agent.decode("latin-1").lower(), pattern.lower()) for pattern in patterns)
