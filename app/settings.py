"""Every setting, in one typed and frozen object: environment (`GATEWAY_…`) over `gateway.toml` over the defaults here.

Each field's description is its documentation; `docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

Dialect = Literal["auto", "dashscope", "dashscope-responses", "vllm", "sglang", "ollama", "llamacpp", "openai", "demo"]

SearchProvider = Literal["searxng", "tavily", "brave", "serper", "bocha", "exa", "jina", "google_vision"]
ToolMode = Literal["auto", "gateway", "native", "off"]
NativeTool = Literal["web_search", "web_extractor", "code_interpreter", "web_search_image", "image_search"]

_MIN_ADMIN_KEY = 20
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:\d{1,5})?")
"""As browsers send it: lower case, nothing behind the port. Programs in a web view have schemes of their own."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
    fetch_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="One page, image or file that is fetched from the web.")
    file_bytes: int = Field(default=512 * 1024 * 1024, ge=1024, description="One uploaded file; larger ones get 413.")
    container_file_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="One file that goes into or comes out of a sandbox.")
    context_cache_bytes: int = Field(default=16 * 1024 * 1024, ge=0, description="Memory for the contexts of recent chains.")
    vector_cache_bytes: int = Field(
        default=256 * 1024 * 1024, ge=0, description="On SQLite: memory for the vectors of the stores searched last; 40 MB hold 100,000."
    )


