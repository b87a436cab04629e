"""For load balancers and monitoring."""

from __future__ import annotations

import logging

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.api import errors
from app.api.dependencies import Services, ServicesDep
from app.api.openapi import UNREADY, Health
from app.engine.upstreams import failures
from app.protocol.wire.errors import ApiError
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
router = APIRouter(tags=["Operations"])


@router.get("/healthz", response_model=Health, summary="Liveness check")
async def healthz() -> dict[str, str]:
    """200 while the process is running."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Health, responses=UNREADY, summary="Readiness check")
async def readyz(request: Request, services: ServicesDep) -> Response:
    """503 while the database accepts no writes, and as soon as the process has received a stop signal.

    A failing upstream is reported but does not make the gateway unready: otherwise every replica would be taken out at
    once.
    """
    problem = await _problem(services, draining=request.scope["state"]["draining"])
    detail = {"status": "unavailable" if problem else "ready", "upstreams": services.router.health()}
    if problem is None:
        return JSONResponse(detail)
    status, headers, _ = errors.render(problem)
    named = {name.decode(): value.decode() for name, value in headers}
    return JSONResponse({**msgspec.to_builtins(problem.envelope()), **detail}, status, headers=named)


async def _problem(services: Services, *, draining: bool) -> ApiError | None:
    if draining:
        return failures.server_is_stopping()
    try:
        await services.store.check()
    except StoreUnavailable as error:
        _log.error("not ready: nothing can be written to the database: %s", error)
        return failures.store_unavailable()
    return None


@router.get("/metrics", summary="Metrics in the Prometheus format", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """All metrics of the gateway."""
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
