"""requirements/install.py says what pip does, package by package."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tests.architecture.sources import ROOT

SCRIPT = ROOT / "requirements" / "install.py"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  Downloading numpy-2.4.4-cp311-cp311-manylinux_2_27_x86_64.whl (16.9 MB)\n", "numpy 2.4.4 16.9 MB"),
        ("  Using cached babel-2.18.0-py3-none-any.whl (10.2 MB)\n", "babel 2.18.0 10.2 MB"),
        ("Processing /wheels/uvicorn-0.54.0-py3-none-any.whl (from -r run.lock (line 7))\n", "uvicorn 0.54.0"),
        ("  Downloading jieba-0.42.1.tar.gz (19.2 MB)\n", "jieba 0.42.1 19.2 MB"),
        ("Installing collected packages: numpy, babel\n", "unpacking"),
        ("  Downloading numpy-2.4.4-cp311-cp311-manylinux_2_27_x86_64.whl.metadata (6.6 kB)\n", None),
        ("Collecting numpy==2.4.4\n", None),
        ("Requirement already satisfied: numpy==2.4.4 in ./.venv\n", None),
        ("\n", None),
    ],
)
def test_a_line_for_every_package(line: str, said: str | None) -> None:
    describe = cast("Callable[[str], str | None]", runpy.run_path(str(SCRIPT))["describe"])

    assert describe(line) == said


def test_a_lock_that_is_there_already_needs_no_network(tmp_path: Path) -> None:
    lock = tmp_path / "empty.lock"
    lock.write_text("# nothing\n")
    done = subprocess.run([sys.executable, SCRIPT, lock], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Installing {lock} into {sys.prefix}: up to 0 packages\n")
    assert " MB in " in done.stdout


def test_a_failure_is_pips(tmp_path: Path) -> None:
    lock = tmp_path / "wrong.lock"
    lock.write_text("no version here\n")
    done = subprocess.run([sys.executable, SCRIPT, lock], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "no version here" in done.stderr
