"""What a model can do is one object, however many requests and cached conversations refer to it."""

from __future__ import annotations

import pytest

from app import discovery
from app.providers.facts import facts
from app.providers.spec import ProviderSpec
from app.settings import Upstream

SPECS = {spec.dialect: spec for spec in discovery.constants("app.providers", "PROVIDER", ProviderSpec).values()}


@pytest.mark.parametrize("dialect", sorted(SPECS.keys() - {"demo"}))
async def test_models_with_the_same_facts_share_one_object(dialect: str) -> None:
    upstream = Upstream.model_validate({"base_url": "http://127.0.0.1:9/v1", "dialect": dialect})
    provider = SPECS[dialect].build(upstream, facts)
    assert provider.capabilities("qwen3-vl-plus") is provider.capabilities("qwen3-vl-plus")
    assert provider.capabilities("nobody-knows") is provider.capabilities("nobody-knows-either")
    assert provider.capabilities("qwen3-vl-plus") is not provider.capabilities("nobody-knows")
    await provider.aclose()
