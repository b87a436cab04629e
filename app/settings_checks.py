"""Types of settings that not every text fits; the error says what is expected."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

_MIN_ADMIN_KEY = 20
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:\d{1,5})?")
"""As browsers send it: lower case, nothing after the port. Programs in a web view have their own schemes."""
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")


def _whole_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            expected = "expected `*`, or scheme, host and port as in `https://app.example.com`"
            raise ValueError(f"{origin!r} is not an origin: {expected}")
    return origins


def _readable_networks(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if not _HOST.fullmatch(entry) and not _is_network(entry):
            expected = "such as `wiki.corp`, `10.1.2.3` or `10.1.0.0/16`"
            raise ValueError(f"{entry!r} is not a host, address or network, {expected}")
    return entries


def _is_network(entry: str) -> bool:
    try:
        ip_network(entry.strip("[] "))
    except ValueError:
        return False
    return True


def _plain_path(path: str) -> str:
    path = path.rstrip("/")
    if not _ROOT_PATH.fullmatch(path):
        raise ValueError("expected a path like `/llm`: a leading slash, then only letters, digits and `-._~`")
    return path


def _real_models(aliases: dict[str, str]) -> dict[str, str]:
    for alias, model in aliases.items():
        if not alias.strip() or not model.strip():
            raise ValueError("expected `alias=model`: neither may be empty")
        if model in aliases:
            raise ValueError(f"`{alias}` refers to `{model}`, which is itself an alias: use the model's name")
    return aliases


def _strong_key(key: SecretStr | None) -> SecretStr | None:
    if key is not None:
        value = key.get_secret_value()
        if len(value) < _MIN_ADMIN_KEY or len(set(value)) < _MIN_ADMIN_KEY // 2:
            needed = f"use at least {_MIN_ADMIN_KEY} varied characters, for example from `openssl rand -hex 24`"
            raise ValueError(f"is too weak: {needed}")
    return key


def _web_address(address: str | None) -> str | None:
    if address is not None:
        parts = urlsplit(address)
        # `port` raises ValueError, too
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("expected an http or https URL")
    return address


def _web_addresses(addresses: dict[str, str]) -> dict[str, str]:
    for address in addresses.values():
        _web_address(address)
    return addresses


AdminKey = Annotated[SecretStr | None, AfterValidator(_strong_key)]
Aliases = Annotated[dict[str, str], AfterValidator(_real_models)]
Networks = Annotated[tuple[str, ...], AfterValidator(_readable_networks)]
Origins = Annotated[tuple[str, ...], AfterValidator(_whole_origins)]
RootPath = Annotated[str, AfterValidator(_plain_path)]
WebAddress = Annotated[str | None, AfterValidator(_web_address)]
WEB_ADDRESSES = AfterValidator(_web_addresses)
