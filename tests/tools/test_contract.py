"""What holds for every built-in tool, found as the gateway finds them: a new one is held to it without being named
here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.discovery import constants
from app.engine.conversation.function_names import upstream_name
from app.protocol.stream.phases import SPECS
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.hosted import HostedCall
from app.settings import Settings
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.files import FileContent, FileHit, FileQuery
from app.tools.ports.tool import Missing, Tool, ToolRequest, ToolServices, ToolSession, ToolSpec
from tests.support.mcp_server import serving_mcp
from tests.tools.mcp_stage import context

TOOLS = constants("app.tools", "TOOL", ToolSpec)
_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_FORBIDDEN = frozenset({"search", "file_search"})
"""Names that DashScope refuses."""
_SILENT = "http://127.0.0.1:9"
SETTINGS = Settings.model_validate(
    {
        "searxng_url": _SILENT,
        "serper_api_key": "key",
        "fetch_allow": ("127.0.0.1",),
        "embeddings_base_url": _SILENT,
        "embeddings_model": "e",
    }
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_keys = st.sampled_from(["query", "queries", "url", "urls", "goal", "code", "img_idx", "bbox", "a", "b"])
_arguments = (
    st.text(max_size=60)
    | _json.map(lambda value: msgspec.json.encode(value).decode())
    | st.dictionaries(_keys, _json, max_size=5).map(lambda value: msgspec.json.encode(value).decode())
    | st.sampled_from(["", "{", "[" * 5000, '{"queries":' * 500, '{"queries":["\\ud800"]}', "\x00"])
)


class _EmptyFiles:
    """A project that has vector stores of every name, and nothing in them."""

    async def read(self, project_id: str, file_id: str) -> FileContent:
        return FileContent(file_id, f"{project_id}.txt", b"")

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        assert project_id
        assert vector_store_ids

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        assert project_id
        assert query.queries
        return ()


@asynccontextmanager
async def built(spec: ToolSpec) -> AsyncGenerator[Tool]:
    fetcher = GuardedFetcher(allow=SETTINGS.fetch_allow)
    tool = spec.build(ToolServices(settings=SETTINGS, fetcher=fetcher, files=_EmptyFiles()))
    if isinstance(tool, Missing):
        await fetcher.aclose()
        pytest.skip(f"{spec.type}: {tool.reason}")
    try:
        yield tool
    finally:
        await tool.aclose()
        await fetcher.aclose()


@pytest.fixture(scope="module")
def mcp_url() -> Generator[str]:
    with serving_mcp() as server:
        yield server.url()


@asynccontextmanager
async def opened(spec: ToolSpec, mcp_url: str) -> AsyncGenerator[tuple[ToolRequest, ToolSession]]:
    async with built(spec) as tool:
        entry = msgspec.json.decode(spec.example)
        if spec.type == "mcp":  # its example names a server on the internet
            entry = {"type": "mcp", "server_label": "local", "server_url": mcp_url}
        request = tool.configure(msgspec.Raw(msgspec.json.encode(entry)), "tools[0]")
        session = await request.open(context())
        try:
            yield request, session
        finally:
            await session.aclose()


@pytest.fixture(params=TOOLS.values(), ids=list(TOOLS))
def spec(request: pytest.FixtureRequest) -> ToolSpec:
    found: ToolSpec = request.param
    return found


def test_every_spelling_of_a_type_is_one_tool() -> None:
    spellings = [spelling for tool in TOOLS.values() for spelling in (tool.type, *tool.aliases)]
    assert sorted(spellings) == sorted(set(spellings))
    assert "function" not in spellings


def test_a_module_is_named_like_its_tool() -> None:
    assert {name: tool.type for name, tool in TOOLS.items()} == {name: name for name in TOOLS}


def test_people_are_told_what_it_does(spec: ToolSpec) -> None:
    assert spec.description.endswith(".")
    assert "\n" not in spec.description


def test_without_settings_it_runs_or_names_the_setting(spec: ToolSpec) -> None:
    tool = spec.build(ToolServices(settings=Settings(), fetcher=GuardedFetcher(), files=None))
    if isinstance(tool, Missing):
        assert tool.setting.removeprefix("GATEWAY_").lower() in Settings.model_fields
        assert tool.reason.endswith(".")


async def test_the_example_works_as_it_stands(spec: ToolSpec) -> None:
    async with built(spec) as tool:
        request = tool.configure(spec.example, "tools[0]")
        assert msgspec.json.decode(request.echo)["type"] in (spec.type, *spec.aliases)
        assert request.native is None or msgspec.json.decode(request.native)["type"] == spec.type


async def test_its_own_echo_is_an_entry_that_means_the_same(spec: ToolSpec) -> None:
    async with built(spec) as tool:
        request = tool.configure(spec.example, "tools[0]")
        again = tool.configure(request.echo, "tools[0]")
        assert msgspec.json.decode(again.echo) == msgspec.json.decode(request.echo)
        assert (again.names, again.label) == (request.names, request.label)


async def test_a_wrong_entry_is_refused_by_its_place(spec: ToolSpec) -> None:
    entry = msgspec.json.decode(spec.example)

    async with built(spec) as tool:

        @settings(max_examples=50)
        @given(field=st.sampled_from([*entry, "filters", "container", "headers"]), value=_json)
        def refused_or_accepted(field: str, value: object) -> None:
            raw = msgspec.Raw(msgspec.json.encode({**entry, field: value} if field != "type" else entry))
            assert _complaint(tool, raw).startswith("tools[7]")

        refused_or_accepted()


def _complaint(tool: Tool, raw: msgspec.Raw) -> str:
    """The parameter that is refused; the place itself when nothing is."""
    try:
        tool.configure(raw, "tools[7]")
    except InvalidRequest as refusal:
        return refusal.param or ""
    return "tools[7]"


async def test_every_upstream_can_be_offered_its_functions(spec: ToolSpec, mcp_url: str) -> None:
    async with opened(spec, mcp_url) as (request, session):
        names = [function.name for function in session.functions]
        assert names
        assert len(set(names)) == len(names)
        assert set(request.names) in (set(names), set[str]())
        for function in session.functions:
            assert _UPSTREAM_NAME.match(function.name)
            assert function.name not in _FORBIDDEN
            assert upstream_name(function.name, None) != function.name, (
                "a client's function of that name would meet this one"
            )
            assert function.description
            schema = msgspec.json.decode(function.parameters)
            assert schema["type"] == "object"
            assert jsonschema_rs.meta.is_valid(schema)


async def test_any_arguments_have_an_item(spec: ToolSpec, mcp_url: str) -> None:
    async with opened(spec, mcp_url) as (_, session):

        @settings(max_examples=200)
        @given(name=st.sampled_from([function.name for function in session.functions]), arguments=_arguments)
        def has_an_item(name: str, arguments: str) -> None:
            call = HostedCall("call_1", name, arguments)
            item = session.item(call)
            assert type(item) in SPECS
            assert getattr(item, "status", "in_progress") == "in_progress"
            assert session.item(call) == item
            assert msgspec.json.decode(msgspec.json.encode(item), type=type(item)) == item

        has_an_item()
