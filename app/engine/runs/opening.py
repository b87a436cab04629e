"""Sends one request to an upstream that accepts it."""

from __future__ import annotations

import msgspec

from app.engine.model.preparation import Host, Preparation, Prepared
from app.engine.model.truncation import shortened
from app.engine.request.admission import Admitted
from app.engine.runs.loop import approves, continued
from app.engine.runs.progress import Note, Progress
from app.engine.upstreams.routing import Route, Router, Started, Target
from app.providers.base import ModelCall, Provider, UpstreamError


class UpstreamRequests:
    """Sends one request: `first`, then `again` for the following calls."""

    def __init__(
        self, router: Router, preparation: Preparation, admitted: Admitted, now: int, done: Progress | None
    ) -> None:
        """`done`: by earlier owners of the run."""
        self._router = router
        self._preparation = preparation
        self._admitted = admitted
        self._now = now
        self._done = done
        self.note: Note | None = None
        """Stores what a background run has finished."""
        self._target: Target | None = None
        self.prepared: Prepared | None = None
        """The request as it was last prepared; None: not yet."""

    @property
    def ready(self) -> Prepared:
        """The request as it was last prepared."""
        if self.prepared is None:
            raise RuntimeError("first() comes first")
        return self.prepared

    def first_choice(self) -> tuple[Provider, str]:
        """The upstream to try first, and its name for the model. Raises NotFound."""
        target = self._find_target()
        return target.routes[0].provider, target.model

    async def first(self, host: Host) -> Started:
        """Send the request; with `truncation: auto` it is shortened until it fits the model's context window.

        `host` provides built-in tools that the conversation adds; it is not stored, since it refers to the run.
        Raises UpstreamError, and ApiError if preparation finds the request invalid.
        """
        target = self._find_target()

        async def build(route: Route) -> ModelCall:
            self.prepared = await self._prepare(route.provider, target.model, host)
            return self.prepared.call

        try:
            return await self._router.open(target, build)
        except UpstreamError as error:
            if self.prepared is None or not self._may_shorten(error):
                raise
            call, started = await self._shorter(self.prepared.call, error)
            self.prepared = msgspec.structs.replace(self.prepared, call=call)  # later calls continue it
            return started

    async def again(self, call: ModelCall) -> Started:
        """Send another call to the same upstream, for which it is encoded; shortened like the first one.

        Raises UpstreamError.
        """
        try:
            return await self._send(call)
        except UpstreamError as error:
            if not self._may_shorten(error):
                raise
            _, started = await self._shorter(call, error)
            return started

    async def _prepare(self, provider: Provider, model: str, host: Host) -> Prepared:
        """The request as it goes on behind what earlier owners have done.

        Calls that the client has approved are not made twice.
        """
        note = self.note if self._done is None and approves(self._admitted.items) else None
        if note is not None:
            await note(Progress(repeatable=False))
        prepared = await self._preparation.prepare(provider, model, self._now, host)
        if note is not None and self._preparation.hosted is not None:
            await note(Progress(tools=self._preparation.hosted.state))
        rounds = self._done.rounds if self._done is not None else None
        return prepared if rounds is None else continued(prepared, rounds)

    async def _send(self, call: ModelCall) -> Started:
        target, prepared = self._find_target(), self.prepared

        async def build(_route: Route) -> ModelCall:
            return call

        routes = tuple(route for route in target.routes if prepared is not None and route.provider is prepared.provider)
        return await self._router.open(Target(target.model, routes), build)

    def _may_shorten(self, error: UpstreamError) -> bool:
        return error.code == "context_length_exceeded" and self._admitted.request.truncation == "auto"

    async def _shorter(self, call: ModelCall, error: UpstreamError) -> tuple[ModelCall, Started]:
        """Shorten the conversation until it is accepted; returns the accepted call, and the start of its answer."""
        prepared = self.prepared
        while prepared is not None and (shorter := shortened(call, prepared.provider)) is not None:
            call = shorter
            try:
                return call, await self._send(call)
            except UpstreamError as again:
                if not self._may_shorten(again):
                    raise
                error = again
        raise error

    def _find_target(self) -> Target:
        if self._target is None:
            self._target = self._router.target(self._admitted.model)
        return self._target
