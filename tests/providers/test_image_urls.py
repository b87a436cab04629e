"""Which upstreams are handed the addresses of images: one inside the network would fetch what no client should
reach.
"""

from __future__ import annotations

import pytest

from app import discovery
from app.providers.facts import facts
from app.providers.spec import ProviderSpec
from app.settings import Upstream

SPECS = {spec.dialect: spec for spec in discovery.constants("app.providers", "PROVIDER", ProviderSpec).values()}
OUTSIDE = {"dashscope", "dashscope-responses"}


@pytest.mark.parametrize("dialect", sorted(SPECS.keys() - {"demo"}))
async def test_only_a_service_outside_of_the_network_fetches_unless_told(dialect: str) -> None:
    for told, fetches in ((None, dialect in OUTSIDE), (True, True), (False, False)):
        upstream = Upstream.model_validate(
            {"base_url": "http://127.0.0.1:9/v1", "dialect": dialect, "fetches_urls": told}
        )
        provider = SPECS[dialect].build(upstream, facts)
        assert provider.capabilities("qwen3-vl-plus").image_urls is fetches
        await provider.aclose()
