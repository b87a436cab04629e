"""The response object is complete in every state."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given

from app.protocol import deltas as d
from app.protocol.wire import hosted as h
from app.protocol.wire.response import Response, ResponseError, decode, encode, seed
from tests.protocol.assembling import Script, assemble, scripts
from tests.support.judge import REQUIRED, judge_response

BARE = Response(id="0190b6d2-7c1a-7abc-8def-0123456789ab", created_at=1, status="in_progress", model="m")


def test_what_the_request_left_out_has_the_defaults_of_the_api() -> None:
    shown = json.loads(encode(BARE))
    judge_response(shown)
    assert shown.keys() == {*REQUIRED, "user"}
    defaults: dict[str, object] = {
        "temperature": 1.0,
        "top_p": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "store": True,
    }
    assert defaults.items() <= shown.items()
    more: dict[str, object] = {
        "parallel_tool_calls": True,
        "service_tier": "default",
        "background": False,
        "metadata": {},
        "top_logprobs": 0,
    }
    assert more.items() <= shown.items()
    assert shown["text"] == {"format": {"type": "text"}}
    assert shown["reasoning"] == {"effort": None, "summary": None}


def test_tool_usage_counts_searches_and_has_every_family() -> None:
    search, page = h.SearchAction("q"), h.OpenPageAction("https://a.example")
    items = [
        h.WebSearchCall("ws_1", "completed", search),
        h.WebSearchCall("ws_2", "completed", search),
        h.WebSearchCall("ws_3", "failed", search),
        h.WebSearchCall("ws_4", "completed", page),
    ]
    turn = [d.NativeItem(item, done=True) for item in items]
    made = assemble([*turn, d.Text("So."), d.TokenUsage(1, 2, 3), d.TurnFinished("stop")])
    shown = json.loads(made.body)["tool_usage"]
    assert shown["web_search"] == {"num_requests": 2}
    nothing = {"image_tokens": 0, "text_tokens": 0}
    assert shown["image_gen"] == {
        "input_tokens": 0,
        "input_tokens_details": nothing,
        "output_tokens": 0,
        "output_tokens_details": nothing,
        "total_tokens": 0,
    }
    assert seed(made.response).tool_usage is msgspec.UNSET
    assert "tool_usage" not in json.loads(assemble([d.Text("a"), d.TurnFinished("stop")]).body)


@given(scripts())
def test_a_response_survives_its_json(script: Script) -> None:
    made = assemble(script)
    assert decode(made.body) == made.response
    assert encode(decode(made.body)) == made.body


@pytest.mark.parametrize(
    "end",
    [{"completed_at": 9}, {"error": ResponseError("server_error", "m")}, {"usage": None, "status": "cancelled"}],
    ids=str,
)
def test_the_seed_is_the_response_as_it_began(end: dict[str, object]) -> None:
    finished = msgspec.structs.replace(
        assemble([d.Text("a"), d.TokenUsage(1, 2, 3), d.TurnFinished("stop")]).response, **end
    )
    begun = msgspec.structs.replace(BARE, created_at=finished.created_at, model=finished.model)
    assert seed(finished) == begun


def test_usage_has_its_details_and_what_is_not_known_is_absent() -> None:
    shown = json.loads(assemble([d.Text("a"), d.TokenUsage(1, 2, 3, 4, 5, 6), d.TurnFinished("stop")]).body)["usage"]
    assert shown == {
        "input_tokens": 1,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 3,
    }
