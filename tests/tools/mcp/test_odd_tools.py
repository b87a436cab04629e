"""Lists of tools that are odd, and results that are: what can be read is used, what cannot is named."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Mapping
from typing import Any

import msgspec
import pytest

from app.protocol.stream.phases import status
from app.tools.ports.tool import ToolOutcome
from tests.support.mcp_server import PIXEL
from tests.support.site import Answer, Site, Visit, serving_site
from tests.tools.mcp_stage import call, listed, names, session
from tests.tools.raw_mcp import GOOD, reply, speaking

PNG = base64.b64decode(PIXEL)


@pytest.fixture
def site() -> Generator[Site]:
    with serving_site() as serving:
        yield serving


async def offered(site: Site, *tools: Any, **fields: Any) -> tuple[dict[str, Any], str]:
    """The schemas on offer by the tool's name, and what the announcement says of the others."""
    async with session(speaking(site, tools_list={"tools": list(tools)}), **fields) as opened:
        schemas = {
            function.name.removeprefix("mcp__shop__"): msgspec.json.decode(function.parameters)
            for function in opened.functions
        }
        return schemas, listed(opened).error or ""


def tool(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "odd", "inputSchema": schema, **fields}


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({}, {"type": "object"}),
        (None, {"type": "object"}),
        (True, {"type": "object"}),
        ('{"type":"object","properties":{"a":{}}}', {"type": "object", "properties": {"a": {}}}),
        ({"type": "object", "properties": None, "required": None}, {"type": "object"}),
        ({"type": "object", "properties": [], "required": []}, {"type": "object", "properties": {}, "required": []}),
        ({"type": "string"}, {"type": "object"}),
        ({"type": ["object", "null"]}, {"type": "object"}),
        ({"properties": {"a": {"type": "INTEGER"}}}, {"type": "object", "properties": {"a": {"type": "integer"}}}),
        ({"properties": {"a": {"type": "any"}, "b": None}}, {"type": "object", "properties": {"a": {}, "b": {}}}),
        ({"properties": {"a": "string"}}, {"type": "object", "properties": {"a": {"type": "string"}}}),
        (
            {"properties": {"a": {"type": "number", "minimum": 0, "exclusiveMinimum": True}}},
            {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": 0}}},
        ),
        (
            {"properties": {"a": {"type": "string", "required": True}}},
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        ),
        (
            {"properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}},
            {"type": "object", "properties": {"a": {"prefixItems": [{"type": "string"}], "items": False}}},
        ),
        (
            {"$ref": "#/definitions/Args", "definitions": {"Args": {"type": "object", "required": ["a"]}}},
            {"type": "object", "required": ["a"], "definitions": {"Args": {"type": "object", "required": ["a"]}}},
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/gone"}, "b": {"$ref": "https://example.com/schema"}}},
            {"type": "object", "properties": {"a": {}, "b": {}}},
        ),
        (
            {"properties": {"a": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "string"}}},
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/T"}}, "$defs": {"T": {"type": "string"}}},
        ),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x/y", "type": "object"},
            {"type": "object"},
        ),
        (
            {"properties": {"a": {"description": 5, "minLength": "1", "enum": []}}},
            {"type": "object", "properties": {"a": {}}},
        ),
        ({"properties": {"id": {"default": None}}}, {"type": "object", "properties": {"id": {"default": None}}}),
    ],
)
async def test_an_odd_schema_is_kept_as_one_of_an_object(site: Site, schema: Any, kept: dict[str, Any]) -> None:
    assert await offered(site, tool(schema), GOOD) == ({"odd": kept, "good": {"type": "object", "properties": {}}}, "")


async def test_a_tool_without_a_schema_is_kept(site: Site) -> None:
    schemas, error = await offered(site, {"name": "odd"}, GOOD)
    assert (list(schemas), error) == (["odd", "good"], "")


@pytest.mark.parametrize(
    "schema", [False, 5, "text", [], {"properties": 5}, {"properties": {"a": {"type": "nonsense"}}}]
)
async def test_a_schema_that_is_none_leaves_the_tool_out_by_name(site: Site, schema: Any) -> None:
    schemas, error = await offered(site, tool(schema), GOOD)
    assert list(schemas) == ["good"]
    assert error == "Left out of the server's tools: odd (its schema is not valid)."


