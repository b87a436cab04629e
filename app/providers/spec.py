"""What a vendor's module exports as `PROVIDER`; `app.discovery` finds it, so that a new upstream is one new file."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.providers.base import Provider
from app.providers.facts import FactsLookup
from app.settings import Upstream


class ProviderSpec(msgspec.Struct, frozen=True):
    """A dialect and how to connect to a server that speaks it."""

    dialect: str
    """A value of `settings.Dialect`."""
    build: Callable[[Upstream, FactsLookup], Provider]
    """Opens no connection yet."""
