"""The upstream port: what the engine requests from a Qwen server, and what it gets back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.deltas import Delta
from app.protocol.messages import FunctionTool, Message

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ForcedCall(msgspec.Struct, frozen=True, gc=False):
    """The model must call a function: the named one, or any if `name` is None."""

    name: str | None = None


class JsonSchema(msgspec.Struct, frozen=True):
    """`text.format` of type json_schema."""

    name: str
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class JsonObject(msgspec.Struct, frozen=True, gc=False):
    """`text.format` of type json_object."""


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """Sampling parameters; None means the upstream's default and is not sent."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    top_logprobs: int | None = None
    """None: no log probabilities requested."""


DEFAULT_SAMPLING = Sampling()


class Thinking(msgspec.Struct, frozen=True, gc=False):
    """What was requested about thinking; the provider translates it.

    `enabled` None: nothing was requested, the model's default applies and nothing is sent.
    """

    enabled: bool | None = None
    effort: Effort | None = None
    budget: int | None = None
    """Tokens; derived from the effort by `models.toml`, if the family takes a budget."""


class ModelCall(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of the model: everything a provider needs to build its request."""

    model: str
    """The upstream's name of the model."""
    system: str | None = None
    """The single leading system message."""
    prefix: bytes = b""
    """Earlier messages, as written by `Provider.encode_messages`; precedes `messages`."""
    messages: Sequence[Message] = ()
    tools: Sequence[FunctionTool] = ()
    native_tools: Sequence[msgspec.Raw] = ()
    """The vendor's own tools, as entries of its `tools`."""
    forced_call: ForcedCall | None = None
    """Set only if the upstream can force calls (`Capabilities.forced_calls`); otherwise the engine enforces it."""
    parallel_tool_calls: bool = True
    format: JsonSchema | JsonObject | None = None
    sampling: Sampling = Sampling()
    thinking: Thinking = Thinking()
    stream: bool = True
    """False: the caller needs only the whole answer; the provider may then request it unstreamed."""
    user: str | None = None
    prompt_cache_key: str | None = None


class NativeConditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The conditions under which an upstream runs its own tool."""

    together_with: str | None = None
    """The type of another of its tools, which has to run there, too."""
    thinking: bool = False
    """Only while the model thinks."""


class TokenFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """How a model family turns its input into tokens."""

    vocabulary: Literal["qwen", "qwen3.5"]
    image_side: int
    """The pixels of the square that is one token."""
    image_tokens: int
    """The most for one image; larger ones are scaled down."""
    system: int = 0
    """Tokens of the system message that the template writes if there is none."""


class Capabilities(msgspec.Struct, frozen=True):
    """What one model can do on one upstream; derived from the dialect and `models.toml`."""

    forced_calls: frozenset[Literal["named", "required"]] = frozenset({"named", "required"})
    forced_calls_while_thinking: bool = True
    formats: frozenset[Literal["json_object", "json_schema"]] = frozenset({"json_object", "json_schema"})
    """Formats that the upstream's decoder really enforces."""
    formats_while_thinking: bool = False
    sampling: frozenset[str] = frozenset(Sampling.__struct_fields__)
    """The sampling parameters that the upstream accepts; others are refused, not dropped."""
    images: bool = True
    image_urls: bool = True
    """The upstream fetches images by http(s) URL itself; False: it only accepts them as `data:` URIs."""
    files: bool = False
    thinks: bool | None = None
    """The model thinks by default; None: unknown."""
    can_think: bool | None = None
    """Whether the model can think at all; None: unknown."""
    can_stop_thinking: bool = True
    preserves_thinking: bool = False
    """The family expects the thinking of earlier turns in the context, not only that of the current tool loop."""
    reasoning_field: bool = True
    """The upstream always separates thinking from the answer. False: it may arrive as `<think>` text."""
    native_tools: Mapping[str, NativeConditions] = {}
    """Built-in tools, by type, that the upstream runs itself for this model."""
    context_window: int | None = None
    max_output_tokens: int | None = None
    tokens: TokenFacts | None = None
    """None: unknown."""


class UpstreamModel(msgspec.Struct, frozen=True):
    """A model as an upstream lists it."""

    id: str
    created: int = 0
    owned_by: str = ""


class Provider(Protocol):
    """One upstream. Immutable after construction except for its connection pool."""

    name: str
    dialect: str

    def capabilities(self, model: str) -> Capabilities:
        """What `model` (the upstream's name) can do here."""
        ...

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """The messages in the upstream's JSON, comma-separated, without brackets; `reasoning` includes the thinking."""
        ...

    def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """Run one turn. Each batch is the result of one read of the socket; closing the iterator closes the request.

        Raises UpstreamError (also for an error inside a 200 stream) and UpstreamProtocolError.
        """
        ...

    async def count_tokens(self, call: ModelCall) -> int | None:
        """The tokens of the call's input by the upstream's own tokenizer, without images; None: it offers none.

        Raises UpstreamError.
        """
        ...

    async def models(self) -> Sequence[UpstreamModel]:
        """The models the upstream serves. Raises UpstreamError."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


class UpstreamError(Exception):
    """The upstream refused or failed the request, or could not be reached.

    `status` is the HTTP status for the client, already mapped: 400 and 404 keep their meaning; an upstream's 401/403
    becomes 502, since the client's key is not at fault; time-outs are 504, unreachable upstreams 503.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.retryable = retryable
        """Worth retrying, as long as nothing has been sent to the client."""


class UpstreamProtocolError(UpstreamError):
    """The upstream violated its protocol: a malformed chunk, a truncated stream, no finish reason."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message, status=502, code="upstream_protocol_error", retryable=retryable)


Headers = Mapping[str, str]