class Settings(BaseSettings):
    """The gateway's configuration. Construct with `load()`, which turns mistakes into one readable error."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", env_nested_delimiter="__", env_ignore_empty=True, frozen=True, extra="forbid", populate_by_name=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes.")
    database_url: str = Field(
        default="sqlite+aiosqlite:///data/gateway.db", description="`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`."
    )
    database_pool_size: int = Field(default=20, ge=1, le=1000, description="Connections of each process, and one that writes responses.")
    database_pool_wait_seconds: float = Field(default=30.0, gt=0, description="How long a request waits for one of them; then 503.")
    redis_pool_size: int = Field(default=16, ge=1, le=1000, description="Connections of each process, for the cache and for the event log.")
    redis_url: SecretStr | None = Field(default=None, description="`redis://…`: cache of responses and event log shared by replicas.")
    admin_key: SecretStr | None = Field(
        default=None, description="A key that is always accepted, for project `admin`; at least 20 characters."
    )
    authentication: bool = Field(
        default=True, description="False: every request is accepted, as project `default`. Only for a trusted network."
    )

    upstream_base_url: str | None = Field(
        default=None, description="The one upstream's address; for several use `[[upstreams]]` in the file."
    )
    upstream_api_key: SecretStr | None = Field(default=None, description="Its key.")
    upstream_dialect: Dialect = Field(default="auto", description="Its dialect.")
    upstream_timeouts: Timeouts = Field(
        default_factory=Timeouts, description="Its time limits, in seconds; also those of the upstream that `DASHSCOPE_API_KEY` stands for."
    )
    upstreams: tuple[Upstream, ...] = Field(default=(), description="Upstreams, in the file: `[[upstreams]]`.")
    aliases: dict[str, str] = Field(default_factory=dict, description='Model names that stand for others: `alias = "real"`.')
    models: dict[str, ModelFacts] = Field(default_factory=dict, description="Facts about models that differ from the built-in ones.")

    retention_days: float = Field(default=7, gt=0, le=3650, description="How long a stored response lives.")
    event_log: Literal["auto", "memory", "database", "redis"] = Field(
        default="auto",
        description="Where live streams can be followed from: this process, or all replicas. "
        "`auto`: Redis when set, else memory on SQLite with one worker, else the database.",
    )
    sqlite_synchronous: Literal["NORMAL", "FULL"] = Field(
        default="NORMAL",
        description="NORMAL survives a crash of the gateway; FULL also a power cut, at the price of one fsync a group of writes.",
    )
    response_id_prefix: Literal["", "resp_"] = Field(default="", description="Put before the UUID of response ids; look-ups accept both.")
    reasoning_events: Literal["summary", "text"] = Field(
        default="summary", description="Stream thinking as `reasoning_summary_text` or as `reasoning_text` events."
    )
    done_marker: bool = Field(default=False, description="End streams with `data: [DONE]`, after the terminal event.")
    estimate_usage: bool = Field(
        default=False, description="Where the upstream reports no usage, estimate it and say so (`usage.x_estimated`)."
    )
    heartbeat_seconds: float = Field(
        default=15.0,
        gt=0,
        description="The longest that a stream is silent: then a comment is sent, and a stream whose upstream has not answered yet begins. "
        "It counts once the request is written for an upstream; listing MCP tools and running approved calls come before.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Web pages that may call this server from a browser, by origin (`https://app.example.com`; in the environment also "
        "comma-separated), or `*` for every page. Empty: none.",
    )
    lenient_user_agents: tuple[str, ...] = Field(
        default=("codex*", "*codex_*"),
        description="Clients (User-Agent patterns) that always send tools nobody asked for: "
        "unserved ones are left out with a Warning, not refused.",
    )
    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long requests are still taken after the signal to stop, while `/readyz` says 503: for load balancers to notice.",
    )
    discover: bool = Field(
        default=True, description="With no upstream set, look for llama.cpp, Ollama, vLLM and SGLang on their usual local ports."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Verbosity of the log on standard error.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="How a line of the log is written; `json` is one object a line, for programs."
    )
    limits: Limits = Field(default_factory=Limits, description="Sizes beyond which a request is refused.")

    tools: dict[str, ToolSettings] = Field(
        default_factory=dict, description="Built-in tools by type, in the file: `[tools.web_search]`; all are `auto` unless named here."
    )
    searxng_url: str | None = Field(default=None, description="A SearXNG server (JSON format on): web and image search without a key.")
    search_providers: tuple[SearchProvider, ...] = Field(
        default=(), description="Search providers in the order they are tried; empty: SearXNG first, then every one that has a key."
    )
    tavily_api_key: SecretStr | None = Field(default=None, description="Key of Tavily.")
    brave_api_key: SecretStr | None = Field(default=None, description="Key of Brave Search.")
    serper_api_key: SecretStr | None = Field(default=None, description="Key of Serper (Google results, images, Lens).")
    bocha_api_key: SecretStr | None = Field(default=None, description="Key of Bocha.")
    exa_api_key: SecretStr | None = Field(default=None, description="Key of Exa.")
    jina_api_key: SecretStr | None = Field(default=None, description="Key of Jina.")
    google_vision_api_key: SecretStr | None = Field(
        default=None, description="Key of Google Cloud Vision: `image_search` sends it the images of the conversation."
    )
    search_base_urls: dict[SearchProvider, str] = Field(
        default_factory=dict[SearchProvider, str],
        description="Other addresses of search providers, by name: for proxies and compatible servers.",
    )
    fetch_allow: tuple[str, ...] = Field(
        default=(),
        description="Hosts, addresses or networks (`wiki.corp`, `10.1.0.0/16`) that may be fetched though they are not public.",
    )
    fetch_robots: bool = Field(default=True, description="Keep to the robots.txt of the pages that are fetched.")
    vision_model: str | None = Field(
        default=None, description="Model that describes images for `image_search`; default: the request's own model when it takes images."
    )
    sandbox: str = Field(
        default="auto",
        description="Where `code_interpreter` runs code: `auto` (the best this machine has), `bubblewrap`, `landlock`, `wasi`, "
        "a sandbox service's URL or `unix:` and the path of its socket, or `off`.",
    )
    sandbox_token: SecretStr | None = Field(default=None, description="The sandbox service's token, when `sandbox` is a service.")
    files_dir: str = Field(
        default="data/files", description="Where uploaded files are kept: a directory, or `s3://bucket/prefix`; `off` switches files off."
    )
    files_s3_endpoint: str | None = Field(default=None, description="An S3-compatible server; keys come from the AWS_ variables.")
    embeddings_base_url: str | None = Field(
        default=None,
        description="A server for `/embeddings`, up to and including `/v1`; default: a small built-in model.",
    )
    embeddings_model: str | None = Field(default=None, description="Its model, for example `text-embedding-v4`.")
    embeddings_api_key: SecretStr | None = Field(default=None, description="Its key.")

    dashscope_api_key: SecretStr | None = Field(
        default=None, validation_alias="DASHSCOPE_API_KEY", description="`DASHSCOPE_API_KEY`: used when no upstream is set."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _listed_origins(cls, given: object) -> object:
        """A list, its JSON, or its entries between commas."""
        if not isinstance(given, str):
            return given
        return json.loads(given) if given.lstrip().startswith("[") else [part.strip() for part in given.split(",") if part.strip()]

    @field_validator("cors_origins")
    @classmethod
    def _whole_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: expected `*`, or scheme, host and port as in `https://app.example.com`")
        return origins

    @field_validator("fetch_allow")
    @classmethod
    def _readable_networks(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            if "/" in entry or ":" in entry:
                ip_network(entry.strip("[] "))
        return entries

    @field_validator("admin_key")
    @classmethod
    def _strong_admin_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            value = key.get_secret_value()
            if len(value) < _MIN_ADMIN_KEY or len(set(value)) < _MIN_ADMIN_KEY // 2:
                raise ValueError(f"is too weak: use at least {_MIN_ADMIN_KEY} varied characters, for example from `openssl rand -hex 24`")
        return key

    @field_validator("searxng_url", "search_base_urls")
    @classmethod
    def _web_addresses(cls, given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for address in given.values() if isinstance(given, dict) else [given] if given else []:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # `port` raises ValueError, too
                raise ValueError("expected an http or https URL")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        names = [u.name for u in self.upstreams]
        if len(names) != len(set(names)):
            raise ValueError("upstreams: names must differ")
        if self.event_log == "redis" and self.redis_url is None:
            raise ValueError("event_log: `redis` needs redis_url")
        for name in self.search_providers:
            needed = "searxng_url" if name == "searxng" else f"{name}_api_key"
            if getattr(self, needed) is None:
                raise ValueError(f"search_providers: `{name}` needs {needed}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit arguments, then the environment, then the file."""
        del dotenv_settings, file_secret_settings
        path = config_path()
        file = (TomlConfigSettingsSource(settings_cls, toml_file=path),) if path else ()
        return (init_settings, env_settings, *file)


