"""Selects the upstreams: those in the settings, or DashScope if its key is set, or a local Qwen server, or the demo
model.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from app import discovery
from app.engine.upstreams.routing import Route, is_own
from app.providers.base import Provider, UpstreamError, UpstreamModel
from app.providers.detect import dialect_of
from app.providers.facts import facts_with
from app.providers.spec import ProviderSpec
from app.settings import ConfigurationError, Settings, Timeouts, Upstream

_log = logging.getLogger(__name__)
_DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
_LOCAL_SERVERS = (("llama.cpp", 8080), ("ollama", 11434), ("vllm", 8001), ("sglang", 30000))
"""Usual local ports; vLLM's default is the gateway's own, so the alternative in its documentation is probed."""
_PROBE_SECONDS = 0.3
_LIST_SECONDS = 1.0
"""Maximum wait for a model list at startup; the server starts without it."""
_ENDPOINTS = ("/models", "/chat/completions", "/completions", "/responses", "/embeddings", "/messages")
_VERSION = re.compile("v[0-9]+(alpha|beta)?[0-9]*")
"""A version in a path, as in `/v1`, `/api/v3` and `/v1beta/openai`."""
_EXCLUSIVE = frozenset({"llamacpp", "ollama", "demo"})
"""Dialects whose servers accept any model name, so that their list determines which models exist."""


async def connect(settings: Settings) -> Sequence[Route]:
    """The routes, each with its upstream's current list of models. Raises ConfigurationError."""
    chosen = configured(settings)
    if not chosen and settings.discover:
        chosen = await _discover(settings)
    if not chosen:
        _log.warning(
            "no upstream is configured: serving the built-in demo model, a simulation; set GATEWAY_UPSTREAM_BASE_URL "
            "or DASHSCOPE_API_KEY"
        )
        chosen = [Upstream(name="demo", base_url="demo:", dialect="demo")]
    return await asyncio.gather(*(_route(upstream, settings) for upstream in chosen))


def configured(settings: Settings) -> Sequence[Upstream]:
    """The upstreams in the settings; empty: discover one."""
    chosen = list(settings.upstreams)
    if settings.upstream_base_url:
        chosen.append(
            Upstream(
                name="default",
                base_url=settings.upstream_base_url,
                api_key=settings.upstream_api_key,
                dialect=settings.upstream_dialect,
                timeouts=settings.upstream_timeouts,
                fetches_urls=settings.upstream_fetches_urls,
            )
        )
    elif settings.upstream_dialect == "demo":
        chosen.append(Upstream(name="demo", base_url="demo:", dialect="demo"))
    if not chosen and settings.dashscope_api_key:
        key, limits = settings.dashscope_api_key, settings.upstream_timeouts
        chosen.append(
            Upstream(name="dashscope", base_url=_DASHSCOPE, api_key=key, dialect="dashscope", timeouts=limits)
        )
    return chosen


def check(settings: Settings) -> None:
    """Build every configured upstream without connecting. Raises ConfigurationError."""
    for upstream in configured(settings):
        _build(upstream, "openai" if upstream.dialect == "auto" else upstream.dialect, settings)


async def ask(upstream: Upstream, settings: Settings) -> Sequence[UpstreamModel]:
    """The upstream's model list. Raises UpstreamError and ConfigurationError."""
    provider = _build(upstream, "openai" if upstream.dialect == "auto" else upstream.dialect, settings)
    try:
        return await provider.models()
    finally:
        await provider.aclose()


async def locate(upstream: Upstream, settings: Settings) -> tuple[Upstream, Sequence[UpstreamModel]]:
    """The upstream with the address at which it lists models, and the list.

    If `base_url` lacks `/v1`, or is that of an endpoint, other addresses are tried. Raises UpstreamError and
    ConfigurationError.
    """
    candidates = [_at(upstream, address) for address in addresses(upstream.base_url)]
    failures: list[UpstreamError] = []
    for candidate in candidates:
        try:
            listed = await ask(candidate, settings)
        except UpstreamError as error:
            failures.append(error)
            continue
        if listed or candidate is candidates[-1]:
            return candidate, listed
    if len(failures) < len(candidates):
        return candidates[0], ()
    raise failures[0]


