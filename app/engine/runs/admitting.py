"""Makes runs of requests: new ones, and those that were accepted earlier."""

from __future__ import annotations

from app.engine.request.admission import admit
from app.engine.runs.origin import Origin
from app.engine.runs.ports import Ports
from app.engine.runs.progress import Progress
from app.engine.runs.run import Run
from app.engine.runs.warm_up import WarmUp
from app.protocol.wire.response import decode
from app.providers.base import JsonSchema
from app.stores.ports.runs import StoredRun


async def admitted_run(
    ports: Ports, project_id: str, body: bytes, *, lenient: bool, origin: Origin | None = None, warm_up: bool = False
) -> Run:
    """The run of a request, which is not open yet. Raises ApiError and StoreUnavailable.

    `warm_up`: it only prepares later requests, and does not ask the model.
    """
    admitted = admit(body, ports.policy.limits, ports.catalog, lenient=lenient, answers=not warm_up)
    if isinstance(admitted.format, JsonSchema):
        await ports.validator.check_schema(bytes(admitted.format.schema))
    if admitted.store and ports.store.doubtful:
        await ports.store.check()  # nobody should wait and pay for an answer that cannot be stored
    items = await ports.history.resolve(project_id, admitted.items, int(ports.clock()))
    kind = WarmUp if warm_up else Run
    return kind(ports, project_id, admitted, tuple(items), origin)


async def stored_run(ports: Ports, stored: StoredRun, done: Progress | None = None) -> Run:
    """The run of a row; `done`: by earlier owners.

    Raises ApiError if its request is not accepted any more, and StoreUnavailable.
    """
    seed = decode(stored.seed)
    origin = Origin(stored.id, seed.created_at, seed, done)
    return await admitted_run(ports, stored.project_id, stored.request, lenient=stored.lenient, origin=origin)
