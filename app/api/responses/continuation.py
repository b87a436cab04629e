"""What happens to a response whose client disconnects: the settings, and the headers by which a request overrides
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from app.engine.request.admission import Admitted
from app.protocol.wire.errors import InvalidRequest

ON_DISCONNECT = "x-gateway-on-disconnect"
RESUMABLE = "x-gateway-resumable"
_ON_DISCONNECT, _RESUMABLE = ON_DISCONNECT.encode(), RESUMABLE.encode()

Lifetime = Literal["connection", "process", "stored run"]
"""What ends a response early: the end of its connection; only that of its process; neither, since another process goes
on with it.
"""


class Continuation(msgspec.Struct, frozen=True):
    """The settings, for stored responses."""

    continues: bool = False
    """A response whose client disconnects goes on."""
    resumable: bool = False
    """Streams go on, too, and can be resumed at any event even after the death of their process."""

    def lifetime(self, admitted: Admitted, headers: Mapping[bytes, bytes]) -> Lifetime:
        """What ends this response early. Raises InvalidRequest."""
        continues, resumable = self.continues, self.resumable
        if _RESUMABLE in headers:
            resumable = _resumable(admitted, headers[_RESUMABLE])
        if _ON_DISCONNECT in headers:
            continues = _continues(admitted, headers[_ON_DISCONNECT], always=headers.get(_RESUMABLE) == b"true")
            resumable = resumable and continues
        if admitted.background or (resumable and admitted.stream and admitted.store):
            return "stored run"
        return "process" if continues and admitted.store else "connection"


def _continues(admitted: Admitted, wanted: bytes, *, always: bool) -> bool:
    """`always`: the request also asks for a resumable stream."""
    if wanted not in (b"cancel", b"continue"):
        raise _invalid(ON_DISCONNECT, "expected 'cancel' or 'continue'")
    if wanted == b"continue" and not admitted.store:
        raise _invalid(ON_DISCONNECT, "only a stored response can go on; send 'store': true")
    if wanted == b"cancel" and (always or admitted.background):
        raise _invalid(
            ON_DISCONNECT, "background and resumable responses always go on; leave it out, or send 'continue'"
        )
    return wanted == b"continue"


def _resumable(admitted: Admitted, wanted: bytes) -> bool:
    if wanted not in (b"true", b"false"):
        raise _invalid(RESUMABLE, "expected 'true' or 'false'")
    if wanted == b"true" and not (admitted.store and admitted.stream):
        raise _invalid(RESUMABLE, "only a stored stream can be resumed; send 'stream': true and 'store': true")
    return wanted == b"true"


def _invalid(header: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid header '{header}': {why}.", code="invalid_value", param=header)
