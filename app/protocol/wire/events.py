"""The streamed events that this gateway emits, typed; names and fields follow the openai SDK's `ResponseStreamEvent`.

Every event has `type` (the struct's tag) and `sequence_number` first. `Event` also decodes other servers' streams from
JSON.
"""

from __future__ import annotations

import msgspec

from app.protocol.wire.items import Annotation, ContentPart, OutputItem, SummaryText
from app.protocol.wire.tokens import TokenLogprob


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    sequence_number: int


class _Lifecycle(_Event, frozen=True, kw_only=True):
    response: msgspec.Raw


class Created(_Lifecycle, frozen=True, kw_only=True, tag="response.created"):
    """The first event."""


class Queued(_Lifecycle, frozen=True, kw_only=True, tag="response.queued"):
    """A background response waits for its turn; the second event there, and only there."""


class InProgress(_Lifecycle, frozen=True, kw_only=True, tag="response.in_progress"):
    """The last event before the items."""


class Completed(_Lifecycle, frozen=True, kw_only=True, tag="response.completed"):
    """The end, with the complete response."""


class Failed(_Lifecycle, frozen=True, kw_only=True, tag="response.failed"):
    """The end after an error."""


class Incomplete(_Lifecycle, frozen=True, kw_only=True, tag="response.incomplete"):
    """The end before the model had finished: a limit, a filter, or a cancellation (see the response's status)."""


class ItemAdded(_Event, frozen=True, kw_only=True, tag="response.output_item.added"):
    """An item begins."""

    output_index: int
    item: OutputItem


class ItemDone(_Event, frozen=True, kw_only=True, tag="response.output_item.done"):
    """An item is final."""

    output_index: int
    item: OutputItem