@pytest.mark.parametrize(
    "fields", [{"description": 5}, {"description": None, "title": None, "annotations": None}, {"annotations": []}]
)
async def test_odd_words_beside_the_schema_cost_no_tool(site: Site, fields: dict[str, Any]) -> None:
    odd: dict[str, Any] = {"icons": "x", "outputSchema": 5, "execution": [], "_meta": 1, **fields}
    schemas, error = await offered(site, tool({"type": "object"}, **odd), GOOD)
    assert (list(schemas), error) == (["odd", "good"], "")


async def test_every_tool_that_is_left_out_is_named(site: Site) -> None:
    odd: list[Any] = [
        5,
        None,
        {"inputSchema": {}},
        {"name": 7},
        {"name": ""},
        {"name": "n" * 200},
        {"name": "bell\x07"},
        GOOD,
        {**GOOD, "title": "again"},
    ]
    schemas, error = await offered(site, *odd)
    assert list(schemas) == ["good"]
    assert error == (
        "Left out of the server's tools: number 1, number 2 (it is not an object); number 3, number 4, number 5 (it "
        f"has no name); {'n' * 64}, bell? (its name is too long or cannot be shown); good (its name is listed twice)."
    )


async def test_tools_beyond_the_limit_are_named(site: Site) -> None:
    schemas, error = await offered(site, *({**GOOD, "name": f"t{number}"} for number in range(200)))
    assert len(schemas) == 128
    assert error.startswith("Left out of the server's tools: t128, t129, t130,")
    assert error.endswith(" and 52 more (at most 128 tools are offered).")


async def test_what_is_not_allowed_takes_no_room_and_is_not_named(site: Site) -> None:
    many = [{**GOOD, "name": f"t{number}"} for number in range(200)]
    schemas, error = await offered(site, tool(schema=False), *many, allowed_tools=["t199", "t7"])
    assert (list(schemas), error) == (["t7", "t199"], "")


async def test_a_list_of_which_some_is_left_out_is_no_failed_one(site: Site) -> None:
    async with session(speaking(site, tools_list={"tools": [GOOD, tool(schema=False)]})) as opened:
        assert status(listed(opened)) == "completed"
        assert opened.note is not None
    async with session(speaking(site, tools_list={"tools": [tool(schema=False)]})) as opened:
        assert status(listed(opened)) == "failed"


@pytest.mark.parametrize("tools", [None, {}, "many", 5])
async def test_a_list_that_is_none_is_empty(site: Site, tools: Any) -> None:
    async with session(speaking(site, tools_list={"tools": tools})) as opened:
        assert names(opened) == []


async def result(site: Site, **fields: Any) -> ToolOutcome:
    async with session(speaking(site, tools_call=fields)) as opened:
        outcome, _ = await call(opened, "good")
        return outcome


def said(text: Any) -> dict[str, Any]:
    return {"type": "text", "text": text}


@pytest.mark.parametrize("failed", [False, True])
async def test_structured_content_reaches_the_model_beside_a_text(site: Site, failed: bool) -> None:
    outcome = await result(
        site, content=[said("2 items")], structuredContent={"items": ["alpha-7731", "北京"]}, isError=failed
    )
    assert outcome.text.removeprefix("The tool failed: ") == '2 items\n{"items":["alpha-7731","北京"]}'
    assert getattr(outcome.item, "status", None) == ("failed" if failed else "completed")


