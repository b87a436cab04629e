"""The location of a local file, and whether it can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from app.db.engine import parse_url


def database_file(url: str) -> Path | None:
    """The absolute path of an embedded database's file; None for a server. Raises ValueError."""
    parsed = parse_url(url)
    return Path(parsed.database or "").absolute() if parsed.drivername.startswith("sqlite") else None


def obstacle(path: Path) -> str | None:
    """Why a file cannot be created or written at `path`; None if it can. Leaves nothing behind."""
    if path.is_dir():
        return f"{path} is a directory"
    if path.exists() and not os.access(path, os.W_OK):
        return f"{path} cannot be written by {_user()}"
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir():
        return f"{folder} is in the way: it is not a directory"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder} cannot be written by {_user()} ({error.strerror})"


def _user() -> str:
    return f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
