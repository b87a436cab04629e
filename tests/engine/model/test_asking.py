"""Questions that tools put to a model beside the conversation."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.model.asking import Asker
from app.engine.upstreams.routing import Route, Router
from app.protocol.deltas import Reasoning, Text, TurnFinished
from app.protocol.messages import ImagePart, TextPart, User
from app.protocol.wire.hosted import HostedCall
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Capabilities, Thinking, UpstreamError
from app.tools.ports.tool import ToolContext, ToolFailure
from tests.engine.hosting import USAGE, Engine, ScriptedTool, asking_tool, calls, say, texts
from tests.engine.scripted import ScriptedProvider, Turn

IMAGE = ImagePart("data:image/png;base64,AA")


class Asking:
    """A tool's way to the model, with what it cost."""

    def __init__(self, *turns: Turn, vision: str | None = None, can: Capabilities | None = None) -> None:
        self.provider = ScriptedProvider(*turns, can=can)
        self.counted: list[TokenUsage] = []
        self.failed: list[str] = []
        router = Router([Route(self.provider)], {"alias": "real"}, lambda upstream, _: self.failed.append(upstream))
        self.ask = Asker(router, "alias", vision, self.counted.append)


async def test_the_requests_own_model_answers_without_thinking() -> None:
    asking = Asking([[Reasoning("hm"), Text(" It is ")], [Text("42. "), USAGE, TurnFinished("stop")]])
    assert await asking.ask("What?", max_tokens=7) == "It is 42."
    (call,) = asking.provider.calls
    assert (call.model, call.messages, call.tools, call.sampling.max_output_tokens) == ("real", (User("What?"),), (), 7)
    assert call.thinking == Thinking(enabled=False)
    assert asking.counted == [USAGE]
    assert asking.provider.closed == 1


async def test_thinking_in_the_text_is_taken_out() -> None:
    asking = Asking(say("<think>well</think>42"), can=Capabilities(reasoning_field=False))
    assert await asking.ask("What?") == "42"


@pytest.mark.parametrize(
    "can", [Capabilities(can_think=False), Capabilities(can_stop_thinking=False), Capabilities(thinks=False)]
)
async def test_a_model_that_cannot_be_told_so_is_left_as_it_is(can: Capabilities) -> None:
    asking = Asking(say("42"), can=can)
    await asking.ask("What?")
    assert asking.provider.calls[0].thinking == Thinking()


async def test_images_go_to_the_vision_model_where_there_is_one() -> None:
    asking = Asking(say("A tower."), say("No image."), vision="qwen-vl")
    await asking.ask("What is it?", images=[IMAGE])
    await asking.ask("What?")
    assert [call.model for call in asking.provider.calls] == ["qwen-vl", "real"]
    assert asking.provider.calls[0].messages == (User((TextPart("What is it?"), IMAGE)),)


async def test_a_model_that_takes_no_images_is_not_asked() -> None:
    asking = Asking(can=Capabilities(images=False))
    with pytest.raises(ToolFailure, match="GATEWAY_VISION_MODEL"):
        await asking.ask("What is it?", images=[IMAGE])


async def test_the_failure_names_the_model_that_was_chosen() -> None:
    asking = Asking(vision="blind", can=Capabilities(images=False))
    with pytest.raises(ToolFailure, match="'blind'"):
        await asking.ask("What is it?", images=[IMAGE])


async def test_a_model_that_cannot_be_reached_is_a_failure_of_the_tool_without_internals() -> None:
    asking = Asking(UpstreamError("http://10.0.0.7 refused", status=503))
    with pytest.raises(ToolFailure) as raised:
        await asking.ask("What?")
    assert "10.0.0.7" not in str(raised.value)


async def test_an_answer_that_breaks_off_is_a_failure_of_its_upstream() -> None:
    asking = Asking([[Text("It ")], UpstreamError("cut", status=502)])
    with pytest.raises(ToolFailure):
        await asking.ask("What?")
    assert asking.failed == [asking.provider.name]


async def _ask(_call: HostedCall, context: ToolContext) -> str:
    return await context.ask("What?")


async def test_what_a_question_costs_counts_to_the_response() -> None:
    engine = Engine(calls("echo"), say("42"), say("So."), tools=[ScriptedTool(do=_ask)])
    body = await engine.plain(tools=[{"type": "x_echo"}])
    assert (body["output"][0]["output"], texts(body["output"])[1]) == ("42", "So.")
    assert body["usage"]["total_tokens"] == 3 * USAGE.total_tokens


async def test_it_counts_also_before_the_model_is_asked() -> None:
    """An approved call runs first of all."""
    mcp: dict[str, Any] = {"type": "mcp", "label": "db", "server_label": "db", "server_url": "https://db.example"}
    engine = Engine(calls("mcp__db__drop"), say("42"), say("So."), tools=[asking_tool(_ask)])
    first = await engine.plain(tools=[mcp])
    consent = {"type": "mcp_approval_response", "approval_request_id": first["output"][0]["id"], "approve": True}
    body = await engine.plain(tools=[mcp], previous_response_id=first["id"], input=[consent])
    assert body["output"][0]["output"] == "42"
    assert body["usage"]["total_tokens"] == 2 * USAGE.total_tokens
