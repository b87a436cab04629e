"""The Response object: all 31 fields that Open Responses requires, with non-null defaults where its schema requires
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from app.protocol.wire.hosted import SearchAction, WebSearchCall
from app.protocol.wire.items import OutputItem
from app.protocol.wire.tokens import TokenUsage

Status = Literal["in_progress", "completed", "failed", "cancelled", "incomplete", "queued"]


class InputTokensDetails(msgspec.Struct, frozen=True, gc=False):
    """Details of the input tokens."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True, gc=False):
    """Details of the output tokens."""

    reasoning_tokens: int = 0


class Usage(msgspec.Struct, frozen=True, omit_defaults=False):
    """Tokens of the whole response, as the upstream reported them."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    x_tools: dict[str, dict[str, int]] | msgspec.UnsetType = msgspec.UNSET
    """Calls of hosted tools, as the vendor counts them: `{"web_search": {"count": 1}}`."""
    x_estimated: bool | msgspec.UnsetType = msgspec.UNSET
    """True if the upstream reported nothing and the numbers are this gateway's estimate."""


class ImageTokens(msgspec.Struct, frozen=True, gc=False):
    """Tokens by kind."""

    image_tokens: int = 0
    text_tokens: int = 0


class ImageGenerationUsage(msgspec.Struct, frozen=True):
    """Always zero: images are not generated here."""

    input_tokens: int = 0
    input_tokens_details: ImageTokens = ImageTokens()
    output_tokens: int = 0
    output_tokens_details: ImageTokens = ImageTokens()
    total_tokens: int = 0


class WebSearchUsage(msgspec.Struct, frozen=True, gc=False):
    """Web searches; opening a page does not count."""

    num_requests: int = 0


class ToolUsage(msgspec.Struct, frozen=True):
    """Usage of hosted tools in the form of OpenAI's API; zeros for families that were not used."""

    image_gen: ImageGenerationUsage = ImageGenerationUsage()
    web_search: WebSearchUsage = WebSearchUsage()


class ResponseError(msgspec.Struct, frozen=True):
    """Why a response failed; `code` is one of those in the SDKs' types."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter", "max_tool_calls"]
    """The last one occurs only in responses stored by earlier versions."""


class ReasoningEcho(msgspec.Struct, frozen=True):
    """The effective thinking options."""

    effort: str | None = None
    summary: str | None = None


class ConversationEcho(msgspec.Struct, frozen=True):
    """The conversation that the response belongs to."""

    id: str


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response in any state. Parameters missing in the request have the API's defaults."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    completed_at: int | None = None
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: tuple[OutputItem, ...] = ()
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    conversation: ConversationEcho | msgspec.UnsetType = msgspec.UNSET
    """Present if the request named one."""
    prompt_cache_key: str | None = None
    reasoning: ReasoningEcho = ReasoningEcho()
    enable_thinking: bool | msgspec.UnsetType = msgspec.UNSET
    """Whether the model thinks; present if known."""
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = True
    temperature: float = 1.0
    text: msgspec.Raw = msgspec.Raw(b'{"format":{"type":"text"}}')
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')
    tools: tuple[msgspec.Raw, ...] = ()
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: Literal["auto", "disabled"] = "disabled"
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    usage: Usage | None = None
    tool_usage: ToolUsage | msgspec.UnsetType = msgspec.UNSET
    """Present if hosted tools were called."""
    user: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict[str, str])


def usage_of(counted: TokenUsage | None, tools: dict[str, dict[str, int]], *, estimated: bool) -> Usage | None:
    """The upstream's token counts and the tool calls, in the API's form."""
    if counted is None:
        return None
    return Usage(
        counted.input_tokens,
        InputTokensDetails(counted.cached_tokens, counted.cache_write_tokens),
        counted.output_tokens,
        OutputTokensDetails(counted.reasoning_tokens),
        counted.total_tokens,
        x_tools=tools or msgspec.UNSET,
        x_estimated=estimated or msgspec.UNSET,
    )


def tool_usage_of(output: Sequence[OutputItem]) -> ToolUsage:
    """Usage of the hosted calls among the items."""
    done = [item for item in output if isinstance(item, WebSearchCall) and item.status == "completed"]
    return ToolUsage(web_search=WebSearchUsage(sum(isinstance(item.action, SearchAction) for item in done)))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Response)


def encode(response: Response) -> bytes:
    """The JSON that is sent to clients and stored."""
    return _encoder.encode(response)


def decode(data: bytes) -> Response:
    """The object from its stored JSON."""
    return _decoder.decode(data)


def seed(response: Response) -> Response:
    """The initial response, as `response.created` showed it."""
    changes: dict[str, Any] = {
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "output": (),
        "usage": None,
        "tool_usage": msgspec.UNSET,
    }
    return msgspec.structs.replace(response, **changes)
