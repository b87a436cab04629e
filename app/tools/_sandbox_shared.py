"""Where the workers of one server find the sandbox service that one of them has started: containers are the same whichever is asked.

The service itself holds a lock for as long as it lives, so that everybody sees when it is gone, however it ended.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

try:
    import fcntl
except ImportError:  # Windows: each worker has a service of its own
    fcntl = None

DIRECTORY_VARIABLE = "RESPONSES_GATEWAY_SANDBOX_DIR"
"""Where `serve` tells its workers to meet; nobody else may read there."""


class Address(msgspec.Struct, frozen=True):
    """Of a running service."""

    socket: str
    token: str


class MeetingPlace:
    """A directory of the workers of one server."""

    def __init__(self, directory: Path) -> None:
        self._lock = directory / "sandbox.lock"
        self._address = directory / "sandbox.json"

    def claim(self) -> int | None:
        """The lock, as a file descriptor for the service that is to be started; None: there is one, or it is being started."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
        self._address.unlink(missing_ok=True)  # of a service that is gone
        return descriptor

    def announce(self, address: Address) -> None:
        """Say where the service is."""
        new = self._address.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(address))
        new.replace(self._address)

    @property
    def is_held(self) -> bool:
        """There is a service, or it is being started."""
        if fcntl is None:
            return False
        with os.fdopen(os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @property
    def address(self) -> Address | None:
        """Of the service; None: none has been started, or it does not answer yet."""
        with suppress(OSError):
            return msgspec.json.decode(self._address.read_bytes(), type=Address)
        return None


def meeting_place() -> MeetingPlace | None:
    """Where `serve` has said so."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return MeetingPlace(Path(directory)) if directory and fcntl is not None else None
