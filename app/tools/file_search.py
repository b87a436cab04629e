"""`file_search`: searches the user's vector stores, by meaning and by words.

Formats: the openai SDK's `FileSearchTool` and `ResponseFileSearchToolCall`. The vendor of Qwen accepts a single vector
store, its own; here any number of this gateway's can be searched together, so nothing is ever forwarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec

from app.protocol.messages import FunctionTool
from app.protocol.wire.errors import ApiError, InvalidRequest
from app.protocol.wire.filters import parse_filter
from app.protocol.wire.hosted import FileResult, FileSearchCall, HostedCall, HostedItem
from app.protocol.wire.requests import Json, given, parse_entry
from app.tools.ports.files import FileHit, FileQuery, Files
from app.tools.ports.tool import (
    FileCitation,
    Missing,
    Price,
    ToolContext,
    ToolFailure,
    ToolOutcome,
    ToolRequest,
    ToolServices,
    ToolSpec,
)
from app.tools.search.queries import MOST_QUERIES, queries_of

_FUNCTION = "knowledge_search"
"""Not `file_search`: DashScope mistakes a function with that name for its own tool."""
_RESULTS = "file_search_call.results"
_MOST_STORES = 20
_MOST_RESULTS = 50
_USUAL_RESULTS = 10
_MOST_WEIGHT = 1000
_MARGIN = 512
"""Bytes of the output reserved for what is not a passage."""

_PARAMETERS = {
    "type": "object",
    "properties": {
        "queries": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": MOST_QUERIES,
            "description": (
                "What to look for, each as a whole question or phrase; names, numbers and codes exactly as they are "
                "written."
            ),
        }
    },
    "required": ["queries"],
}
_FUNCTIONS = (
    FunctionTool(
        name=_FUNCTION,
        description="Search the user's files (documents, manuals, notes) for passages that help to answer. "
        "Several queries only for several aspects of the question.",
        parameters=msgspec.Raw(msgspec.json.encode(_PARAMETERS)),
    ),
)

_Ranker = Literal["auto", "default-2024-11-15", "none"]


_NOTHING_FITS = (
    "None of the passages fits the query well: the files may say nothing of it. "
    "Search again in other words, or say that it was not found, rather than answer from what is beside the point."
)


class _Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    embedding_weight: float
    text_weight: float


class _Ranking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ranker: _Ranker | None = None
    score_threshold: float | None = None
    hybrid_search: _Weights | None = None


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    vector_store_ids: tuple[str, ...] | None = None
    max_num_results: int | None = None
    filters: Json = msgspec.UNSET
    ranking_options: _Ranking | None = None


class _RankingEcho(msgspec.Struct, frozen=True):
    ranker: _Ranker
    score_threshold: float
    hybrid_search: _Weights | msgspec.UnsetType


class _Echo(msgspec.Struct, frozen=True):
    type: Literal["file_search"]
    vector_store_ids: Sequence[str]
    filters: msgspec.Raw | None
    max_num_results: int
    ranking_options: _RankingEcho


class _FileSearch:
    """Implements `app.tools.ports.tool.Tool`."""

    def __init__(self, files: Files, *, size: int) -> None:
        self._files = files
        self._size = size

    def configure(self, raw: msgspec.Raw, place: str) -> ToolRequest:
        entry = parse_entry(raw, _Entry, place)
        stores = _stores(entry, place)
        limit = _limit(entry, place)
        filters = given(entry.filters)
        if filters is not None:
            parse_filter(filters, f"{place}.filters")
        ranking = entry.ranking_options or _Ranking()
        _check_ranking(ranking, f"{place}.ranking_options")
        weights = ranking.hybrid_search or _Weights(1.0, 1.0)
        query = FileQuery(
            vector_store_ids=stores,
            queries=(),
            limit=limit,
            filters=filters,
            score_threshold=ranking.score_threshold or 0.0,
            embedding_weight=weights.embedding_weight,
            text_weight=weights.text_weight,
            ranker=ranking.ranker or "auto",
        )
        ranked = _RankingEcho(query.ranker, query.score_threshold, ranking.hybrid_search or msgspec.UNSET)
        echo = _Echo("file_search", stores, filters, limit, ranked)
        return ToolRequest(
            open=partial(self._open, query), echo=msgspec.Raw(msgspec.json.encode(echo)), names=(_FUNCTION,)
        )

    async def aclose(self) -> None:
        """Holds nothing."""

    async def _open(self, query: FileQuery, context: ToolContext) -> _Session:
        await self._files.check(context.project_id, query.vector_store_ids)
        return _Session(self._files, query, context, size=self._size)


class _Session:
    """Implements `app.tools.ports.tool.ToolSession`."""

    functions: Sequence[FunctionTool] = _FUNCTIONS
    announcements: Sequence[HostedItem] = ()
    note: str | None = None

    def __init__(self, files: Files, query: FileQuery, context: ToolContext, *, size: int) -> None:
        self._files = files
        self._query = query
        self._context = context
        self._size = size

    def item(self, call: HostedCall) -> HostedItem:
        return FileSearchCall(id="", status="in_progress", queries=queries_of(call.arguments))

    def may_repeat(self, call: HostedCall) -> bool:
        del call
        return True

    async def run(self, call: HostedCall) -> ToolOutcome:
        queries = queries_of(call.arguments)
        if not queries:
            raise ToolFailure('There is nothing to search for. Call it with {"queries": ["…"]}.')
        hits = await self._search(queries)
        results = tuple(FileResult(hit.file_id, hit.filename, hit.score, hit.text, hit.attributes) for hit in hits)
        shown = results if _RESULTS in self._context.include else None
        return ToolOutcome(
            text=self._told(hits), item=FileSearchCall(id="", status="completed", queries=queries, results=shown)
        )

    async def aclose(self) -> None:
        """Holds nothing."""

    async def _search(self, queries: tuple[str, ...]) -> Sequence[FileHit]:
        try:
            return await self._files.search(
                self._context.project_id, msgspec.structs.replace(self._query, queries=queries)
            )
        except ApiError as error:
            raise ToolFailure(error.message) from error

    def _told(self, hits: Sequence[FileHit]) -> str:
        """The passages that fit in, best first, each with its file's number."""
        if not hits:
            return "Nothing was found in the files. Other words may find something."
        parts = ["Cite what you use by its file's number in brackets, like [1]."]
        if not any(hit.fits for hit in hits):
            parts.append(_NOTHING_FITS)
        left = self._size - _MARGIN
        for number, hit in enumerate(hits):
            left -= len(hit.text.encode()) + len(hit.filename.encode()) + len("\n\n[100] \n")
            if left < 0 and number > 0:
                parts.append(f"{len(hits) - number} more passages are left out for want of room.")
                break
            cited = self._context.cite(FileCitation(hit.file_id, hit.filename))
            doubt = "" if hit.fits else " (hardly fits)"
            parts.append(f"[{cited}] {' '.join(hit.filename.split())}{doubt}\n{hit.text}")
        return "\n\n".join(parts)


