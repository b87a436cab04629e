"""An entry of type `mcp` in a request's `tools`: validated, with its secrets separated.

Formats: the openai SDK's `Mcp` tool, and the vendor's, which names the transport (`server_protocol`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal, cast
from urllib.parse import SplitResult, urlsplit

import msgspec

from app.protocol.recovery.arguments import MALFORMED
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import McpTool

Protocol = Literal["sse", "streamable_http"]

_LABEL = re.compile(r"\w[\w .-]{0,63}\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*\Z")
_CONNECTION_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "accept-encoding",
    }
)
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|passw|credential|session|sign", re.IGNORECASE)
_SHORTEST_SECRET = 6
_MOST_HEADERS = 64
_LONGEST_HEADERS = 16 * 1024
_LONGEST_URL = 8192
_LONGEST_DESCRIPTION = 1000
_NOT_SERVED = ("connector_id", "tunnel_id", "defer_loading", "allowed_callers")
_AT = re.compile(r" - at `\$\.?(?P<path>.*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>.*)`")


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A subset of a server's tools: those that meet every given condition."""

    tool_names: tuple[str, ...] | None = None
    read_only: bool | None = None
    """As declared by the server in `readOnlyHint`; a tool without it is not read-only."""

    def matches(self, tool: McpTool) -> bool:
        """Whether the tool matches."""
        read_only = (tool.annotations or {}).get("readOnlyHint") is True
        return self.names(tool.name) and (self.read_only is None or read_only is self.read_only)

    def names(self, name: object) -> bool:
        """Whether a tool with that name may match."""
        return self.tool_names is None or name in self.tool_names


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which calls require the client's consent."""

    always: Filter | None = None
    never: Filter | None = None

    def needed(self, tool: McpTool) -> bool:
        """What neither filter names requires consent, unless only `always` is given: then only what it names does."""
        if self.always is not None and self.always.matches(tool):
            return True
        if self.never is not None:
            return not self.never.matches(tool)
        return self.always is None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    server_label: str | None = None
    server_url: str | None = None
    server_description: str | None = None
    server_protocol: Protocol | None = None
    headers: dict[str, str] | None = None
    authorization: str | None = None
    allowed_tools: tuple[str, ...] | Filter | None = None
    require_approval: Literal["always", "never"] | Approval | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    defer_loading: bool | None = None
    allowed_callers: tuple[str, ...] | None = None


class _Echo(msgspec.Struct, frozen=True, omit_defaults=True):
    """As the response shows it. OpenAI omits the URL's path, too: with some servers it is a secret."""

    type: Literal["mcp"]
    server_label: str
    server_url: str
    server_description: str | None
    server_protocol: Protocol | msgspec.UnsetType
    allowed_tools: tuple[str, ...] | Filter | None
    require_approval: Literal["always", "never"] | Approval


class Credentials:
    """The headers of a request to the server; never printed."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        values = [value for name, value in headers.items() if _SECRET_HEADER.search(name)]
        secrets = {
            part for value in values for part in (value, value.rpartition(" ")[2]) if len(part) >= _SHORTEST_SECRET
        }
        self._secrets = sorted(secrets, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The text with any repeated secrets removed."""
        for secret in self._secrets:
            text = text.replace(secret, "[hidden]")
        return text


