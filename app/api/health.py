"""For load balancers and monitoring."""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from app.api.dependencies import Wired
from app.api.openapi import UNREADY, Health
from app.protocol.errors import Unavailable
from app.stores.base import StoreUnavailable

router = APIRouter(tags=["Operations"])


@router.get("/healthz", response_model=Health, summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Always ok while the process serves."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Health, responses=UNREADY, summary="Can it do its work?")
async def readyz(services: Wired) -> Response:
    """503 while the database does not answer."""
    try:
        await services.store.count_expired(int(time.time()))
    except StoreUnavailable as error:
        raise Unavailable("The database is unavailable.", code="store_unavailable", retry_after=1.0) from error
    return JSONResponse({"status": "ready"})


@router.get("/metrics", summary="Metrics in the Prometheus format", response_class=PlainTextResponse)
async def metrics(services: Wired) -> Response:
    """Everything that is counted."""
    return Response(services.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
