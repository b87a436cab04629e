"""The site that is search service and web at once."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.site import Site, serving_site


@pytest.fixture(scope="session")
def image_server() -> Generator[Site]:
    """The one server behind `site`."""
    with serving_site() as running:
        yield running


@pytest.fixture
def site(image_server: Site) -> Site:
    """A site without pages or visits."""
    image_server.reset()
    return image_server
