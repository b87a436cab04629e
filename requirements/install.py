"""Install a lock file into this Python's environment and report progress:

`python requirements/install.py requirements/run.lock`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==", re.MULTILINE)
_WHEEL = re.compile(
    r"\s*(?:Downloading|Using cached|Processing)\s(?:\S*/)?"
    r"([\w.]+)-([\w.!+]+)(?:-\S+\.whl|\.tar\.gz)(?: \(([\d.]+ \w?B)\))?(?: \(from .*)?$"
)
_UNPACKING = "Installing collected packages"
# Every dependency is in the lock, so none is resolved; bytecode is compiled when a module is first imported, and only
# then.
_PIP = (
    "-m",
    "pip",
    "install",
    "--disable-pip-version-check",
    "--no-deps",
    "--no-compile",
    "--progress-bar=off",
    "--require-hashes",
)


def main(lock: str) -> int:
    """The exit status of pip, which reports its own errors."""
    started = time.monotonic()
    names = set(_PINNED.findall(Path(lock).read_text(encoding="utf-8")))
    print(f"Installing {lock} into {sys.prefix}: up to {len(names)} packages", flush=True)
    with subprocess.Popen([sys.executable, *_PIP, "--requirement", lock], stdout=subprocess.PIPE, text=True) as pip:
        for line in pip.stdout or ():
            said = describe(line)
            if said:
                print(f"  {said}", flush=True)
    if pip.returncode != 0:
        return pip.returncode
    print(
        f"  done in {time.monotonic() - started:.0f} s: {_megabytes(Path(sys.prefix))} MB in {sys.prefix}", flush=True
    )
    return 0


def describe(line: str) -> str | None:
    """A progress line for pip's line about a package, or about the slowest step; None for all others."""
    if line.startswith(_UNPACKING):
        return "unpacking"
    wheel = _WHEEL.match(line.rstrip())
    return " ".join(part for part in wheel.groups() if part) if wheel else None


def _megabytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir()) // 1_000_000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
