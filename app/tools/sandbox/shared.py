"""The sandbox service that the workers of one server share, so that every worker sees the same containers.

The service holds a lock for as long as it runs, so that every worker notices its end, whatever the reason.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

try:
    import fcntl
except ImportError:  # Windows: each worker has its own service
    fcntl = None

DIRECTORY_VARIABLE = "RESPONSES_GATEWAY_SANDBOX_DIR"
"""The directory that `serve` makes for its workers; other users cannot read it."""


class Address(msgspec.Struct, frozen=True):
    """The address of a running service."""

    socket: str
    token: str


class SharedDirectory:
    """A directory of the workers of one server."""

    def __init__(self, directory: Path) -> None:
        self._lock = directory / "sandbox.lock"
        self._address = directory / "sandbox.json"

    def claim(self) -> int | None:
        """The lock, as a file descriptor for the service to be started; None: a service is running or starting."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
        self._address.unlink(missing_ok=True)  # of a service that has ended
        return descriptor

    def announce(self, address: Address) -> None:
        """Publish the address of the service."""
        new = self._address.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(address))
        new.replace(self._address)

    @property
    def is_held(self) -> bool:
        """A service is running or starting."""
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
        """The address of the service; None: it has not been started, or does not answer yet."""
        with suppress(OSError):
            return msgspec.json.decode(self._address.read_bytes(), type=Address)
        return None


def shared_directory() -> SharedDirectory | None:
    """The directory that `serve` has set; None: each process has its own service."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return SharedDirectory(Path(directory)) if directory and fcntl is not None else None
