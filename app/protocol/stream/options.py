"""How one response is assembled."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import msgspec

from app.protocol.recovery.client_tools import CallTarget
from app.protocol.stream.writers import Annotate
from app.protocol.wire.hosted import HostedCall, HostedItem


class Options(msgspec.Struct, frozen=True):
    """How one response is assembled, beyond what it says of itself."""

    quiet: bool = False
    """No reader of events: a plain answer."""
    raw_reasoning: bool = False
    """Thinking as `reasoning_text`, not as `reasoning_summary_text`."""
    parallel_calls: bool = True
    """False: calls after the first are left out."""
    targets: Mapping[str, CallTarget] = {}
    """The client's tools by the names the upstream knows."""
    known_call_ids: Container[str] | None = frozenset[str]()
    """Those of the conversation so far, which no new call may have; None: ids are right as they come."""
    seal: Callable[[str], str] | None = None
    """Makes a reasoning item's `encrypted_content`."""
    hosted: Mapping[str, Callable[[HostedCall], HostedItem]] = {}
    """The server's own functions by the names the upstream knows: what makes a call's item as it begins."""
    annotate: Annotate | None = None
    """Finds the sources that an answer names."""
