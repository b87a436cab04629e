"""A service of its own on a Unix socket, as containers that share nothing but a directory use it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from app.tools.sandbox.client import Sandbox
from app.tools.sandbox.service import RemoteService
from sandbox.inside.packages import SMALL
from sandbox.protocol import NewSession
from tests.sandbox.running import ROOT

TOKEN = "a-token-for-one-test-only"


async def test_the_gateway_runs_code_over_the_socket_of_a_service_that_was_killed_before() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as killed:
        path = Path(directory, "socket")
        killed.bind(str(path))
        with serving(path) as mode:
            assert mode & 0o777 == 0o666  # the gateway's container has another user
            sandbox = Sandbox(RemoteService(f"unix:{path}", TOKEN))
            assert set(await sandbox.packages()) >= set(SMALL)
            session = f"cntr_{secrets.token_hex(24)}"
            await sandbox.open("project-a", session, NewSession())

            assert (await sandbox.run("project-a", session, "6 * 7", 10.0)).logs == "42\n"
            await sandbox.aclose()


async def test_a_service_that_is_away_does_not_tell_its_packages() -> None:
    with tempfile.TemporaryDirectory() as directory:
        sandbox = Sandbox(RemoteService(f"unix:{directory}/socket", TOKEN))

        assert await sandbox.packages() == ()
        await sandbox.aclose()


@contextmanager
def serving(path: Path) -> Generator[int]:
    """A service that is set by its environment; yields the mode of its socket."""
    settings = {"SANDBOX_TOKEN": TOKEN, "SANDBOX_LISTEN": f"unix:{path}"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sandbox"],
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        | settings
        | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert f"listening on unix:{path}" in process.stderr.readline()
        yield path.stat().st_mode
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode in (0, -15)
