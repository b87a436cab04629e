"""Maps models to upstreams: aliases, weights, and retry and failover before the first byte."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence

import msgspec

from app.protocol.deltas import Delta
from app.protocol.wire.errors import NotFound
from app.providers.base import ModelCall, Provider, UpstreamError, UpstreamModel

_log = logging.getLogger(__name__)
_LONGEST = 300
_CALLERS = (400, 404)
"""Statuses that blame the request, so they say nothing about the upstream's health."""
_BACKOFF = 0.25
_LONGEST_WAIT = 5.0
_REST_AFTER_FAILURE = 5.0


class Route(msgspec.Struct):
    """One upstream and its state."""

    provider: Provider
    weight: int = 1
    attempts: int = 3
    models: tuple[UpstreamModel, ...] = ()
    """The models it lists."""
    exclusive: bool = False
    """It serves only the models it lists."""
    fixed: bool = False
    """Its models come from the settings; its own list is ignored."""
    resting_until: float = 0.0
    """Loop time until which others are preferred, after a failure."""
    failure: str | None = None
    """The code of its last failure; None: it has answered since, or never failed."""


class Target(msgspec.Struct, frozen=True):
    """The upstreams that may serve a request, the preferred one first."""

    model: str
    """The upstream's name for it."""
    routes: tuple[Route, ...]


Started = tuple[Route, Sequence[Delta], AsyncGenerator[Sequence[Delta], None]]
"""The route that accepted, the first batch, and the rest."""


class Router:
    """Chooses upstreams."""

    def __init__(
        self, routes: Sequence[Route], aliases: Mapping[str, str], on_failure: Callable[[str, UpstreamError], None]
    ) -> None:
        self._routes = list(routes)
        self._open_routes = [route for route in routes if not route.exclusive]
        self._listed: dict[str, list[Route]] = {}
        self._aliases = dict(aliases)
        self._on_failure = on_failure
        self._index()

    def target(self, model: str) -> Target:
        """The routes for a model, in the order in which to try them. Raises NotFound if no upstream serves it."""
        name = self._aliases.get(model, model)
        routes = self._listed.get(name) or self._open_routes
        if not routes:
            known = sorted({entry.id for route in self._routes for entry in route.models} | set(self._aliases))
            hint = f" Available: {', '.join(known[:20])}." if known else ""
            raise NotFound(
                f"The requested model '{model}' does not exist.{hint}", code="model_not_found", param="model"
            )
        return Target(name, tuple(self._order(routes)))

    def models(self) -> Sequence[UpstreamModel]:
        """All models that upstreams list, and the aliases; each name once."""
        models = {entry.id: entry for route in self._routes for entry in route.models}
        for alias, name in self._aliases.items():
            entry = models.get(name, UpstreamModel(name))
            models.setdefault(alias, UpstreamModel(alias, entry.created, entry.owned_by))
        return list(models.values())

    def lists(self, model: str) -> bool:
        """Whether an upstream lists the model, by the upstream's name for it."""
        return model in self._listed

    def health(self) -> Sequence[Mapping[str, object]]:
        """Each upstream: its name, whether it answers, how many models it lists, and its last error."""
        return [_health(route) for route in self._routes]

    async def refresh(self) -> None:
        """Fetch the upstreams' lists of models again; an upstream that does not answer keeps its old list."""
        for route in self._routes:
            if not route.fixed:
                try:
                    route.models = tuple(await route.provider.models())
                    route.failure = None
                except UpstreamError as error:
                    if is_own(error):  # a server without a list works, too
                        self.note_failure(route, error)
        self._index()

    def _index(self) -> None:
        self._listed = {}
        for route in self._routes:
            for entry in route.models:
                self._listed.setdefault(entry.id, []).append(route)

    async def open(self, target: Target, build: Callable[[Route], Awaitable[ModelCall]]) -> Started:
        """Send the call and wait until an upstream has accepted it. The caller closes the iterator, which closes the
        request.

        Retries with jitter, and fails over to the next upstream, as long as nothing has been received. Raises
        UpstreamError.
        """
        failure: UpstreamError | None = None
        for number, route in enumerate(_tries(target.routes)):
            if failure is not None and not await _may_retry(failure, number - len(target.routes)):
                break
            batches = route.provider.stream(await build(route))
            try:
                first = await anext(batches)
                route.failure = None
                return route, first, batches  # noqa: TRY300 - an `else` would be far away
            except UpstreamError as error:
                failure = error
                self._rest(route, error)
            except StopAsyncIteration:
                failure = UpstreamError(
                    "The upstream's answer was empty.", status=502, code="upstream_protocol_error", retryable=True
                )
                self._rest(route, failure)
            except BaseException:
                await batches.aclose()
                raise
        raise failure or UpstreamError("No upstream is configured.", status=503, code="no_upstream")

    def note_failure(self, route: Route, error: UpstreamError) -> None:
        """Record a failure of the upstream, before or during its answer."""
        if is_own(error):
            route.failure = error.code or "upstream_error"
            _log.warning("upstream %s failed: %s (%s)", route.provider.name, error.message[:_LONGEST], route.failure)
        self._on_failure(route.provider.name, error)

    def _rest(self, route: Route, error: UpstreamError) -> None:
        self.note_failure(route, error)
        if error.retryable:
            route.resting_until = asyncio.get_running_loop().time() + _REST_AFTER_FAILURE

    def _order(self, routes: Sequence[Route]) -> Sequence[Route]:
        if len(routes) == 1:
            return routes
        now = asyncio.get_running_loop().time()
        # Weighted shuffle (Efraimidis-Spirakis): each key is uniform^(1/weight).
        draws = {id(route): random.random() ** (1 / route.weight) for route in routes}  # noqa: S311 - for load balancing, not security
        return sorted(routes, key=lambda route: (route.resting_until > now, -draws[id(route)]))


def is_own(error: UpstreamError) -> bool:
    """Whether the upstream itself failed, rather than the request."""
    return error.status not in _CALLERS


def _health(route: Route) -> Mapping[str, object]:
    health = {"name": route.provider.name, "status": "failing" if route.failure else "ok", "models": len(route.models)}
    return {**health, "code": route.failure} if route.failure else health


def _tries(routes: Sequence[Route]) -> Iterator[Route]:
    """Each route once per round, until its attempts are used up."""
    turn = 0
    while left := [route for route in routes if turn < route.attempts]:
        yield from left
        turn += 1


async def _may_retry(failure: UpstreamError, retry: int) -> bool:
    """Wait until the next attempt is due; False if there is none.

    `retry`: its number, negative while there are untried upstreams.
    """
    if not failure.retryable:
        return False
    if retry < 0:
        return True
    asked = failure.retry_after or 0.0
    if asked > _LONGEST_WAIT:
        return False
    jittered = min(_BACKOFF * 2**retry, _LONGEST_WAIT) * (0.75 + random.random() / 2)  # noqa: S311 - jitter
    await asyncio.sleep(max(asked, jittered))
    return True
