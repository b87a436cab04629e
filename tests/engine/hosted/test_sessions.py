"""The tools of one response: what they learn of it, what they announce, cite and note, and that they are opened
once.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.protocol.messages import ImagePart
from app.protocol.wire.hosted import HostedCall, McpListTools
from app.providers.base import UpstreamError
from app.tools.ports.tool import ContainerFile, FileCitation, ToolContext, UrlCitation
from tests.engine.hosting import Engine, ScriptedTool, asking_tool, calls, say, texts

Json = dict[str, Any]

ECHO: Json = {"type": "x_echo"}


async def test_a_tool_learns_for_whom_it_works() -> None:
    tool = ScriptedTool()
    engine = Engine(say("Hi."), say("Hi."), tools=[tool])
    body = await engine.plain(tools=[ECHO], include=["file_search_call.results"])
    (context,) = tool.contexts
    assert (context.project_id, context.response_id, context.model) == ("p", body["id"], "m")
    assert (context.include, context.images, context.note) == (frozenset({"file_search_call.results"}), [], None)


async def test_images_of_the_whole_conversation_are_numbered_oldest_first() -> None:
    tool = ScriptedTool()
    engine = Engine(say("Red."), tools=[tool])
    urls = [f"https://a.example/{name}.png" for name in ("red", "blue")]
    context = [
        *({"role": "user", "content": [{"type": "input_image", "image_url": url}]} for url in urls),
        {"role": "user", "content": "Which?"},
    ]
    await engine.plain(input=context, tools=[ECHO])
    assert tool.contexts[0].images == [ImagePart(url) for url in urls]


async def test_what_a_tool_announces_goes_before_everything_else() -> None:
    tool = asking_tool()
    tool.announcements = [McpListTools("", "db", ()), McpListTools("", "db", (), "gone")]
    tool.note = "listed"
    engine = Engine(say("Hi."), say("Hi."), tools=[tool])
    entry = {"type": "mcp", "label": "db", "server_label": "db", "server_url": "https://db.example"}
    judged = await engine.stream(tools=[entry])
    assert texts(judged.events[-1]["response"]["output"]) == ["mcp_list_tools", "mcp_list_tools", "Hi."]
    assert [kind for kind in judged.types if "mcp_list_tools" in kind] == [
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.completed",
        "response.mcp_list_tools.in_progress",
        "response.mcp_list_tools.failed",
    ]
    engine.restart()
    await engine.plain(tools=[entry], previous_response_id=judged.response.id)
    assert tool.contexts[-1].note == "listed"


async def test_notes_belong_to_one_label() -> None:
    tool = ScriptedTool()
    tool.note = "of a"
    engine = Engine(say("Hi."), say("Hi."), tools=[tool])
    first = await engine.plain(tools=[{**ECHO, "label": "a"}])
    await engine.plain(tools=[{**ECHO, "label": "a"}, {**ECHO, "label": "b"}], previous_response_id=first["id"])
    assert [context.note for context in tool.contexts] == [None, "of a", None]


async def test_tools_are_opened_once_however_many_upstreams_are_tried() -> None:
    tool = ScriptedTool()
    engine = Engine(UpstreamError("down", status=503, retryable=True), say("Hi."), tools=[tool])
    assert texts((await engine.plain(tools=[ECHO]))["output"]) == ["Hi."]
    assert len(engine.provider.calls) == 2
    assert (len(tool.contexts), tool.closed) == (1, 1)


async def test_a_request_that_no_upstream_takes_closes_its_tools() -> None:
    tool = ScriptedTool()
    with pytest.raises(Exception, match="no such model"):
        await Engine(UpstreamError("no such model", status=404), tools=[tool]).plain(tools=[ECHO])
    assert tool.closed == 1


async def test_sources_become_annotations_of_the_answer() -> None:
    async def do(_call: HostedCall, context: ToolContext) -> str:
        page = context.cite(UrlCitation("https://a.example/tower", "Tower"))
        manual = context.cite(FileCitation("file_1", "manual.md"))
        context.cite(ContainerFile("cntr_1", "cfile_1", "plot.png", "/mnt/data/plot.png"))
        return f"[{page}] [{manual}]"

    turns = [calls("echo", text="Nothing [1] yet."), say("塔🗼很高 [1", "], see [2].")]
    engine = Engine(*turns, tools=[ScriptedTool(do=do)])
    judged = await engine.stream(tools=[ECHO])
    before, _, message = judged.events[-1]["response"]["output"]
    assert before["content"][0]["annotations"] == []
    annotations = message["content"][0]["annotations"]
    assert annotations == [
        {"type": "url_citation", "url": "https://a.example/tower", "title": "Tower", "start_index": 5, "end_index": 8},
        {"type": "file_citation", "file_id": "file_1", "filename": "manual.md", "index": 14},
        {
            "type": "container_file_citation",
            "container_id": "cntr_1",
            "file_id": "cfile_1",
            "filename": "plot.png",
            "start_index": 18,
            "end_index": 18,
        },
    ]
    assert [event["annotation"] for event in judged.events if event["type"].endswith("annotation.added")] == annotations
    assert judged.types.index("response.output_text.annotation.added") < len(judged.types) - judged.types[::-1].index(
        "response.output_text.done"
    )
    plain = await Engine(*turns, tools=[ScriptedTool(do=do)]).plain(tools=[ECHO])
    assert json.dumps(plain["output"][2]["content"]) == json.dumps(message["content"])
