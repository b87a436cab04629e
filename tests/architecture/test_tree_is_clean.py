"""Nothing that belongs to one machine or to later is in the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

# Written in pieces, so that this file does not hold what it looks for.
REGISTRY_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "deb." + "debian.org")
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/op" + "t/py")
PUT_OFF = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a registry's host", "|".join(map(re.escape, REGISTRY_HOSTS))),
        ("a machine's path", rf"(?<![\w.-])(?:{'|'.join(map(re.escape, MACHINE_PATHS))})"),
        ("work put off", rf"\b(?:{'|'.join(PUT_OFF)})\b"),
    ],
)
def test_no_file_holds(what: str, pattern: str) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}" for name in _files() for number, line in _matches(ROOT / name, pattern)
    ]

    assert not found, f"{what}:\n" + "\n".join(found)


def _files() -> list[str]:
    """What is tracked, and what would be if all were added."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - git from the path, as everywhere
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def _matches(path: Path, pattern: str) -> list[tuple[int, str]]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if re.search(pattern, line)]
