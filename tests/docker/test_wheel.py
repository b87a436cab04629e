"""The wheel, which is what the image installs, brings its migrations along."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

from app.db.tables import REVISION

ROOT = Path(__file__).parents[2]


def test_an_installed_gateway_migrates(tmp_path: Path) -> None:
    built = _run(
        [sys.executable, "-c", f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"], ROOT
    )
    installed = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / built.splitlines()[-1]) as wheel:
        wheel.extractall(installed)

    said = _run(
        [sys.executable, "-m", "app.cli", "migrate"],
        tmp_path,
        PYTHONPATH=str(installed),
        GATEWAY_DATABASE_URL="sqlite:///g.db",
    )

    assert said == "The database is at the current schema.\n"
    with sqlite3.connect(tmp_path / "g.db") as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]
    database.close()


def _run(command: list[str], directory: Path, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    finished = subprocess.run(
        command, cwd=directory, env=inherited | environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
