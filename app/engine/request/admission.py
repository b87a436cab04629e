"""Validation: whatever can be refused is refused here, before anything is sent or stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Literal

import msgspec

from app.engine.conversation import client_history, content
from app.engine.conversation.items import Item, MoreTools
from app.engine.conversation.transcript import READ_TYPES
from app.engine.hosted.catalog import Catalog
from app.engine.request import toolset
from app.engine.request.toolset import Toolset
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.mistakes import unknown_parameter
from app.protocol.wire.requests import (
    CreateResponse,
    InputItem,
    TextFormat,
    given,
    parse,
    parse_entry,
    parse_item,
    parse_items,
)
from app.providers.base import JsonObject, JsonSchema, Sampling
from app.settings import Limits

_MIN_OUTPUT_TOKENS = 16
_MAX_TOP_LOGPROBS = 20
_MAX_METADATA = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512
_MAX_INT = 2**31 - 1
_MAX_NAME = 256
_LARGE = 256 * 1024
"""Body size in bytes from which each processing step takes milliseconds."""

_BRING_TOOLS = frozenset({*client_history.BRING_TOOLS, "item_reference"})
_LANES = {"soonest": 0, "2h": 1, "8h": 2}
_NOT_SERVED: dict[str, str] = {
    "context_management": "server-side compaction is not served",
    "prompt": "prompt templates are not served; send 'instructions' and 'input'",
    "moderation": "moderation is not served",
    "access_programs": "access programs are not served",
    "image": "image options are not served",
    "prompt_cache_options": "cache options are not served; 'prompt_cache_key' is",
}
_unserved = attrgetter(*_NOT_SERVED)
_ALL_ABSENT = (msgspec.UNSET,) * len(_NOT_SERVED)

_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", lambda v: 0 <= v < 2, "between [0,2)"),  # noqa: PLR2004 - the page's range
    ("top_p", lambda v: 0 < v <= 1, "between (0,1]"),
    ("presence_penalty", lambda v: -2 <= v <= 2, "between [-2,2]"),  # noqa: PLR2004 - OpenAI's range
    ("frequency_penalty", lambda v: -2 <= v <= 2, "between [-2,2]"),  # noqa: PLR2004 - OpenAI's range
    ("repetition_penalty", lambda v: 0 < v <= 10, "between (0,10]"),  # noqa: PLR2004 - no upstream takes more
    ("top_logprobs", lambda v: 0 <= v <= _MAX_TOP_LOGPROBS, f"between [0,{_MAX_TOP_LOGPROBS}]"),
    ("max_output_tokens", lambda v: v <= _MAX_INT, f"of at most {_MAX_INT}"),
    ("max_tool_calls", lambda v: 1 <= v <= _MAX_INT, f"between [1,{_MAX_INT}]"),
    ("min_p", lambda v: 0 <= v <= 1, "between [0,1]"),
    ("top_k", lambda v: 0 <= v <= _MAX_INT, f"between [0,{_MAX_INT}]"),
    ("seed", lambda v: 0 <= v <= 2**63 - 1, "between [0,2^63-1]"),
)
_ranged = attrgetter(*(name for name, _, _ in _RANGES))
_IDENTIFIERS = ("user", "safety_identifier", "prompt_cache_key")
_identifiers = attrgetter(*_IDENTIFIERS)


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is valid as far as can be told from the request alone."""

    request: CreateResponse
    model: str
    items: tuple[Item, ...]
    conversation: str | None
    """The id of the conversation that is continued."""
    tools: Toolset
    tools_with: Callable[[Sequence[MoreTools]], Toolset]
    """The toolset with the tools that items of the conversation add."""
    sampling: Sampling
    format: JsonSchema | JsonObject | None
    stream: bool
    store: bool
    background: bool
    lane: int
    """How soon a background run is due: 0 as soon as possible, 1 within two hours, 2 within eight."""
    seals: bool
    """`include` asks for `reasoning.encrypted_content`."""
    large: bool
    """Each step takes so long that the tokens of other requests are sent first."""


