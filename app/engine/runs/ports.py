"""The dependencies and settings of runs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.engine.conversation.history import History
from app.engine.conversation.locks import ConversationLocks
from app.engine.conversation.media import Media
from app.engine.conversation.sealing import Sealer
from app.engine.hosted.catalog import Catalog
from app.engine.metrics import Metrics
from app.engine.model.formats import Formats
from app.engine.model.upstream_traits import UpstreamTraits
from app.engine.request.structured import Validator
from app.engine.upstreams.routing import Router
from app.eventlog.base import EventLog
from app.settings import Limits
from app.stores.ports.conversations import ConversationStore
from app.stores.ports.responses import ResponseStore
from app.stores.ports.runs import RunStore


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are made, by the settings."""

    limits: Limits
    retention_seconds: int
    id_prefix: str = ""
    """What goes before a response's id."""
    raw_reasoning: bool = False
    """Thinking is streamed as text, not as a summary."""
    estimates_usage: bool = False
    """Tokens are estimated where the upstream does not count them."""
    vision_model: str | None = None
    """The model that looks at images for those that cannot."""


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of runs."""

    store: ResponseStore
    runs: RunStore
    """Background runs that have not ended."""
    log: EventLog
    """The frames of background streams, and of those that are followed in other processes."""
    history: History
    media: Media
    router: Router
    sealer: Sealer
    validator: Validator
    traits: UpstreamTraits
    formats: Formats
    metrics: Metrics
    conversations: ConversationStore
    locks: ConversationLocks
    """The locks of this process in conversations."""
    clock: Callable[[], float]
    """Unix time in seconds."""
    catalog: Catalog
    policy: Policy
