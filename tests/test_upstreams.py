"""Which upstreams the settings name, and with which time limits."""

from __future__ import annotations

from app.settings import Settings, Timeouts
from app.upstreams import configured

LIMITS = Timeouts(first_token=7)


def test_limits_for_real_use() -> None:
    (upstream,) = configured(Settings(upstream_base_url="http://127.0.0.1:8001/v1"))

    assert (upstream.timeouts.connect, upstream.timeouts.first_token, upstream.timeouts.idle, upstream.timeouts.total) == (
        5,
        600,
        300,
        1800,
    )


def test_the_one_upstream_has_limits_of_its_own() -> None:
    (upstream,) = configured(Settings(upstream_base_url="http://127.0.0.1:8001/v1", upstream_timeouts=LIMITS))
    (vendor,) = configured(Settings.model_validate({"dashscope_api_key": "sk-1", "upstream_timeouts": {"first_token": 7}}))

    assert upstream.timeouts == vendor.timeouts == LIMITS
