"""Which upstreams the settings name, at which address, and with which time limits."""

from __future__ import annotations

import logging

import pytest

from app.providers.base import UpstreamError
from app.settings import Settings, Timeouts, Upstream
from app.upstreams import addresses, configured, connect, locate
from tests.e2e.streams import MODEL
from tests.support.upstream import ScriptedUpstream

LIMITS = Timeouts(first_token=7)
SERVER = "http://127.0.0.1:8001"


def test_limits_for_real_use() -> None:
    (upstream,) = configured(Settings(upstream_base_url=f"{SERVER}/v1"))

    assert (
        upstream.timeouts.connect,
        upstream.timeouts.first_token,
        upstream.timeouts.idle,
        upstream.timeouts.total,
    ) == (
        5,
        600,
        300,
        1800,
    )


def test_the_one_upstream_has_limits_of_its_own() -> None:
    (upstream,) = configured(Settings(upstream_base_url=f"{SERVER}/v1", upstream_timeouts=LIMITS))
    (vendor,) = configured(
        Settings.model_validate({"dashscope_api_key": "sk-1", "upstream_timeouts": {"first_token": 7}})
    )

    assert upstream.timeouts == vendor.timeouts == LIMITS


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        (f"{SERVER}/v1", [f"{SERVER}/v1"]),
        (f"{SERVER}/v1/", [f"{SERVER}/v1"]),
        (f" {SERVER}/v1 ", [f"{SERVER}/v1"]),
        (SERVER, [f"{SERVER}/v1", SERVER]),
        (f"{SERVER}/", [f"{SERVER}/v1", SERVER]),
        (f"{SERVER}/qwen", [f"{SERVER}/qwen", f"{SERVER}/qwen/v1"]),
        (f"{SERVER}/v1/chat/completions", [f"{SERVER}/v1"]),
        (f"{SERVER}/v1/responses/", [f"{SERVER}/v1"]),
        (f"{SERVER}/chat/completions", [f"{SERVER}/v1", SERVER]),
        (f"{SERVER}/api/v3", [f"{SERVER}/api/v3"]),
        (f"{SERVER}/v1beta/openai", [f"{SERVER}/v1beta/openai"]),
        (f"{SERVER}/v1/accounts/gateway", [f"{SERVER}/v1/accounts/gateway"]),
        ("demo:", ["demo:"]),
    ],
)
def test_where_the_api_is_looked_for(given: str, tried: list[str]) -> None:
    assert list(addresses(given)) == tried


@pytest.mark.parametrize("written", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/models"])
async def test_the_address_is_found(upstream: ScriptedUpstream, written: str, caplog: pytest.LogCaptureFixture) -> None:
    root = upstream.url.removesuffix("/v1")
    with caplog.at_level(logging.WARNING):
        (route,) = await connect(Settings(upstream_base_url=root + written))
    await route.provider.aclose()

    assert [model.id for model in route.models] == [MODEL]
    assert (f"using {upstream.url}" in caplog.text) == (written not in ("/v1", "/v1/"))


async def test_a_server_below_a_path_is_asked_with_v1(upstream: ScriptedUpstream) -> None:
    root = upstream.url.removesuffix("/v1")
    upstream.pages["/qwen/v1/models"] = upstream.pages["/v1/models"]
    found, listed = await locate(Upstream(base_url=f"{root}/qwen"), Settings())

    assert found.base_url == f"{root}/qwen/v1"
    assert [model.id for model in listed] == [MODEL]


async def test_what_answers_nowhere_is_told_of_the_first_address() -> None:
    with pytest.raises(UpstreamError):
        await locate(Upstream(base_url="http://127.0.0.1:1"), Settings())
    (route,) = await connect(Settings(upstream_base_url="http://127.0.0.1:1"))
    await route.provider.aclose()

    assert not route.models
