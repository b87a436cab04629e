"""The effect of a large request on the token delays of other streams, which share the event loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.cases import SESSION_1800K, Measurement, Subject

_STREAMS = ("-model", "sim-t200-p20-stamp", "-stream", "-workers", "20", "-each", "2", "-ramp", "400ms")
"""Twenty at once, each with 50 tokens per second for eight seconds."""
_LARGE = ("-model", "sim-t50", *SESSION_1800K, "-workers", "1", "-every", "1s", "-seconds", "8s")


def measure(subject: Subject, number: int) -> Measurement:
    """The case `stall`: the delay of twenty streams' tokens, in ms, while a request of 1.8 MB arrives each second."""
    with ThreadPoolExecutor(1) as beside:
        asking = beside.submit(subject.load, _LARGE)
        report, _ = subject.load(_STREAMS)
        large, _ = asking.result()
    values = {f"delay_{share}": ms for share, ms in report.get("delay_ms", {}).items()}
    values |= {f"large_{share}": ms for share, ms in large.get("total_ms", {}).items()}
    return Measurement(subject.server.name, "stall", number, values, {**report["errors"], **large["errors"]})