class ConfigurationError(Exception):
    """The configuration cannot be used; the message is a list of mistakes with their cures."""


def config_path() -> Path | None:
    """The configuration file: `GATEWAY_CONFIG`, else `gateway.toml` here when there is one."""
    named = os.environ.get("GATEWAY_CONFIG")
    if named:
        return Path(named)
    default = Path("gateway.toml")
    return default if default.is_file() else None


def load(**overrides: Any) -> Settings:
    """Read the configuration. Raises ConfigurationError with every mistake in it."""
    mistakes = [*_unknown_variables(), *_unreadable_file()]
    if not mistakes:
        try:
            return Settings(**overrides)
        except ValidationError as error:
            mistakes = [_explain(".".join(str(part) for part in e["loc"]), e["type"], e["msg"]) for e in error.errors()]
        except ValueError as error:
            mistakes = [str(error)]
    raise ConfigurationError("\n".join(mistakes))


def _unknown_variables() -> list[str]:
    known = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields} | {"GATEWAY_CONFIG"}
    unknown = [n for n in os.environ if n.startswith("GATEWAY_") and n.split("__")[0] not in known]
    return [f"{name}: no such setting{_nearest(name, known)}" for name in sorted(unknown)]


def _unreadable_file() -> list[str]:
    path = config_path()
    if path is None:
        return []
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path}: cannot be read: {error}"]
    except tomllib.TOMLDecodeError as error:
        return [f"{path}: not valid TOML: {error}"]
    return []


def _explain(where: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        *parents, leaf = where.split(".")
        return f"{where}: no such setting{_nearest(leaf, _names_in(parents))}"
    return f"{where or 'configuration'}: {message.removeprefix('Value error, ')}"


def _names_in(parents: list[str]) -> set[str]:
    sections: dict[str, type[BaseModel]] = {
        "upstreams": Upstream,
        "timeouts": Timeouts,
        "limits": Limits,
        "models": ModelFacts,
        "tools": ToolSettings,
    }
    named = [p for p in parents if p in sections]
    return set((sections[named[-1]] if named else Settings).model_fields)


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
