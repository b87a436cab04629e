"""How the response of a run is assembled."""

from __future__ import annotations

from functools import partial

from app.engine.hosted.sessions import Hosted
from app.engine.model.preparation import Prepared
from app.engine.request.admission import Admitted
from app.engine.runs.ports import Ports
from app.engine.runs.progress import Progress
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.wire import ids
from app.protocol.wire.response import Response


def assembler(
    run_id: str, seed: Response, how: Options, restored: Assembler | None, earlier: Progress | None
) -> Assembler:
    """A new assembler, or the `restored` one, which goes on from what `earlier` owners have done."""
    new_id = partial(ids.new_id, run_id)
    if restored is None:
        return Assembler(seed, new_id, how)
    done = earlier or Progress()
    restored.go_on(new_id, how, done.usage, done.hosted_calls)
    return restored


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
