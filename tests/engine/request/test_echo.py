"""What the response says about the request: what is in effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engine.request.echo import begin
from app.engine.request.thinking import decide
from app.protocol.wire.response import encode
from app.providers.base import Capabilities
from tests.engine.scripted import admitted
from tests.support.judge import judge_response

RID = "0190b6d2-7c1a-7abc-8def-0123456789ab"


def shown(*, can: Capabilities | None = None, **fields: Any) -> dict[str, Any]:
    request = admitted(**fields)
    response = begin(request, decide(request.request, can or Capabilities(), excluded=False), request.model, RID, 7)
    shown: dict[str, Any] = json.loads(encode(response))
    judge_response(shown)
    return shown


def test_a_bare_request_shows_the_defaults() -> None:
    bare = shown()
    assert (bare["id"], bare["created_at"], bare["status"], bare["model"]) == (RID, 7, "in_progress", "m")
    assert (bare["tool_choice"], bare["tools"], bare["text"]) == ("auto", [], {"format": {"type": "text"}})
    assert "enable_thinking" not in bare


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instructions", "be kind"),
        ("max_output_tokens", 16),
        ("max_tool_calls", 3),
        ("parallel_tool_calls", False),
        ("prompt_cache_key", "k"),
        ("safety_identifier", "s"),
        ("store", False),
        ("temperature", 0),
        ("top_p", 0.5),
        ("presence_penalty", 1.5),
        ("frequency_penalty", -1.5),
        ("top_logprobs", 3),
        ("user", "u"),
        ("metadata", {"a": "b"}),
        ("truncation", "auto"),
        ("tool_choice", "none"),
    ],
)
def test_what_was_sent_is_shown(name: str, value: Any) -> None:
    assert shown(**{name: value})[name] == value


def test_a_choice_is_shown_as_sent_and_null_is_auto() -> None:
    tool = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    choice = {"type": "function", "name": "f"}
    assert shown(tools=[tool], tool_choice=choice)["tool_choice"] == choice
    assert shown(tools=[tool], tool_choice=None)["tool_choice"] == "auto"
    assert shown(tools=[tool])["tools"] == [tool]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({}, {"format": {"type": "text"}}),
        ({"verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
        ({"format": {"type": "json_object"}}, {"format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "high"},
            {
                "format": {
                    "type": "json_schema",
                    "name": "n",
                    "description": None,
                    "schema": {"type": "object"},
                    "strict": False,
                },
                "verbosity": "high",
            },
        ),
    ],
)
def test_the_format_is_shown_whole(text: object, expected: object) -> None:
    assert shown(text=text)["text"] == expected


@pytest.mark.parametrize(
    ("fields", "can", "effort", "enabled"),
    [
        ({"reasoning": {"effort": "high"}}, Capabilities(), "high", True),
        ({"enable_thinking": False}, Capabilities(), "none", False),
        ({"reasoning": {"effort": "none"}, "enable_thinking": True}, Capabilities(), "none", False),
        ({}, Capabilities(thinks=True), None, True),
    ],
)
def test_thinking_is_shown_as_it_is_in_effect(
    fields: dict[str, Any], can: Capabilities, effort: str | None, *, enabled: bool
) -> None:
    echo = shown(can=can, **fields)
    assert (echo["reasoning"]["effort"], echo["enable_thinking"]) == (effort, enabled)


@pytest.mark.parametrize("name", ["summary", "generate_summary"])
def test_the_summary_has_two_names(name: str) -> None:
    assert shown(reasoning={name: "concise"})["reasoning"] == {"effort": None, "summary": "concise"}
