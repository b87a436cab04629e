"""How the response of a run is assembled."""

from __future__ import annotations

from functools import partial

from app.engine.hosted.sessions import Hosted
from app.engine.model.preparation import Prepared
from app.engine.request.admission import Admitted
from app.engine.runs.ports import Ports
from app.protocol.stream.options import Options


def options(
    ports: Ports, project_id: str, admitted: Admitted, prepared: Prepared | None, hosted: Hosted | None
) -> Options:
    """The assembler's options. They refer to no run: a cycle would leave the whole request to the garbage collector.

    `prepared` None: the run fails before it could be prepared.
    """
    if prepared is None:
        return Options(quiet=not admitted.stream)
    seal = partial(ports.sealer.seal, project_id=project_id, model=admitted.model) if admitted.seals else None
    return Options(
        quiet=not admitted.stream,
        raw_reasoning=ports.policy.raw_reasoning,
        parallel_calls=prepared.call.parallel_tool_calls,
        targets=prepared.tools.targets,
        known_call_ids=prepared.transcript.call_ids,
        seal=seal,
        hosted=hosted.openers if hosted is not None else {},
        annotate=hosted.citations.annotate if hosted is not None else None,
    )
