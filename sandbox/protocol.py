"""The session protocol, version 1: HTTP with JSON bodies, between the gateway and the sandbox service.

Every request has `Authorization: Bearer TOKEN` and `X-Sandbox-Owner`, the tenant; another owner's session is an unknown
session.

    GET    /v1/health                                 -> Health (no owner)
    GET    /v1/sessions                               -> [SessionInfo]
    PUT    /v1/sessions/{id}            NewSession    -> SessionInfo; an existing session is unchanged
    GET    /v1/sessions/{id}                          -> SessionInfo
    DELETE /v1/sessions/{id}                          -> 204
    POST   /v1/sessions/{id}/run        RunCode       -> RunResult; disconnecting ends the run
    GET    /v1/sessions/{id}/files                    -> [FileInfo]
    PUT    /v1/sessions/{id}/files/{name}  bytes      -> FileInfo
    GET    /v1/sessions/{id}/files/{file_id}          -> FileInfo
    GET    /v1/sessions/{id}/files/{file_id}/content  -> bytes
    DELETE /v1/sessions/{id}/files/{file_id}          -> 204

The caller chooses a session's id. Errors have a status of 400 or above and a `Problem`. A session is a Python
interpreter that keeps its variables between runs, and a directory, /mnt/data. The interpreter starts with the first
run.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal, get_args

import msgspec

from sandbox.inside.packages import SMALL
from sandbox.limits import Limits

VERSION = 1
OWNER_HEADER = "x-sandbox-owner"
SESSION_ID = r"cntr_[0-9a-f]{32,64}"
MAX_CODE_BYTES = 1024 * 1024

BackendName = Literal["bubblewrap", "landlock", "wasi"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
"""In the order in which they are tried."""
BASIC_PACKAGES = tuple(SMALL)
"""The packages that code finds in every sandbox, by name."""

_Count = Annotated[int, msgspec.Meta(ge=1)]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one service: the first line that it reads if it is started with `--child`, as JSON."""

    token: str
    """The secret that clients must send."""
    listen: str
    """`host:port`, or `unix:` and a path."""
    backend: BackendName | None = None
    """None: the first that passes its self-test."""
    sessions: _Count = 16
    """At most; when they are all in use, the least recently used one is removed."""
    runs: _Count | None = None
    """Concurrent runs; None: twice the number of processors, and at least four."""
    volumes: str | None = None
    """A directory of file systems mounted for sessions, one each; None: the service creates its own."""
    limits: Limits = msgspec.field(default_factory=Limits)


class StartReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line that a service started with `--child` writes, as JSON."""

    backend: str | None = None
    """How code is confined; None: the service does not start."""
    refused: str | None = None
    """Why it does not start."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """How strong the confinement of the back end in use is on its machine."""

    backend: str
    own_namespaces: bool
    """Other processes, files and networks are not visible."""
    own_user: bool
    """Each session has its own user id."""
    signals_scoped: bool
    """The kernel blocks signals to processes outside, in addition to the system call filter."""
    disk_bounded: bool
    """The kernel limits the size of a session's files; otherwise they are monitored."""
    summary: str
    """The same in words, with the consequences."""


class Health(msgspec.Struct, frozen=True):
    """The service is running and confines code."""

    version: int
    backend: str
    sessions: int
    packages: tuple[str, ...] = ()
    """The packages available to code besides the standard library, by name."""
    confinement: Confinement | None = None
    """None: from a service that does not report it."""


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a new session; None: the service's setting."""

    name: str = ""
    memory_bytes: int | None = None
    """At most the service's setting."""
    idle_seconds: float | None = None
    """At most the service's setting."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session; times are Unix seconds."""

    id: str
    name: str
    created_at: int
    last_active_at: int
    idle_seconds: float
    memory_bytes: int


class RunCode(msgspec.Struct, frozen=True):
    """Python code to run like a notebook cell."""

    code: str
    seconds: float
    """Wall-clock time; at most the service's setting."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file below /mnt/data."""

    id: str
    path: str
    """Absolute: `/mnt/data/plot.png`."""
    bytes: int
    created_at: int
    """When it was last written, Unix seconds."""
    source: Literal["user", "assistant"]
    """Whether it was uploaded or written by code."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended.

    An exception in the code is a traceback in `logs`; notes of the service are there, too, in brackets.
    """

    logs: str
    """Standard output and standard error in order, with the value of a last expression.

    The middle of long output is omitted.
    """
    files: tuple[FileInfo, ...] = ()
    """Created or changed by this run."""
    timed_out: bool = False
    state_lost: bool = False
    """Variables of earlier runs, or of this one, are lost."""


class Problem(msgspec.Struct, frozen=True):
    """The body of every error."""

    code: Literal[
        "unauthorized", "unknown_session", "unknown_file", "bad_request", "too_large", "no_space", "busy", "failed"
    ]
    message: str


def file_id(session_id: str, path: str) -> str:
    """The id of the file at an absolute path: stable for the lifetime of the session."""
    return f"cfile_{sha256(f'{session_id}:{path}'.encode()).hexdigest()[:48]}"