class Server(msgspec.Struct, frozen=True):
    """A server named by a request."""

    label: str
    url: str
    protocol: Protocol
    description: str
    credentials: Credentials
    allowed: Filter
    approval: Approval

    @property
    def key(self) -> str:
        """Distinguishes it from another server that gets its label later, without the URL's secrets."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:16]


def read(raw: msgspec.Raw, place: str) -> tuple[Server, msgspec.Raw]:
    """The server, and the entry as the response shows it. Raises InvalidRequest naming the parameter."""
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _explain(str(error), place) from None
    server, url = _server(entry, place)
    shown = _Echo(
        "mcp",
        server.label,
        url._replace(path="", query="").geturl(),
        entry.server_description,
        entry.server_protocol or msgspec.UNSET,
        entry.allowed_tools,
        entry.require_approval or "always",
    )
    return server, msgspec.Raw(msgspec.json.encode(shown))


def _server(entry: _Entry, place: str) -> tuple[Server, SplitResult]:
    """The server, and the parts of its URL."""
    for name in _NOT_SERVED:
        if getattr(entry, name) not in (None, False, ("direct",)):
            message = f"'{name}' is not served by this gateway; name the MCP server by 'server_url'"
            raise _invalid(place, name, message, "unsupported_parameter")
    label = _required(entry.server_label, place, "server_label")
    if not _LABEL.match(label):
        expected = "expected at most 64 letters, digits, '_', '-', '.' and spaces, the first a letter or digit"
        raise _invalid(place, "server_label", expected)
    url = _url(_required(entry.server_url, place, "server_url"), place)
    allowed = entry.allowed_tools
    server = Server(
        label=label,
        url=url.geturl(),
        protocol=entry.server_protocol or _usual_protocol(url),
        description=(entry.server_description or "")[:_LONGEST_DESCRIPTION],
        credentials=Credentials(_headers(entry, place)),
        allowed=allowed if isinstance(allowed, Filter) else Filter(tool_names=allowed),
        approval=_approval(entry.require_approval, place),
    )
    return server, url


def _usual_protocol(url: SplitResult) -> Protocol:
    return "sse" if url.path.rstrip("/").endswith("/sse") else "streamable_http"


def _url(text: str, place: str) -> SplitResult:
    try:
        url = urlsplit(text.strip())
        plain = url.scheme in ("http", "https") and bool(url.hostname) and len(text) <= _LONGEST_URL and url.port != 0
    except ValueError:
        plain, url = False, urlsplit("")
    if not plain:
        raise _invalid(place, "server_url", "expected a URL that begins with http:// or https://")
    if "@" in url.netloc:
        raise _invalid(place, "server_url", "put credentials into 'authorization' or 'headers', not into the URL")
    return url._replace(fragment="")


def _headers(entry: _Entry, place: str) -> dict[str, str]:
    headers = {name.lower(): value for name, value in (entry.headers or {}).items()}
    if entry.authorization is not None:
        if "authorization" in headers:
            raise _invalid(place, "authorization", "give either 'authorization' or a header of that name")
        headers["authorization"] = f"Bearer {entry.authorization}"
    if (
        len(headers) > _MOST_HEADERS
        or sum(len(name) + len(value) for name, value in headers.items()) > _LONGEST_HEADERS
    ):
        raise _invalid(place, "headers", f"expected at most {_MOST_HEADERS} headers and {_LONGEST_HEADERS} characters")
    for name, value in headers.items():
        parameter = "authorization" if name == "authorization" and entry.authorization is not None else "headers"
        if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
            raise _invalid(place, parameter, "a header's name or value has characters that HTTP does not allow")
        if name in _CONNECTION_HEADERS:
            raise _invalid(place, parameter, f"'{name}' is a connection header and cannot be set")
    return headers


def _approval(given: Literal["always", "never"] | Approval | None, place: str) -> Approval:
    match given:
        case None | "always":
            return Approval()
        case "never":
            return Approval(never=Filter())
        case Approval(always, never):
            # An empty filter would match every tool, an empty object none: neither is intended.
            if (always or never) is None or Filter() in (always, never):
                raise _invalid(
                    place, "require_approval", "expected 'tool_names' or 'read_only' within 'always' or 'never'"
                )
            return given


def _required(value: str | None, place: str, name: str) -> str:
    if not value:
        raise InvalidRequest(
            f"Missing required parameter: '{place}.{name}'.", code="missing_required_parameter", param=f"{place}.{name}"
        )
    return value


def _invalid(place: str, name: str, what: str, code: str = "invalid_value") -> InvalidRequest:
    return InvalidRequest(f"Invalid '{place}.{name}': {what}.", code=code, param=f"{place}.{name}")


def _explain(message: str, place: str) -> InvalidRequest:
    at = _AT.search(message)
    path = re.split(r"[.\[]", at["path"])[0] if at and at["path"] != "[...]" else ""
    message = _AT.sub("", message)
    unknown = _UNKNOWN.search(message)
    name = ".".join(part for part in (path, unknown["name"] if unknown else "") if part)
    if unknown:
        return InvalidRequest(
            f"Unknown parameter: '{place}.{name}'.", code="unknown_parameter", param=f"{place}.{name}"
        )
    if name:
        return _invalid(place, name, message, "invalid_type")
    return InvalidRequest(f"Invalid '{place}': {message}.", code="invalid_type", param=place)


def server_arguments(text: str) -> dict[str, Any] | None:
    """The arguments of a call, which must be a JSON object; None for anything else. Empty text is an empty object."""
    try:
        value: Any = msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    # Malformed arguments that a conversation has kept (`app.protocol.recovery.arguments.sendable`) are not an object
    # either.
    return cast("dict[str, Any]", value) if isinstance(value, dict) and MALFORMED not in value else None