def admit(body: bytes, limits: Limits, catalog: Catalog, *, lenient: bool, answers: bool = True) -> Admitted:
    """Check the body of a request, except the schema of its format. Raises InvalidRequest with the parameter.

    `lenient`: the client is known to send tools that nobody asked for; those not served are left out instead of
    refused. `answers`: the model is to answer, for which there must be an input.
    """
    request = parse(body)
    if not request.model:
        raise content.missing("model")
    if len(request.model) > _MAX_NAME or not request.model.isprintable():
        raise InvalidRequest(
            f"Invalid 'model': expected printable text of at most {_MAX_NAME} characters.",
            code="invalid_value",
            param="model",
        )
    _refuse_unserved(request)
    _check_ranges(request)
    _check_metadata(request.metadata or {})
    include = request.include or ()
    conversation = _conversation(request)
    items = _items(request, body, limits) if answers or request.input else ()
    build = partial(_toolset, request, catalog, limits.tools, lenient=lenient)
    return Admitted(
        request=request,
        model=request.model,
        items=items,
        conversation=conversation,
        tools=_first_toolset(build, request, items),
        tools_with=build,
        sampling=_sampling(request, wants_logprobs="message.output_text.logprobs" in include),
        format=_format(request.text.format if request.text else None),
        stream=bool(request.stream),
        store=request.store is not False,
        background=bool(request.background),
        lane=_lane(request),
        seals="reasoning.encrypted_content" in include,
        large=len(body) > _LARGE,
    )


_NO_TOOLS = Toolset()
_TOLD_AGAIN = 16
"""A conversation may add this many times the tools that a request may have: clients send the same ones in every
turn.
"""


def _toolset(
    request: CreateResponse, catalog: Catalog, most: int, more: Sequence[MoreTools] = (), *, lenient: bool
) -> Toolset:
    tools = request.tools or ()
    if not tools and not more and given(request.tool_choice) is None:
        return _NO_TOOLS
    _limit("tools", len(tools), most)
    for one in more:
        _limit(one.place or "tools", len(one.tools), most)
    _limit("tools", sum(len(one.tools) for one in more), most * _TOLD_AGAIN)
    built = toolset.build(tools, given(request.tool_choice), catalog, request.model or "", more, lenient=lenient)
    _limit("tools", len(built.targets) + len(built.hosted), most)
    return built


def _first_toolset(build: Callable[[], Toolset], request: CreateResponse, items: Sequence[Item]) -> Toolset:
    """The request's own tools; those that `tool_choice` names but are missing may come with the conversation."""
    try:
        return build()
    except InvalidRequest as error:
        begins = request.previous_response_id is None and given(request.conversation) is None
        known = begins and all(item.fields.type not in _BRING_TOOLS for item in items)
        if known or error.param != "tool_choice":
            raise
        return Toolset(unmet=error)


def _refuse_unserved(request: CreateResponse) -> None:
    if (values := _unserved(request)) != _ALL_ABSENT:
        for (name, why), value in zip(_NOT_SERVED.items(), values, strict=True):
            if given(value) is not None:
                raise InvalidRequest(
                    f"Unsupported parameter: '{name}': {why}.", code="unsupported_parameter", param=name
                )
    if request.reasoning:
        _require("reasoning.mode", request.reasoning.mode, "standard")
        _require("reasoning.context", request.reasoning.context, "auto")


def _require(param: str, value: str | None, served: str) -> None:
    if value not in (None, served):
        message = f"Unsupported value: '{param}' '{value}'; only '{served}' is served."
        raise InvalidRequest(message, code="unsupported_value", param=param)


class _Conversation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str


def _conversation(request: CreateResponse) -> str | None:
    """The id, which may stand in an object. Raises InvalidRequest."""
    wanted = given(request.conversation)
    if wanted is None:
        return None
    is_text = bytes(wanted).startswith(b'"')
    named = parse_entry(wanted, str if is_text else _Conversation, "conversation")
    if request.previous_response_id is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: Ensure you are only providing one of: 'previous_response_id' or "
            "'conversation'.",
            code="mutually_exclusive_parameters",
            param="conversation",
        )
    return named if isinstance(named, str) else named.id


def _lane(request: CreateResponse) -> int:
    """Raises InvalidRequest for a background response that is not stored, and for options that do not apply."""
    options = request.background_options
    if request.background and request.store is False:
        raise InvalidRequest(
            "Background responses must be stored: 'background' true requires 'store' true.",
            code="invalid_value",
            param="store",
        )
    if options is None:
        return 0
    if not request.background:
        raise InvalidRequest(
            "'background_options' requires 'background' true.", code="invalid_value", param="background_options"
        )
    if options.continuation_id is not None:
        message = "Unsupported parameter: 'background_options.continuation_id': background responses are not continued."
        raise InvalidRequest(message, code="unsupported_parameter", param="background_options.continuation_id")
    return _LANES[options.completion_window or "soonest"]


