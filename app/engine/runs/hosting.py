"""The built-in tools of one run, and what they are told about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.engine.hosted.catalog import Entry
from app.engine.hosted.sessions import Hosted, ToolsState
from app.engine.model.asking import Asker
from app.engine.request.admission import Admitted
from app.engine.runs.ports import Ports
from app.protocol.messages import ImagePart
from app.protocol.wire.tokens import TokenUsage
from app.tools.ports.tool import Cite, ToolContext


class Hosting:
    """Creates the tools of a run."""

    def __init__(
        self,
        ports: Ports,
        project_id: str,
        response_id: str,
        admitted: Admitted,
        add_usage: Callable[[TokenUsage], None],
    ) -> None:
        """`add_usage` is called with the usage of each question that a tool asks a model."""
        self._ports = ports
        self._project_id = project_id
        self._response_id = response_id
        self._model = admitted.model
        self._include = frozenset(admitted.request.include or ())
        self._add_usage = add_usage

    def host(self, entries: Sequence[Entry], earlier: ToolsState) -> Hosted:
        """The tools of these entries, not opened yet.

        `earlier`: what they have done for this response in another process.
        """
        return Hosted(entries, self._ports.policy.limits, self._context, self._ports.metrics.tool_called, earlier)

    def _context(self, note: str | None, images: Sequence[ImagePart], cite: Cite) -> ToolContext:
        return ToolContext(
            project_id=self._project_id,
            response_id=self._response_id,
            model=self._model,
            images=images,
            include=self._include,
            note=note,
            ask=Asker(self._ports.router, self._model, self._ports.policy.vision_model, self._add_usage),
            cite=cite,
        )
