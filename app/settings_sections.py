"""The sections of the settings and the values that settings are chosen from; `app/settings.py` assembles them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from app.settings_sources import read_secret, read_text

Dialect = Literal["auto", "dashscope", "dashscope-responses", "vllm", "sglang", "ollama", "llamacpp", "openai", "demo"]

BuiltInEmbedding = Literal["universal-sentence-encoder-multilingual-3", "multilingual-e5-small"]
SearchProvider = Literal["searxng", "tavily", "brave", "serper", "bocha", "exa", "jina", "google_vision"]
ToolMode = Literal["auto", "gateway", "native", "off"]
NativeTool = Literal["web_search", "web_extractor", "code_interpreter", "web_search_image", "image_search"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, given: object, info: ValidationInfo) -> object:
        return read_text(cls.model_fields[info.field_name or ""].annotation, given)


class Timeouts(_Section):
    """Time limits of one upstream request, in seconds; the error says which one was exceeded."""

    connect: float = Field(default=5.0, gt=0, description="To open a connection, including TLS.")
    first_token: float = Field(
        default=600.0,
        gt=0,
        description="From the request to the first byte of the response; a plain response arrives all at once.",
    )
    idle: float = Field(
        default=300.0,
        gt=0,
        description="Between two reads of a response; some servers send nothing while the model generates a tool call.",
    )
    total: float = Field(default=1800.0, gt=0, description="For the whole response.")


class Upstream(_Section):
    """One upstream Qwen server."""

    name: str = Field(default="default", min_length=1, description="Its name in logs, metrics and `/v1/models`.")
    base_url: str = Field(description="Base URL including `/v1`, for example `http://127.0.0.1:8001/v1`.")
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token.")
    api_key_file: Path | None = Field(default=None, description="A file with the key, instead of `api_key`.")
    dialect: Dialect = Field(
        default="auto", description="`auto` detects it from the server's host name and model list."
    )
    models: tuple[str, ...] = Field(
        default=(), description="Models it serves. If empty, those in its model list; without a list, any name."
    )
    weight: int = Field(
        default=1, ge=1, le=1000, description="Share of the requests among upstreams that serve the same model."
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Time limits, in seconds.")
    headers: dict[str, str] = Field(default_factory=dict, description="Extra request headers.")
    verify_tls: bool = Field(default=True, description="Verify the server's TLS certificate.")
    ca_file: Path | None = Field(default=None, description="A certificate bundle to trust instead of the system's.")
    attempts: int = Field(
        default=3, ge=1, le=10, description="Maximum number of attempts before the first byte, including the first one."
    )
    fetches_urls: bool | None = Field(
        default=None,
        description="Pass image URLs to the upstream, which fetches them from its own network. If false, the gateway "
        "fetches them, subject to `fetch_allow`, and sends the data. Default: true for the DashScope dialects, since "
        "DashScope is outside your network.",
    )

    @model_validator(mode="before")
    @classmethod
    def _key_from_file(cls, given: object) -> object:
        if not isinstance(given, dict) or not (path := cast("dict[str, Any]", given).get("api_key_file")):
            return cast("object", given)
        fields = cast("dict[str, Any]", given)
        if fields.get("api_key"):
            raise ValueError("api_key and api_key_file are both set; set one of them")
        return {**fields, "api_key": read_secret(Path(path))}


class ModelFacts(_Section):
    """Overrides of the built-in facts about one model."""

    context_window: int | None = Field(default=None, gt=0, description="Context window in tokens.")
    max_output_tokens: int | None = Field(default=None, gt=0, description="Maximum number of output tokens.")
    thinking: Literal["on", "off", "never", "always"] | None = Field(
        default=None, description="Thinking is on by default, off by default, unsupported, or cannot be turned off."
    )
    images: bool | None = Field(default=None, description="Accepts images.")
    preserves_thinking: bool | None = Field(
        default=None, description="Expects the thinking of earlier turns in the history."
    )
    native_tools: tuple[NativeTool, ...] | None = Field(
        default=None, description="Built-in tools that the vendor runs for it (dialect `dashscope-responses`)."
    )


class ToolSettings(_Section):
    """Who runs one built-in tool, and what a call costs."""

    mode: ToolMode = Field(
        default="auto",
        description="`gateway`: the gateway runs it; `native`: forwarded to an upstream that provides the tool; `off`: "
        "refused; `auto`: native where the upstream provides it, otherwise the gateway.",
    )
    models: dict[str, ToolMode] = Field(
        default_factory=dict, description="Mode for individual models, by name or pattern (`qwen3.7-*`)."
    )
    price: float | None = Field(default=None, ge=0, description="Price of a call; overrides the built-in price list.")
    currency: str = Field(default="USD", min_length=3, max_length=3, description="Currency of the price.")


class Limits(_Section):
    """Sizes beyond which a request is refused."""

    body_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1024, description="Maximum size of a request body; larger ones get 413."
    )
    input_items: int = Field(default=10_000, ge=1, description="Maximum number of items in `input`.")
    conversation_items: int = Field(
        default=20_000, ge=1, description="Items that a conversation can get in its life, deleted ones included."
    )
    conversation_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="Size up to which a conversation can be continued by a response.",
    )
    tools: int = Field(default=256, ge=1, description="Maximum number of tools in a request.")
    concurrent_responses: int = Field(
        default=2000, ge=1, description="Responses generated at once in one process; further requests get 503."
    )
    background_responses: int = Field(
        default=500,
        ge=0,
        description="Background responses generated at once in one process; further ones wait, in all processes "
        "together. 0: none.",
    )
    background_queue: int = Field(
        default=1000,
        ge=0,
        description="Background responses that may wait, in all processes together; further requests get 503.",
    )
    tool_rounds: int = Field(
        default=16, ge=1, le=1000, description="Rounds of tool calls in one response; then the model must answer."
    )
    tool_calls_at_once: int = Field(
        default=8, ge=1, le=256, description="Built-in tool calls that run concurrently in one response."
    )
    tool_seconds: float = Field(default=60.0, gt=0, le=3600, description="Time limit of one built-in tool call.")
    tool_output_bytes: int = Field(
        default=48 * 1024,
        ge=1024,
        description="How much of a tool's output the model gets; longer output is cut in the middle.",
    )
    documents_at_once: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Documents parsed at once in one process, with up to 2 GiB of memory each; a project gets at most "
        "half of the slots.",
    )
    document_cpu_seconds: float = Field(
        default=20.0,
        ge=4,
        le=600,
        description="CPU time limit for parsing one document; documents below 256 KiB get less, down to a quarter.",
    )
    document_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Wall-clock limit for parsing one document, not counting time in the queue.",
    )
    fetch_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Maximum size of a page, image or file fetched from the web."
    )
    file_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1024, description="Maximum size of an uploaded file; larger ones get 413."
    )
    container_file_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="Maximum size of a file copied into or out of a sandbox."
    )
    context_cache_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=0,
        description="Memory for caching the encoded contexts of recent conversations; the least recently used are "
        "evicted.",
    )
    websocket_cache_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="Memory for the responses with `store` false that their WebSocket can continue, of all "
        "connections; the least recently used are evicted.",
    )
    vector_cache_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=0,
        description="On SQLite: memory for caching vectors of recently searched stores; 100,000 vectors of the default "
        "model take 52 MB.",
    )


class Connections(_Section):
    """How much and how slowly a client may send; beyond these limits the connection is closed."""

    open: int = Field(
        default=4096, ge=1, description="Maximum number of open connections in one process; further ones get 503."
    )
    header_bytes: int = Field(
        default=64 * 1024,
        ge=4096,
        description="Maximum size of request line and header fields; larger ones get 414 or 431.",
    )
    header_seconds: float = Field(
        default=20.0, gt=0, description="Time limit for receiving the request header; slower requests get 408."
    )
    body_bytes_per_second: int = Field(
        default=500, ge=0, description="Minimum rate at which a body must arrive; slower requests get 408."
    )
    body_seconds: float = Field(default=20.0, gt=0, description="Period over which that rate is measured.")
    unread_seconds: float = Field(
        default=60.0, gt=0, description="A client that reads nothing of its response for this long is disconnected."
    )
    idle_seconds: int = Field(
        default=5, ge=1, description="Keep-alive timeout: how long an idle connection stays open."
    )
    websocket_seconds: float = Field(
        default=3600.0, gt=0, description="How long a WebSocket stays open; what runs then is still answered."
    )
    websocket_message_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a client's WebSocket message; a larger one closes the connection with 1009.",
    )
    websocket_ping_seconds: float = Field(
        default=20.0,
        gt=0,
        description="Interval of pings on a WebSocket; a client that does not answer one within "
        "`unread_seconds` is disconnected.",
    )
