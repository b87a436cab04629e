"""Every setting, in one typed and frozen object: environment (`GATEWAY_…`) over `gateway.toml` over the defaults here.

Each field's description is its documentation; `docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.settings_checks import WEB_ADDRESSES, AdminKey, Aliases, Networks, Origins, RootPath, WebAddress
from app.settings_sections import (
    BuiltInEmbedding,
    Connections,
    Dialect,
    Limits,
    ModelFacts,
    NativeTool,
    SearchProvider,
    Timeouts,
    ToolMode,
    ToolSettings,
    Upstream,
)
from app.settings_sources import PREFIX, Environment, mistaken_files, read_text, secret_variables, secrets_from_files

__all__ = [
    "BuiltInEmbedding",
    "ConfigurationError",
    "Connections",
    "Dialect",
    "Limits",
    "ModelFacts",
    "NativeTool",
    "SearchProvider",
    "Settings",
    "Timeouts",
    "ToolMode",
    "ToolSettings",
    "Upstream",
    "config_path",
    "load",
]


class Settings(BaseSettings):
    """The gateway's configuration. Construct with `load()`, which turns mistakes into one readable error."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    root_path: RootPath = Field(
        default="",
        description="Path prefix under which a reverse proxy serves the gateway, for example `/llm`. Requests may "
        "arrive with or without it; the OpenAPI schema and the interactive docs include it.",
    )
    workers: int = Field(default=1, ge=1, le=256, description="Number of worker processes.")
    database_url: str = Field(
        default="sqlite+aiosqlite:///data/gateway.db",
        description="`sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`.",
    )
    database_pool_size: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Database connections of each worker; one more is reserved for writing responses.",
    )
    database_pool_wait_seconds: float = Field(
        default=30.0, gt=0, description="How long a request waits for a free database connection before it gets a 503."
    )
    redis_pool_size: int = Field(
        default=16, ge=1, le=1000, description="Redis connections of each worker, for the cache and for the event log."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="`redis://…`. Redis caches responses and shares the event log among replicas."
    )
    admin_key: AdminKey = Field(
        default=None, description="A key that is always valid, for project `admin`; at least 20 characters."
    )
    authentication: bool = Field(
        default=True,
        description="If false, every request is accepted as project `default`. Use only on a trusted network.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Without authentication: accepted host names besides `localhost` and IP addresses, "
        "comma-separated.",
    )

    upstream_base_url: str | None = Field(
        default=None, description="Base URL of a single upstream; for several use `[[upstreams]]` in the file."
    )
    upstream_api_key: SecretStr | None = Field(default=None, description="API key of that upstream.")
    upstream_dialect: Dialect = Field(default="auto", description="Dialect of that upstream.")
    upstream_timeouts: Timeouts = Field(
        default_factory=Timeouts,
        description="Timeouts of that upstream in seconds; they also apply to the upstream that `DASHSCOPE_API_KEY` "
        "configures.",
    )
    upstream_fetches_urls: bool | None = Field(
        default=None, description="Whether that upstream fetches image URLs itself."
    )
    upstreams: tuple[Upstream, ...] = Field(default=(), description="Upstreams, in the file: `[[upstreams]]`.")
    aliases: Aliases = Field(default_factory=dict, description='Aliases of model names: `alias = "real"`.')
    models: dict[str, ModelFacts] = Field(
        default_factory=dict, description="Model properties that override the built-in ones."
    )

    retention_days: float = Field(default=7, gt=0, le=3650, description="Days after which a stored response expires.")
    conversation_days: float | None = Field(
        default=None,
        gt=0,
        le=36500,
        description="Days after which a conversation that is not used expires; not set: it stays until it is deleted.",
    )
    event_log: Literal["auto", "database", "redis"] = Field(
        default="auto",
        description="Where the events of background streams, and of streams that are followed on other replicas, are "
        "kept while they run. `auto`: Redis if configured, otherwise the database.",
    )
    sqlite_synchronous: Literal["NORMAL", "FULL"] = Field(
        default="NORMAL",
        description="NORMAL survives a crash of the gateway; FULL also survives a power failure, at one fsync per "
        "group of writes.",
    )
    response_id_prefix: Literal["", "resp_"] = Field(
        default="", description="Prefix of response ids; lookups accept ids with and without it."
    )
    reasoning_events: Literal["summary", "text"] = Field(
        default="summary", description="Stream reasoning as `reasoning_summary_text` or as `reasoning_text` events."
    )
    websockets: bool = Field(
        default=True, description="Serve `/v1/responses` over WebSocket, too; if false, clients get 426 and use HTTP."
    )
    done_marker: bool = Field(default=False, description="End streams with `data: [DONE]`, after the terminal event.")
    estimate_usage: bool = Field(
        default=False, description="Estimate usage when the upstream reports none, and mark it (`usage.x_estimated`)."
    )
    heartbeat_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Maximum silence of a stream. Then a comment is sent; a stream whose upstream has not answered yet "
        "is started. Counted from when the upstream request is ready, after listing MCP tools and running approved "
        "calls.",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Web pages that may call this server from a browser, by origin (`https://app.example.com`), "
        "or `*` for every page. Empty: none.",
    )
    lenient_user_agents: tuple[str, ...] = Field(
        default=("codex*", "*codex_*"),
        description="User-Agent patterns of clients that send a fixed set of tools with every request: "
        "unsupported tools are removed with a Warning header instead of being refused.",
    )
    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How long requests are still accepted after the stop signal, while `/readyz` returns 503 to load "
        "balancers.",
    )
    drain_seconds: float = Field(
        default=600.0,
        ge=0,
        description="How long running responses may take to end by themselves after the stop signal; those left then "
        "fail, with a terminal event. A second signal ends this time.",
    )
    on_disconnect: Literal["cancel", "continue"] = Field(
        default="cancel",
        description="What happens to a stored response whose client disconnects (header `x-gateway-on-disconnect` of a "
        "request).",
    )
    resumable_streams: bool = Field(
        default=False,
        description="Stored streams go on when their client disconnects, and can be resumed at any event on any "
        "replica, even after the death of their process (header `x-gateway-resumable` of a request).",
    )
    discover: bool = Field(
        default=True,
        description="If no upstream is set, look for llama.cpp, Ollama, vLLM and SGLang on their default local ports.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Verbosity of the log on standard error."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Log format; `json` writes one object per line."
    )
    limits: Limits = Field(default_factory=Limits, description="Limits on sizes, counts and times.")
    connections: Connections = Field(default_factory=Connections, description="Limits on HTTP connections.")

    tools: dict[str, ToolSettings] = Field(
        default_factory=dict,
        description="Built-in tools by type, in the file: `[tools.web_search]`; tools not listed are `auto`.",
    )
    searxng_url: WebAddress = Field(
        default=None,
        description="URL of a SearXNG server with the JSON format enabled: web and image search without a key.",
    )
    search_providers: tuple[SearchProvider, ...] = Field(
        default=(),
        description="Search providers in the order they are tried; empty: SearXNG first, then every provider that has "
        "a key.",
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
    search_base_urls: Annotated[dict[SearchProvider, str], WEB_ADDRESSES] = Field(
        default_factory=dict[SearchProvider, str],
        description="Base URLs of search providers, by name, to use a proxy or a compatible server.",
    )
    fetch_allow: Networks = Field(
        default=(),
        description="Hosts, addresses or networks (`wiki.corp`, `10.1.0.0/16`) that may be fetched even though they "
        "are private.",
    )
    fetch_robots: bool = Field(default=True, description="Respect robots.txt when fetching pages.")
    vision_model: str | None = Field(
        default=None,
        description="Model that describes images for `image_search`; default: the request's own model if it accepts "
        "images.",
    )
    sandbox: str = Field(
        default="auto",
        description="Where `code_interpreter` runs code: `auto` (the strongest that works here), `bubblewrap`, "
        "`landlock`, `wasi`, a sandbox service's URL, `unix:` followed by the path of its socket, or `off`.",
    )
    sandbox_token: SecretStr | None = Field(
        default=None, description="The sandbox service's token, if `sandbox` is a service."
    )
    files_dir: str = Field(
        default="data/files",
        description="Where uploaded files are stored: a directory, or `s3://bucket/prefix`; `off` disables files.",
    )
    files_s3_endpoint: str | None = Field(
        default=None, description="URL of an S3-compatible server; credentials come from the AWS_ variables."
    )
    embeddings_base_url: str | None = Field(
        default=None,
        description="Base URL of an embeddings server, including `/v1`; default: a built-in model.",
    )
    embeddings_model: str | None = Field(default=None, description="Embeddings model, for example `text-embedding-v4`.")
    embeddings_api_key: SecretStr | None = Field(default=None, description="API key of the embeddings server.")
    embeddings_built_in: BuiltInEmbedding = Field(
        default="universal-sentence-encoder-multilingual-3",
        description="The built-in model for new vector stores if no server is set; a filled store keeps its model. The "
        "second one knows more languages and takes about 40 times the CPU.",
    )

    dashscope_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="DASHSCOPE_API_KEY",
        description="`DASHSCOPE_API_KEY`: used when no upstream is set.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, given: object, info: ValidationInfo) -> object:
        """Lists and tables may be written as text, both in the environment and in the file."""
        return read_text(cls.model_fields[info.field_name or ""].annotation, given)

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
        """Explicit arguments, then the environment, then files with secrets, then the configuration file."""
        del env_settings, dotenv_settings, file_secret_settings
        path = config_path()
        file = (TomlConfigSettingsSource(settings_cls, toml_file=path),) if path else ()
        secrets = InitSettingsSource(settings_cls, init_kwargs=secrets_from_files(settings_cls))
        return (init_settings, Environment(settings_cls), secrets, *file)


class ConfigurationError(Exception):
    """The configuration is invalid; the message lists every mistake and how to correct it."""


def config_path() -> Path | None:
    """The configuration file: `GATEWAY_CONFIG`, otherwise `gateway.toml` in the working directory if it exists."""
    named = os.environ.get("GATEWAY_CONFIG")
    if named:
        return Path(named)
    default = Path("gateway.toml")
    return default if default.is_file() else None


def load(**overrides: Any) -> Settings:
    """Read the configuration. Raises ConfigurationError with every mistake in it."""
    mistakes = [*_unknown_variables(), *mistaken_files(Settings), *_unreadable_file()]
    if not mistakes:
        try:
            return Settings(**overrides)
        except ValidationError as error:
            mistakes = [_explain(".".join(str(part) for part in e["loc"]), e["type"], e["msg"]) for e in error.errors()]
        except ValueError as error:
            mistakes = [str(error)]
    raise ConfigurationError("\n".join(mistakes))


def _unknown_variables() -> list[str]:
    plain = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"GATEWAY_CONFIG"}
    known = plain | {f"{variable}_FILE" for variable in secret_variables(Settings)}
    unknown = [name for name in os.environ if name.startswith(PREFIX) and name.split("__")[0] not in known]
    return [_unknown_variable(name, plain, known) for name in sorted(unknown)]


def _unknown_variable(name: str, plain: set[str], known: set[str]) -> str:
    setting = name.removesuffix("_FILE")
    if setting in plain:
        return f"{name}: only secrets can be read from files; use {setting}"
    return f"{name}: no such setting{_nearest(name, known)}"


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
        "connections": Connections,
        "models": ModelFacts,
        "tools": ToolSettings,
    }
    named = [p for p in parents if p in sections]
    return set((sections[named[-1]] if named else Settings).model_fields)


def _nearest(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
