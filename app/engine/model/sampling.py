"""Sampling parameters that an upstream does not support."""

from __future__ import annotations

from app.protocol.wire.errors import InvalidRequest
from app.providers.base import DEFAULT_SAMPLING, Capabilities, Sampling

_WITHOUT_EFFECT: dict[str, float] = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "min_p": 0}


def check_sampling(sampling: Sampling, can: Capabilities, dialect: str) -> None:
    """Refuse parameters that the upstream does not support, unless they have no effect."""
    if sampling == DEFAULT_SAMPLING:
        return
    for name in sampling.__struct_fields__:
        value = getattr(sampling, name)
        if value is not None and name not in can.sampling and value != _WITHOUT_EFFECT.get(name):
            message = (
                f"Unsupported parameter: '{name}' is not supported by the upstream that serves this model (dialect "
                f"'{dialect}')."
            )
            raise InvalidRequest(message, code="unsupported_parameter", param=name)
