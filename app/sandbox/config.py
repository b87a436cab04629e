"""The service's configuration: `SANDBOX_` variables, or, if a gateway starts it, one line of JSON on standard input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from app.sandbox.backends import Name
from app.sandbox.limits import MEBIBYTE, Limits

_MIN_TOKEN = 20
_Count = Annotated[int, msgspec.Meta(ge=1)]


class ConfigurationError(Exception):
    """The message says what to set."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one service."""

    token: str
    """The secret that clients must send."""
    listen: str
    """`host:port`, or `unix:` and a path."""
    backend: Name | None = None
    """None: the first that passes its self-test."""
    sessions: _Count = 16
    """At most; when they are all in use, the least recently used one is removed."""
    runs: _Count | None = None
    """Concurrent runs; None: twice the number of processors, and at least four."""
    volumes: str | None = None
    """A directory of file systems mounted for sessions, one each; None: the service creates its own."""
    limits: Limits = msgspec.field(default_factory=Limits)


_VARIABLES = {
    "SANDBOX_TOKEN": "token",
    "SANDBOX_LISTEN": "listen",
    "SANDBOX_SESSIONS": "sessions",
    "SANDBOX_RUNS": "runs",
    "SANDBOX_BACKEND": "backend",
    "SANDBOX_VOLUMES": "volumes",
}
_LIMITS = {
    "SANDBOX_MEMORY_MB": ("memory_bytes", MEBIBYTE),
    "SANDBOX_DISK_MB": ("disk_bytes", MEBIBYTE),
    "SANDBOX_SECONDS": ("seconds", 1),
    "SANDBOX_CPU_SECONDS": ("cpu_seconds", 1),
    "SANDBOX_IDLE_MINUTES": ("idle_seconds", 60),
}


def from_environment(environment: Mapping[str, str]) -> Config:
    """Raises ConfigurationError."""
    unknown = sorted(
        name for name in environment if name.startswith("SANDBOX_") and name not in {*_VARIABLES, *_LIMITS}
    )
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]}: no such setting; the settings are {', '.join((*_VARIABLES, *_LIMITS))}"
        )
    values: dict[str, Any] = {field: environment[name] for name, field in _VARIABLES.items() if environment.get(name)}
    if len(values.get("token", "")) < _MIN_TOKEN:
        raise ConfigurationError(
            f"SANDBOX_TOKEN: set the gateway's GATEWAY_SANDBOX_TOKEN, a secret of at least {_MIN_TOKEN} characters"
        )
    if values.get("backend") == "auto":
        del values["backend"]
    try:
        limits = {
            field: int(environment[name]) * unit for name, (field, unit) in _LIMITS.items() if environment.get(name)
        }
        return msgspec.convert({"listen": "127.0.0.1:8070", **values, "limits": limits}, Config, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"SANDBOX_ settings: {error}") from error
