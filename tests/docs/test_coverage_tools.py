"""docs/coverage.md, held against gateways whose built-in tools all run: every tool is called, every method of the
client used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from app.protocol.recovery.client_tools import CLIENT_TOOLS
from tests.docs.stage import MODEL, Stage
from tests.docs.tables import SPELLINGS, TOOLS, served
from tests.e2e.streams import final
from tests.support.judge import judge
from tests.support.script import Call, Json, Reply


async def _entries(stage: Stage) -> Mapping[str, Json]:
    """An entry of `tools` for every tool, ready to be used."""
    async with stage.gateway.client() as client:
        store = await client.vector_stores.create(name="empty")
    entries = {name: msgspec.json.decode(spec.example, type=Json) for name, spec in TOOLS.items()}
    entries["file_search"]["vector_store_ids"] = [store.id]
    entries["mcp"] = {
        "type": "mcp",
        "server_label": "s",
        "server_url": stage.inward("https://mcp.example.com/mcp"),
        "require_approval": "never",
    }
    return entries


ARGUMENTS: Mapping[str, Json] = {
    "web_search": {"queries": ["tower"]},
    "web_extractor": {"urls": ["https://example.com/report.md"], "goal": ""},
    "code_interpreter": {"code": "print(1)"},
    "web_search_image": {"queries": ["tower"]},
    "image_search": {"img_idx": 0, "bbox": [0, 0, 1000, 1000]},
    "knowledge_search": {"queries": ["leave"]},
    "mcp__s__add": {"a": 1, "b": 2},
}
"""What the model calls the functions of the tools with."""


def _calling(stage: Stage) -> None:
    """Let the model call the first function that it is offered, once, and then answer."""
    stage.play([])

    def respond(body: Json) -> Reply:
        offered = [tool["function"]["name"] for tool in body.get("tools", ()) if tool["function"]["name"] in ARGUMENTS]
        if not offered or body["messages"][-1]["role"] == "tool":
            return Reply.say("Done [1].")
        return Reply(pieces=[Call(offered[0], [stage.inward(msgspec.json.encode(ARGUMENTS[offered[0]]).decode())])])

    stage.upstream.respond = respond


async def test_a_built_in_tool_can_be_demanded_by_its_type(stage: Stage) -> None:
    entries = await _entries(stage)
    demanded = served("Tool choice") - {
        "auto",
        "none",
        "required",
        "function",
        "custom",
        "allowed_tools",
        *CLIENT_TOOLS,
    }
    assert demanded == SPELLINGS & (demanded | TOOLS.keys())
    _calling(stage)
    async with stage.gateway.http() as http:
        for name in sorted(demanded):
            tools = [
                {**entry, "type": name if name in TOOLS[kind].aliases else kind} for kind, entry in entries.items()
            ]
            body = {"model": MODEL, "input": "Go on.", "tools": tools, "tool_choice": {"type": name}}
            answer = await http.post("/v1/responses", json=body)
            assert answer.status_code == 200, f"{name}: {answer.text}"
            kind = next(spec.type for spec in TOOLS.values() if name in (spec.type, *spec.aliases))
            assert answer.json()["usage"]["x_tools"] == {kind: {"count": 1}}, name


async def test_every_kind_of_call_is_streamed_with_its_events(stage: Stage) -> None:
    """Every tool is called in a stream, which the judge accepts; together they show every event of hosted calls but
    those of failures.
    """
    seen: set[str] = set()
    _calling(stage)
    async with stage.gateway.http() as http:
        for kind, entry in (await _entries(stage)).items():
            answer = await http.post(
                "/v1/responses", json={"model": MODEL, "input": "Go on.", "tools": [entry], "stream": True}
            )
            assert final(answer.content)["usage"]["x_tools"] == {kind: {"count": 1}}
            seen.update(str(event["type"]) for event in judge(answer.content).events)

    hosted = {name for name in served("Streamed events") if "_call" in name or "mcp" in name or "annotation" in name}
    others = {"custom_tool_call", "function_call", "failed", *(tool.item_type for tool in CLIENT_TOOLS.values())}
    assert {name for name in hosted if not any(other in name for other in others)} <= seen


class _Recorder:
    """The official client, and the methods that were called of it by their names."""

    def __init__(self, behind: Any, called: set[str], path: str = "") -> None:
        self._behind, self._called, self._path = behind, called, path

    def __getattr__(self, name: str) -> _Recorder:
        return _Recorder(getattr(self._behind, name), self._called, f"{self._path}.{name}".lstrip("."))

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self._called.add(self._path)
        return self._behind(*arguments, **options)


def test_every_method_that_is_served_works(stage: Stage) -> None:
    """The methods of files, vector stores and containers, through the official client, which checks what it gets."""
    called: set[str] = set()
    with stage.gateway.sync_client() as behind:
        client: Any = _Recorder(behind, called)
        file_id = _use_files(client)
        _use_stores(client, file_id)
        _use_containers(client, file_id)

    assert {
        name for name in served("SDK methods") if name.split(".")[0] in ("files", "vector_stores", "containers")
    } == called


def _use_files(client: Any) -> str:
    made = client.files.create(file=("a.txt", b"Some words."), purpose="user_data")
    assert client.files.retrieve(made.id) == made == client.files.wait_for_processing(made.id)
    assert [file.id for file in client.files.list(limit=1)][:1] == [made.id]
    assert client.files.content(made.id).read() == b"Some words."
    with pytest.deprecated_call():
        assert client.files.retrieve_content(made.id) == "Some words."
    other = client.files.create(file=("b.txt", b"x"), purpose="user_data")
    assert client.files.delete(other.id).deleted
    return made.id


def _use_stores(client: Any, file_id: str) -> None:
    store = client.vector_stores.create(name="s").id
    assert client.vector_stores.update(store, name="t").name == "t" == client.vector_stores.retrieve(store).name
    assert store in [each.id for each in client.vector_stores.list()]
    files, batches = client.vector_stores.files, client.vector_stores.file_batches
    files.create(store, file_id=file_id)
    assert files.poll(file_id, vector_store_id=store).status == "completed"
    assert files.create_and_poll(file_id, vector_store_id=store).status == "completed"
    files.upload(vector_store_id=store, file=("c.txt", b"x"))
    assert files.upload_and_poll(vector_store_id=store, file=("d.txt", b"x")).status == "completed"
    assert files.update(file_id, vector_store_id=store, attributes={"a": "b"}).attributes == {"a": "b"}
    assert files.retrieve(file_id, vector_store_id=store).attributes == {"a": "b"}
    assert len(files.list(store).data) == 3
    assert files.content(file_id, vector_store_id=store).data[0].text == "Some words."
    assert [hit.file_id for hit in client.vector_stores.search(store, query="Some words.", max_num_results=1)] == [
        file_id
    ]
    batch = batches.create(store, file_ids=[file_id])
    assert batches.poll(batch.id, vector_store_id=store).status == "completed"
    assert batches.retrieve(batch.id, vector_store_id=store).file_counts.total == 1
    assert len(batches.list_files(batch.id, vector_store_id=store).data) == 1
    assert batches.create_and_poll(store, file_ids=[file_id]).status == "completed"
    assert batches.upload_and_poll(store, files=[("e.txt", b"x")]).status == "completed"
    assert batches.cancel(batch.id, vector_store_id=store).id == batch.id
    assert files.delete(file_id, vector_store_id=store).deleted
    assert client.vector_stores.delete(store).deleted


def _use_containers(client: Any, file_id: str) -> None:
    container = client.containers.create(name="c").id
    assert client.containers.retrieve(container).name == "c"
    assert container in [each.id for each in client.containers.list()]
    file = client.containers.files.create(container, file_id=file_id)
    assert client.containers.files.retrieve(file.id, container_id=container).path == "/mnt/data/a.txt"
    assert [each.id for each in client.containers.files.list(container)] == [file.id]
    assert client.containers.files.content.retrieve(file.id, container_id=container).read() == b"Some words."
    client.containers.files.delete(file.id, container_id=container)
    client.containers.delete(container)
