"""One request with every tool, over several rounds: in the stream, in the answer, in the record, in the next turn, and
deleted.

Where no sandbox holds on the machine, it is every other tool, and the gateway has to say why.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import openai
import pytest

from tests.e2e.streams import final, replay
from tests.e2e.tools.stage import (
    SEES,
    asking,
    calling,
    code_runs,
    data_uri,
    entries,
    furnish,
    library,
    official,
    picture,
    png,
    read_by_model,
)
from tests.support.gateway import Gateway
from tests.support.judge import judge, judge_response
from tests.support.mcp_server import McpServer
from tests.support.script import Json, Reply
from tests.support.site import Site
from tests.support.upstream import ScriptedUpstream

INCLUDE: Any = ["file_search_call.results", "web_search_call.action.sources", "code_interpreter_call.outputs"]
CODE = "height = 321\nopen('/mnt/data/report.txt', 'w').write(f'{height} m\\n')\nprint('hé 中', height)"
SHOWN = [
    "mcp_list_tools",
    "message",
    "web_search_call",
    "code_interpreter_call",
    "mcp_call",
    "web_extractor_call",
    "file_search_call",
    "web_search_image_call",
    "image_search_call",
    "message",
    "function_call",
]
"""The items, in the order in which the model has made the calls."""
COUNTED = ("web_search", "code_interpreter", "mcp", "web_extractor", "file_search", "web_search_image", "image_search")


class Stage(msgspec.Struct, frozen=True):
    """Everything that the tools work with."""

    gateway: Gateway
    client: openai.AsyncOpenAI
    upstream: ScriptedUpstream
    site: Site
    mcp: McpServer
    tools: list[Any]
    file_id: str
    code: bool
    """Code can be run on this machine."""

    def without(self, names: Sequence[str], code: str) -> list[str]:
        """The names that are to be expected."""
        return [name for name in names if self.code or name != code]

    @property
    def request(self) -> Any:
        """The one request."""
        image = picture(data_uri(png("red")))
        return {"model": SEES, "input": asking("How high is it?", image), "tools": self.tools, "include": INCLUDE}

    def script(self) -> None:
        """What the model says: three rounds of calls, then an answer beside a call of the client's function."""
        first: list[tuple[str, Json]] = [
            ("web_search", {"queries": ["tower height"]}),
            ("code_interpreter", {"code": CODE}),
        ]
        self.upstream.script(
            calling(*first[: 2 if self.code else 1], ("mcp__shop__add", {"a": 1, "b": 2}), saying="Let me look."),
            calling(
                ("web_extractor", {"urls": [self.site.url("/a")], "goal": "the height"}),
                ("knowledge_search", {"queries": ["铁塔 高度"]}),
            ),
            calling(
                ("web_search_image", {"queries": ["tower"]}),
                ("image_search", {"img_idx": 0, "bbox": [0, 0, 1000, 1000]}),
            ),
            Reply.say("a red square with a dark corner"),  # asked by image_search, to have words for the image
            calling(
                ("get_weather", {}),
                saying=f"高 321 m [{4 if self.code else 3}], {self.site.url('/a')}, "
                f"[report](sandbox:/mnt/data/report.txt).",
            ),
        )


@pytest.fixture
async def stage(patient: Gateway, upstream: ScriptedUpstream, site: Site, mcp: McpServer) -> AsyncGenerator[Stage]:
    furnish(site)
    async with official(patient) as client:
        store_id, file_id = await library(client)
        code = await code_runs(patient)
        tools = [tool for tool in entries(store_id, mcp) if code or tool["type"] != "code_interpreter"]
        yield Stage(patient, client, upstream, site, mcp, tools, file_id, code)


