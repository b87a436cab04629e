"""The vendor's own tools in its Responses API: how they are requested, how its items become ours, and the order of
their output.

The vendor's items differ from the public ones and among themselves: a placeholder replaces the query, sources repeat,
results lack fields, JSON is sent as text or as a value. Whatever can be read is used; nothing in such an item is worth
failing the answer for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from app.protocol.deltas import NativeItem
from app.protocol.wire.hosted import (
    CallStatus,
    CodeInterpreterCall,
    FileResult,
    FileSearchCall,
    FindAction,
    HostedItem,
    ImageSearchCall,
    Logs,
    McpCall,
    McpExecutionError,
    OpenPageAction,
    PlotImage,
    SearchAction,
    UrlSource,
    WebExtractorCall,
    WebSearchCall,
    WebSearchImageCall,
)
from app.providers._lenient import Json, as_object

Action = SearchAction | OpenPageAction | FindAction

_PLACEHOLDER = "Web search"
"""What the vendor sends if it does not disclose the query."""
_PREFIX = "local_"
_OURS = re.compile(
    rf"(?:{_PREFIX})*(?:web_search|web_extractor|code_interpreter|web_search_image|image_search|file_search|mcp|search)\Z"
)
"""Functions that the vendor mistakes for its own tools, or forbids, and those that would collide with a renamed one."""

_INPUTS: Mapping[type[HostedItem], Sequence[str]] = {
    WebExtractorCall: ("urls", "goal"),
    FileSearchCall: ("queries",),
    WebSearchImageCall: ("name", "arguments"),
    ImageSearchCall: ("name", "arguments"),
    McpCall: ("name", "server_label"),
}
"""Fields that an item shows from the beginning and that never change, besides a search's action.

The code and the arguments that are streamed are handled by the writer.
"""


def outward(name: str) -> str:
    """A function's name as sent to the vendor."""
    return _PREFIX + name if _OURS.match(name) else name


def homeward(name: str) -> str:
    """The function that the vendor calls `name`."""
    return name.removeprefix(_PREFIX) if _OURS.match(name) else name


def tool_type(entry: msgspec.Raw) -> str:
    """The tool type of an entry of `tools`."""
    return msgspec.json.decode(entry, type=_Entry).type


class _Entry(msgspec.Struct):
    type: str


class _Hosted:
    """An item that has begun and is not complete in the output."""

    __slots__ = ("begun", "ended", "shown", "succeeded")

    def __init__(self, begun: HostedItem) -> None:
        self.begun = begun
        self.shown = False
        self.succeeded = False
        """An event reported success; the results come later, or never."""
        self.ended: HostedItem | None = None


class HostedItems:
    """The hosted items of one stream: each is completed in the output before the next begins, in the order they began.

    The vendor runs calls of one turn in parallel; an `output_item.done` may then follow the next one's `added`.
    """

    __slots__ = ("_open", "_seen")

    def __init__(self) -> None:
        self._open: dict[str, _Hosted] = {}
        self._seen: set[str] = set()

    def __bool__(self) -> bool:
        """Whether one is in progress."""
        return bool(self._open)

    def begin(self, raw: Json) -> None:
        """`output_item.added`."""
        item = read_item(raw, self._id(raw, begins=True))
        if item.id not in self._seen:
            self._seen.add(item.id)
            self._open[item.id] = _Hosted(item)

    def succeed(self, item_id: str | None) -> None:
        """The event of success, such as `response.web_search_call.completed`."""
        if item_id in self._open:
            self._open[item_id].succeeded = True

    def end(self, raw: Json) -> None:
        """`output_item.done`; an item without a beginning begins here."""
        item_id = self._id(raw, begins=False)
        if item_id not in self._seen:
            self.begin({**raw, "id": item_id})
        known = self._open.get(item_id)
        if known is not None:
            item = read_item(raw, item_id)
            known.ended = item if type(item) is type(known.begun) else None

    def complete(self, output: Any) -> None:
        """The terminal event's `output`, which may contain the end of items that have none yet."""
        for item in map(as_object, _list(output)):
            item_id, kind = item.get("id"), item.get("type")
            if isinstance(item_id, str) and item_id in self._open and isinstance(kind, str) and kind in HOSTED_TYPES:
                self.end(item)

    def tell(self) -> Sequence[NativeItem]:
        """What can be passed on now."""
        told: list[NativeItem] = []
        for item_id, hosted in list(self._open.items()):
            if hosted.ended is None:
                if not hosted.shown and _says_what_it_does(hosted.begun):
                    hosted.shown = True
                    told.append(NativeItem(hosted.begun, done=False))
                break
            del self._open[item_id]
            told.append(NativeItem(_as_shown(hosted, hosted.ended), done=True))
        return told

    def settle(self) -> Sequence[NativeItem]:
        """Everything, since the model has continued: a call without an end is completed if its success was reported."""
        for hosted in self._open.values():
            if hosted.ended is None:
                status: CallStatus = "completed" if hosted.succeeded else "incomplete"
                hosted.ended = msgspec.structs.replace(hosted.begun, status=status)
        return self.tell()

    def _id(self, raw: Json, *, begins: bool) -> str:
        """The item's id. Without one, an end belongs to the oldest item of its type."""
        known = raw.get("id")
        if isinstance(known, str) and known:
            return known
        if not begins:
            for item_id, hosted in self._open.items():
                if hosted.begun.__struct_config__.tag == raw["type"]:
                    return item_id
        return f"item_{len(self._seen)}"