class _InItem(_Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class _InContent(_InItem, frozen=True, kw_only=True):
    content_index: int = 0


class _InSummary(_InItem, frozen=True, kw_only=True):
    summary_index: int = 0


class PartAdded(_InContent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """A content part begins."""

    part: ContentPart


class PartDone(_InContent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """A content part is complete."""

    part: ContentPart


class TextDelta(_InContent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """A piece of the answer."""

    delta: str
    logprobs: tuple[TokenLogprob, ...] = ()


class TextDone(_InContent, frozen=True, kw_only=True, tag="response.output_text.done"):
    """The whole text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class AnnotationAdded(_InContent, frozen=True, kw_only=True, tag="response.output_text.annotation.added"):
    """A part of the text cites a source."""

    annotation_index: int
    annotation: Annotation


class RefusalDelta(_InContent, frozen=True, kw_only=True, tag="response.refusal.delta"):
    """A piece of a refusal."""

    delta: str


class RefusalDone(_InContent, frozen=True, kw_only=True, tag="response.refusal.done"):
    """The whole refusal."""

    refusal: str


class ReasoningTextDelta(_InContent, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    """A piece of raw thinking."""

    delta: str


class ReasoningTextDone(_InContent, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    """The whole raw thinking."""

    text: str


class SummaryPartAdded(_InSummary, frozen=True, kw_only=True, tag="response.reasoning_summary_part.added"):
    """A summary part begins."""

    part: SummaryText


class SummaryPartDone(_InSummary, frozen=True, kw_only=True, tag="response.reasoning_summary_part.done"):
    """A summary part is complete."""

    part: SummaryText


class SummaryTextDelta(_InSummary, frozen=True, kw_only=True, tag="response.reasoning_summary_text.delta"):
    """A piece of thinking."""

    delta: str


class SummaryTextDone(_InSummary, frozen=True, kw_only=True, tag="response.reasoning_summary_text.done"):
    """The whole thinking."""

    text: str


class ArgumentsDelta(_InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    """A piece of a call's arguments."""

    delta: str


class ArgumentsDone(_InItem, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    """The whole arguments, valid JSON."""

    arguments: str


class CustomInputDelta(_InItem, frozen=True, kw_only=True, tag="response.custom_tool_call_input.delta"):
    """A piece of a custom tool's input."""

    delta: str


class CustomInputDone(_InItem, frozen=True, kw_only=True, tag="response.custom_tool_call_input.done"):
    """The whole input."""

    input: str


class _InCommand(_Event, frozen=True, kw_only=True):
    """Unlike the events of other items it does not contain the item's id."""

    output_index: int
    command_index: int


class ShellCommandAdded(_InCommand, frozen=True, kw_only=True, tag="response.shell_call_command.added"):
    """A command of a shell call begins, still empty."""

    command: str


class ShellCommandDelta(_InCommand, frozen=True, kw_only=True, tag="response.shell_call_command.delta"):
    """A piece of the command."""

    delta: str


class ShellCommandDone(_InCommand, frozen=True, kw_only=True, tag="response.shell_call_command.done"):
    """The whole command."""

    command: str


class WebSearchBegun(_InItem, frozen=True, kw_only=True, tag="response.web_search_call.in_progress"):
    """A web search begins."""


class WebSearchRunning(_InItem, frozen=True, kw_only=True, tag="response.web_search_call.searching"):
    """The search is running."""


class WebSearchSucceeded(_InItem, frozen=True, kw_only=True, tag="response.web_search_call.completed"):
    """The search has succeeded."""


class FileSearchBegun(_InItem, frozen=True, kw_only=True, tag="response.file_search_call.in_progress"):
    """A file search begins."""


class FileSearchRunning(_InItem, frozen=True, kw_only=True, tag="response.file_search_call.searching"):
    """The search is running."""


class FileSearchSucceeded(_InItem, frozen=True, kw_only=True, tag="response.file_search_call.completed"):
    """The search has succeeded."""


class CodeBegun(_InItem, frozen=True, kw_only=True, tag="response.code_interpreter_call.in_progress"):
    """The model begins to write code."""


class CodeDelta(_InItem, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.delta"):
    """A piece of the code."""

    delta: str


class CodeDone(_InItem, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.done"):
    """The whole code."""

    code: str


class CodeRunning(_InItem, frozen=True, kw_only=True, tag="response.code_interpreter_call.interpreting"):
    """The code is running."""


class CodeSucceeded(_InItem, frozen=True, kw_only=True, tag="response.code_interpreter_call.completed"):
    """The code has run."""


class McpBegun(_InItem, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    """A remote tool is called."""


class McpArgumentsDelta(_InItem, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"):
    """A piece of the arguments."""

    delta: str


class McpArgumentsDone(_InItem, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"):
    """The whole arguments."""

    arguments: str


class McpSucceeded(_InItem, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """The remote tool has answered."""


class McpFailed(_InItem, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    """The call has failed."""


class McpListBegun(_InItem, frozen=True, kw_only=True, tag="response.mcp_list_tools.in_progress"):
    """A remote server is asked for its tools."""


class McpListSucceeded(_InItem, frozen=True, kw_only=True, tag="response.mcp_list_tools.completed"):
    """The server has listed its tools."""


class McpListFailed(_InItem, frozen=True, kw_only=True, tag="response.mcp_list_tools.failed"):
    """Listing them has failed."""


class NestedError(msgspec.Struct, frozen=True):
    """The live API's shape of an error event, in addition to the documented flat one."""

    type: str
    code: str | None
    message: str
    param: str | None


class ErrorEvent(_Event, frozen=True, kw_only=True, tag="error"):
    """An error after the first byte; `response.failed` follows. Flat and nested fields, since clients read either."""

    code: str | None
    message: str
    param: str | None
    error: NestedError


TextualDelta = (
    TextDelta
    | RefusalDelta
    | ReasoningTextDelta
    | SummaryTextDelta
    | ArgumentsDelta
    | CustomInputDelta
    | CodeDelta
    | McpArgumentsDelta
)
ShellCommand = ShellCommandAdded | ShellCommandDelta | ShellCommandDone
HostedPhase = (
    WebSearchBegun
    | WebSearchRunning
    | WebSearchSucceeded
    | FileSearchBegun
    | FileSearchRunning
    | FileSearchSucceeded
    | CodeBegun
    | CodeDone
    | CodeRunning
    | CodeSucceeded
    | McpBegun
    | McpArgumentsDone
    | McpSucceeded
    | McpFailed
    | McpListBegun
    | McpListSucceeded
    | McpListFailed
)
Terminal = Completed | Failed | Incomplete
Event = (
    Created
    | Queued
    | InProgress
    | Terminal
    | ItemAdded
    | ItemDone
    | PartAdded
    | PartDone
    | TextualDelta
    | TextDone
    | RefusalDone
    | ReasoningTextDone
    | SummaryPartAdded
    | SummaryPartDone
    | SummaryTextDone
    | ArgumentsDone
    | CustomInputDone
    | ShellCommand
    | AnnotationAdded
    | HostedPhase
    | ErrorEvent
)
