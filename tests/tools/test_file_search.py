"""`file_search` as requests ask for it and as the model reads it; what finds the passages has tests of its own
(tests/knowledge).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.protocol.messages import ImagePart
from app.protocol.wire.errors import InvalidRequest, NotFound
from app.protocol.wire.hosted import FileSearchCall, HostedCall
from app.settings import Limits, Settings
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.file_search import TOOL
from app.tools.ports.files import FileContent, FileHit, FileQuery
from app.tools.ports.tool import (
    FileCitation,
    Missing,
    Source,
    Tool,
    ToolContext,
    ToolFailure,
    ToolRequest,
    ToolServices,
    ToolSession,
)

HITS = (
    FileHit("file-1", "pump.md", 0.9, "Open the valve.", {"year": 2024}),
    FileHit("file-2", "泵 手册.pdf", 0.7, "请打开闸门。", {}),
    FileHit("file-1", "pump.md", 0.5, "Then wait.", {"year": 2024}),
)


class StoredFiles:
    """Files of project `p`, with one vector store; what was asked is kept."""

    def __init__(self, *hits: FileHit) -> None:
        self.hits = hits
        self.asked: list[tuple[str, FileQuery]] = []

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """Not needed by this tool."""
        return FileContent(file_id, project_id, b"")

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        """Knows `vs_1` and `vs_2` of project `p`."""
        for store in vector_store_ids:
            if project_id != "p" or store not in ("vs_1", "vs_2"):
                raise NotFound(f"Vector store '{store}' not found.")

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        """The given hits; `gone` was deleted meanwhile."""
        self.asked.append((project_id, query))
        if "gone" in query.queries:
            raise NotFound("Vector store 'vs_1' not found.")
        return self.hits[: query.limit]


class Response:
    """A response that uses the tool; what it cites is numbered as the engine does."""

    def __init__(self) -> None:
        self.sources: list[Source] = []

    def cite(self, source: Source) -> int:
        """Numbers in the order of the first mention."""
        if source not in self.sources:
            self.sources.append(source)
        return self.sources.index(source) + 1

    async def ask(self, question: str, *, images: Sequence[ImagePart] = (), max_tokens: int = 1000) -> str:
        """Not needed by this tool."""
        raise ToolFailure(question)

    def context(self, *include: str, project: str = "p") -> ToolContext:
        """What the engine gives to a session."""
        return ToolContext(
            project_id=project,
            response_id="r",
            model="qwen",
            images=(),
            include=frozenset(include),
            note=None,
            ask=self.ask,
            cite=self.cite,
        )


def built(files: StoredFiles | None, **limits: int) -> Tool | Missing:
    """The tool, as the gateway builds it."""
    settings = Settings(limits=Limits(**limits))
    return TOOL.build(ToolServices(settings=settings, fetcher=GuardedFetcher(), files=files))


def configured(files: StoredFiles, **limits: int) -> Tool:
    """The tool, which is not missing."""
    tool = built(files, **limits)
    assert not isinstance(tool, Missing)
    return tool


def entry(files: StoredFiles, **fields: object) -> ToolRequest:
    """A checked entry of a request."""
    raw = msgspec.json.encode({"type": "file_search", "vector_store_ids": ["vs_1"], **fields})
    return configured(files).configure(msgspec.Raw(raw), "tools[0]")


def call(**arguments: object) -> HostedCall:
    """A call as models write it."""
    return HostedCall("call_1", "knowledge_search", json.dumps(arguments))


async def opened(files: StoredFiles, response: Response, *include: str, **fields: object) -> ToolSession:
    """A session of project `p`."""
    return await entry(files, **fields).open(response.context(*include))


async def test_the_model_reads_which_passages_hardly_fit() -> None:
    weak = msgspec.structs.replace(HITS[2], fits=False)
    outcome = await (await opened(StoredFiles(HITS[0], weak), Response())).run(call(queries=["valve"]))
    assert outcome.text.split("\n\n")[1:] == ["[1] pump.md\nOpen the valve.", "[1] pump.md (hardly fits)\nThen wait."]


async def test_the_model_reads_that_nothing_fits() -> None:
    weak = msgspec.structs.replace(HITS[2], fits=False)
    outcome = await (await opened(StoredFiles(weak), Response())).run(call(queries=["valve"]))
    assert "None of the passages fits the query well" in outcome.text
    assert "Then wait." in outcome.text


async def test_the_model_reads_numbered_passages_and_each_file_has_one_number() -> None:
    files, response = StoredFiles(*HITS), Response()
    session = await opened(files, response)
    outcome = await session.run(call(queries=["valve", " 闸门 "]))
    assert outcome.text.split("\n\n")[1:] == [
        "[1] pump.md\nOpen the valve.",
        "[2] 泵 手册.pdf\n请打开闸门。",
        "[1] pump.md\nThen wait.",
    ]
    assert response.sources == [FileCitation("file-1", "pump.md"), FileCitation("file-2", "泵 手册.pdf")]
    assert outcome.item == FileSearchCall(id="", status="completed", queries=("valve", "闸门"))
    assert files.asked[0][0] == "p"
    assert files.asked[0][1].queries == ("valve", "闸门")


async def test_results_are_shown_only_when_asked_for() -> None:
    session = await opened(StoredFiles(*HITS), Response(), "file_search_call.results")
    item = (await session.run(call(queries=["valve"]))).item
    assert isinstance(item, FileSearchCall)
    assert item.results is not None
    assert [(one.file_id, one.score, one.attributes) for one in item.results] == [
        ("file-1", 0.9, {"year": 2024}),
        ("file-2", 0.7, {}),
        ("file-1", 0.5, {"year": 2024}),
    ]


async def test_nothing_found_is_said() -> None:
    outcome = await (await opened(StoredFiles(), Response())).run(call(queries=["valve"]))
    assert "Nothing was found" in outcome.text


async def test_passages_beyond_the_limit_of_the_output_are_left_out_whole() -> None:
    hits = [FileHit("file-1", "a.txt", 0.5, f"{number} " + "x" * 700, {}) for number in range(10)]
    files = StoredFiles(*hits)
    raw = msgspec.Raw(b'{"type":"file_search","vector_store_ids":["vs_1"]}')
    session = await configured(files, tool_output_bytes=4096).configure(raw, "tools[0]").open(Response().context())
    text = (await session.run(call(queries=["x"]))).text
    assert len(text.encode()) <= 4096
    assert text.count("x" * 700) == 5
    assert "5 more passages" in text


@pytest.mark.parametrize(
    ("arguments", "queries"),
    [
        ('{"queries":["a","b","a",""]}', ("a", "b")),
        ('{"query":"a  b"}', ("a b",)),
        ('["a"]', ("a",)),
        ('"a"', ("a",)),
        ('{"queries":["1","2","3","4","5","6"]}', ("1", "2", "3", "4", "5")),
        ('{"queries":', ()),
        ("", ()),
    ],
)
async def test_queries_however_they_are_written(arguments: str, queries: tuple[str, ...]) -> None:
    session = await opened(StoredFiles(*HITS), Response())
    written = HostedCall("call_1", "knowledge_search", arguments)
    assert session.item(written) == FileSearchCall(id="", status="in_progress", queries=queries)
    if not queries:
        with pytest.raises(ToolFailure, match="queries"):
            await session.run(written)


async def test_options_reach_the_search_and_are_echoed() -> None:
    files = StoredFiles(*HITS)
    filters = {"type": "eq", "key": "year", "value": 2024}
    ranking = {"ranker": "auto", "score_threshold": 0.3, "hybrid_search": {"embedding_weight": 2, "text_weight": 0}}
    fields = {
        "vector_store_ids": ["vs_1", "vs_2", "vs_1"],
        "max_num_results": 2,
        "filters": filters,
        "ranking_options": ranking,
    }
    request = entry(files, **fields)
    await (await request.open(Response().context())).run(call(queries=["x"]))
    query = files.asked[0][1]
    assert (query.vector_store_ids, query.limit, query.score_threshold) == (("vs_1", "vs_2"), 2, 0.3)
    assert (query.embedding_weight, query.text_weight) == (2, 0)
    assert query.filters is not None
    assert json.loads(bytes(query.filters)) == filters
    assert json.loads(bytes(request.echo)) == {
        "type": "file_search",
        "vector_store_ids": ["vs_1", "vs_2"],
        "filters": filters,
        "max_num_results": 2,
        "ranking_options": ranking,
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"vector_store_ids": None}, "tools[0].vector_store_ids"),
        ({"vector_store_ids": []}, "tools[0].vector_store_ids"),
        ({"vector_store_ids": ["vs"] * 2 + [f"vs_{n}" for n in range(20)]}, "tools[0].vector_store_ids"),
        ({"vector_store_ids": [1]}, "tools[0].vector_store_ids"),
        ({"max_num_results": 0}, "tools[0].max_num_results"),
        ({"max_num_results": 51}, "tools[0].max_num_results"),
        ({"max_results": 5}, "tools[0].max_results"),
        ({"ranking_options": {"score_threshold": 1.5}}, "tools[0].ranking_options.score_threshold"),
        ({"ranking_options": {"ranker": "best"}}, "tools[0].ranking_options.ranker"),
        (
            {"ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}},
            "tools[0].ranking_options.hybrid_search",
        ),
        (
            {"ranking_options": {"hybrid_search": {"embedding_weight": -1, "text_weight": 2}}},
            "tools[0].ranking_options.hybrid_search",
        ),
        ({"filters": {"type": "eq", "key": "a"}}, "tools[0].filters.value"),
        (
            {"filters": {"type": "and", "filters": [{"type": "like", "key": "a", "value": 1}]}},
            "tools[0].filters.filters[0].type",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        entry(StoredFiles(), **fields)
    assert refused.value.param is not None
    assert refused.value.param.startswith(param)


async def test_an_unknown_store_or_another_projects_is_refused_before_the_answer() -> None:
    with pytest.raises(NotFound, match="vs_9"):
        await entry(StoredFiles(), vector_store_ids=["vs_1", "vs_9"]).open(Response().context())
    with pytest.raises(NotFound):
        await entry(StoredFiles()).open(Response().context(project="q"))


async def test_a_store_that_went_away_meanwhile_is_a_failure_the_model_hears_of() -> None:
    session = await opened(StoredFiles(), Response())
    with pytest.raises(ToolFailure, match="not found"):
        await session.run(call(queries=["gone"]))


def test_without_files_it_names_the_setting() -> None:
    missing = built(None)
    assert isinstance(missing, Missing)
    assert missing.setting == "GATEWAY_FILES_DIR"


def test_it_is_never_forwarded_and_its_function_has_a_name_that_dashscope_takes() -> None:
    request = entry(StoredFiles())
    assert request.native is None
    assert request.names == ("knowledge_search",)
