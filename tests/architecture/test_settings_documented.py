"""docs/configuration.md says what app/settings.py says."""

from __future__ import annotations

from app.configuration_reference import reference
from tests.architecture.sources import ROOT


def test_configuration_page_is_current() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert page == reference(), "docs/configuration.md is out of date: run `make docs`"


def test_every_setting_is_described() -> None:
    undescribed = [line for line in reference().splitlines() if line.endswith("|  |")]

    assert not undescribed
