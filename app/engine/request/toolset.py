"""The request's tools: checked, renamed for the upstream, and narrowed by `tool_choice`."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from app.engine.conversation.content import missing
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.items import MoreTools
from app.engine.hosted.catalog import Catalog, Entry
from app.engine.request.client_entries import check_parameters, function_of
from app.engine.request.tool_choice import choose
from app.protocol.messages import FunctionTool
from app.protocol.recovery.arguments import FREE_TEXT
from app.protocol.recovery.client_tools import CLIENT_TOOLS, CallTarget
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.mistakes import unknown_parameter
from app.protocol.wire.requests import Tool, given, parse_entry, parse_tool
from app.providers.base import ForcedCall

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
_SEARCH = "tool_search"
_NO_PARAMETERS = msgspec.Raw(b'{"type":"object","properties":{}}')


class _Function(msgspec.Struct, frozen=True):
    type: Literal["function"] = "function"
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw | None = None
    strict: bool | None = None


class _CustomFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text", "grammar"]
    syntax: str | None = None
    definition: str | None = None


class Toolset(msgspec.Struct, frozen=True):
    """The calls that the model may make, and those it must."""

    functions: tuple[FunctionTool, ...] = ()
    targets: dict[str, CallTarget] = {}
    hosted: tuple[Entry, ...] = ()
    """Built-in tools."""
    echo: tuple[msgspec.Raw, ...] = ()
    """`tools` of the response object: the effective ones."""
    forced: ForcedCall | None = None
    withheld: frozenset[str] = frozenset()
    """Upstream names of functions that `tool_choice` does not allow."""
    unmet: InvalidRequest | None = None
    """The error if the conversation does not add the tool that `tool_choice` names either."""
    left_out: tuple[str, ...] = ()
    """Tool types that were left out for a lenient client."""


def build(
    raw_tools: Sequence[msgspec.Raw],
    choice: msgspec.Raw | None,
    catalog: Catalog,
    model: str,
    more: Sequence[MoreTools] = (),
    *,
    lenient: bool,
) -> Toolset:
    """Check the tools and the choice. Raises InvalidRequest.

    `more`: tools of the conversation; the last one of each name counts.
    `lenient`: tool types that are not served are left out instead of refused, unless `tool_choice` needs them.
    """
    collector = _Collector(catalog, model, lenient=lenient)
    for i, raw in enumerate(raw_tools):
        collector.add(parse_tool(raw, f"tools[{i}]"), raw, f"tools[{i}]")
    for one in more:
        collector.add_more(one)
    collector.defer()
    functions, hosted, forced = choose(choice, collector)
    if collector.left_out:
        _log.info(
            "left out tools that are not served, for a client that always sends them: %s", ", ".join(collector.left_out)
        )
    withheld = frozenset(collector.targets) - {function.name for function in functions}
    return Toolset(
        functions,
        collector.targets,
        hosted,
        tuple(collector.echo),
        forced,
        withheld,
        left_out=tuple(collector.left_out),
    )


class _Collector:
    def __init__(self, catalog: Catalog, model: str, *, lenient: bool) -> None:
        self._catalog = catalog
        self._model = model
        self.hosted: list[Entry] = []
        self.targets: dict[str, CallTarget] = {}
        self._functions: dict[str, FunctionTool] = {}
        self._deferred: dict[str, str] = {}
        """Functions that have to be found by a search, with their descriptions: one line per namespace, or per function
        outside of one.
        """
        self._more: MoreTools | None = None
        self.echo: list[msgspec.Raw] = []
        self.left_out: list[str] = []
        self._lenient = lenient

    @property
    def functions(self) -> Sequence[FunctionTool]:
        return tuple(self._functions.values())

    def add_more(self, more: MoreTools) -> None:
        """Add tools of the conversation.

        Those of an earlier turn were checked then: what is no longer served is left out.
        """
        self._more = more
        for i, raw in enumerate(more.tools):
            place = f"{more.place}[{i}]"
            tool = parse_tool(raw, place)
            try:
                self.add(tool, raw, place)
            except InvalidRequest:
                if more.place:
                    raise
                self.left_out.append(tool.type)

    def defer(self) -> None:
        """Withdraw the deferred functions from the offer, and list them in the description of the search."""
        search = self._functions.get(_SEARCH)
        if search is None or self.targets[_SEARCH].tool is None:
            return
        for name in self._deferred:
            del self._functions[name], self.targets[name]
        if self._deferred:
            there = "\n".join(dict.fromkeys(self._deferred.values()))
            self._functions[_SEARCH] = msgspec.structs.replace(
                search, description=f"{search.description}\nWhat there is:\n{there}"
            )

    def add(self, tool: Tool, raw: msgspec.Raw, place: str) -> None:
        match tool.type:
            case "function":
                self._add_function(tool, None, place)
                shown = _Function("function", tool.name or "", tool.description, given(tool.parameters), tool.strict)
                self._show(msgspec.Raw(msgspec.json.encode(shown)))
            case "custom":
                self._add_custom(tool, None, place)
                self._show(raw)
            case "namespace":
                self._add_namespace(tool, place)
                self._show(raw)
            case other if other in CLIENT_TOOLS:
                self._add_client_tool(other, raw, place)
            case other if self._catalog.serves(other):
                self._add_hosted(other, raw, place)
            case other if self._lenient and _NAME.match(other):  # it goes into a header and the log
                self.left_out.append(other)
            case other:
                raise self._unsupported(other, place)

    def _unsupported(self, kind: str, place: str) -> InvalidRequest:
        hosted = (known.type for known in self._catalog.list())
        supported = ", ".join(("function", "custom", "namespace", *CLIENT_TOOLS, *hosted))
        message = f"The tool type '{kind}' is not served by this gateway. Supported types: {supported}."
        return InvalidRequest(message, code="unsupported_tool", param=f"{place}.type")

    def _show(self, raw: msgspec.Raw) -> None:
        if self._more is None:
            self.echo.append(raw)

    def _add_client_tool(self, kind: str, raw: msgspec.Raw, place: str) -> None:
        try:
            function = function_of(kind, raw, place)
        except InvalidRequest as error:
            if not self._lenient or error.code != "unsupported_tool":
                raise
            self.left_out.append(kind)
            return
        self._register(CallTarget(kind, tool=CLIENT_TOOLS[kind]), function, place)
        self._show(raw)

    def _add_hosted(self, kind: str, raw: msgspec.Raw, place: str) -> None:
        try:
            entry = self._catalog.configure(kind, self._model, raw, place)
        except InvalidRequest as error:
            if not self._lenient or error.code != "unsupported_tool":
                raise
            self.left_out.append(kind)
            return
        if self._lenient and entry.request is None:
            self.left_out.append(kind)
            return
        if any(entry.key == other.key for other in self.hosted):
            if self._more is not None:
                return
            raise InvalidRequest(f"The tool '{entry.key}' is in 'tools' twice.", code="invalid_value", param=place)
        self.hosted.append(entry)
        self._show(entry.echo)

    def _add_namespace(self, tool: Tool, place: str) -> None:
        self._name(tool, place)
        for i, raw in enumerate(tool.tools or ()):
            inner_place = f"{place}.tools[{i}]"
            inner = parse_tool(raw, inner_place)
            match inner.type:
                case "function":
                    self._add_function(inner, tool, inner_place)
                case "custom":
                    self._add_custom(inner, tool, inner_place)
                case other:
                    raise InvalidRequest(
                        f"A namespace cannot hold a tool of type '{other}'.",
                        code="invalid_value",
                        param=f"{inner_place}.type",
                    )

    def _add_function(self, tool: Tool, space: Tool | None, place: str) -> None:
        if given(tool.function) is not None:
            raise InvalidRequest(
                f"'{place}.function' is the Chat Completions form; "
                "in the Responses API 'name', 'description' and 'parameters' belong beside 'type'.",
                code="unknown_parameter",
                param=f"{place}.function",
            )
        name = self._name(tool, place)
        parameters = given(tool.parameters) or _NO_PARAMETERS
        if bytes(parameters) == b"{}":
            parameters = _NO_PARAMETERS
        check_parameters(parameters, f"{place}.parameters")
        target = CallTarget(name, space.name if space else None)
        function = FunctionTool(upstream_name(name, target.namespace), tool.description, parameters, tool.strict)
        self._register(target, function, place)
        self._note_deferred(function.name, tool, space)

    def _add_custom(self, tool: Tool, space: Tool | None, place: str) -> None:
        name = self._name(tool, place)
        description = (tool.description or "") + _grammar_in_words(given(tool.format), f"{place}.format")
        target = CallTarget(name, space.name if space else None, custom=True)
        function = FunctionTool(upstream_name(name, target.namespace), description or None, FREE_TEXT)
        self._register(target, function, place)
        self._note_deferred(function.name, tool, space)

    def _register(self, target: CallTarget, function: FunctionTool, place: str) -> None:
        known = self._functions.get(function.name)
        if known is not None and self._more is None:
            raise InvalidRequest(
                f"Two tools are named '{target.name}'; names must differ.", code="invalid_value", param=f"{place}.name"
            )
        if known is not None and function.parameters is _NO_PARAMETERS:
            function = known  # a search may have returned only the name
        if self._deferred.pop(function.name, None) is not None:
            # it goes to the end, so that the prefix the model has read stays the same
            del self._functions[function.name]
        self.targets[function.name] = target
        self._functions[function.name] = function

    def _note_deferred(self, name: str, tool: Tool, space: Tool | None) -> None:
        if self._more is not None and self._more.found:
            return
        if tool.defer_loading or (space is not None and space.defer_loading):
            shown = space or tool
            self._deferred[name] = f"- {shown.name}: {shown.description or ''}".rstrip(": ")

    def _name(self, tool: Tool, place: str) -> str:
        if not tool.name:
            raise missing(f"{place}.name")
        if not _NAME.match(tool.name):
            message = f"Invalid '{place}.name': expected letters, digits, '_' and '-', at most 128."
            raise InvalidRequest(message, code="invalid_value", param=f"{place}.name")
        return tool.name


def _grammar_in_words(raw: msgspec.Raw | None, place: str) -> str:
    """A custom tool's `format` as an instruction for the model. Raises InvalidRequest."""
    if raw is None:
        return ""
    wanted = parse_entry(raw, _CustomFormat, place)
    if wanted.type == "grammar":
        return f"\nThe input must follow this format: {bytes(raw).decode()}"
    for name in ("syntax", "definition"):
        if getattr(wanted, name) is not None:
            raise unknown_parameter(f"{place}.{name}")
    return ""