async def test_streamed(stage: Stage) -> None:
    stage.script()
    async with stage.client.responses.with_streaming_response.create(**stage.request, stream=True) as answer:
        stream = await answer.read()
    judged, body = judge(stream), final(stream)
    _holds_every_call(stage, body)
    _tells_every_call(judged.types, code=stage.code)
    async with stage.gateway.http() as http:
        assert await replay(http, body["id"]) == stream
        middle = len(judged.events) // 2
        rest = await replay(http, body["id"], starting_after=middle)
        assert stream.endswith(rest)
        assert json.loads(rest.split(b"data: ", 1)[1].split(b"\n", 1)[0])["sequence_number"] == middle + 1
        assert (await http.get(f"/v1/responses/{body['id']}")).json() == body
    await _is_continued(stage, body)


async def test_whole(stage: Stage) -> None:
    stage.script()
    create: Any = stage.client.responses.with_raw_response.create  # its overloads are too many for a checker
    answer = await create(**stage.request)
    body = json.loads(answer.text)
    judge_response(body)
    _holds_every_call(stage, body)
    assert [item.type for item in answer.parse().output] == [item["type"] for item in body["output"]]
    assert json.loads((await stage.client.responses.with_raw_response.retrieve(body["id"])).text) == body
    await _made_files_can_be_had(stage, body)
    await _lists_and_forgets(stage, body)


def _holds_every_call(stage: Stage, body: Json) -> None:
    assert (body["status"], body["error"]) == ("completed", None)
    assert [item["type"] for item in body["output"]] == stage.without(SHOWN, "code_interpreter_call")
    assert {item.get("status", "completed") for item in body["output"]} == {"completed"}
    shown = {item["type"]: item for item in body["output"]}
    assert "add" in [tool["name"] for tool in shown["mcp_list_tools"]["tools"]]
    sources = [source["url"] for source in shown["web_search_call"]["action"]["sources"]]
    assert sources == [stage.site.url("/a"), stage.site.url("/b")]
    mcp = shown["mcp_call"]
    assert (mcp["name"], json.loads(mcp["arguments"]), mcp["output"]) == ("add", {"a": 1, "b": 2}, "3")
    assert "321 metres" in shown["web_extractor_call"]["output"]
    assert [(found["file_id"], found["filename"]) for found in shown["file_search_call"]["results"]] == [
        (stage.file_id, "notes.md")
    ]
    for tool, best in (("web_search_image", "/blue.png"), ("image_search", "/red.png")):
        found = json.loads(shown[f"{tool}_call"]["output"])
        assert [image["index"] for image in found] == [1, 2], "the page that says it is a picture was dropped"
        assert found[0]["url"] == stage.site.url(best)
    assert shown["function_call"]["name"] == "get_weather"
    if stage.code:
        code = shown["code_interpreter_call"]
        assert (code["code"], code["outputs"]) == (CODE, [{"type": "logs", "logs": "hé 中 321\n"}])
    _cites(stage, shown["message"]["content"][0], shown.get("code_interpreter_call", {}))
    assert body["usage"]["x_tools"] == {tool: {"count": 1} for tool in stage.without(COUNTED, "code_interpreter")}
    assert body["usage"]["total_tokens"] == 5 * 13


def _cites(stage: Stage, part: Json, code: Json) -> None:
    file, page, *made = part["annotations"]
    text = part["text"]
    assert (file["type"], file["file_id"], file["filename"]) == ("file_citation", stage.file_id, "notes.md")
    assert text[: file["index"]] == "高 321 m "
    assert (page["type"], page["url"], page["title"]) == ("url_citation", stage.site.url("/a"), "Tower")
    assert text[page["start_index"] : page["end_index"]] == stage.site.url("/a")
    assert len(made) == stage.code
    for report in made:
        assert (report["type"], report["filename"]) == ("container_file_citation", "report.txt")
        assert report["container_id"] == code["container_id"]
        assert text[report["start_index"] : report["end_index"]] == "[report](sandbox:/mnt/data/report.txt)"


