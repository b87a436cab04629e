"""`POST /v1/responses`: the request, typed; unknown fields are refused by name.

Explicit nulls mean absence (llama-index and others send them for every optional field). Input items keep their JSON as
sent: fields that the gateway does not read are still stored and listed.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.mistakes import explain, unknown_parameter

T = TypeVar("T")

_NULL = msgspec.Raw(b"null")
_MARGIN = 100
"""Nesting levels (stack frames) kept free: stored data is read again, from deeper in the stack."""
_SMALL = 4 * 1024
"""Body size in bytes up to which counting brackets is cheaper than reserving the margin for a body that does not need
it.
"""
_PIECE = 16 * 1024
"""Bytes checked at a time: most of a large body is ASCII, even if it has some other characters."""
_MOST_CONTINUATIONS = 3

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


Json: TypeAlias = msgspec.Raw | msgspec.UnsetType
"""A field with any JSON, kept as sent; read it with `given`. For `Raw | None` msgspec would accept only null."""


def given(value: Json) -> msgspec.Raw | None:
    """The value as sent; None for a field that is absent or null."""
    return value if isinstance(value, msgspec.Raw) and value != _NULL else None


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reasoning`; `generate_summary` is the deprecated name of `summary`."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text.format`; which fields it needs depends on `type`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Json = msgspec.UNSET
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`text`."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stream_options`; obfuscation padding is never sent, so either value is accepted.

    The usage, which Chat Completions clients request here, is always sent, and summaries of thinking (for which Codex
    sends an order) are always complete.
    """

    include_obfuscation: bool | None = None
    include_usage: bool | None = None
    reasoning_summary_delivery: str | None = None


class BackgroundOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`background_options`."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None
    continuation_id: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool as the client declared it; the fields of functions, custom tools and namespaces."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: Json = msgspec.UNSET
    strict: bool | None = None
    format: Json = msgspec.UNSET
    tools: tuple[msgspec.Raw, ...] | None = None
    defer_loading: bool | None = None
    """Not offered before a tool search has found it."""
    function: Json = msgspec.UNSET
    """Chat Completions' nested form, which is refused with a hint."""
    allowed_callers: tuple[str, ...] | None = None
    output_schema: Json = msgspec.UNSET
    """The result type for programmatic calls; here the model calls functions itself."""
    cache_control: Json = msgspec.UNSET
    """Another vendor's cache hint."""


class _StrictTool(Tool, frozen=True, forbid_unknown_fields=True):
    pass


class CreateResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/responses`: OpenAI's parameters, Open Responses' penalties and the Qwen extras."""

    model: str | None = None
    input: str | tuple[msgspec.Raw, ...] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    store: bool | None = None
    tools: tuple[msgspec.Raw, ...] | None = None
    tool_choice: Json = msgspec.UNSET
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    enable_thinking: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    include: tuple[Includable, ...] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: Json = msgspec.UNSET
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    stream_options: StreamOptions | None = None
    client_metadata: Json = msgspec.UNSET
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    background: bool | None = None
    background_options: BackgroundOptions | None = None
    conversation: Json = msgspec.UNSET
    context_management: Json = msgspec.UNSET
    prompt: Json = msgspec.UNSET
    moderation: Json = msgspec.UNSET
    access_programs: Json = msgspec.UNSET
    image: Json = msgspec.UNSET


class Part(msgspec.Struct, frozen=True):
    """A content part of an input item; which fields it needs depends on `type`."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | dict[str, Any] | None = None
    detail: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class InputItem(msgspec.Struct, frozen=True):
    """An input item; which fields it needs depends on `type`.

    Without a type it is a message, or a reference if there is only `id`.
    """

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | tuple[Part, ...] | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | tuple[Part, ...] | None = None
    summary: tuple[Part, ...] | None = None
    encrypted_content: str | None = None


_DESCRIBED = frozenset(
    {
        None,
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "item_reference",
    }
)
"""Types all of whose fields are in `InputItem`.

Others may have fields with the same name and another shape, and are read where used.
"""


class _Head(msgspec.Struct, frozen=True):
    type: str | None = None
    id: Any = None
    status: Any = None
    call_id: Any = None


class _Items(msgspec.Struct, frozen=True):
    input: tuple[InputItem, ...]


_items_decoder = msgspec.json.Decoder(_Items)
_request_decoder = msgspec.json.Decoder(CreateResponse)
_head_decoder = msgspec.json.Decoder(_Head)
_item_decoder = msgspec.json.Decoder(InputItem)
_tool_decoder = msgspec.json.Decoder(Tool)
_strict_tool_decoder = msgspec.json.Decoder(_StrictTool)
_FOREIGN: dict[str, tuple[str, ...]] = {
    "function": ("format", "tools"),
    "custom": ("parameters", "strict", "output_schema", "tools", "function"),
    "namespace": ("parameters", "strict", "format", "function", "allowed_callers", "output_schema", "cache_control"),
}
"""Tool types with all fields known, and the fields that belong to the other types.

Built-in tools check their own fields.
"""


def parse(body: bytes) -> CreateResponse:
    """The request in `body`. Raises InvalidRequest with the invalid parameter."""
    try:
        if not body.isascii():
            _check_characters(body)  # the decoder does not check what it skips or keeps raw
        nested = len(body) > _SMALL or body.count(b"[") + body.count(b"{") > _MARGIN
        return _decode_below(body, _MARGIN) if nested else _request_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise explain(error, "", CreateResponse) from error


def _check_characters(body: bytes) -> None:
    """Decode it as UTF-8 in pieces, which takes a sixth of the time and no memory. Raises UnicodeDecodeError."""
    start, size = 0, len(body)
    while start < size:
        end = start + _PIECE
        for _ in range(_MOST_CONTINUATIONS):
            if end < size and _continues(body[end]):
                end -= 1  # do not split a character; more such bytes in a row are not one
        piece = body[start:end]
        if not piece.isascii():
            try:
                piece.decode()
            except UnicodeDecodeError:
                body.decode()  # for an error with the position in the body
                raise
        start = end


def _continues(byte: int) -> bool:
    """Whether it is a byte within a character (RFC 3629, section 3)."""
    return byte & 0xC0 == 0x80  # noqa: PLR2004 - the two bits that mark it


def _decode_below(body: bytes, frames: int) -> CreateResponse:
    """Decode it that many frames deeper, where less of the stack is left for its nesting."""
    return _decode_below(body, frames - 1) if frames else _request_decoder.decode(body)


def parse_items(body: bytes) -> tuple[InputItem, ...] | None:
    """All items of `input` at once, at a third of the cost of one by one.

    None if one is invalid and has to be found.
    """
    try:
        return _items_decoder.decode(body).input
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def parse_item(raw: msgspec.Raw, place: str) -> InputItem:
    """One item of `input`; `place` is its place in the request, such as `input[3]`."""
    try:
        return _item_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError) and (head := _head(raw)) is not None:
            return head
        raise explain(error, place, InputItem) from error


def _head(raw: msgspec.Raw) -> InputItem | None:
    """The fields that all items share, if they are text; None for an item that must match `InputItem`."""
    try:
        head = _head_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if head.type in _DESCRIBED:
        return None
    texts = [one if isinstance(one, str) else None for one in (head.id, head.status, head.call_id)]
    return InputItem(type=head.type, id=texts[0], status=texts[1], call_id=texts[2])


def parse_tool(raw: msgspec.Raw, place: str) -> Tool:
    """One entry of `tools`; `place` is its place in the request, such as `tools[0]`.

    Raises InvalidRequest, for functions, custom tools and namespaces also if there is an unknown field.
    """
    try:
        tool = _decode_tool(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise explain(error, place, _StrictTool) from error
    for name in _FOREIGN.get(tool.type, ()):
        if getattr(tool, name) not in (None, msgspec.UNSET, _NULL):
            raise unknown_parameter(f"{place}.{name}")
    if tool.allowed_callers is not None and "direct" not in tool.allowed_callers:
        message = (
            f"Unsupported value: '{place}.allowed_callers': programmatic calls are not served; the callers must "
            f"include 'direct'."
        )
        raise InvalidRequest(message, code="unsupported_value", param=f"{place}.allowed_callers")
    return tool


def _decode_tool(raw: msgspec.Raw) -> Tool:
    try:
        return _strict_tool_decoder.decode(raw)
    except msgspec.ValidationError:
        tool = _tool_decoder.decode(raw)
        if tool.type in _FOREIGN:
            raise
        return tool


def parse_entry(raw: msgspec.Raw, kind: type[T], place: str) -> T:
    """One entry of `tools` in the shape of a built-in tool, or `tool_choice`.

    Raises InvalidRequest with the field, below `place`.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise explain(error, place, kind) from error