def _check_ranges(request: CreateResponse) -> None:
    tokens = request.max_output_tokens
    if tokens is not None and tokens < _MIN_OUTPUT_TOKENS:
        message = f"integer below minimum value. Expected a value >= {_MIN_OUTPUT_TOKENS}, but got {tokens} instead."
        raise InvalidRequest(
            f"Invalid 'max_output_tokens': {message}", code="integer_below_min_value", param="max_output_tokens"
        )
    for (name, holds, expected), value in zip(_RANGES, _ranged(request), strict=True):
        if value is not None and not holds(value):
            raise InvalidRequest(
                f"Invalid '{name}': {value}. Expected a value {expected}, but got {value} instead.",
                code="invalid_value",
                param=name,
            )
    for name, text in zip(_IDENTIFIERS, _identifiers(request), strict=True):
        if text:
            _limit(name, len(text), 1024)


def _check_metadata(metadata: dict[str, str]) -> None:
    _limit("metadata", len(metadata), _MAX_METADATA)
    for key, value in metadata.items():
        if len(key) > _MAX_METADATA_KEY or len(value) > _MAX_METADATA_VALUE:
            message = f"keys have at most {_MAX_METADATA_KEY} characters, values at most {_MAX_METADATA_VALUE}"
            raise InvalidRequest(f"Invalid 'metadata': {message}.", code="string_above_max_length", param="metadata")


def _limit(name: str, size: int, most: int) -> None:
    if size > most:
        raise InvalidRequest(
            f"Invalid '{name}': too large. Expected at most {most}, but got {size}.", code="too_large", param=name
        )


def _items(request: CreateResponse, body: bytes, limits: Limits) -> tuple[Item, ...]:
    given = request.input
    if given is None:
        raise content.missing("input")
    if isinstance(given, str):
        raw = msgspec.Raw(
            b'{"type":"message","role":"user","content":[{"type":"input_text","text":%b}]}' % msgspec.json.encode(given)
        )
        return (Item(raw, InputItem(type="message", role="user", content=given), "input"),)
    if not given:
        raise InvalidRequest("Invalid 'input': expected at least one item.", code="empty_array", param="input")
    _limit("input", len(given), limits.input_items)
    parsed = parse_items(body)
    if parsed is None:
        return items_of(given, "input")
    return tuple(_item(raw, fields, f"input[{i}]") for i, (raw, fields) in enumerate(zip(given, parsed, strict=True)))


def items_of(raws: Sequence[msgspec.Raw], place: str) -> tuple[Item, ...]:
    """Items in the list at that place of a request, each read by itself. Raises InvalidRequest."""
    return tuple(_item(raw, _parse(raw, f"{place}[{i}]"), f"{place}[{i}]") for i, raw in enumerate(raws))


class _Typed(msgspec.Struct, frozen=True):
    type: str | None = None


def _parse(raw: msgspec.Raw, place: str) -> InputItem:
    """Parse one of several items of which some are invalid: an item whose type is not served may have any shape."""
    try:
        kind = msgspec.json.decode(raw, type=_Typed).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = None
    if kind not in READ_TYPES:
        raise content.unread(kind, place)
    return parse_item(raw, place)


def _item(raw: msgspec.Raw, fields: InputItem, place: str) -> Item:
    if fields.type is None and fields.role is None and fields.content is None and fields.id:
        fields = msgspec.structs.replace(fields, type="item_reference")
    return Item(raw, fields, place)


def _sampling(request: CreateResponse, *, wants_logprobs: bool) -> Sampling:
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        max_output_tokens=request.max_output_tokens,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        top_logprobs=(request.top_logprobs or 0) if wants_logprobs or request.top_logprobs else None,
    )


def _format(wanted: TextFormat | None) -> JsonSchema | JsonObject | None:
    kind: Literal["text", "json_object", "json_schema"] = wanted.type if wanted else "text"
    if wanted is not None and kind != "json_schema" and given(wanted.schema) is not None:
        raise unknown_parameter("text.format.schema")
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        return JsonObject()
    if not wanted.name:
        raise content.missing("text.format.name")
    schema = given(wanted.schema)
    if schema is None:
        raise content.missing("text.format.schema")
    return JsonSchema(wanted.name, schema, wanted.description, wanted.strict)
