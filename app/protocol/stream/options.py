"""How one response is assembled."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

import msgspec

from app.protocol.recovery.client_tools import CallTarget
from app.protocol.stream.writers import Annotate
from app.protocol.wire.hosted import HostedCall, HostedItem


class Options(msgspec.Struct, frozen=True):
    """Options for assembling one response that are not part of the response itself."""

    quiet: bool = False
    """Not streamed: nobody reads events."""
    raw_reasoning: bool = False
    """Thinking as `reasoning_text` instead of `reasoning_summary_text`."""
    parallel_calls: bool = True
    """False: calls after the first are left out."""
    targets: Mapping[str, CallTarget] = {}
    """The client's tools by their upstream names."""
    known_call_ids: Container[str] | None = frozenset[str]()
    """Ids of the conversation so far, which new calls must not use; None: every id is accepted."""
    seal: Callable[[str], str] | None = None
    """Creates a reasoning item's `encrypted_content`."""
    hosted: Mapping[str, Callable[[HostedCall], HostedItem]] = {}
    """The server's own functions by their upstream names: each creates a call's initial item."""
    annotate: Annotate | None = None
    """Finds the sources that an answer cites."""
