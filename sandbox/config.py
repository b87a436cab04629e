"""The configuration of a standalone service: `SANDBOX_` variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sandbox.limits import MEBIBYTE
from sandbox.protocol import Config

_MIN_TOKEN = 20


class ConfigurationError(Exception):
    """The message says what to set."""


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
