"""The memory of streams that are open at once."""

from __future__ import annotations

from benchmarks.cases import SLOW, Measurement, Subject

STREAMS = 2000
_OPEN = ("-model", SLOW, "-stream", "-workers", str(STREAMS), "-each", "1", "-ramp", "15s")
"""Half a minute each: all of them are open for half of that time."""
_FIRST = ("-model", "sim-t10-w10", "-stream", "-workers", "8", "-each", "4")
"""Loads what every process needs for its first streams."""


def measure(subject: Subject, number: int) -> Measurement:
    """The case `open`, in a fresh process: MiB before the streams and at most while they are open, KiB a stream."""
    subject.load(_FIRST)
    before = subject.memory()
    report, spent = subject.load(_OPEN, memory=True)
    values = {"before": before, "most": spent.memory, "each": (spent.memory - before) * 1024 / STREAMS}
    return Measurement(subject.server.name, "open", number, values, report["errors"])
