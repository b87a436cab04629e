"""Derives the call and result of a built-in tool from its item, if nothing else is known of the call. Pure.

A client sent the item, or an upstream ran the tool. It is read field by field: servers and clients write the same items
in different ways, and a field that cannot be read is ignored. Only the fields that identify a call are required: an MCP
tool and its server.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import msgspec

from app.protocol.recovery.arguments import sendable
from app.protocol.recovery.names import sendable_name
from app.tools.ports.mcp_names import mcp_function

Fields = dict[str, Any]

_NO_OUTPUT = "(no output)"
_UNENDED = ("incomplete", "in_progress", "interpreting", "calling", "searching")
_TITLES = ("title", "filename", "file_name", "name")
_ADDRESSES = ("url", "uri", "link")
_TEXTS = ("text", "logs", "snippet", "content", "output", "message", "description")
_IMAGES = ("image", "input_image", "output_image", "image_url")


class AnsweredCall(msgspec.Struct, frozen=True):
    """A call and its result."""

    name: str
    """The function's name."""
    arguments: str
    text: str
    """The result; "" if the item does not show it."""
    approved: str | None = None
    """The id of the approval request that preceded the call."""

    @property
    def digest(self) -> str:
        """Equal for equal calls."""
        return f"{zlib.crc32(_json([self.name, self.arguments, self.text]).encode()):08x}"


def read(kind: str, raw: msgspec.Raw) -> AnsweredCall:
    """The call and result in an item of that type. Raises msgspec.DecodeError, RecursionError."""
    item = msgspec.json.decode(raw, type=Fields)
    name, arguments, text = _READERS[kind](item)
    approved = item.get("approval_request_id")
    return AnsweredCall(
        name,
        arguments if isinstance(arguments, str) else _json(arguments),
        text,
        approved if isinstance(approved, str) else None,
    )


def _web_search(item: Fields) -> tuple[str, Fields, str]:
    action = _fields(item.get("action"))
    found = [
        _entry(one)
        for fields in (action, item)
        for key in ("sources", "results", "output")
        for one in _list(fields.get(key))
    ]
    queries: list[str] = (
        _first(_texts(fields.get(key)) for fields in (action, item) for key in ("queries", "query")) or []
    )
    pages = {key: text for key in ("url", "pattern") if (text := _text(action.get(key)))}
    name = "web_search_open" if pages and not queries else "web_search"
    return name, pages if pages and not queries else {"queries": queries}, _lines(found)


def _web_extractor(item: Fields) -> tuple[str, Fields, str]:
    urls = _texts(item.get("urls")) or _texts(item.get("url"))
    return "web_extractor", {"urls": urls, "goal": _text(item.get("goal"))}, _text(item.get("output"))


def _code_interpreter(item: Fields) -> tuple[str, Fields, str]:
    outputs = [_text(one) for key in ("outputs", "results", "output") for one in _list(item.get(key))]
    return "code_interpreter", {"code": _text(item.get("code"))}, _lines(outputs) or _silence(item)


def _silence(item: Fields) -> str:
    """The result text of a call without output; a call that never ended is left out."""
    return "" if item.get("status") in _UNENDED else _NO_OUTPUT


def _file_search(item: Fields) -> tuple[str, Fields, str]:
    found = [_entry(one) for key in ("results", "search_results") for one in _list(item.get(key))]
    queries = _texts(item.get("queries")) or _texts(item.get("query"))
    return "knowledge_search", {"queries": queries}, "\n\n".join(filter(None, found))


def _image_generation(item: Fields) -> tuple[str, Fields, str]:
    """The model is told that there is an image; assistant messages cannot contain the image itself."""
    made = "The image was made and shown to the user."
    text = made if item.get("result") else f"There is no image (status: {_text(item.get('status')) or 'unknown'})."
    return "image_generation", {"prompt": _text(item.get("revised_prompt"))}, text


def _mcp(item: Fields) -> tuple[str, str, str]:
    label, name = item.get("server_label"), item.get("name")
    if not (isinstance(label, str) and label and isinstance(name, str) and name):
        raise msgspec.ValidationError("'server_label' and 'name' are required, as strings")
    return (
        mcp_function(label, name),
        _arguments(item),
        _text(item.get("output")) or _error(item.get("error")) or _silence(item),
    )


def _named(usual: str) -> Callable[[Fields], tuple[str, str, str]]:
    """An item whose arguments and output are JSON text."""
    return lambda item: (sendable_name(_text(item.get("name")) or usual), _arguments(item), _text(item.get("output")))


_READERS: Mapping[str, Callable[[Fields], tuple[str, Fields | str, str]]] = {
    "web_search_call": _web_search,
    "web_extractor_call": _web_extractor,
    "code_interpreter_call": _code_interpreter,
    "file_search_call": _file_search,
    "web_search_image_call": _named("web_search_image"),
    "image_search_call": _named("image_search"),
    "mcp_call": _mcp,
    "mcp_approval_request": _mcp,
    "image_generation_call": _image_generation,
    "x_tool_call": _named("tool"),
}


def _arguments(item: Fields) -> str:
    """The arguments as the text of a JSON object, even if the client sent the object itself."""
    given = item.get("arguments")
    return sendable(given if isinstance(given, str) else _json(given))


def _error(error: object) -> str:
    """The message of an error, or the whole error."""
    fields = _fields(error)
    message = fields.get("message", fields.get("content", error))
    if message is None:
        return ""
    return message if isinstance(message, str) else _json(message)


def _entry(one: object) -> str:
    """A search result: its title, address and text, each on its own line."""
    fields = _fields(one)
    if not fields:
        return _text(one)
    return _lines(_first(_text(fields.get(key)) for key in keys) or "" for keys in (_TITLES, _ADDRESSES, _TEXTS))


def _text(value: object) -> str:
    """The text of a value: itself, its parts, or the member with the text; otherwise the value as JSON."""
    if isinstance(value, str) or value is None:
        return value or ""
    if isinstance(value, list):
        return _lines(_text(part) for part in cast("list[Any]", value))
    fields = _fields(value)
    if fields.get("type") in _IMAGES:
        return "[image]"
    return _first(_text(fields.get(key)) for key in _TEXTS) or ("" if fields.keys() & set(_TEXTS) else _json(value))


def _texts(value: object) -> list[str]:
    return [text for one in _list(value) if (text := _text(one))]


def _list(value: object) -> list[Any]:
    """The elements of a list; any other value is one element, null is none."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    return [] if value is None else [value]


def _fields(value: object) -> Fields:
    return cast("Fields", value) if isinstance(value, dict) else {}


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value), None)


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(filter(None, texts))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