def _tells_every_call(types: Sequence[str], *, code: bool) -> None:
    for tool, phases in (
        ("web_search_call", ("in_progress", "searching", "completed")),
        ("code_interpreter_call", ("in_progress", "interpreting", "completed")),
        ("file_search_call", ("in_progress", "searching", "completed")),
        ("mcp_call", ("in_progress", "completed")),
        ("mcp_list_tools", ("in_progress", "completed")),
    ):
        if tool == "code_interpreter_call" and not code:
            continue
        told = [name for name in types if re.fullmatch(rf"response\.{tool}\.\w+", name)]
        assert told == [f"response.{tool}.{phase}" for phase in phases]
    assert ("response.code_interpreter_call_code.delta" in types) is code
    assert "response.mcp_call_arguments.delta" in types
    assert types.count("response.output_text.annotation.added") == 2 + code


async def _is_continued(stage: Stage, body: Json) -> None:
    """The next turn has all that was read, the sandbox as it was left, and no second list of the MCP server's tools."""
    before = stage.upstream.requests[-1].body["messages"]
    assert len(list(read_by_model(before))) == len(stage.without(COUNTED, "code_interpreter"))
    again: Json = {"code": "print(height, open('/mnt/data/report.txt').read())"}
    calls = calling(("code_interpreter", again)) if stage.code else calling(("mcp__shop__add", {"a": 320, "b": 1}))
    stage.upstream.script(calls, Reply.say("Sunny."))
    answered: Any = [{"type": "function_call_output", "call_id": body["output"][-1]["call_id"], "output": "sunny"}]
    events = [
        event.type
        async for event in await stage.client.responses.create(
            model=SEES, input=answered, tools=stage.tools, previous_response_id=body["id"], stream=True
        )
    ]
    assert events[-1] == "response.completed"
    assert stage.mcp.methods.count("tools/list") == 1
    asked, _ = (request.body["messages"] for request in stage.upstream.requests[-2:])
    assert asked[: len(before)] == before
    spoken, weather = asked[len(before) :]
    assert (spoken["role"], [call["function"]["name"] for call in spoken["tool_calls"]]) == (
        "assistant",
        ["get_weather"],
    )
    assert (weather["role"], weather["content"]) == ("tool", "sunny")
    *_, last = read_by_model(stage.upstream.requests[-1].body["messages"])
    assert last.startswith("321 321 m" if stage.code else "321")


async def _made_files_can_be_had(stage: Stage, body: Json) -> None:
    if not stage.code:
        return
    made = body["output"][-2]["content"][0]["annotations"][-1]
    content = await stage.client.containers.files.content.retrieve(made["file_id"], container_id=made["container_id"])
    assert await content.aread() == b"321 m\n"
    file = await stage.client.containers.files.retrieve(made["file_id"], container_id=made["container_id"])
    assert (file.path, file.bytes, file.source) == ("/mnt/data/report.txt", 6, "assistant")


async def _lists_and_forgets(stage: Stage, body: Json) -> None:
    output: Any = {"type": "function_call_output", "call_id": body["output"][-1]["call_id"], "output": "sunny"}
    second = await stage.client.responses.create(
        model=SEES, input=[output], tools=stage.tools, previous_response_id=body["id"]
    )
    async with stage.gateway.http() as http:
        listed = (
            await http.get(f"/v1/responses/{second.id}/input_items", params={"order": "asc", "limit": 100})
        ).json()["data"]
        question, *outputs, answered = listed
        assert [part["type"] for part in question["content"]] == ["input_text", "input_image"]
        assert outputs == [
            {name: value for name, value in item.items() if value is not None} for item in body["output"]
        ]
        assert answered["output"] == "sunny"
        for response_id in (second.id, body["id"]):
            await stage.client.responses.delete(response_id)
            for path in ("", "/input_items", "?stream=true"):
                assert (await http.get(f"/v1/responses/{response_id}{path}")).status_code == 404
        refused = await http.post(
            "/v1/responses", json={"model": SEES, "input": "and?", "previous_response_id": body["id"]}
        )
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