def addresses(base_url: str) -> Sequence[str]:
    """Possible addresses of the API for this `base_url`, the likeliest first; never empty."""
    base = base_url.strip().rstrip("/")
    if not base.startswith(("http://", "https://")):
        return (base_url,)
    for endpoint in _ENDPOINTS:
        base = base.removesuffix(endpoint)
    parts = [part for part in urlsplit(base).path.split("/") if part]
    if any(_VERSION.fullmatch(part) for part in parts):
        return (base,)
    return (base, f"{base}/v1") if parts else (f"{base}/v1", base)


def _at(upstream: Upstream, base_url: str) -> Upstream:
    return upstream if base_url == upstream.base_url else upstream.model_copy(update={"base_url": base_url})


async def _route(given: Upstream, settings: Settings) -> Route:
    upstream, listed, failure = await _located(given, settings)
    dialect = dialect_of(upstream.base_url, listed) if upstream.dialect == "auto" else upstream.dialect
    _log.info("upstream %s: %s (%s), %d models listed", upstream.name, upstream.base_url, dialect, len(listed))
    models = tuple(UpstreamModel(name, owned_by=upstream.name) for name in upstream.models) or tuple(listed)
    exclusive = bool(upstream.models) or (dialect in _EXCLUSIVE and bool(listed))
    provider, fixed = _build(upstream, dialect, settings), bool(upstream.models)
    return Route(provider, upstream.weight, upstream.attempts, models, exclusive, fixed=fixed, failure=failure)


async def _located(given: Upstream, settings: Settings) -> tuple[Upstream, Sequence[UpstreamModel], str | None]:
    """The upstream with the address of its API, its models, and why they are unknown if that is the operator's
    to mend.
    """
    upstream = _at(given, addresses(given.base_url)[0])
    listed: Sequence[UpstreamModel] = ()
    failure = None
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            upstream, listed = await locate(given, settings)
    except (UpstreamError, TimeoutError) as error:
        _log.warning("upstream %s does not list its models: %s", upstream.name, error or "it takes too long")
        failure = error.code if isinstance(error, UpstreamError) and is_own(error) else None
    if upstream.base_url.rstrip("/") != given.base_url.rstrip("/"):
        _log.warning(
            "upstream %s: there is no API at base_url %s; using %s, set base_url to that",
            given.name,
            given.base_url,
            upstream.base_url,
        )
    return upstream, listed, failure


def _build(upstream: Upstream, dialect: str, settings: Settings) -> Provider:
    specs = {spec.dialect: spec for spec in discovery.constants("app.providers", "PROVIDER", ProviderSpec).values()}
    if dialect not in specs:
        raise ConfigurationError(
            f"upstream {upstream.name}: unknown dialect '{dialect}'; supported: {', '.join(sorted(specs))}"
        )
    return specs[dialect].build(upstream, facts_with(settings.models))


async def _discover(settings: Settings) -> list[Upstream]:
    found = await asyncio.gather(*(_probe(name, port, settings) for name, port in _LOCAL_SERVERS))
    return [upstream for upstream in found if upstream is not None]


async def _probe(name: str, port: int, settings: Settings) -> Upstream | None:
    if port == settings.port:
        return None
    base_url = f"http://127.0.0.1:{port}/v1"
    limits = Timeouts(connect=_PROBE_SECONDS, first_token=_PROBE_SECONDS, idle=_PROBE_SECONDS, total=_PROBE_SECONDS)
    try:
        models = await ask(Upstream(name=name, base_url=base_url, timeouts=limits), settings)
    except UpstreamError:
        return None
    _log.info("found a server on port %d (%s), using it as the upstream", port, name)
    return Upstream(name=name, base_url=base_url, dialect=dialect_of(base_url, models))
