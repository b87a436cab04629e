"""The stage of docs/tools.md, shared by the tests of the documents."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.docs.stage import Stage, staged


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    """A gateway whose tools all run."""
    with staged(tmp_path_factory.mktemp("tools-page")) as running:
        yield running
