"""What the `doctor` command says of the readers of documents."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.doctor import Finding, examine
from app.offload import confinement
from app.settings import Settings


async def _documents(tmp_path: Path) -> Finding:
    settings = Settings(database_url=f"sqlite+aiosqlite:///{tmp_path / 'gateway.db'}")
    return next(finding for finding in await examine(settings) if finding.subject == "documents")


@pytest.mark.skipif(bool(confinement.lacking()), reason="worker processes cannot be confined on this machine")
async def test_it_says_that_readers_are_confined(tmp_path: Path) -> None:
    found = await _documents(tmp_path)
    assert (found.ok, "without network" in found.message) == (True, True)


async def test_it_says_what_a_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "lacking", lambda: ["Landlock"])
    found = await _documents(tmp_path)
    assert "limits of time and memory only: no Landlock" in found.message
    assert found.ok == (sys.platform != "linux")