def _says_what_it_does(item: HostedItem) -> bool:
    """Whether the item can be shown when it begins.

    A stored stream is replayed from the final items, so the beginning must match the end: a search that begins with a
    placeholder, and names its queries at the end, is passed on then.
    """
    if isinstance(item, WebSearchCall):
        return not isinstance(item.action, SearchAction) or bool(item.action.queries)
    return all(getattr(item, field) for field in _INPUTS.get(type(item), ()))


def _as_shown(hosted: _Hosted, ended: HostedItem) -> HostedItem:
    """The final item, with the fields it has already shown."""
    if not hosted.shown:
        return ended
    if isinstance(ended, WebSearchCall) and isinstance(hosted.begun, WebSearchCall):
        return msgspec.structs.replace(ended, action=_action_as_shown(hosted.begun.action, ended.action))
    return msgspec.structs.replace(
        ended, **{field: getattr(hosted.begun, field) for field in _INPUTS.get(type(ended), ())}
    )


def _action_as_shown(begun: Action, ended: Action) -> Action:
    sources = ended.sources if isinstance(ended, SearchAction) else msgspec.UNSET
    return msgspec.structs.replace(begun, sources=sources) if isinstance(begun, SearchAction) else begun


def read_item(raw: Json, item_id: str) -> HostedItem:
    """A vendor's item, whose type is one of `HOSTED_TYPES`, with this id."""
    return _READERS[raw["type"]](raw, item_id, _status(raw))


def _web_search(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    action = as_object(raw.get("action"))
    match action.get("type"):
        case "open_page":
            return WebSearchCall(item_id, status, OpenPageAction(_text(action.get("url")) or None))
        case "find_in_page":
            return WebSearchCall(item_id, status, FindAction(_text(action.get("pattern")), _text(action.get("url"))))
        case _:
            queries = _texts(action.get("queries"))
            query = _text(action.get("query"))
            if queries and query in ("", _PLACEHOLDER):
                query = queries[0]
            return WebSearchCall(item_id, status, SearchAction(query, queries, _sources(action.get("sources"))))


def _sources(value: Any) -> tuple[UrlSource, ...] | msgspec.UnsetType:
    """Each page once, even if several searches found it."""
    if not isinstance(value, list):
        return msgspec.UNSET
    urls = [one if isinstance(one, str) else _text(as_object(one).get("url")) for one in _list(value)]
    return tuple(UrlSource(url) for url in dict.fromkeys(urls) if url)


def _web_extractor(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    return WebExtractorCall(item_id, status, _texts(raw.get("urls")), _text(raw.get("goal")), _text(raw.get("output")))


def _code_interpreter(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    outputs = raw.get("outputs")
    read = None if outputs is None else tuple(map(_output, _list(outputs)))
    # The vendor's container, which is not named, cannot be reached through this gateway either.
    return CodeInterpreterCall(item_id, status, "", _text(raw.get("code")), read)


def _output(value: Any) -> Logs | PlotImage:
    output = as_object(value)
    url = _text(output.get("url"))
    if output.get("type") == "image" and url:
        return PlotImage(url)
    return Logs(_text(output.get("logs", value)))


def _file_search(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    results = raw.get("results")
    found = None if results is None else tuple(_file_result(as_object(one)) for one in _list(results))
    return FileSearchCall(item_id, status, _texts(raw.get("queries")), found)


def _file_result(raw: Json) -> FileResult:
    attributes: dict[str, str | float | bool] = {
        name: value for name, value in as_object(raw.get("attributes")).items() if isinstance(value, str | float | int)
    }
    score = raw.get("score")
    return FileResult(
        _text(raw.get("file_id")),
        _text(raw.get("filename")),
        float(min(max(score, 0), 1)) if isinstance(score, int | float) else 0.0,
        _text(raw.get("text")),
        attributes,
    )


def _web_search_image(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    name = _text(raw.get("name")) or "web_search_image"
    return WebSearchImageCall(item_id, status, name, _text(raw.get("arguments")), _text(raw.get("output")))


def _image_search(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    name = _text(raw.get("name")) or "image_search"
    return ImageSearchCall(item_id, status, name, _text(raw.get("arguments")), _text(raw.get("output")))


def _mcp(raw: Json, item_id: str, status: CallStatus) -> HostedItem:
    output, error = raw.get("output"), raw.get("error")
    return McpCall(
        item_id,
        "failed" if error else status,
        _text(raw.get("name")),
        _text(raw.get("server_label")),
        _text(raw.get("arguments")),
        None if output is None else _text(output),
        McpExecutionError(error) if error else None,
    )


_READERS: Mapping[str, Callable[[Json, str, CallStatus], HostedItem]] = {
    "web_search_call": _web_search,
    "web_extractor_call": _web_extractor,
    "code_interpreter_call": _code_interpreter,
    "web_search_image_call": _web_search_image,
    "image_search_call": _image_search,
    "file_search_call": _file_search,
    "mcp_call": _mcp,
}
HOSTED_TYPES = frozenset(_READERS)


def _status(raw: Json) -> CallStatus:
    """How a call ended; one that ended without a status is completed."""
    match raw.get("status"):
        case "failed" | "incomplete" as told:
            return told
        case _:
            return "completed"


def _list(value: Any) -> Sequence[Any]:
    """A list as it is; any other value as its only member."""
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    """Text as it is, null as "", anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, without blank ones."""
    return tuple(text for one in _list(value) if (text := _text(one)))
