"""Suppresses repeated log lines: an outage is one line at its start and one per minute, not one per affected
request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from math import inf

SECONDS = 60.0
_MOST_KINDS = 1000
_VARIABLE = re.compile(r"\w*\d[\w-]*")
"""Ids, ports and counts, which differ between otherwise equal lines."""


class _Kind:
    __slots__ = ("count", "record", "until")

    def __init__(self, record: logging.LogRecord, until: float) -> None:
        self.record = record
        self.until = until
        self.count = 0


class Repeats:
    """Groups records that differ only in ids and numbers; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._next = inf
        self.due = False
        """Whether there may be counts to write."""

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether to write the record; otherwise it is counted."""
        key = (record.name, record.levelno, _VARIABLE.sub("#", record.getMessage()), *_origin(record))
        kind = self._kinds.get(key)
        if kind is not None:
            kind.count += 1
            return False
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        until = self._clock() + SECONDS
        self._kinds[key] = _Kind(_without_traceback(record, record.getMessage()), until)
        self._next = min(self._next, until)
        self.due = True
        return True

    def over(self) -> Sequence[logging.LogRecord]:
        """Records with the number of repeats of each kind in the past minute. Usually costs only reading the clock."""
        now = self._clock()
        if now < self._next:
            return ()
        told: list[logging.LogRecord] = []
        for key, kind in list(self._kinds.items()):
            if kind.until > now:
                continue
            if not kind.count:
                self._kinds.pop(key, None)
                continue
            told.append(
                _without_traceback(kind.record, f"{kind.record.msg} ({kind.count} more like this in {SECONDS:.0f} s)")
            )
            kind.count, kind.until = 0, now + SECONDS
        self._next = min((kind.until for kind in self._kinds.values()), default=inf)
        self.due = bool(self._kinds)
        return told


def _origin(record: logging.LogRecord) -> tuple[object, ...]:
    """Where an exception was raised: different errors may share a message."""
    if not record.exc_info or record.exc_info[2] is None:
        return ()
    trace = record.exc_info[2]
    while trace.tb_next is not None:
        trace = trace.tb_next
    return record.exc_info[0], trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _without_traceback(record: logging.LogRecord, message: str) -> logging.LogRecord:
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, message.strip(), None, None)
