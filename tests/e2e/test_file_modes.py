"""What the gateway writes on this machine is for its own user alone, whatever the umask it is started with."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.gateway import running_gateway
from tests.support.upstream import ScriptedUpstream

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_to_all() -> Generator[None]:
    """A process that keeps nothing to itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, str]:
    """Of everything that others could read or write."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}
    return {str(path.relative_to(directory)): oct(mode) for path, mode in found.items() if mode & 0o077}


@pytest.mark.usefixtures("open_to_all")
async def test_database_log_and_files(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    home = tmp_path / "home"
    database = f"sqlite+aiosqlite:///{home / 'data' / 'gateway.db'}"
    home.mkdir(mode=0o755)
    with running_gateway(
        tmp_path, upstream.url, database_url=database, files_dir=str(home / "data" / "files")
    ) as gateway:
        async with gateway.http() as http:
            sent = {"file": ("a.txt", b"Secret."), "purpose": (None, "assistants")}
            assert (await http.post("/v1/files", files=sent)).status_code == 200
        there = {path.name for path in home.rglob("*")}
        assert {"gateway.db", "gateway.db-wal", "gateway.db-shm", "files", "content"} <= there
        assert modes(home) == {}


@pytest.mark.usefixtures("open_to_all")
async def test_a_database_that_was_open_to_all_is_closed(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with running_gateway(tmp_path, upstream.url):
        pass
    database = tmp_path / "gateway.db"
    database.chmod(0o666)
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with gateway.http() as http:
            await http.get("/v1/files")
        assert {name: mode for name, mode in modes(tmp_path).items() if name.startswith("gateway.db")} == {}


@pytest.mark.usefixtures("open_to_all")
def test_commands(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    for command in (("migrate",), ("keys", "create", "--project", "red")):
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *command],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    assert (tmp_path / "data" / "gateway.db").is_file()
    assert modes(tmp_path) == {}
