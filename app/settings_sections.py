"""The sections of the settings, and the words that settings are chosen from; `app/settings.py` puts them together."""

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
    """Time limits of one upstream request, in seconds; the error says which one has passed."""

    connect: float = Field(default=5.0, gt=0, description="To open a connection, TLS included.")
    first_token: float = Field(
        default=600.0, gt=0, description="From the request to the first byte of the answer; a plain answer arrives whole."
    )
    idle: float = Field(
        default=300.0,
        gt=0,
        description="Between two reads of an answer that has begun; servers that give a call whole are silent while they write it.",
    )
    total: float = Field(default=1800.0, gt=0, description="For the whole answer.")


class Upstream(_Section):
    """One upstream Qwen server."""

    name: str = Field(default="default", min_length=1, description="Its name in logs, metrics and `/v1/models`.")
    base_url: str = Field(description="Up to and including `/v1`, for example `http://127.0.0.1:8001/v1`.")
    api_key: SecretStr | None = Field(default=None, description="Sent as a bearer token.")
    api_key_file: Path | None = Field(default=None, description="A file with the key, instead of `api_key`.")
    dialect: Dialect = Field(default="auto", description="`auto` asks the server's model list and its address.")
    models: tuple[str, ...] = Field(
        default=(), description="Models it serves; empty: whatever its model list says, or anything when it has none."
    )
    weight: int = Field(default=1, ge=1, le=1000, description="Share of the requests among upstreams that serve the same model.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Time limits, in seconds.")
    headers: dict[str, str] = Field(default_factory=dict, description="Extra request headers.")
    verify_tls: bool = Field(default=True, description="Check the server's certificate.")
    ca_file: Path | None = Field(default=None, description="A certificate bundle to trust instead of the system's.")
    attempts: int = Field(default=3, ge=1, le=10, description="Tries before the first byte, the first one included.")
    fetches_urls: bool | None = Field(
        default=None,
        description="Hand it the addresses of images, which it then fetches from where it stands. False: they are fetched here, guarded "
        "as `fetch_allow` says, and sent as data. Default: true for the dialects of DashScope, which is outside of your network.",
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

    context_window: int | None = Field(default=None, gt=0, description="Tokens the model can see.")
    max_output_tokens: int | None = Field(default=None, gt=0, description="Tokens it can write.")
    thinking: Literal["on", "off", "never", "always"] | None = Field(
        default=None, description="Thinks by default, or not, or cannot, or cannot stop."
    )
    images: bool | None = Field(default=None, description="Takes images.")
    preserves_thinking: bool | None = Field(default=None, description="Wants earlier turns' thinking replayed.")
    native_tools: tuple[NativeTool, ...] | None = Field(
        default=None, description="Built-in tools that the vendor runs for it (dialect `dashscope-responses`)."
    )


class ToolSettings(_Section):
    """Who runs one built-in tool, and what a call of it costs."""

    mode: ToolMode = Field(
        default="auto",
        description="`gateway`: run here; `native`: forwarded to an upstream that has the tool itself; `off`: refused; "
        "`auto`: native where the upstream really has it, else here.",
    )
    models: dict[str, ToolMode] = Field(default_factory=dict, description="The same for single models, by name or pattern (`qwen3.7-*`).")
    price: float | None = Field(default=None, ge=0, description="Price of a call, instead of the built-in list's.")
    currency: str = Field(default="USD", min_length=3, max_length=3, description="Of the price.")


class Limits(_Section):
    """Sizes beyond which a request is refused."""

    body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, description="Request body; larger ones get 413.")
    input_items: int = Field(default=10_000, ge=1, description="Items in `input`.")
    tools: int = Field(default=256, ge=1, description="Tools in one request.")
    concurrent_responses: int = Field(default=2000, ge=1, description="Responses being generated at once in one process; beyond it: 503.")
    tool_rounds: int = Field(default=16, ge=1, le=1000, description="Rounds of tool calls in one response; then the model has to answer.")
    tool_calls_at_once: int = Field(default=8, ge=1, le=256, description="Calls of built-in tools that run side by side in one response.")
    tool_seconds: float = Field(default=60.0, gt=0, le=3600, description="For one call of a built-in tool.")
    tool_output_bytes: int = Field(default=48 * 1024, ge=1024, description="What the model reads of one call; the rest is cut.")
    documents_at_once: int = Field(
        default=4, ge=1, le=64, description="Documents read at a time in one process, with up to 2 GiB each; one project has at most half."
    )
    document_cpu_seconds: float = Field(
        default=20.0, ge=4, le=600, description="CPU time to read one document; those below 256 KiB get less, down to a quarter."
    )
    document_seconds: float = Field(default=60.0, ge=1, le=3600, description="The same on the clock, once its turn has come.")
    fetch_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="One page, image or file that is fetched from the web.")
    file_bytes: int = Field(default=512 * 1024 * 1024, ge=1024, description="One uploaded file; larger ones get 413.")
    container_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="One file that goes into or comes out of a sandbox.")
    context_cache_bytes: int = Field(default=16 * 1024 * 1024, ge=0, description="Memory for the contexts of recent chains.")
    vector_cache_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, description="On SQLite: memory for the vectors of the stores searched last; 40 MB hold 100,000."
    )


class Connections(_Section):
    """How much and how slowly a client may send; beyond it the connection is closed."""

    open: int = Field(default=4096, ge=1, description="Connections at once in one process; beyond it: 503.")
    header_bytes: int = Field(default=64 * 1024, ge=4096, description="Request line and header fields; larger ones get 431, or 414.")
    header_seconds: float = Field(default=20.0, gt=0, description="For the whole header to arrive; later: 408.")
    body_bytes_per_second: int = Field(default=500, ge=0, description="The slowest body; slower: 408.")
    body_seconds: float = Field(default=20.0, gt=0, description="Over how long it is measured.")
    unread_seconds: float = Field(default=60.0, gt=0, description="After which a client that reads nothing of its answer is cut off.")
    idle_seconds: int = Field(default=5, ge=1, description="Between an answer and the next request on the same connection.")
