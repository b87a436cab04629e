"""The examples of docs/tools.md, run as they are printed; `stage.py` is what they are played on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from tests.docs import examples
from tests.docs.stage import Stage, furnish_directory, scripts
from tests.support.gateway import running_gateway

PAGE = examples.page("docs/tools.md")
PRINTED = examples.blocks(PAGE, "prints")
SETTINGS = examples.blocks(PAGE, "example")["modes"]
EXAMPLES = {name: code for name, code in examples.blocks(PAGE, "example").items() if code != SETTINGS}
BARE = ("list", "refusal")
"""Run against a gateway with nothing configured."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mapping[str, str]]:
    """What a reader has exported after the first start."""
    with running_gateway(tmp_path_factory.mktemp("tools-page-bare"), "demo:", upstream_dialect="demo") as gateway:
        yield examples.exported(gateway)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the reader runs the examples, with the files they open."""
    furnish_directory(tmp_path)
    return tmp_path


def test_every_example_says_what_it_prints() -> None:
    assert set(EXAMPLES) == set(PRINTED)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in BARE])
def test_example_prints_what_the_page_says(name: str, stage: Stage, directory: Path) -> None:
    stage.play(scripts(stage)[name])

    finished = examples.python(stage.inward(EXAMPLES[name]), examples.exported(stage.gateway), directory)

    assert finished.returncode == 0, finished.stderr + stage.gateway.log()[-4000:]
    assert stage.outward(finished.stdout) == PRINTED[name]
    stage.upstream.assert_consumed()


@pytest.mark.parametrize("name", BARE)
def test_example_of_a_bare_gateway_prints_what_the_page_says(name: str, bare: Mapping[str, str]) -> None:
    finished = examples.python(EXAMPLES[name], bare)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == PRINTED[name]


def test_the_settings_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(SETTINGS, encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}

    finished = subprocess.run(
        [sys.executable, "-m", "app.cli", "validate"],
        cwd=examples.ROOT,
        env=inherited | {"GATEWAY_CONFIG": str(file)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