def _stores(entry: _Entry, place: str) -> tuple[str, ...]:
    param = f"{place}.vector_store_ids"
    if entry.vector_store_ids is None:
        raise InvalidRequest(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    stores = tuple(dict.fromkeys(entry.vector_store_ids))
    if not 1 <= len(stores) <= _MOST_STORES:
        raise InvalidRequest(
            f"Invalid '{param}': 1 to {_MOST_STORES} ids are needed.", code="invalid_value", param=param
        )
    return stores


def _limit(entry: _Entry, place: str) -> int:
    limit = _USUAL_RESULTS if entry.max_num_results is None else entry.max_num_results
    if not 1 <= limit <= _MOST_RESULTS:
        param = f"{place}.max_num_results"
        raise InvalidRequest(
            f"Invalid '{param}': expected a number from 1 to {_MOST_RESULTS}.", code="invalid_value", param=param
        )
    return limit


def _check_ranking(ranking: _Ranking, place: str) -> None:
    if ranking.score_threshold is not None and not 0 <= ranking.score_threshold <= 1:
        param = f"{place}.score_threshold"
        raise InvalidRequest(f"Invalid '{param}': expected a number from 0 to 1.", code="invalid_value", param=param)
    weights = ranking.hybrid_search
    if weights is None:
        return
    both = (weights.embedding_weight, weights.text_weight)
    if min(both) < 0 or not 0 < max(both) <= _MOST_WEIGHT:
        param = f"{place}.hybrid_search"
        reason = f"weights go from 0 to {_MOST_WEIGHT}, and at least one must be above 0"
        raise InvalidRequest(f"Invalid '{param}': {reason}.", code="invalid_value", param=param)


def _build(services: ToolServices) -> _FileSearch | Missing:
    if services.files is None:
        return Missing(
            "GATEWAY_FILES_DIR", "Files are disabled; set GATEWAY_FILES_DIR to a directory or to s3://bucket/prefix."
        )
    return _FileSearch(services.files, size=services.settings.limits.tool_output_bytes)


TOOL = ToolSpec(
    type="file_search",
    build=_build,
    example=msgspec.Raw(b'{"type":"file_search","vector_store_ids":["vs_..."]}'),
    description="Searches the user's uploaded files, by meaning and by words, and cites them.",
    price=Price(0.0, note="runs on your own machine; an embeddings server may charge"),
)