@pytest.mark.parametrize(
    ("texts", "structured"),
    [
        (['{"a": [1, 2]}'], {"a": [1, 2]}),
        (["3"], {"result": 3}),
        (["Sunny"], {"result": "Sunny"}),
        (["one", "two"], {"result": ["one", "two"]}),
        (['{"a":1}', '{"a":2}'], {"result": [{"a": 1}, {"a": 2}]}),
        (["Here:", '{"a":1}'], {"a": 1}),
    ],
)
async def test_structured_content_that_the_text_repeats_is_said_once(
    site: Site, texts: list[str], structured: Any
) -> None:
    outcome = await result(site, content=[said(text) for text in texts], structuredContent=structured)
    assert outcome.text == "\n".join(texts)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"content": None}, ""),
        ({}, ""),
        ({"content": None, "structuredContent": [1, None]}, "[1,null]"),
        ({"toolResult": {"a": 1}}, '{"a":1}'),
        ({"content": "bare"}, "bare"),
        ({"content": said("one block")}, "one block"),
        ({"content": ["bare", None, 5, said("x"), said(None), said(7)]}, "bare\n5\nx\n7"),
        ({"content": [said("x")], "isError": None, "_meta": None, "structuredContent": None}, "x"),
        ({"content": [{**said("x"), "annotations": {"audience": ["nobody"], "priority": 99}}]}, "x"),
        (
            {"content": [{"type": "video", "url": "https://example.com/v"}]},
            '{"type":"video","url":"https://example.com/v"}',
        ),
        ({"content": [{"type": "video", "data": "A" * 5000}]}, "[video: not shown]"),
        ({"content": [{"text": "no kind"}, {"type": "markdown", "text": "**b**"}]}, "no kind\n**b**"),
        ({"content": [{"type": "audio", "data": None}]}, "[audio, unknown type: not shown]"),
        ({"content": [{"type": "resource_link", "uri": "https://e.com/x", "name": None}]}, "resource: https://e.com/x"),
        (
            {"content": [{"type": "resource_link", "uri": "not a uri", "title": "T", "description": "D"}]},
            "T: not a uri\nD",
        ),
        ({"content": [{"type": "resource", "resource": None}]}, "[file: not shown]"),
        (
            {
                "content": [
                    {
                        "type": "resource",
                        "resource": {"uri": "x", "mimeType": "text/csv", "blob": base64.b64encode(b"a,b").decode()},
                    }
                ]
            },
            "x\na,b",
        ),
        ({"content": [said("half \ud83d of it")]}, "half \ufffd of it"),
    ],
)
async def test_odd_blocks_are_read_as_far_as_they_go(site: Site, fields: dict[str, Any], text: str) -> None:
    def spoken(_: Visit, message: Mapping[str, Any]) -> Answer:
        told = {"jsonrpc": "2.0", "id": message["id"], "result": fields, "error": None}
        return Answer(json.dumps(told).encode(), content_type="application/json")

    async with session(speaking(site, tools_call=spoken)) as opened:
        outcome, item = await call(opened, "good")
    assert outcome.text == text
    assert item.status == "completed"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PIXEL, "image/png"),
        (PIXEL, "image/jpg"),
        (PIXEL, "IMAGE/PNG; charset=binary"),
        (PIXEL, None),
        (f"data:image/png;base64,{PIXEL}", "image/png"),
        (f"data:image/jpg;base64,{PIXEL}", None),
        ("\n".join([PIXEL[:40], PIXEL[40:]]), "image/png"),
        (base64.urlsafe_b64encode(PNG).decode().rstrip("="), "image/png"),
    ],
)
async def test_an_image_is_shown_whatever_it_is_called(site: Site, data: str, kind: str | None) -> None:
    outcome = await result(site, content=[{"type": "image", "data": data, "mimeType": kind}])
    assert [image.url for image in outcome.images] == [f"data:image/png;base64,{PIXEL}"]
    assert outcome.text == "[image 1]"


async def test_a_jpeg_by_its_common_wrong_name_is_a_jpeg(site: Site) -> None:
    jpeg = base64.b64encode(b"\xff\xd8\xff\xe0rest").decode()
    outcome = await result(site, content=[{"type": "image", "data": jpeg, "mimeType": "image/jpg"}])
    assert [image.url for image in outcome.images] == [f"data:image/jpeg;base64,{jpeg}"]


@pytest.mark.parametrize(
    "data", [None, "", 5, "%%%", base64.b64encode(b"<svg/>").decode(), base64.b64encode(b"no image").decode()]
)
async def test_what_is_no_image_is_not_shown_as_one(site: Site, data: Any) -> None:
    outcome = await result(site, content=[{"type": "image", "data": data, "mimeType": "image/png"}])
    assert outcome.images == ()
    assert outcome.text == "[image/png: not shown]"


async def test_a_call_that_asks_for_more_input_fails_with_a_sentence(site: Site) -> None:
    outcome = await result(site, resultType="input_required", inputRequests={})
    assert "further input" in outcome.text
    assert getattr(outcome.item, "status", None) == "failed"


async def test_a_number_beyond_all_bounds_is_a_number(site: Site) -> None:
    def spoken(_: Visit, message: Mapping[str, Any]) -> Answer:
        return Answer(
            reply(message, {"structuredContent": {"a": "N"}}).body.replace(b'"N"', b"1e999"),
            content_type="application/json",
        )

    async with session(speaking(site, tools_call=spoken)) as opened:
        outcome, _ = await call(opened, "good")
    assert "MCP server" in outcome.text or "Infinity" in outcome.text
