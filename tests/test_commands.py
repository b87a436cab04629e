"""The command line: keys where there is no database, names and days, and what `doctor` and `serve` say of a folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from app.cli import main
from tests.support.gateway import running_gateway
from tests.support.upstream import ScriptedUpstream

ROOT = Path(__file__).parents[1]
LIST, CREATE, REVOKE = ["keys", "list"], ["keys", "create", "--project", "demo"], ["keys", "revoke", "key_1"]


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[None]:
    """No settings, a directory of its own, and what a command changes in its process is changed back."""
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "DASHSCOPE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield
    os.umask(before)


def _serve(directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GATEWAY_UPSTREAM_DIALECT": "demo", **settings}
    command = [sys.executable, "-m", "app.cli", "serve"]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [LIST, CREATE, REVOKE])
def test_keys_do_not_make_a_database(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert main(command) == 1
    said = capsys.readouterr()

    assert f"there is no database at {tmp_path}/data/gateway.db" in said.err
    assert "GATEWAY_DATABASE_URL" in said.err
    assert not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [LIST, CREATE, REVOKE])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:///other.db", "migrate"),
        ("sqlite:///garbage.db", "not a database"),
        ("mysql://x", "unsupported database"),
    ],
)
def test_keys_want_a_database_of_the_gateway(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    url: str,
    reason: str,
) -> None:
    (tmp_path / "other.db").touch()
    (tmp_path / "garbage.db").write_text("garbage" * 1000)
    monkeypatch.setenv("GATEWAY_DATABASE_URL", url)

    assert main(command) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--project", ""], "printable"),
        (["--project", "  "], "printable"),
        (["--project", "a\nb"], "printable"),
        (["--project", "a" * 129], "printable"),
        (["--project", "demo", "--name", " "], "printable"),
        (["--project", "demo", "--days", "0"], "more than 0"),
        (["--project", "demo", "--days", "-1"], "more than 0"),
        (["--project", "demo", "--days", "nan"], "more than 0"),
        (["--project", "demo", "--days", "inf"], "at most 36500"),
        (["--project", "demo", "--days", "1e300"], "at most 36500"),
        (["--project", "demo", "--days", "soon"], "number of days"),
    ],
)
def test_names_and_days_are_checked(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "create", *arguments])

    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_key_has_its_name_and_no_end(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", sqlite_url)
    assert main([*CREATE, "--name", " notebook "]) == 0
    assert main(CREATE) == 0
    capsys.readouterr()
    assert main(LIST) == 0

    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 2
    assert all(line.endswith("active") for line in lines)
    assert sum(" notebook " in line for line in lines) == 1


@pytest.mark.parametrize("command", [["migrate"], LIST])
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://x", "unsupported database"),
        ("postgresql://127.0.0.1:1/x", "cannot be reached"),
        ("sqlite:///file/gateway.db", "file"),
        ("sqlite:///garbage.db", "not a database"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    url: str,
    reason: str,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "garbage.db").write_text("garbage" * 1000)
    monkeypatch.setenv("GATEWAY_DATABASE_URL", url)

    assert main(command) == 1
    said = capsys.readouterr().err
    assert said.startswith("configuration:\ndatabase_url: ")
    assert reason in said


def test_a_taken_port_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        ended = _serve(tmp_path, GATEWAY_PORT=port)

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_first_key_is_made_once(
    upstream_server: ScriptedUpstream,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
) -> None:
    def start() -> str:
        with running_gateway(tmp_path, upstream_server.url, admin_key="", workers=workers) as gateway:
            pass  # it is told to stop, and has announced itself by then
        return gateway.log()

    first = start()
    again = start()[len(first) :]
    monkeypatch.setenv("GATEWAY_DATABASE_URL", f"sqlite:///{tmp_path}/gateway.db")
    assert main(LIST) == 0

    assert "key       sk-" in first
    assert '"model": "qwen3-8b"' in first
    assert "sk-" not in again
    assert capsys.readouterr().out.count("first key") == 1


@pytest.mark.parametrize(
    ("settings", "subject", "reason"),
    [
        ({"GATEWAY_DATABASE_URL": "sqlite:///file/gateway.db"}, "database", "is in the way"),
        ({"GATEWAY_DATABASE_URL": "sqlite:///folder"}, "database", "is a directory"),
        ({"GATEWAY_DATABASE_URL": "sqlite:///garbage.db"}, "database", "of this gateway?"),
        ({"GATEWAY_FILES_DIR": "file"}, "files", "is in the way"),
        ({"GATEWAY_FILES_DIR": "file/below"}, "files", "is in the way"),
    ],
)
def test_doctor_names_the_obstacle(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, str],
    subject: str,
    reason: str,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.db").write_text("garbage" * 1000)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    assert main(["doctor"]) == 1
    (failed,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failed.startswith(f"FAIL {subject}: ")
    assert reason in failed


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write to, the superuser included")
def test_an_unwritable_folder_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GATEWAY_DATABASE_URL", "sqlite:////proc/gateway.db")
    assert main(["doctor"]) == 1

    assert "FAIL database: /proc cannot be written by user" in capsys.readouterr().out
    assert "/proc cannot be written by user" in _serve(tmp_path, GATEWAY_PORT="0").stderr


def test_doctor_finds_nothing_wrong_with_a_fresh_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0

    assert (
        f"ok   database: not created yet: `responses-gateway serve` creates {tmp_path}/data/gateway.db"
        in capsys.readouterr().out
    )
    assert not list(tmp_path.iterdir())
