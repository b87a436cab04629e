"""Which requests a gateway without authentication accepts: those of programs, and of pages of its own or configured
origins.

Any page that a user of this machine opens can send requests to it. Browsers state where each one comes from (`Origin`,
`Sec-Fetch-Site`) and the name it was sent to (`Host`), which a page cannot choose. Bodies that an HTML form could send
are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from starlette.types import Scope

from app.protocol.wire.errors import Forbidden, InvalidRequest

_JSON = re.compile(rb"application/(?:[a-z0-9.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_FORM = re.compile(rb"multipart/form-data\s*;.*", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?")


class Openness:
    """Decides which requests are accepted without a key."""

    def __init__(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        """`hosts`: names allowed besides loopback names and IP addresses.

        `origins`: allowed origins of pages, or `*`.
        """
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._origins = frozenset(origins)

    def check(self, scope: Scope) -> None:
        """Raises ApiError."""
        hosts = _values(scope, b"host")
        if len(hosts) > 1:
            raise InvalidRequest("The request has more than one Host header.", code="invalid_http")
        if hosts and not self._is_ours(hosts[0]):
            message = (
                "This host name is not allowed while authentication is off; GATEWAY_ALLOWED_HOSTS lists the allowed "
                "names."
            )
            raise Forbidden(message, code="host_not_allowed")
        self._check_page(scope, hosts[0] if hosts else "")
        _check_type(scope)

    def _is_ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host.lower())
        if match is None:
            return False
        name = match[1].strip("[]").rstrip(".")
        return name == "localhost" or name.endswith(".localhost") or name in self._hosts or _is_address(name)

    def _check_page(self, scope: Scope, host: str) -> None:
        origins = _values(scope, b"origin")
        if any(
            origin not in self._origins and "*" not in self._origins and origin.partition("://")[2] != host
            for origin in origins
        ):
            raise Forbidden(
                "This origin is not allowed; GATEWAY_CORS_ORIGINS lists those that are.", code="origin_not_allowed"
            )
        foreign = {"cross-site", "same-site"} & set(_values(scope, b"sec-fetch-site"))
        followed = (
            scope["method"] == "GET" and "navigate" in _values(scope, b"sec-fetch-mode") and not _is_framed(scope)
        )
        if foreign and not origins and not followed:
            raise Forbidden("Cross-site requests are not allowed.", code="origin_not_allowed")


def _is_framed(scope: Scope) -> bool:
    """The page would stand in another one, which could have its visitor click in it without knowing."""
    return any(shown_in != "document" for shown_in in _values(scope, b"sec-fetch-dest"))


def _check_type(scope: Scope) -> None:
    names = {name for name, _ in scope["headers"]}
    has_body = b"transfer-encoding" in names or any(value != "0" for value in _values(scope, b"content-length"))
    given = _values(scope, b"content-type")
    if not has_body and not given:
        return
    kind = given[0].encode("latin-1") if len(given) == 1 else b""
    if not (_JSON.fullmatch(kind) or _FORM.fullmatch(kind)):
        raise InvalidRequest(
            "Unsupported content type: send 'Content-Type: application/json'.", code="unsupported_content_type"
        )


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
