"""The session protocol, version 1: HTTP with JSON bodies, spoken by the gateway to the sandbox service.

Every request carries `Authorization: Bearer TOKEN` and `X-Sandbox-Owner`, the tenant; a session of another owner is an unknown session.

    GET    /v1/health                                 -> Health (no owner)
    GET    /v1/sessions                               -> [SessionInfo]
    PUT    /v1/sessions/{id}            NewSession    -> SessionInfo; the caller chooses the id; an existing session stays as it is
    GET    /v1/sessions/{id}                          -> SessionInfo
    DELETE /v1/sessions/{id}                          -> 204
    POST   /v1/sessions/{id}/run        RunCode       -> RunResult; hanging up ends the run
    GET    /v1/sessions/{id}/files                    -> [FileInfo]
    PUT    /v1/sessions/{id}/files/{name}  bytes      -> FileInfo
    GET    /v1/sessions/{id}/files/{file_id}          -> FileInfo
    GET    /v1/sessions/{id}/files/{file_id}/content  -> bytes
    DELETE /v1/sessions/{id}/files/{file_id}          -> 204

Errors have a status from 400 on and a `Problem`. A session is a Python interpreter that keeps its variables from run to run, and a
directory, /mnt/data. The interpreter starts with the first run.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import msgspec

VERSION = 1
OWNER_HEADER = "x-sandbox-owner"
SESSION_ID = r"cntr_[0-9a-f]{32,64}"
MAX_CODE_BYTES = 1024 * 1024


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """How strong the back end in use is on its machine."""

    backend: str
    own_namespaces: bool
    """Files, processes and network of others are out of sight."""
    own_user: bool
    """Each session has a user id of its own."""
    signals_scoped: bool
    """The kernel refuses signals to processes outside, and not the filter of system calls alone."""
    disk_bounded: bool
    """The kernel limits what a session's files take; otherwise they are watched."""
    summary: str
    """The same in words, with what follows."""


class Health(msgspec.Struct, frozen=True):
    """The service runs, and confines."""

    version: int
    backend: str
    sessions: int
    packages: tuple[str, ...] = ()
    """What code finds beside the standard library, by name."""
    confinement: Confinement | None = None
    """None: of a service that does not tell."""


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """What a session shall be like; None: as the service is set."""

    name: str = ""
    memory_bytes: int | None = None
    """At most what the service is set to."""
    idle_seconds: float | None = None
    """At most what the service is set to."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session; times are Unix seconds."""

    id: str
    name: str
    created_at: int
    last_active_at: int
    idle_seconds: float
    memory_bytes: int


class RunCode(msgspec.Struct, frozen=True):
    """Python code to run, as a notebook runs a cell."""

    code: str
    seconds: float
    """On the wall clock; at most what the service is set to."""


class FileInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A file below /mnt/data."""

    id: str
    path: str
    """Absolute: `/mnt/data/plot.png`."""
    bytes: int
    created_at: int
    """When it was last written, Unix seconds."""
    source: Literal["user", "assistant"]
    """Whether it was put there or made by code."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. An exception in the code is a traceback in `logs`; so is, in brackets, what the service has to say."""

    logs: str
    """Standard output and standard error in order, with the value of a last expression; the middle of too much is left out."""
    files: tuple[FileInfo, ...] = ()
    """Made or changed by this run."""
    timed_out: bool = False
    state_lost: bool = False
    """Variables of earlier runs are gone, or those of this one are."""


class Problem(msgspec.Struct, frozen=True):
    """The body of every error."""

    code: Literal["unauthorized", "unknown_session", "unknown_file", "bad_request", "too_large", "no_space", "busy", "failed"]
    message: str


def file_id(session_id: str, path: str) -> str:
    """The id of the file at an absolute path: the same for as long as the session lives."""
    return f"cfile_{sha256(f'{session_id}:{path}'.encode()).hexdigest()[:48]}"
